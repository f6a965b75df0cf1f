"""``Task``: how a batch reaches the model, what the loss is, how an answer is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.distributed.metric_sync import syncable, synced_scores
from flambeau.task.metrics import MeanLoss, Metric, score


@dataclass(slots=True)
class StepContext:
    """What a forward pass may need besides the batch.

    Attributes:
        training: Whether gradients will be taken.
        carry: What the model carries from batch to batch (hidden states); assign the new one.
            The loop detaches it, resets it to None at the start of an epoch, keeps one for
            training and one for evaluation, and saves it in checkpoints.
        values: Named values that schedules and controllers set (``teacher_forcing``), read-only.
        seed: The run's seed; with ``epoch`` and ``step`` the key of random draws.
        epoch: Epochs since the run began.
        step: Optimizer steps since the run began.
        shared: Whether the batches of an evaluation are this process's share, so that sums are
            added up over the processes of the run.
    """

    training: bool = True
    carry: Any = None
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    seed: int = 0
    epoch: int = 0
    step: int = 0
    shared: bool = False


class Task:
    """The base of every task; override what differs.

    ``builder`` and ``arguments()`` rebuild it from an artefact, as with preprocessors.
    """

    builder: str = ""
    loss_name: str = ""

    @property
    def values(self) -> Mapping[str, float]:
        """Named values the task reads from ``context.values``, with where they start."""
        return {}

    @property
    def step_values(self) -> Mapping[str, Callable[[int], float]]:
        """Those of ``values`` that follow from the number of optimizer steps since the run began.

        A phase's schedule for the value, or a controller, wins.
        """
        return {}

    @property
    def n_outputs(self) -> int | None:
        """Width of the model's answer, or None where the task does not fix it."""
        return None

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """The model's answer to the batch: by default ``model(*inputs)`` in their order."""
        return model(*batch.inputs.values())

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """The summed loss and how much it counts, so that any grouping gives the same mean."""
        raise NotImplementedError(f"{type(self).__name__} must define loss(outputs, batch).")

    def host_weight(self, batch: Batch) -> float | None:
        """The weight that ``loss`` will return, where it is known without the device, else None.

        Known weights let a step of several micro-batches scale each loss before its backward pass.
        """
        return batch.weight

    def metrics(self) -> Mapping[str, Metric]:
        """Fresh metrics, by the name under which history shows them."""
        return {}

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], context: StepContext
    ) -> dict[str, float]:
        """Loss and metrics over ``batches``. Override it to decode freely (beam search, BLEU).

        Sums stay on the device until the last batch; the model is in eval mode already.
        """
        metrics: dict[str, Metric] = {"loss": MeanLoss(), **self.metrics()}
        if context.shared:
            metrics = syncable(metrics)
        for batch in batches:
            outputs = self.forward(model, batch, context)
            self.update(metrics, outputs, batch)
        if context.shared:
            return synced_scores(metrics, score)
        return {name: score(metric) for name, metric in metrics.items()}

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        """One batch into the metrics; ``loss`` gets (sum, weight), the others (outputs, target)."""
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(*self.loss(outputs, batch))
            else:
                metric.update(outputs, batch.target)

    def decode(self, outputs: Tensor) -> list[Any]:
        """Answers a person can read, one a sample."""
        raise NotImplementedError(f"{type(self).__name__} must define decode(outputs).")

    def arguments(self) -> Mapping[str, Any]:
        """JSON values that rebuild the task."""
        return {}
