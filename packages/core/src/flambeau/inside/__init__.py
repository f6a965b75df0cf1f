"""Looking inside a model: its layers, and what they answer."""

from flambeau.inside.hooks import Hooks, record
from flambeau.inside.summary import Layer, Summary, summary

__all__ = ["Hooks", "Layer", "Summary", "record", "summary"]
