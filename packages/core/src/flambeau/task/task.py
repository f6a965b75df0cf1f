"""``Task``: passes batches to the model, computes loss and metrics, and decodes outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.distributed.metric_sync import make_syncable, synced_scores
from flambeau.errors import ArgumentError
from flambeau.task.metrics import MeanLoss, Metric, score


@dataclass(slots=True)
class StepContext:
    """The values that a forward pass may need in addition to the batch.

    Attributes:
        training: Whether gradients will be computed.
        carry: State that the model passes from batch to batch (hidden states); assign the new
            value. The loop detaches it, resets it to None at the start of an epoch, keeps separate
            values for training and evaluation, and saves it in checkpoints.
        values: Named values set by schedules and controllers (``teacher_forcing``), read-only.
        seed: Seed of the run; random draws are keyed by it, ``epoch`` and ``step``.
        epoch: Epochs since the start of the run.
        step: Optimizer steps since the start of the run.
        sharded: Whether each process evaluates only its shard of the batches, so that metrics must
            be reduced over the processes.
    """

    training: bool = True
    carry: Any = None
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    seed: int = 0
    epoch: int = 0
    step: int = 0
    sharded: bool = False


class Task:
    """The base class of tasks; override the methods that your task changes.

    Like a preprocessor, the task of an export is rebuilt with its ``builder`` and ``arguments()``.
    """

    builder: str = ""
    loss_name: str = ""

    @property
    def values(self) -> Mapping[str, float]:
        """Initial values of the names that the task reads from ``context.values``."""
        return {}

    @property
    def step_values(self) -> Mapping[str, Callable[[int], float]]:
        """Functions of the optimizer step (since the start of the run) for some of ``values``.

        A schedule of the phase or a controller for the same name takes precedence.
        """
        return {}

    @property
    def n_outputs(self) -> int | None:
        """Number of outputs that the model must have, or None if the task does not fix it."""
        return None

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the model's outputs for a batch: by default ``model(*inputs)``, in order."""
        return model(*batch.inputs.values())

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """Return the summed loss and its weight; any grouping of samples gives the same mean."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(outputs, batch).")

    def host_weight(self, batch: Batch) -> float | None:
        """Return the weight that ``loss`` will return if the host knows it, else None.

        With known weights, a step of several micro-batches scales each loss before its backward
        pass.
        """
        return batch.weight

    def metrics(self) -> Mapping[str, Metric]:
        """Return new metrics by their names in the history."""
        return {}

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], context: StepContext
    ) -> dict[str, float]:
        """Return loss and metrics over ``batches``; override for free-running decoding (BLEU).

        Sums stay on the device until the last batch. The caller sets the model to eval mode.
        """
        metrics: dict[str, Metric] = {"loss": MeanLoss(), **self.metrics()}
        if context.sharded:
            metrics = make_syncable(metrics)
        for batch in batches:
            outputs = self.forward(model, batch, context)
            self.update(metrics, outputs, batch)
        if context.sharded:
            return synced_scores(metrics, score)
        return {name: score(metric) for name, metric in metrics.items()}

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        """Update metrics with a batch: "loss" with (sum, weight), others with (outputs, target)."""
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(*self.loss(outputs, batch))
            else:
                metric.update(outputs, batch.target)

    def decode(self, outputs: Tensor) -> list[Any]:
        """Return one readable prediction per sample."""
        raise NotImplementedError(f"{type(self).__name__} must define decode(outputs).")

    def for_prediction(self, options: Mapping[str, Any]) -> Task:
        """Return the task with the options that its domain adds to ``flambeau predict``.

        Args:
            options: Values by ``CliOption.key``; only those that were given.

        Raises:
            ArgumentError: The task does not support an option, which is the default.
        """
        if options:
            raise ArgumentError(
                f"{type(self).__name__} has no option {next(iter(options))!r} for predict. Omit it."
            )
        return self

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which ``builder`` rebuilds the task."""
        return {}
