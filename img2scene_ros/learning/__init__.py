# SPDX-License-Identifier: Apache-2.0
"""Data sets, training and evaluation of the learned reconstruction."""
