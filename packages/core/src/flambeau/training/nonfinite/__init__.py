"""Mask steps with NaN or infinity, and find the layer that causes them."""
