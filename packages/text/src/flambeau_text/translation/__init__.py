"""Translation: sentence pairs to a model that writes the one for the other.

Its public names are those of ``flambeau_text``.
"""

__all__: list[str] = []
