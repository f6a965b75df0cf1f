"""``stream_text``: a predicted text in pieces, as they are generated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import nn

from flambeau.artefact.predictor import Predictor
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError
from flambeau.task.task import StepContext


@runtime_checkable
class StreamsText(Protocol):
    """A task that generates a text piece by piece."""

    def stream(self, model: nn.Module, batch: Batch, context: StepContext) -> Iterator[str]:
        """Yield the text predicted for the only sample of a batch, in pieces."""
        ...


def stream_text(predictor: Predictor, item: Any) -> Iterator[str]:
    """Yield the text that is predicted for an input, in pieces, as they are generated.

    Joined they are the text of ``predictor.predict(item)``.

    Args:
        predictor: A predictor whose task generates text.
        item: The input.

    Raises:
        ArgumentError: The task generates no text.
        InputError: The input is invalid.
    """
    task = predictor.task
    if not isinstance(task, StreamsText):
        raise ArgumentError(
            f"{type(task).__name__} does not generate text piece by piece. Use predict."
        )
    batch = predictor.preprocessor.encode([item])
    with predictor.eval_mode():
        ready = predictor.preprocessor.on_device(batch.to(predictor.device))
        context = StepContext("predict", values=dict(task.values))
        yield from task.stream(predictor.model, ready, context)
