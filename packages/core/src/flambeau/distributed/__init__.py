"""The process group of a run, and metrics that are synchronized over its ranks."""
