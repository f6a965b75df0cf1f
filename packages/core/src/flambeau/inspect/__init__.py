"""Inspect a model: its layers (``summary``) and the outputs of its modules (``Hooks``)."""

from flambeau.inspect.hooks import Hooks, record_outputs
from flambeau.inspect.summary import Layer, Summary, summary

__all__ = ["Hooks", "Layer", "Summary", "record_outputs", "summary"]
