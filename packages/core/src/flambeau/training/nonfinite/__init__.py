"""Steps with NaN or infinity: masked by a guard, and traced to the layer that causes them."""
