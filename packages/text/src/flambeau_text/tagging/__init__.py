"""Tags of words: named entities, parts of speech, and other labels of each word."""

from flambeau_text.tagging.data import TagData
from flambeau_text.tagging.entities import Entity, EntityF1, entities_of
from flambeau_text.tagging.options import TagOptions
from flambeau_text.tagging.task import TaggedWords, TagTask

__all__ = [
    "Entity",
    "EntityF1",
    "TagData",
    "TagOptions",
    "TagTask",
    "TaggedWords",
    "entities_of",
]
