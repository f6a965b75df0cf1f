"""The stages of ``step_through`` are what the first step of a fit computes, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import EMA, Batch, Callback, Learner, Task, TensorData, TrainingOptions, TrainState
from flambeau.inspect.stages import StepStages, named_tensors
from flambeau_text.language import LanguageModelData, LanguageOptions
from flambeau_text.tokenization.tokenizer import PADDING_ID
from flambeau_text.translation.demo import dates_data
from flambeau_vision import ImageData

Values = dict[tuple[str, str], list[Tensor]]
"""The values of each kind and name, in the order in which they were computed."""

ALWAYS = {"output", "loss", "gradient", "update", "weight"}
COMMON = {"lr": 0.05, "probe": "off", "schedule": "constant", "device": "cpu", "num_threads": 1}
TEXT = {"embedding_dim": 12, "hidden_size": 12, "dropout": 0.1}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"accumulate": 3},
    "clip": {"clip_norm": 0.1},
    "all": {"accumulate": 2, "clip_norm": 0.1, "average": EMA(0.9)},
}


class FirstStep(Callback):
    """Keeps what the first step of a fit computes, by means of torch's hooks alone."""

    def __init__(self) -> None:
        self.found: Values = {}
        self._handles: list[Any] = []
        self._before: dict[str, Tensor] = {}

    def _keep(self, kind: str, name: str, value: Tensor) -> None:
        self.found.setdefault((kind, name), []).append(value.detach().clone())

    def on_step_start(self, state: TrainState) -> None:
        self._before = {n: p.detach().clone() for n, p in state.model.named_parameters()}
        for name, module in state.model.named_modules():
            keep = self._output_hook(name or "(model)")
            self._handles.append(module.register_forward_hook(keep))
        for optimizer in state.optimizers.values():
            hook = optimizer.register_step_pre_hook(
                lambda *_: self._gradients(state, "clipped gradient")
            )
            self._handles.append(hook)

    def _output_hook(self, name: str) -> Callable[[Any, Any, Any], None]:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            for label, value in named_tensors(output, name):
                self._keep("output", label, value)

        return keep

    def _gradients(self, state: TrainState, kind: str) -> None:
        for name, parameter in state.model.named_parameters():
            if parameter.grad is not None:
                self._keep(kind, name, parameter.grad)

    def on_gradients_ready(self, state: TrainState) -> None:
        self._gradients(state, "gradient")

    def on_step_end(self, state: TrainState) -> None:
        for handle in self._handles:
            handle.remove()
        assert state.last is not None
        self._keep("loss", "mean", state.last.loss)
        for name, parameter in state.model.named_parameters():
            self._keep("weight", name, parameter)
            self._keep("update", name, parameter.detach() - self._before[name])
        for label, value in named_tensors(state.context.carry, "carry"):
            self._keep("carry", label, value)
        state.stop_reason = "one step"


def shown_by(stages: StepStages) -> Values:
    found: Values = {}
    for stage in stages:
        # The loss of a micro-batch is not visible to a callback.
        if isinstance(stage.value, Tensor) and stage.name != "backward":
            found.setdefault((stage.kind, stage.name), []).append(stage.value)
    return found


def compare(make: Callable[[Callback | None], Learner], kinds: set[str]) -> StepStages:
    """Compare the stages with the first step of a fit of an equal learner, and return them."""
    torch.manual_seed(11)
    stages = make(None).step_through()
    watch = FirstStep()
    torch.manual_seed(11)
    learner = make(watch)
    learner.fit(2)
    shown = shown_by(stages)
    assert {kind for kind, _ in shown} >= kinds
    for (kind, name), values in shown.items():
        if kind not in kinds - {"average", "logits"}:
            continue
        others = watch.found[kind, name]
        values = values[-1:] if kind == "carry" else values  # a callback sees that of the step
        assert len(values) == len(others), (kind, name)
        for mine, theirs in zip(values, others, strict=True):
            assert mine.dtype == theirs.dtype, (kind, name)
            assert torch.equal(mine, theirs), (kind, name)
    for (_, name), [average] in ((k, v) for k, v in shown.items() if k[0] == "average"):
        # The fit ends after the first step, and the model then has the averaged weights.
        assert torch.equal(average, dict(learner.model.named_parameters())[name])
    return stages


def expected_kinds(options: dict[str, Any]) -> set[str]:
    clipped = {"clipped gradient"} if "clip_norm" in options else set()
    return ALWAYS | clipped | ({"average"} if "average" in options else set())


def learner_of(
    data: Any, model: Any, watch: Callback | None, choices: dict[str, Any], **more: Any
) -> Learner:
    task = more.pop("task", None)
    return Learner(
        data,
        model,
        task=task,
        choices={**COMMON, **choices},
        training=TrainingOptions(doctor=False, **more),
        callbacks=[] if watch is None else [watch],
        quiet=True,
    )


