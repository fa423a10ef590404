# SPDX-License-Identifier: Apache-2.0
"""Reading files: frames with their cameras, photos."""
