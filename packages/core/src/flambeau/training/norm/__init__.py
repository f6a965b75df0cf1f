"""Freezing, and norm layers that keep running statistics (batch norm)."""