def table() -> TensorData:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=draws)
    return TensorData.from_tensors(x, x[:, :3].argmax(1), valid=0.2)


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = (nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout(0.2))
        return nn.Sequential(*layers, nn.Linear(6, 3))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_table(optimizer: str, options: dict[str, Any]) -> None:
    choices = {"optimizer": optimizer, "batch_size": 8}
    compare(
        lambda watch: learner_of(table(), net(), watch, choices, **options),
        expected_kinds(options),
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_images(optimizer: str) -> None:
    """Augmented on the device, with batch norm, accumulation, clipping and EMA."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    data = ImageData.from_arrays(pixels, ["a", "b", "c"] * 10, valid=0.2)
    choices = {"optimizer": optimizer, "batch_size": 6}
    options = OPTIONS["all"]
    stages = compare(
        lambda watch: learner_of(data, "small_cnn", watch, choices, **options),
        expected_kinds(options),
    )
    samples = stages.of("samples")[0]
    assert len(samples.images) == len(samples.value) == 6
    assert {s.dtype for s in stages.of("batch") if s.name.startswith("input")} == {torch.uint8}
    assert any(s.name.startswith("on_device: input") for s in stages.of("transform"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_translation(optimizer: str) -> None:
    """With logits that the loss does not store."""
    choices = {
        "optimizer": optimizer, "batch_size": 8, "model_config": TEXT, "precision": "fp32",
    }  # fmt: skip
    stages = compare(
        lambda watch: learner_of(dates_data(40, 0), None, watch, choices, accumulate=2),
        expected_kinds({}) | {"logits"},
    )
    assert {stage.note for stage in stages.of("logits")} == {"computed for display"}
    assert len(stages.of("samples")) == 2
    losses = stages.of("loss per sample")
    counts = [s.value for s in stages.of("batch") if s.name.startswith("target")]
    summed = [s.value for s in stages.of("loss") if s.name == "backward"]
    for each, targets, total in zip(losses, counts, summed, strict=True):
        counted = (targets[:, 1:] != PADDING_ID).sum(1)  # the first token is given
        torch.testing.assert_close((each.value * counted).sum(), total)
    assert "\n" in stages.of("samples")[0].value[0]  # source and target


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_language_stream_with_carry(optimizer: str) -> None:
    texts = ["abcabd " * 12 + "\n", "bcabca " * 9 + "\n"] * 6
    options = LanguageOptions(tokenizer="character")
    data = LanguageModelData.from_texts(texts, valid=2, options=options)
    config = {"embedding_dim": 8, "hidden_size": 8, "num_layers": 2}
    choices = {
        "optimizer": optimizer, "batch_size": 4, "bptt": 5, "model_config": config,
        "precision": "fp32", "keep_best": None,
    }  # fmt: skip
    stages = compare(
        lambda watch: learner_of(data, "awd_lstm", watch, choices, accumulate=2),
        expected_kinds({}) | {"carry"},
    )
    [*_, samples] = stages.of("samples")
    assert samples.value is None
    assert "a row of a stream is a part of many samples" in samples.note
    assert {stage.micro_batch for stage in stages.of("carry")} == {0, 1}


class Streams(Task):
    """Passes the hidden state on."""

    def forward(self, model: nn.Module, batch: Batch, context: Any) -> Tensor:
        found, context.carry = model(batch.input, context.carry)
        return found[..., 0]

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        return (outputs - batch.target).square().sum(), float(batch.target.numel())


def test_the_second_micro_batch_starts_from_the_carried_state() -> None:
    draws = torch.Generator().manual_seed(1)
    parts = [torch.randn(4, 6, 1, generator=draws) for _ in range(4)]

    def make(watch: Callback | None) -> Learner:
        data = TensorData.from_loaders(
            [(x, x[..., 0]) for x in parts], [(parts[0], parts[0][..., 0])]
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.GRU(1, 3, batch_first=True)
        return learner_of(data, model, watch, {"optimizer": "sgd"}, task=Streams(), accumulate=2)

    stages = compare(make, expected_kinds({}) | {"carry"})
    first, second = shown_by(StepStages(stages.all))["output", "(model)[1]"]
    assert not torch.equal(first, second)


def test_a_planted_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself can fail."""
    original = Learner.step_through

    def planted(self: Learner) -> StepStages:
        with torch.no_grad():
            next(self.model.parameters())[0, 0] += 1e-6
        return original(self)

    monkeypatch.setattr(Learner, "step_through", planted)
    with pytest.raises(AssertionError):
        compare(lambda watch: learner_of(table(), net(), watch, {"batch_size": 8}), ALWAYS)
