# SPDX-License-Identifier: Apache-2.0
"""What is true of meshes, whoever made them."""
