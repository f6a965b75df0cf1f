"""``step_through``: its stages, that it changes nothing, and that the loop makes its step.

``tests/integration/test_step_through.py`` compares the values with those of a fit.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import itertools
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import (
    EMA,
    SWA,
    Batch,
    Classification,
    FlambeauWarning,
    Learner,
    Step,
    Task,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import ArgumentError
from flambeau.inspect import Stage, StepStages
from flambeau.inspect.step_recorder import StepRecorder
from flambeau.training.optim.averaging import RunningEMA
from flambeau.training.optim.fused_step import OptimizerStep
from flambeau.training.optim.precision import Precision
from flambeau.training.run import Run

N, BATCH = 40, 8


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.manual_seed(5)
    yield
    torch.set_rng_state(before)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(5, 6),
            nn.BatchNorm1d(6),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(6, 3),
        )


def table() -> TensorData:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(N, 5, generator=draws)
    return TensorData.from_tensors(x, x[:, :3].argmax(1), valid=0.2)


def make(
    name: str = "sgd",
    model: nn.Module | None = None,
    data: TensorData | None = None,
    **options: Any,
) -> Learner:
    choices = options.pop("choices", {})
    task = options.pop("task", None)
    return Learner(
        data or table(),
        model or net(),
        task=task,
        choices={"lr": 0.05, "probe": "off", "schedule": "constant", **choices}
        | ({} if data else {"batch_size": BATCH})
        | ({} if "optimizer" in options else {"optimizer": name}),
        training=TrainingOptions(doctor=False, **options),
        quiet=True,
    )


def by_name(stages: Sequence[Stage]) -> dict[tuple[str, str], list[Tensor]]:
    found: dict[tuple[str, str], list[Tensor]] = {}
    for stage in stages:
        if isinstance(stage.value, Tensor):
            found.setdefault((stage.kind, stage.name), []).append(stage.value)
    return found


def test_the_stages_have_the_order_of_the_step() -> None:
    stages = make(clip_norm=1.0, average=EMA()).step_through()
    kinds = [kind for kind, _ in itertools.groupby(stage.kind for stage in stages.all)]
    assert kinds == [
        "samples", "batch", "values", "output", "loss per sample", "loss", "gradient",
        "clipped gradient", "update", "weight", "statistic", "average",
    ]  # fmt: skip
    [first, *_] = stages.of("samples")
    batch = next(make().built.loader("train").batches(0))
    assert first.value == [f"sample {int(i)}" for i in batch.indices]
    assert torch.equal(stages.of("batch")[0].value, batch.input)
    [losses] = stages.of("loss per sample")
    mean = next(stage for stage in stages.of("loss") if stage.name == "mean")
    assert losses.value.mean().item() == pytest.approx(mean.value.item(), rel=1e-6)
    assert "computed for display" in losses.note


def test_an_inplace_layer_does_not_change_what_is_shown_before_it() -> None:
    shown = by_name(make().step_through().all)
    [norm], [relu] = shown["output", "1"], shown["output", "2"]
    assert norm.min() < 0
    assert torch.equal(norm.clamp(min=0), relu)


# ---------------------------------------------------------------- one implementation


def weights_of_fit(learner: Learner) -> dict[str, Tensor]:
    """The weights after a fit of one step, the averaged ones if there are any."""
    learner.fit(steps=1)
    return {name: value.detach() for name, value in learner.model.named_parameters()}


def weights_shown(stages: StepStages) -> dict[str, Tensor]:
    kind = "average" if stages.of("average") else "weight"
    return {stage.name: stage.value for stage in stages.of(kind)}


def patched_forward(original: Any) -> Any:
    return lambda self, model, batch, task: 2.0 * original(self, model, batch, task)


def patched_backward(original: Any) -> Any:
    return lambda self, loss, divisor=1.0, **more: original(self, loss * 3.0, divisor, **more)


def patched_clip(original: Any) -> Any:
    return lambda gradients, norm: original(gradients, norm / 2)


def patched_update(original: Any) -> Any:
    def step(self: Any, found_inf: Tensor | None = None) -> None:
        original(self, found_inf)
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(0.25)

    return step


def patched_average(original: Any) -> Any:
    return lambda self, updates: 2.0 * original(self, updates) + 1.0


STAGES: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "forward": (Step, "forward", patched_forward),
    "backward": (Precision, "backward", patched_backward),
    "clip": ("flambeau.training.update", "clip_gradients", patched_clip),
    "update": (OptimizerStep, "__call__", patched_update),
    "average": (RunningEMA, "_earlier", patched_average),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_change_of_one_stage_changes_the_loop_and_what_is_shown(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = (
        {"clip_norm": 0.2, "average": EMA(0.9)} if stage in ("clip", "average") else {}
    )
    plain = weights_shown(make(**options).step_through())
    owner, name, patched = STAGES[stage]
    if isinstance(owner, str):
        owner = importlib.import_module(owner)
    monkeypatch.setattr(owner, name, patched(getattr(owner, name)))
    shown, fitted = weights_shown(make(**options).step_through()), weights_of_fit(make(**options))
    assert any(not torch.equal(plain[name], value) for name, value in shown.items())
    assert all(torch.equal(fitted[name], value) for name, value in shown.items())


# ---------------------------------------------------------------- the learner as it was


def digest_of(learner: Learner, *more: Any) -> str:
    """Return a hash of everything that a step changes."""
    found = hashlib.sha256()
    for name, value in itertools.chain(
        learner.model.named_parameters(), learner.model.named_buffers()
    ):
        found.update(f"{name} {id(value)} {value.requires_grad} {value.grad}".encode())
        found.update(value.detach().numpy().tobytes())
    found.update(repr([module.training for module in learner.model.modules()]).encode())
    found.update(torch.get_rng_state().numpy().tobytes())
    found.update(repr([random.getstate(), np.random.get_state()[1].tolist()]).encode())
    found.update(repr([learner.history.rows, list(learner.history.step_losses)]).encode())
    found.update(repr([learner._position, vars(learner.task)]).encode())
    for each in more:
        state = each.get_state() if isinstance(each, torch.Generator) else each.state_dict()
        found.update(repr(state.tolist() if isinstance(state, Tensor) else state).encode())
    return found.hexdigest()


class Draws(nn.Module):
    """Draws from all generators, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + 1
        noise = random.random() + np.random.rand() + torch.rand(())
        return x * (1.0 + 0.01 * noise)


