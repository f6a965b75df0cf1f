"""``step_through``: make one step with the loop's own functions, record it, and restore everything.

The run of the step is a ``Run`` as in a fit, and ``training.loop.train_epoch`` makes its step. So
there is no second implementation of a step, and a run without it is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn, cast

import torch
from torch import nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.inspect.stages import Stage, StepStages
from flambeau.inspect.step_recorder import GradientListener, StepRecorder
from flambeau.task.task_module import trained_module
from flambeau.torch_internals import is_compiled
from flambeau.training.components import Components
from flambeau.training.history import History
from flambeau.training.logged_values import collecting
from flambeau.training.loop import start_phase, train_epoch
from flambeau.training.nonfinite.guard import StepRecord
from flambeau.training.optim.optimizer_class import observed
from flambeau.training.run import Run, RunSettings
from flambeau.training.run_state.checkpoint_content import user_objects
from flambeau.training.run_state.preserve import capture_optimizer, preserve
from flambeau.training.state import Position
from flambeau.training.step import train_step
from flambeau.wording import class_name

ShowSamples = Callable[[Batch, int | None], Stage]
"""Returns the stage "samples" of a batch of the loader, given the number of the micro-batch."""


def step_through(
    components: Components,
    settings: RunSettings,
    position: Position,
    *,
    show_samples: ShowSamples,
    batches: Sequence[Batch] | None = None,
) -> StepStages:
    """Return the stages of the next step of a run; afterwards all state is as before.

    These are restored: weights, gradients and buffers, modes, ``requires_grad``, optimizers, the
    state of task, transforms and train step, and the generators. Callbacks are not called. The
    recorded tensors are copies on the CPU: about the outputs of all layers and four to six times
    the weights.

    Args:
        components: Objects of the run.
        settings: Settings of the run; its callbacks are not used.
        position: Position before the step; it is not changed.
        show_samples: Describes the raw samples of a batch.
        batches: Micro-batches of the step, as the loader returns them; None reads them.
    """
    recorder, model, task = StepRecorder(), components.model, components.task
    trained, options = trained_module(model, task), settings.options
    objects = user_objects(components, options).values()
    if options.train_step is not train_step:
        recorder.note("train_step", _custom(class_name(options.train_step)))
    error: Exception | None = None
    with (
        preserve(trained, task, *objects, weights=True) as after,
        _without_compilation(model, recorder),
    ):
        factory = observed(options.factory, lambda each: after.callback(capture_optimizer(each)))
        settings = replace(settings, options=replace(options, optimizer=factory))
        run = _SteppedRun(components, settings, replace(position), recorder, show_samples, batches)
        try:
            _make_step(run, recorder)
            recorder.finish(run)
        except Exception as found:  # noqa: BLE001 - raised by the iterator, after the stages before it
            error = found
        finally:
            run.release()
    return StepStages(recorder.stages, error)


def _make_step(run: Run, recorder: StepRecorder) -> None:
    """Make the step, and note why its update has no effect if a value is not finite."""
    try:
        start_phase(run)
        with recorder.recording(run), collecting(run.state.task, run.logged), torch.enable_grad():
            train_epoch(run)
            bad = run.update.first_bad_step(now=True)
            if bad is not None:
                run.raise_nonfinite(bad)
    except _NotFiniteError:
        recorder.note("update", _NOT_FINITE)
        return
    last = run.state.last
    # A step without targets changes no weights either; ``finish`` says so.
    if run.update.was_skipped() and last is not None and float(last.weight):
        recorder.note("update", _SKIPPED)


class _NotFiniteError(Exception):
    """Raised where a run reports a step that is not finite."""


_NOT_FINITE = (
    "The loss or a gradient of the step is not finite, so the update changes no weights. A fit "
    'ends here with an error, or continues with nonfinite="skip".'
)

_SKIPPED = "The loss or a gradient of the step is not finite, so a fit skips this step, too."


def _custom(name: str) -> str:
    return (
        f"The step is made by the train_step {name!r}. Shown are outputs of modules, and what it "
        "computes with step.forward, step.backward and step.update."
    )


class _SteppedRun(Run):
    """A run that makes one step, whose stages a recorder records."""

    def __init__(
        self,
        components: Components,
        settings: RunSettings,
        position: Position,
        recorder: StepRecorder,
        show_samples: ShowSamples,
        given: Sequence[Batch] | None,
    ) -> None:
        transforms = tuple(map(recorder.transform, settings.options.transforms))
        options = replace(settings.options, transforms=transforms)
        components = replace(
            components,
            augment=tuple(map(recorder.transform, components.augment)),
            on_device=recorder.on_device(components.on_device),
        )
        callbacks = (GradientListener(recorder),)
        settings = replace(settings, options=options, callbacks=callbacks)
        super().__init__(components, settings, History(), position)
        self._recorder, self._show_samples, self._given = recorder, show_samples, given

    def grouped_batches(self) -> Iterator[list[Batch]]:
        """Return the micro-batches of one step."""
        if self._given is None:
            read = super().grouped_batches()
            group = next(read, list[Batch]())
            # Frees the loader's generators and worker processes.
            cast("Generator[list[Batch]]", read).close()
        else:
            self.state.context.epoch = self.data_epoch
            # Copies, because a transform may change its batch in place.
            group = [batch.map(torch.Tensor.clone) for batch in self._given]
        if not group:
            raise InputError("The train loader returned no batch, so there is no step to show.")
        for index, batch in enumerate(group):
            number = index if len(group) > 1 else None
            self._recorder.stages.append(self._show_samples(batch, number))
        self._recorder.batches(group)
        yield group

    def set_values(self, micro_batches: Sequence[Batch]) -> None:
        super().set_values(micro_batches)
        scaler = self.precision.scaler
        scale = None if scaler is None else float(scaler.get_scale())
        self._recorder.values(self.state.values, scale)

    def prepare_train(self, batch: Batch) -> Batch:
        self._recorder.start_batch()
        ready = super().prepare_train(batch)
        self._recorder.end_batch()
        return ready

    def start_update_check(self) -> None:
        """Check nothing: a fit checks custom train steps over a whole epoch."""

    def raise_nonfinite(self, record: StepRecord | None = None) -> NoReturn:
        raise _NotFiniteError


@contextmanager
def _without_compilation(model: nn.Module, recorder: StepRecorder) -> Generator[None]:
    """Run the model without ``torch.compile`` in the block, where hooks would see nothing."""
    if not any(map(is_compiled, model.modules())):
        yield
        return
    recorder.note(
        "torch.compile",
        "The step is shown without torch.compile, which fuses layers: the last bits may differ.",
    )
    with cast("Any", torch.compiler).set_stance("force_eager"):
        yield
