"""The state of a run: saved, restored, kept at its best, and preserved while it is examined."""
