"""Translation: sentence pairs to a model that writes the one for the other."""
