"""Objects of other libraries, read without importing them: ``flambeau_text.interop.torchtext``."""

__all__: list[str] = []
