"""The process group of a run, and metrics that are summed over its ranks."""
