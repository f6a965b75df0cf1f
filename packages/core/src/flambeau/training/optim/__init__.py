"""From gradients to weights: optimizers, parameter groups, clipping, precision, averaging."""
