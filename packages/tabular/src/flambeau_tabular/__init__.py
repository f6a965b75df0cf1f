"""Support of flambeau for tables. This release has no public names yet.

Later releases will add mixed columns, embeddings and collaborative filtering.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
