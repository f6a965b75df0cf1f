"""Save and restore the state of a run, keep the best weights, and preserve a model."""
