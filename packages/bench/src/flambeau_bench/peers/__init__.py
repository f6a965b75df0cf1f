"""Other libraries as sides of a comparison: each in an environment of its own, synced by uv."""
