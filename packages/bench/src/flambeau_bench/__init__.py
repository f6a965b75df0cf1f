"""Benches for flambeau. This release holds no public names yet.

To come: training speed against baselines.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
