"""Statistics of every layer in some training steps, and what is wrong with a layer."""