def with_state() -> tuple[Learner, list[Any]]:
    """A learner whose loader and optimizer have state that outlives a fit."""
    draws = torch.Generator().manual_seed(7)
    x = torch.randn(N, 5)
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), BATCH, shuffle=True, generator=draws)
    model = nn.Sequential(*net(), Draws())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    data = TensorData.from_loaders(loader, loader, n_classes=3)
    learner = make(model=model, data=data, optimizer=lambda model, values: {"main": optimizer})
    learner.fit(1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    model[0].eval()
    return learner, [optimizer, draws]


@pytest.mark.filterwarnings("ignore::flambeau.FlambeauWarning")
def test_stopping_anywhere_leaves_the_learner_as_it_was() -> None:
    learner, others = with_state()
    before = digest_of(learner, *others)
    count = len(learner.step_through().all)
    assert digest_of(learner, *others) == before
    for end in (0, 1, count // 2, count):
        stages = learner.step_through()
        for _ in itertools.islice(stages, end):
            pass
        assert digest_of(learner, *others) == before
        del stages
        gc.collect()
        assert digest_of(learner, *others) == before
    with pytest.raises(KeyError):
        for _ in learner.step_through():
            raise KeyError
    assert digest_of(learner, *others) == before
    assert learner.model[-1].calls == int(learner.model[-1].seen)


@pytest.mark.parametrize(
    "error", [ValueError("no such layer"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
def test_an_error_in_the_step_comes_after_the_stages_before_it(error: BaseException) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise error
            return x

    learner = make(model=nn.Sequential(nn.Linear(5, 6), Fails(), nn.Linear(6, 3)))
    before = digest_of(learner)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            learner.step_through()
        assert digest_of(learner) == before
        return
    stages = learner.step_through()
    assert digest_of(learner) == before
    seen: list[str] = []
    with pytest.raises(ValueError, match="no such layer"):
        for stage in stages:
            seen += [stage.name] * (stage.kind == "output")
    assert seen == ["0"]
    assert str(stages).splitlines()[-1] == "The step ended here: ValueError: no such layer."


def test_a_fit_after_it_equals_a_fit_without_it() -> None:
    looked, plain = make("adamw", average=EMA()), make("adamw", average=EMA())
    looked.step_through()
    torch.manual_seed(1)
    looked.fit(2)
    torch.manual_seed(1)
    plain.fit(2)
    assert list(looked.history.step_losses) == list(plain.history.step_losses)


# ---------------------------------------------------------------- further kinds of steps


def test_a_frozen_layer_has_no_gradient_and_no_update() -> None:
    model = net()
    model[0].requires_grad_(False)
    stages = make(model=model).step_through()
    notes = {s.name: s.note for s in stages.of("gradient") if s.value is None}
    assert notes == {"0.weight": "none: frozen", "0.bias": "none: frozen"}
    assert "0.weight" not in {s.name for s in stages.of("weight")}


def test_a_parameter_outside_of_the_loss_is_named() -> None:
    model = net()
    model.register_parameter("spare", nn.Parameter(torch.zeros(2)))
    # ``Sequential`` does not use it.
    notes = {s.name: s.note for s in make(model=model).step_through().of("gradient")}
    assert notes["spare"] == "none: the loss does not depend on it"


class ChangesOutputs(Task):
    """A task whose loss changes the outputs in place, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        self.calls += 1
        total = outputs.mul_(float(self.calls)).square().sum()
        return total, float(len(batch))


def test_losses_of_samples_are_computed_from_unchanged_outputs() -> None:
    task = ChangesOutputs()
    stages = make(task=task, accumulate=2, nonfinite="off").step_through()
    losses = [stage.value.sum() for stage in stages.of("loss per sample")]
    outputs = [s.value for s in stages.of("output") if s.name == "(model)"]
    totals = [s.value for s in stages.of("loss") if s.name == "backward"]
    # The first sample alone calls the loss for the second time, and so on.
    factors = torch.arange(2, 2 + BATCH, dtype=torch.float64).square()
    expected = (factors * outputs[0].double().square().sum(1)).sum()
    torch.testing.assert_close(losses[0], expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(totals[1], 4 * outputs[1].square().sum())
    assert task.calls == 0


class TwoOutputs(Task):
    """A task whose model returns a dictionary."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        total = nn.functional.cross_entropy(outputs["classes"], batch.target, reduction="sum")
        return total + outputs["parts"][0].square().sum(), float(len(batch))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> dict[str, Any]:
        found = self.body(x)
        return {"classes": found, "parts": (found[:, :1], found[:, 1:])}


def test_several_outputs_are_shown_one_by_one() -> None:
    stages = make(model=Two(), task=TwoOutputs()).step_through()
    names = [s.name for s in stages.of("output") if s.name.startswith("(model)")]
    assert names == ["(model)['classes']", "(model)['parts'][0]", "(model)['parts'][1]"]
    [losses] = stages.of("loss per sample")
    assert losses.value is None
    assert losses.note == "not available: the outputs do not have one row per sample"


def test_a_closure_optimizer_shows_its_first_evaluation() -> None:
    stages = make(optimizer=torch.optim.LBFGS, model=nn.Linear(5, 3)).step_through()
    assert [s.name for s in stages.of("gradient")] == ["weight", "bias"]
    assert len(stages.of("output")) == 1
    [update, _] = stages.of("update")
    assert "evaluations of the loss, of which the first is shown" in update.note
    learner = make(optimizer=torch.optim.LBFGS, model=nn.Linear(5, 3))
    before = {n: p.detach().clone() for n, p in learner.model.named_parameters()}
    assert before.keys() == {s.name for s in stages.of("update")}


def adversarial(model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step) -> Tensor:
    """Two updates with different optimizers in one step."""
    [batch] = micro_batches
    first = model[0](batch.input).square().mean()
    step.backward(first)
    step.update(first, "first")
    second = model[1](model[0](batch.input).detach()).square().mean()
    step.backward(second)
    step.update(second, "second")
    return second


def test_a_custom_step_shows_each_update() -> None:
    def optimizers(model: nn.Module, values: Any) -> dict[str, Any]:
        return {
            "first": torch.optim.SGD(model[0].parameters(), lr=values["lr"]),
            "second": torch.optim.Adam(model[1].parameters(), lr=values["lr"]),
        }

    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    stages = make(model=model, train_step=adversarial, optimizer=optimizers).step_through()
    assert "'adversarial'" in stages.all[0].note
    order = [(s.kind, s.name) for s in stages.all if s.kind in ("gradient", "update")]
    names = {0: ["0.weight", "0.bias"], 1: ["1.weight", "1.bias"]}
    assert order == [
        (kind, name) for part in (0, 1) for kind in ("gradient", "update") for name in names[part]
    ]


def direct(model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step) -> Tensor:
    [batch] = micro_batches
    loss = model(batch.input).square().mean()
    loss.backward()
    step.optimizers["main"].step()
    step.optimizers["main"].zero_grad()
    return loss.detach()


def test_weights_that_a_custom_step_changes_itself_are_shown() -> None:
    stages = make(train_step=direct).step_through()
    assert not stages.of("gradient")
    assert {s.note for s in stages.of("update")} == {
        "computed for display, changed outside of step.update"
    }


def test_half_precision_shows_unscaled_gradients_and_the_scale() -> None:
    model = nn.Linear(5, 3)
    exact, half = (
        make(model=model, choices={"precision": name}).step_through() for name in ("fp32", "fp16")
    )
    assert half.of("values")[0].value["loss scale"] == 2.0**16
    assert half.of("output")[0].dtype == torch.float16
    for mine, theirs in zip(half.of("gradient"), exact.of("gradient"), strict=True):
        torch.testing.assert_close(mine.value, theirs.value, rtol=0.02, atol=2e-3)


class Divides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0.0


def not_finite() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), Divides(), nn.Linear(4, 3))


def test_a_step_that_is_not_finite_is_shown() -> None:
    stages = make(model=not_finite(), clip_norm=1.0).step_through()
    assert stages.error is None
    rows = {s.name: s.nonfinite for s in stages.of("output")}
    assert (rows["0"], rows["1"]) == (0, BATCH * 4)
    assert "not finite, so the update changes no weights" in stages.of("note")[-1].note
    assert {s.note for s in stages.of("clipped gradient")} == {"norm nan, at most 1"}


class Overflows(Task):
    """A task whose loss is finite, but in fp16 not its gradients."""

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        return 1e4 * outputs.float().sum(), float(len(batch))


@pytest.mark.parametrize("kind", ["skip", "fp16"])
def test_a_skipped_step_is_explained(kind: str) -> None:
    if kind == "skip":
        stages = make(model=not_finite(), nonfinite="skip").step_through()
    else:
        learner = make(model=nn.Linear(5, 3), task=Overflows(), choices={"precision": "fp16"})
        stages = learner.step_through()
    [note] = stages.of("note")
    assert note.note.endswith("not finite, so a fit skips this step, too.")
    assert all(not stage.value.any() for stage in stages.of("update"))


def test_an_error_at_the_end_of_the_step_is_shown_and_the_run_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(recorder: StepRecorder, run: Run) -> None:
        raise ValueError("cannot be copied")

    released: list[Run] = []
    release = Run.release
    monkeypatch.setattr(StepRecorder, "finish", fails)
    monkeypatch.setattr(Run, "release", lambda run: (released.append(run), release(run)))
    stages = make().step_through()
    assert str(stages.error) == "cannot be copied"
    assert stages.of("weight")
    assert len(released) == 1


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_step_without_targets_changes_no_weights(nonfinite: str) -> None:
    x, ignored = torch.randn(16, 5), torch.full((16,), -100)
    data = TensorData.from_loaders([(x, ignored)], [(x, x[:, :3].argmax(1))])
    task = Classification(["a", "b", "c"], ignore_index=-100)
    stages = make(data=data, task=task, nonfinite=nonfinite).step_through()
    assert not stages.of("update")
    [note] = stages.of("note")
    assert "No sample of the step has a target" in note.note


def test_what_a_fit_may_measure_first_is_noted() -> None:
    learner = Learner(table(), net(), choices={"batch_size": BATCH}, quiet=True)
    notes = {stage.name: stage.note for stage in learner.step_through().of("note")}
    assert notes["probe"].startswith("A fit may first measure steps and change precision")
    assert notes["lr"].startswith("A fit that is long enough first measures lr; ")
    assert not make().step_through().of("note")


def test_the_model_is_freed_with_the_learner() -> None:
    learner = make()
    stages = learner.step_through()
    model = weakref.ref(learner.model)
    gc.disable()
    try:
        del learner
        assert model() is None
    finally:
        gc.enable()
    assert stages.all


def test_an_average_that_has_not_started_is_a_note() -> None:
    [note] = make(average=SWA(0.9)).step_through().of("note")
    assert note.note == "The average does not include this step."


def test_a_transform_shows_only_what_it_changes() -> None:
    def shifted(batch: Batch, seed: int) -> Batch:
        batch.inputs["input"].add_(1.0)
        return batch

    batch = next(make().built.loader("train").batches(0))
    before = batch.input.clone()
    stages = make(transforms=(shifted,)).step_through(batch)
    assert torch.equal(batch.input, before)
    *_, shown = stages.of("transform")
    assert shown.name.endswith("shifted: input input")
    assert not any("target" in s.name for s in stages.of("transform"))


# ---------------------------------------------------------------- the argument, and the result


def test_a_given_batch_is_used() -> None:
    learner = make()
    batches = list(itertools.islice(learner.built.loader("train").batches(4), 2))
    stages = learner.step_through(batches)
    inputs = [s.value for s in stages.of("batch") if s.name == "input input"]
    assert all(torch.equal(a, b.input) for a, b in zip(inputs, batches, strict=True))
    assert [s.micro_batch for s in stages.of("batch") if s.name == "input input"] == [0, 1]


@pytest.mark.parametrize("batch", [3, [], [1, 2], torch.zeros(2)], ids=repr)
def test_an_invalid_batch_is_refused(batch: Any) -> None:
    with pytest.raises(ArgumentError, match="give a Batch as the train loader returns it"):
        make().step_through(batch)


def test_a_loader_that_cannot_be_restored_is_warned_of() -> None:
    x = torch.randn(16, 5)
    data = TensorData.from_loaders(iter_once(x), [(x, x[:, :3].argmax(1))], n_classes=3)
    learner = make(data=data)
    with pytest.warns(FlambeauWarning, match=r"\[loader-moved\] step_through advances"):
        learner.step_through()


def iter_once(x: Tensor) -> Any:
    class Once(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(list(zip(x, x[:, :3].argmax(1), strict=True)))

    return DataLoader(Once(), batch_size=4)


def test_the_table_and_the_texts() -> None:
    stages = make().step_through()
    lines = str(stages).splitlines()
    assert lines[0].split() == ["stage", "name", "shape", "dtype", "range", "note"]
    assert len(lines) == len(stages.all) + 2
    assert any(line.split()[:4] == ["output", "0", "8×6", "float32"] for line in lines)
    assert stages._repr_html_().count("<tr>") == len(stages.all) + 1
    first = next(stages)
    assert first.kind == "samples"
    assert str(stages.of("batch")[1]).startswith("batch  target target  8  int64  0 … 2")
    text = stages.of("gradient")[0].show()
    assert isinstance(text, str)
    assert text.startswith("stage: gradient\nname: 0.weight\nshape: 6×5")


def test_a_stage_of_images_is_a_figure() -> None:
    pytest.importorskip("matplotlib")
    for shape, kind, panels, label in (
        ((4, 3, 8, 9), "batch", 4, "sample 3"),
        ((4, 2, 8, 9), "transform", 4, "sample 3"),
        ((4, 5, 8, 9), "logits", 4, "sample 3"),
        ((4, 1, 8, 9), "carry", 4, "sample 3"),
        ((4, 20, 8, 9), "output", 16, "channel 15"),
        ((5, 2, 3, 3), "weight", 5, "filter 4"),
        ((5, 3, 3, 3), "gradient", 5, "filter 4"),
    ):
        figure = Stage(kind, "x", torch.rand(shape)).show()
        shown = [axes for axes in figure.axes if axes.images]
        assert (len(shown), shown[-1].get_title()) == (panels, label)
