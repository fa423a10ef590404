# SPDX-License-Identifier: Apache-2.0
"""Rendering: pictures of frames and scenes, drawn without a screen."""
