"""Text for flambeau. This release holds no public names yet.

To come: translation, language models and classification.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
