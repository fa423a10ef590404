# SPDX-License-Identifier: Apache-2.0
"""The scene: what is there now, with ids that last, and the files it is written to."""
