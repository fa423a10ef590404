"""Data sets, training and evaluation of the learned reconstruction."""
