"""The same five programs in flambeau and in the libraries that a user might take instead."""
