"""Other libraries as sides of a comparison: each in a separate environment, synced by uv."""
