"""The state of a run: save it, restore it, keep the best weights, preserve a model."""
