"""Conversions from and to objects of other libraries, such as torchtext."""

__all__: list[str] = []
