# SPDX-License-Identifier: Apache-2.0
"""Object models for robots: camera images in, posed closed meshes out."""
