"""The ``Learner``, and the stages that its training methods run."""

from flambeau.learner.learner import Learner

__all__ = ["Learner"]
