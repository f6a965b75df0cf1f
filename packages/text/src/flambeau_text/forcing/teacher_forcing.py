"""``TeacherForcing``: settings for the decoder's inputs in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.forcing.schedule import Constant, Named, as_json, schedule_from_json

Feed = Literal["argmax", "sample", "gumbel", "soft"]
Granularity = Literal["token", "sequence"]

_ALWAYS = Constant(1.0)


@dataclass(frozen=True)
class TeacherForcing:
    """Settings by which the decoder reads reference tokens or its own predictions in training.

    For each token (or sequence) a Bernoulli draw selects the reference token or the model's
    prediction as the next decoder input. The loss always uses the reference, and the first input is
    always the begin token. The draws are keyed by (seed, epoch, sample, position): a resumed run
    repeats them, and they do not depend on batches or processes. Evaluation does not use these
    settings.

    Attributes:
        schedule: Maps the optimizer step to the probability of the reference token.
        feed: The decoder input if the reference is not used: the most probable token
            ("argmax"), a token drawn from the model's probabilities ("sample"), a token drawn with
            the straight-through Gumbel-softmax estimator ("gumbel"), or the mean embedding under
            the model's probabilities ("soft"). Only the last two pass gradients; they need a model
            that defines ``target_embeddings``.
        granularity: "token" makes one draw per token, as published; "sequence" one per sequence.
        temperature: Divides the logits before sampling ("sample", "gumbel") or averaging ("soft").
        passes: Number of passes over the whole sequence that compute predictions before the pass
            that is trained; each reads the predictions of the previous one. As many passes as
            tokens give the same result as predicting token by token. None uses the model's
            ``teacher_forcing_passes``: token by token for recurrent models, one pass for
            Transformers.

    Source:
        Bengio et al. (arXiv 1506.03099) for draws per token; Mihaylova and Martins (arXiv
        1906.07651) for one additional pass; Duckworth et al. (arXiv 1906.04331) for several,
        "parallel scheduled sampling".
    """

    schedule: Callable[[int], float] = _ALWAYS
    feed: Feed = "argmax"
    granularity: Granularity = "token"
    temperature: float = 1.0
    passes: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise ArgumentError(
                f"schedule is {self.schedule!r:.60}; give a function of the optimizer step, such "
                "as Linear(k=1.0, c=1e-4) or Constant(0.9)."
            )
        for name, known in (("feed", get_args(Feed)), ("granularity", get_args(Granularity))):
            value = getattr(self, name)
            if value not in known:
                raise ArgumentError(f"{name} is {value!r}. {did_you_mean(str(value), known)}")
        if not self.temperature > 0:
            raise InputError(f"temperature must be above 0, not {self.temperature!r}.")
        if self.passes is not None and (type(self.passes) is not int or self.passes < 1):
            raise InputError(
                f"passes must be a whole number of at least 1, or None, not {self.passes!r}."
            )

    def probability(self, step: int) -> float:
        """Return the probability of the reference token at an optimizer step.

        Raises:
            InputError: The schedule returns a number outside 0 to 1.
        """
        p = float(self.schedule(step))
        if not 0.0 <= p <= 1.0:
            raise InputError(
                f"The teacher-forcing schedule returned {p!r} at step {step}. Return a probability "
                "between 0 and 1."
            )
        return p

    def as_json(self) -> dict[str, Any]:
        """Return JSON values from which ``from_json`` rebuilds the settings.

        Raises:
            ArgumentError: The schedule is a user-defined function, which JSON cannot store.
        """
        if not isinstance(self.schedule, Named):
            raise ArgumentError(
                f"The schedule {self.schedule!r:.60} is a user-defined function, which cannot be "
                "saved with the plan. Set it on the task instead: learner.task.teacher_forcing = "
                "TeacherForcing(…)."
            )
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "schedule": as_json(self.schedule)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TeacherForcing:
        """Rebuild the settings from the values of ``as_json``.

        Raises:
            ArgumentError: A field is unknown.
        """
        given = dict(values)
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise ArgumentError(
                    f"TeacherForcing has no setting {name!r}. "
                    f"{did_you_mean(name, cls.__dataclass_fields__)}"
                )
        if isinstance(given.get("schedule"), Mapping):
            given["schedule"] = schedule_from_json(given["schedule"])
        return cls(**given)
