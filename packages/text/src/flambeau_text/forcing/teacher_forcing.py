"""``TeacherForcing``: how often the true word, and what else, enters the next step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_text.forcing.schedule import Constant, Named, as_json, schedule_from_json

Feed = Literal["argmax", "sample", "gumbel", "soft"]
Granularity = Literal["token", "sequence"]

_ALWAYS = Constant(1.0)


@dataclass(frozen=True)
class TeacherForcing:
    """Which words a decoder reads in training: the true ones, or now and then its own.

    A coin a token (a sequence) decides; the loss is against the true words in any case, the first
    word read is always the begin token, and evaluation is never forced this way. Coins are keyed
    by (seed, epoch, sample, place): a resumed run throws the same ones, whatever batch or process a
    sample is in.

    Attributes:
        schedule: Probability of the true word by optimizer step.
        feed: What is read otherwise: the likeliest word ("argmax"), one drawn from the model's
            probabilities ("sample"), one drawn by the Gumbel trick whose gradient is that of the
            soft draw ("gumbel"), or the expected embedding ("soft"). The first two pass no
            gradient, the others do.
        granularity: A coin a "token", as published, or one a "sequence".
        temperature: Logits are divided by it before they are drawn from or averaged by.
        passes: None goes word by word in recurrent models, and in one further pass in
            Transformers. A number n makes n passes over the whole sentence, each reading the words
            that the one before it predicted; n as large as the sentence is long equals going word
            by word.

    Source:
        Bengio et al. (arXiv 1506.03099) for coins a token; Mihaylova and Martins (arXiv
        1906.07651) for two passes; Duckworth et al. (arXiv 1906.04331) for more, "parallel
        scheduled sampling".
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
                raise ArgumentError(f"{name} is {value!r}. {nearest(str(value), known)}")
        if not self.temperature > 0:
            raise InputError(f"temperature is above 0, not {self.temperature!r}.")
        if self.passes is not None and (type(self.passes) is not int or self.passes < 1):
            raise InputError(f"passes is a whole number, at least 1, or None, not {self.passes!r}.")

    def probability(self, step: int) -> float:
        """That of the true word at an optimizer step.

        Raises:
            InputError: The schedule gives something else than 0 to 1.
        """
        p = float(self.schedule(step))
        if not 0.0 <= p <= 1.0:
            raise InputError(
                f"The teacher-forcing schedule gives {p!r} at step {step}, not 0 to 1."
            )
        return p

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``from_json`` takes them back.

        Raises:
            ArgumentError: The schedule is a function of one's own, which no file can hold.
        """
        if not isinstance(self.schedule, Named):
            raise ArgumentError(
                f"The schedule {self.schedule!r:.60} is a function of your own, which cannot be "
                "saved. Set it on the task instead: learner.task.forcing = TeacherForcing(…)."
            )
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "schedule": as_json(self.schedule)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TeacherForcing:
        """The inverse of ``as_json``.

        Raises:
            ArgumentError: A field is unknown.
        """
        given = dict(values)
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise ArgumentError(
                    f"Teacher forcing has no {name!r}. {nearest(name, cls.__dataclass_fields__)}"
                )
        if isinstance(given.get("schedule"), Mapping):
            given["schedule"] = schedule_from_json(given["schedule"])
        return cls(**given)
