"""Optimizers, parameter groups, clipping, precision, scheduled values, weight averaging."""
