"""Tables for flambeau. This release holds no public names yet.

To come: mixed columns, embeddings and collaborative filtering.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
