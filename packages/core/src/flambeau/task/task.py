"""``Task``: passes batches to the model, computes loss and metrics, and decodes outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.distributed.metric_sync import make_syncable, synced_scores
from flambeau.errors import ArgumentError
from flambeau.task.class_validation import explaining_labels, several_outputs_error
from flambeau.task.metrics import (
    MeanLoss,
    Metric,
    MetricFactory,
    Mode,
    mode_of_metric,
    refuse_weight_zero,
    score,
    update_metric,
    warn_of_undefined,
)
from flambeau.task.model_call import call_model
from flambeau.task.numerics import HALF_DTYPES

Stage = Literal["train", "valid", "evaluate", "predict"]
"""What a forward pass is for; see ``StepContext``."""

if TYPE_CHECKING:
    from flambeau.data.memory_loader import MemoryDataset
    from flambeau.report.interpretation import Interpretation
    from flambeau.report.page import Section
    from flambeau.task.batch_summary import Summary
    from flambeau.task.probability_calibration import Rows


@dataclass(slots=True)
class StepContext:
    """The values that a forward pass may need in addition to the batch.

    Attributes:
        stage: "train" in a training step (and in a check or measurement of one), "valid" in an
            evaluation during a run, "evaluate" in an evaluation that the user requested, "predict"
            in a prediction.
        carry: State that the model passes from batch to batch (hidden states); assign the new
            value. The loop detaches it, resets it to None at the start of an epoch, keeps separate
            values for training and evaluation, and saves it in checkpoints.
        values: Named values set by schedules and controllers (``teacher_forcing``), read-only.
        seed: Seed of the run; random draws are keyed by it, ``epoch`` and ``step``.
        epoch: Epochs since the start of the run.
        step: Optimizer steps since the start of the run.
        sharded: Whether each process evaluates only its shard of the batches, so that metrics must
            be reduced over the processes.
        for_report: Whether the outputs are for ``summarise``; a task may then add further values.
    """

    stage: Stage = "train"
    carry: Any = None
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    seed: int = 0
    epoch: int = 0
    step: int = 0
    sharded: bool = False
    for_report: bool = False


class Task:
    """The base class of tasks; override the methods that your task changes.

    If a class defines ``loss`` but not ``host_weight``, its ``host_weight`` returns None: the
    inherited method returns the weight of another loss. The same holds for ``target_weight``.

    Like a preprocessor, the task of an export is rebuilt with its ``builder`` and ``arguments()``.

    Attributes:
        builder: Name under which the task's domain registers it.
        loss_name: Description of the loss, for messages and reports.
        kind: Kind of the predictions, which the doctor, the plan and the reports read; subclasses
            inherit it. "classification": logits ``(batch, classes)`` and class indices or
            probabilities as targets. "multi_label": logits and targets ``(batch, labels)``.
            "regression": values and targets ``(batch, values)``. Domains use further names
            ("translation"). Empty if the kind is unknown.
        ignore_index: Targets with this value do not count; None counts all.
        sample_name: What reports call a sample.
        threshold: A label of the kind "multi_label" is predicted from this probability on: one for
            all labels, or one for each.
        ignores_sample_weight: Whether ``loss`` ignores the sample weights on purpose. Otherwise a
            loss that does not depend on them is refused before the first step.
        loss_factors: Factor of each loss by name, for a task with several losses that count
            different samples. Such a task defines ``losses`` in place of ``loss``. A step divides
            each loss by its own weight over all micro-batches and processes, and adds the results
            times their factors. Empty for a task with one loss.
        task_inputs: Names of the ``Batch.task_inputs`` that the task reads.
        default_metrics: Names of the metrics that the plan chooses; if empty, those of the core
            task from which the class is derived.
        signatures: By name of a score, a text that says how it is computed if the name alone does
            not (the settings of BLEU); shown in reports.
        calibration: The values that ``calibrate`` returned, by name; a task that overrides
            ``calibrate`` includes them in ``arguments()``, as "calibration". Empty while the model
            is trained, since the values are valid only for the weights on which they were fitted.
    """

    builder: str = ""
    loss_name: str = ""
    kind: str = ""
    sample_name: str = "sample"
    ignore_index: int | None = None
    threshold: float | tuple[float, ...] = 0.5
    calibration: Mapping[str, Any] = MappingProxyType({})
    ignores_sample_weight: bool = False
    loss_factors: Mapping[str, float] = MappingProxyType({})
    task_inputs: tuple[str, ...] = ()
    default_metrics: tuple[str, ...] = ()
    _sink: Callable[[Batch | float | Tensor, Mapping[str, Tensor | float]], None] | None = None
    signatures: Mapping[str, str] = MappingProxyType({})

    @staticmethod
    def known_metrics() -> dict[str, MetricFactory]:
        """Return the metrics that the task's argument ``metrics`` can name; empty by default."""
        return {}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        defined_at = {
            name: next(at for at, each in enumerate(cls.__mro__) if name in vars(each))
            for name in ("loss", "host_weight", "target_weight")
        }
        if defined_at["loss"] < defined_at["host_weight"]:
            cls.host_weight = Task.host_weight
        if defined_at["loss"] < defined_at["target_weight"]:
            cls.target_weight = Task.target_weight

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

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the classes, labels or values in the order of the outputs; may be empty."""
        return ()

    @property
    def standard_loss(self) -> str:
        """Name of core's loss (``flambeau.task.named_losses``); empty if ``loss`` is custom."""
        return ""

    @property
    def standardises(self) -> bool:
        """Whether the loss compares outputs with standardised targets."""
        return False

    def standardise(self, targets: Tensor) -> Tensor:
        """Return the targets with which the loss compares the outputs: by default unchanged."""
        return targets

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the outputs that ``loss`` reads: by default the model's, see ``call_model``."""
        return call_model(model, batch.inputs)

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the outputs that ``decode`` reads: by default those of ``forward``.

        Override it for a search or test-time augmentation. The targets of the batch may be absent.
        """
        return self.forward(model, batch, context)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """Return the summed loss and its weight; any grouping of samples gives the same mean.

        The weight is a number or a 0-d tensor: samples, target tokens, or a sum of sample weights.
        A step divides the sum of its losses by the sum of their weights.

        The tasks of core also take the ``EnsembleOutputs`` of a model that trains several members.

        A task with ``loss_factors`` returns the mean loss of this batch times its number of
        samples, and that number. A training step and an evaluation use ``losses`` instead.
        """
        if self.loss_factors:
            from flambeau.task.several_losses import checked_losses, mean_of_losses

            n = float(len(batch))
            return mean_of_losses(checked_losses(self, outputs, batch), self.loss_factors) * n, n
        raise _undefined(self, "loss(outputs, batch)", "the summed loss and its weight")

    def losses(self, outputs: Any, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor | float]]:
        """Return the summed loss and its weight by name, for a task with ``loss_factors``."""
        raise _undefined(self, "losses(outputs, batch)", "sum and weight for each of loss_factors")

    def loss_weights(self, batch: Batch) -> Mapping[str, Tensor | float | None]:
        """Return the weights that ``losses`` will return, from the batch alone, by name.

        A step of several micro-batches or processes calls it before the forward passes, because
        each loss is divided by its weight over the step before the backward pass. Weights may be
        0-d tensors on the device. By default the weights are not known; such a task can be trained
        only with one batch in each step.
        """
        return {}

    def log(self, weight: Batch | float | Tensor, /, **values: Tensor | float) -> None:
        """Report values of a batch; their means over the epoch become columns of the history.

        Call it in ``loss`` or ``forward``: ``self.log(batch, kl=kl.mean())`` gives the columns
        "train_kl" and "valid_kl", and "kl" in ``learner.evaluate``. Nothing is read from the device
        before the end of the epoch. Outside of training and evaluation it does nothing.

        Args:
            weight: How much the values count in the mean: a number, a 0-d tensor, or the batch,
                which counts with its ``host_weight``, else its ``weight``, else its number of
                samples.
            values: Means over the batch by name, numbers or 0-d tensors on any device.

        Raises:
            ArgumentError: A value is not one number, or its name is that of the loss or a metric.
        """
        if self._sink is not None:
            self._sink(weight, values)

    def host_weight(self, batch: Batch) -> float | None:
        """Return the weight that ``loss`` will return, or None (default) if it is not yet known.

        It must not read from the device, and is compared with the weight of ``loss`` before the
        first step. If it is known, a step of several micro-batches divides each loss before its
        backward pass; otherwise the gradients are divided once, after the last backward pass.
        """
        return None

    def target_weight(self, batch: Batch) -> Tensor | float | None:
        """Return the weight that ``loss`` will return, from the targets alone; None if unknown.

        Unlike ``host_weight`` it may be a 0-d tensor on the device, such as the number of targets
        that are not ignored. ``CombinedTask`` needs it.
        """
        return self.host_weight(batch)

    def check_targets(self, part: str, dataset: MemoryDataset) -> None:
        """Raise an InputError that names the rows whose targets the loss cannot use.

        It is called once for each part whose data are in memory. By default nothing is checked.
        """

    def constant_outputs(self, targets: Tensor, weights: Tensor) -> Tensor | None:
        """Return the outputs, equal for all samples, with the lowest loss, for a baseline.

        Args:
            targets: ``(n, …)`` on the CPU.
            weights: Sample weights, float64 ``(n,)``.

        Returns:
            ``(outputs,)``; None (default) if the task's ``kind`` and ``standardise`` give them.
        """
        return None

    def metrics(self) -> Mapping[str, Metric]:
        """Return new metrics by their names in the history."""
        return {}

    def loss_metrics(self) -> Mapping[str, Metric]:
        """Return new metrics of the loss: "loss", and "NAME_loss" for each of ``loss_factors``."""
        if not self.loss_factors:
            return {"loss": MeanLoss()}
        from flambeau.task.several_losses import loss_metrics

        return loss_metrics(self.loss_factors)

    def score_modes(self) -> Mapping[str, Mode]:
        """Return "min" or "max" for each score of ``evaluate`` whose better direction is known.

        By default "min" for "loss" and the losses of ``loss_factors``, and the direction of each
        metric that has ``higher_is_better``. A task that overrides ``evaluate`` adds the scores
        that it computes itself.
        """
        modes: dict[str, Mode] = {"loss": "min"}
        modes |= {f"{name}_loss": "min" for name in self.loss_factors}
        for name, metric in self.metrics().items():
            mode = mode_of_metric(metric)
            if mode is not None:
                modes[name] = mode
        return modes

    def score_notes(self, scores: Mapping[str, float]) -> Mapping[str, str]:
        """Return columns of text that the history has beside these scores of an evaluation.

        They say how the scores of a run are computed where that differs from ``evaluate`` after it,
        such as ``{"search": "greedy"}``. By default there are no such columns.
        """
        return {}

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], context: StepContext
    ) -> dict[str, float]:
        """Return loss and metrics over ``batches``, both from the outputs of ``forward``.

        Sums stay on the device until the last batch. The caller sets the model to eval mode. A task
        with a score of its predictions (BLEU) overrides this method and calls ``predict``. A
        calibration is fitted on the outputs of ``predict``; therefore a calibrated task that
        overrides ``predict`` computes its metrics, but not the loss, from the outputs of
        ``predict``.

        Raises:
            InputError: The weights of all samples are 0, or all targets are ignored.

        Warns:
            FlambeauWarning: [undefined-score] A metric is nan, although the loss is a number.
        """
        losses = self.loss_metrics()
        metrics: dict[str, Metric] = {**losses, **self.metrics()}
        if context.sharded:
            metrics = make_syncable(metrics)
        own_predict = bool(self.calibration) and type(self).predict is not Task.predict
        of_forward = {name: metrics[name] for name in losses} if own_predict else metrics
        of_predict = {name: each for name, each in metrics.items() if name not in of_forward}
        for batch in batches:
            with explaining_labels(batch, self.n_outputs):
                self.update(of_forward, self.forward(model, batch, context), batch)
                if of_predict:
                    self.update(of_predict, self.predict(model, batch, context), batch)
        if context.sharded:
            found = synced_scores(metrics, score)
        else:
            found = {name: score(metric) for name, metric in metrics.items()}
        refuse_weight_zero(metrics, in_run=context.stage == "valid")
        warn_of_undefined(found)
        return found

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        """Update metrics with a batch: "loss" with (sum, weight), others with (outputs, target).

        The outputs are ``calibrated``, so that metrics score what ``decode`` returns. If the batch
        has sample weights, metrics get them too.

        Raises:
            InputError: The batch has sample weights, and a metric cannot use them.
        """
        others = self.update_loss(metrics, outputs, batch)
        predicted = self.calibrated(outputs)
        self.check_for_metrics(others, predicted)
        known = {} if batch.sample_weight is None else self.known_metrics()
        for name, metric in others.items():
            update_metric(name, metric, predicted, batch.target, batch.sample_weight, known)

    def update_loss(
        self, metrics: Mapping[str, Any], outputs: Any, batch: Batch
    ) -> Mapping[str, Any]:
        """Update the ``loss_metrics`` among the metrics, and return the other metrics."""
        if self.loss_factors:
            from flambeau.task.several_losses import update_loss_metrics

            return update_loss_metrics(self, metrics, outputs, batch)
        if "loss" in metrics:
            metrics["loss"].update(*self.loss(outputs, batch))
        return {name: metric for name, metric in metrics.items() if name != "loss"}

    def check_for_metrics(self, metrics: Mapping[str, Any], outputs: Any) -> None:
        """Raise an InputError if there are metrics of core and the outputs are not one tensor."""
        if isinstance(outputs, Tensor):
            return
        kinds: list[type] = [type(each) for name, each in metrics.items() if name != "loss"]
        if any(kind.__module__.startswith("flambeau.task.") for kind in kinds):
            raise several_outputs_error(
                outputs, type(self).__name__, "update(metrics, outputs, batch)"
            )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each label: from ``calibration``, or else ``threshold``."""
        fitted: Sequence[float] | None = self.calibration.get("thresholds")
        if fitted is not None:
            return tuple(fitted)
        given = self.threshold
        return given if isinstance(given, tuple) else (given,) * (self.n_outputs or 1)

    def calibrate(self, pairs: Iterable[tuple[Any, Batch]]) -> Mapping[str, Any]:
        """Return JSON values, by name, fitted on samples that the model was not trained on.

        ``learner.calibrate`` calls it and stores the result in ``calibration``. By default there is
        nothing to fit.

        Args:
            pairs: The outputs and the batch, once for each batch of the calibration part.
        """
        return {}

    def calibrated(self, outputs: Any) -> Any:
        """Return the outputs with ``calibration`` applied: divided by its "temperature", if any."""
        temperature = self.calibration.get("temperature")
        if temperature is None:
            return outputs
        return (outputs.float() if outputs.dtype in HALF_DTYPES else outputs) / temperature

    def probability_rows(self, outputs: Any, batch: Batch) -> Rows | None:
        """Return the calibrated probabilities, targets and weights; None if the task has none.

        Returns:
            ``(n, classes)`` with class numbers ``(n,)``, or ``(n, labels)`` with 0 and 1
            ``(n, labels)``; and the sample weights ``(n,)`` or None. Ignored targets are left out.
        """
        return None

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

        By default the summary contains the figures of the task's ``kind``; it contains only the
        losses if the kind has no figures, or if the outputs do not have one row per sample. A
        report keeps summaries, never outputs.

        Args:
            outputs: What ``predict`` returned.
            batch: The batch, with targets.
        """
        from flambeau.task.batch_summary import summary_of_kind

        return summary_of_kind(self, outputs, batch)

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
        raise _undefined(self, "decode(outputs)", "a list with one prediction per sample")

    def example_prediction(self) -> Any:
        """Return a prediction that shows the columns of a table of predictions without rows.

        By default it is decoded from outputs of zeros, ``(1, n_outputs)``; None if ``n_outputs`` is
        not known or these outputs cannot be decoded.
        """
        if self.n_outputs is None:
            return None
        try:
            return self.decode(torch.zeros(1, self.n_outputs))[0]
        except Exception:  # noqa: BLE001 - user code may need outputs of another shape
            return None

    def for_prediction(self, options: Mapping[str, Any]) -> Task:
        """Return the task with the options that its domain adds to ``flambeau predict``.

        Args:
            options: Values by ``CliOption.key``; only those that were given.

        Raises:
            ArgumentError: The task does not support an option; by default it supports none.
        """
        if options:
            raise ArgumentError(
                f"{type(self).__name__} has no option {next(iter(options))!r} for predict. Omit it."
            )
        return self

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which ``builder`` rebuilds the task."""
        return {}


def _undefined(task: Task, method: str, returned: str) -> ArgumentError:
    return ArgumentError(
        f"{type(task).__name__} does not define {method}, which has to return {returned}. Define "
        "it, or derive the task from Classification, MultiLabel or Regression."
    )
