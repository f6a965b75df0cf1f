"""Measure, check and replace the running statistics of norm layers (batch norm)."""
