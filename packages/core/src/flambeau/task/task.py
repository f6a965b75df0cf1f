"""``Task``: passes batches to the model, computes loss and metrics, and decodes outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.distributed.metric_sync import make_syncable, synced_scores
from flambeau.task.metrics import MeanLoss, Metric, score

if TYPE_CHECKING:
    from flambeau.report.interpretation import Interpretation
    from flambeau.report.page import Section
    from flambeau.task.batch_summary import Summary


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
        for_report: Whether ``summarise`` follows, for which a task may add figures to its outputs.
    """

    training: bool = True
    carry: Any = None
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    seed: int = 0
    epoch: int = 0
    step: int = 0
    sharded: bool = False
    for_report: bool = False


class Task:
    """The base class of tasks; override the methods that your task changes.

    Like a preprocessor, the task of an export is rebuilt with its ``builder`` and ``arguments()``.

    Attributes:
        signatures: How scores are computed, by name, where a name alone does not say it (the
            settings of BLEU); shown in reports.
    """

    builder: str = ""
    loss_name: str = ""
    signatures: Mapping[str, str] = MappingProxyType({})

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

    # Reports

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        """Return the loss of each sample as if it were alone in the batch, ``(batch,)`` on the CPU.

        Samples are passed to ``loss`` one by one.

        Returns:
            None if the outputs do not have one row per sample.
        """
        from flambeau.task.sample_losses import sample_losses

        return sample_losses(self, outputs, batch)

    def summarise(self, outputs: Any, batch: Batch) -> Summary:
        """Return what a report keeps of a batch: figures of each sample, and sums.

        A report never holds the outputs of a part. By default it holds the losses only.
        """
        from flambeau.task.batch_summary import Summary

        losses = self.sample_losses(outputs, batch)
        return Summary() if losses is None else Summary(samples={"loss": losses})

    def summary_scores(self, summary: Summary) -> Mapping[str, float]:
        """Return the scores of a part from its summary, for a task that overrides ``evaluate``.

        If they are empty, a report calls ``evaluate``, which runs the model a second time.
        """
        return {}

    def report_sections(self, found: Interpretation) -> Sequence[Section]:
        """Return further sections of a report's page."""
        return ()

    def decode(self, outputs: Tensor) -> list[Any]:
        """Return one readable prediction per sample."""
        raise NotImplementedError(f"{type(self).__name__} must define decode(outputs).")

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which ``builder`` rebuilds the task."""
        return {}
