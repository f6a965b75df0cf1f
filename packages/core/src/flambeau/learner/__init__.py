"""The learner: one object with every verb, and the stages of what a verb does."""

from flambeau.learner.learner import Learner

__all__ = ["Learner"]
