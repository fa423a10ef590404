# SPDX-License-Identifier: Apache-2.0
"""The networks, and what prepares their inputs."""
