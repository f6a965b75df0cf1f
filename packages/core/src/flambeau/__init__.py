"""flambeau: train deep networks on PyTorch with less code, more speed and nothing hidden."""

__version__ = "0.1.0"

__all__: list[str] = []
