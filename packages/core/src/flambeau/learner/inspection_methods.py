"""``InspectionMethods``: the methods of a learner that look at a model and change nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from flambeau.errors import explains_arguments
from flambeau.learner.build import BuiltPlan
from flambeau.learner.planning import argument_hint
from flambeau.learner.setup import Setup
from flambeau.plan import Plan
from flambeau.task.task import StepContext

if TYPE_CHECKING:
    from flambeau.callbacks.layer_inspection import LayerInspection
    from flambeau.data.batch import Batch
    from flambeau.doctor import Diagnosis
    from flambeau.inspect import Inspection, Profile, StepStages, Summary
    from flambeau.inspect.loss_spikes import LossSpike, LossSpikes
    from flambeau.inspect.model_difference import ModelDifference
    from flambeau.inspect.sample_explanation import SampleExplanation
    from flambeau.learner.fit_steps import FitSteps
    from flambeau.learner.learner import Learner


@explains_arguments(argument_hint)
class InspectionMethods(ABC):
    """The methods of ``Learner`` that show its model, its data and its next step."""

    _inspection: LayerInspection | None = None
    _fits: list[FitSteps]
    quiet: bool

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """Every choice with its reason."""

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The model, on the plan's device."""

    @property
    @abstractmethod
    def built(self) -> BuiltPlan:
        """The objects that the plan specifies."""

    @property
    @abstractmethod
    def _trainable(self) -> tuple[str, ...] | None:
        """The parameter groups that the plan lets train; None for all groups."""

    @abstractmethod
    def _setup(self) -> Setup:
        """Return the state of the learner."""

    @abstractmethod
    def _context(self, *, sharded: bool = False) -> StepContext:
        """Return the context of an evaluation."""

    def summary(self) -> Summary:
        """Return a table of the layers: output shapes, parameter counts, and whether they train.

        Each layer also has its FLOPs, the memory of its output and its share of the time of a
        forward pass on a batch of the data; convolutions have their receptive field. Groups that
        the next fit does not train (``freeze``, choice ``trainable``) count as frozen.
        """
        from flambeau.learner.examine import summarise_model

        context = replace(self._context(), stage="predict")
        return summarise_model(self._setup(), self.built, context, self._trainable)

    def doctor(self, *, full: bool = False) -> Diagnosis:
        """Return likely mistakes in data, model and training settings.

        The checks read one batch and change nothing. ``full`` also searches for near duplicates
        and checks that a copy of the model can overfit a few samples (seconds to minutes).
        """
        from flambeau.doctor import checks_for, diagnose
        from flambeau.learner.examine import training_setup

        setup = training_setup(self._setup(), self.plan)
        return diagnose(setup, checks_for(self._setup().domain.checks), full=full)

    def step_through(self, batch: Batch | Sequence[Batch] | LossSpike | None = None) -> StepStages:
        """Return an iterator over the values of the first training step that ``fit()`` would make.

        In the order of the step: raw samples, batch, values such as lr, device transforms, the
        output of each module, the loss of each sample, the loss, gradients, clipped gradients,
        updates, new weights and averages. ``print`` shows them as a table. The training loop itself
        makes the step, so the values are those of a ``fit`` with the same plan, bit for bit; a note
        says what a fit may measure and change in the plan first. Before this method returns,
        everything is as it was before the call.

        Args:
            batch: A batch as the train loader returns it; several are the micro-batches of one
                step. A spike of ``loss_spikes`` takes samples, augmentation and lr of its step,
                with the weights of now. None takes the batches of the next step.

        Raises:
            ArgumentError: ``batch`` has another type.
            InputError: The batch of the spike cannot be read again.

        Example:
            >>> import torch
            >>> from flambeau import Learner, TensorData
            >>> x = torch.randn(40, 5)
            >>> learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
            >>> [stage.name for stage in learner.step_through() if stage.kind == "batch"]
            ['input input', 'target target']
        """
        from flambeau.learner.stepping import step_through

        return step_through(self._setup(), self._trainable, batch, self._fits)

    def loss_spikes(self) -> LossSpikes:
        """Return the steps whose loss was far above that of the steps before, with their samples.

        A spike is 7 standard deviations above the median of up to 100 steps before; the rule is
        that of ``flambeau.inspect.find_spikes``. The samples of a step follow from seed and epoch:
        its batch is read again. Only a checkpoint has the weights of that time; the spike names the
        newest one before it. ``step_through(spike)`` makes the step again.

        Raises:
            InputError: Several processes train together.

        Example:
            >>> import torch
            >>> from flambeau import Learner, TensorData
            >>> x = torch.randn(320, 5)
            >>> x[7] *= 1e4
            >>> data = TensorData.from_tensors(x, (x[:, 0] > 0).float(), normalize=False)
            >>> choices = {"batch_size": 8, "lr": 1e-5, "optimizer": "sgd"}
            >>> learner = Learner(data, torch.nn.Linear(5, 1), choices=choices, quiet=True)
            >>> history = learner.fit(3)
            >>> 7 in learner.loss_spikes()[0].samples
            True
        """
        from flambeau.learner.spikes import loss_spikes

        return loss_spikes(self._setup(), self._fits)

    def explain(
        self, sample: Any, output: str | None = None, *, neighbours: int = 5
    ) -> SampleExplanation:
        """Return why the model predicts what it does for one sample.

        The sample goes through the layers; the train samples with the most similar features before
        the head are found by comparing all of them; and attributions say how much each part of the
        sample (pixel, token, column) moves the output: for most models integrated gradients. The
        model computes in fp32 and is unchanged afterwards.

        Args:
            sample: Number of a sample, as in ``data.split``; or a raw input, as ``predict`` takes
                it, of which no target is known.
            output: The class, label or value to explain; None is the highest one.
            neighbours: Number of train samples; with 0 the train samples are not read.

        Raises:
            ArgumentError: There is no such sample, or no such output.
            InputError: ``sample`` cannot be read, or several processes train together.

        Example:
            >>> import torch
            >>> from flambeau import Learner, TensorData
            >>> x = torch.randn(80, 5)
            >>> data = TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=0.2)
            >>> learner = Learner(data, quiet=True)
            >>> found = learner.explain(int(data.split.valid[0]))
            >>> len(found.neighbours), len(found.attributions.parts)
            (5, 5)
        """
        from flambeau.learner.explaining import explain

        return explain(self._setup(), self.built, sample, output, neighbours)

    def difference(
        self, other: Learner | nn.Module | str | Path, part: str | None = None
    ) -> ModelDifference:
        """Return how the model differs from another one, layer by layer.

        For each layer: the relative change of its weights, the cosine of the angle between the old
        and the new ones, the effective rank of the change, and changes of the statistics of norm
        layers. Layers that only one model has, or that have another shape, are named. No code is
        loaded from files.

        Args:
            other: A learner, a module, or the path of an export, a checkpoint, a run (its newest
                checkpoint) or a file of ``save``. Of a checkpoint the weights of its step count.
            part: Also compare the outputs of the layers (linear CKA) for up to 512 samples of this
                part of the data, "valid" for example; None compares weights alone.

        Raises:
            ArgumentError: ``other`` has another type, or the data have no such part.
            ArtefactError: The files of ``other`` are missing or damaged.
            InputError: Outputs are to be compared while several processes train together.

        Example:
            >>> import torch
            >>> from flambeau import Learner, TensorData
            >>> x = torch.randn(40, 5)
            >>> learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
            >>> learner.difference(learner.model).is_equal
            True
        """
        from flambeau.learner.weights_difference import difference

        found = other.model if isinstance(other, InspectionMethods) else other
        return difference(self.built, self._context(), found, part)

    @property
    def is_inspected(self) -> bool:
        """Whether ``inspect`` was called, so that fits watch the layers."""
        return self._inspection is not None

    def inspect(self, every: int | None = None) -> Inspection:
        """Watch all layers in some steps of every fit from now on; return what was recorded.

        In the watched steps, statistics of the outputs, gradients, weights and updates of each
        layer are computed on the device: dead and saturated units, effective rank, entropy of
        attention and more. They are read once per epoch and change nothing in the training. With a
        folder, ``inspect.jsonl`` in it has them. ``print`` shows what is wrong with which layer and
        how to fix it; the fit prints it at the end of an epoch, too. A further call without
        ``every`` only returns the record. To continue it after ``resume``, call this method first.

        Args:
            every: Watch every ``every``-th step. None watches the first ten steps, every tenth step
                up to 100, and every hundredth step after that.

        Raises:
            ArgumentError: ``every`` is not a number.
            InputError: ``every`` is less than 1.

        Example:
            >>> import torch
            >>> from flambeau import Learner, TensorData
            >>> x = torch.randn(40, 5)
            >>> learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
            >>> watch = learner.inspect(every=1)
            >>> history = learner.fit(steps=4)
            >>> watch.record.steps
            [0, 1, 2, 3]
        """
        from flambeau.callbacks.layer_inspection import LayerInspection

        if self._inspection is None:
            self._inspection = LayerInspection(every, quiet=self.quiet)
        elif every is not None:
            self._inspection.inspection.every = every
        return self._inspection.inspection

    def profile(
        self, steps: int = 30, *, try_changes: bool = True, trace: str | Path | None = None
    ) -> Profile:
        """Return where the time of a training step goes, and what would make it shorter.

        The training loop itself makes the steps, on the batches that ``fit()`` would read. The time
        is divided into reading, decoding, transfer, launch, compute, memory, synchronisation,
        Python and evaluation (``flambeau.inspect.ProfilePart`` defines them); ``print`` shows the
        shares, the bottleneck and the changes for it. The gain of a change is computed first, from
        what was measured, and then the change is tried. Before this method returns, everything is
        as it was before the call. If several processes train together, all must call it: they get
        the profile of the slowest rank, with the part "communication", and no change is tried.

        Args:
            steps: Largest number of timed steps; fewer are timed if they take more than 20 seconds
                together. A few more warm up, and record functions and operators.
            try_changes: Whether the changes are tried; without, only the expected gain is reported.
            trace: File for the trace of torch.profiler, which ui.perfetto.dev shows.

        Raises:
            ArgumentError: ``steps`` is not positive.
            InputError: The train loader returns no batch.
            StorageError: ``trace`` cannot be written; checked before the measurement.

        Warns:
            FlambeauWarning: [loader-moved] The position of the train loader cannot be restored.

        Example:
            >>> import torch
            >>> from flambeau import Learner, TensorData
            >>> x = torch.randn(400, 5)
            >>> data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
            >>> learner = Learner(data, choices={"batch_size": 4}, quiet=True)
            >>> profile = learner.profile(5, try_changes=False)
            >>> round(sum(part.share for part in profile.parts))
            100
        """
        from flambeau.learner.profiling import profile

        setup = self._setup()
        return profile(setup, self._trainable, steps, try_changes=try_changes, trace=trace)
