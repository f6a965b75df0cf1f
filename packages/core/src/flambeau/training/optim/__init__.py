"""Optimizers: parameter groups, clipping, precision, scheduled values and weight averaging."""
