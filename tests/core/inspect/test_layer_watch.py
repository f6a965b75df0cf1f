"""``inspect(model)``: what it records in a plain loop, and that it changes nothing."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from flambeau.errors import ArgumentError, InputError
from flambeau.inspect import inspect
from flambeau.inspect.watch import layer_statistics
from flambeau.inspect.watch.layer_record import LayerRecord, load_record
from flambeau.inspect.watch.layer_watch import StepReading
from flambeau.inspect.watch.noise_scale import noise_scale
from flambeau.inspect.watch.watched_layer import COLUMNS, ROW_SIZE
from flambeau.inspect.watch.weight_watch import (
    FROZEN,
    NO_GRADIENT,
    NO_OPTIMIZER,
    WEIGHT_COLUMNS,
)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.manual_seed(5)
    yield
    torch.set_rng_state(before)


class Mixed(nn.Module):
    """In-place and functional activations, attention, a recurrent layer with a tuple, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.lstm = nn.LSTM(16, 12, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv2(self.act(self.norm(self.conv(x)))))
        h = h.flatten(2).transpose(1, 2)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        h = h + F.scaled_dot_product_attention(h, h, h)
        h, _ = self.lstm(h)
        return self.head(self.drop(h[:, -1]))


class Shared(nn.Module):
    """Calls one layer twice, and recomputes a block in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 36)
        self.block = nn.Sequential(nn.Linear(36, 20), nn.Tanh())
        self.head = nn.Linear(20, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(self.layer(x.flatten(1)).relu_())
        return self.head(checkpoint(self.block, h, use_reentrant=False))


def train(
    model: nn.Module,
    *,
    steps: int = 4,
    watching: bool = True,
    every: int | None = 1,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    dtype: torch.dtype | None = None,
    accumulate: int = 1,
) -> tuple[LayerRecord | None, list[float]]:
    torch.manual_seed(1)
    opt = optimizer((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    watch = inspect(model, every=every) if watching else contextlib.nullcontext()
    cast = torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext()
    with watch:
        for _ in range(steps):
            for _ in range(accumulate):
                x, y = torch.randn(16, 1, 6, 6), torch.randint(3, (16,))
                with cast:
                    loss = F.cross_entropy(model(x), y) / accumulate
                loss.backward()
                losses.append(loss.item())
            opt.step()
            opt.zero_grad()
    return (watch.record if watching else None), losses


@pytest.mark.parametrize("kind", [Mixed, Shared])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_training_is_the_same_bit_for_bit(kind: type[nn.Module], dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    one = kind()
    torch.manual_seed(0)
    other = kind()
    _, losses = train(one, dtype=dtype, accumulate=2)
    _, same = train(other, dtype=dtype, accumulate=2, watching=False)
    assert losses == same
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_layers_have_the_order_of_their_calls_and_the_names_of_the_modules() -> None:
    model = Mixed()
    record, _ = train(model)
    assert record is not None
    named = {layer.name: layer for layer in record.layers.values()}
    assert list(named) == [
        "(input)", "conv", "norm", "act", "conv2", "relu after conv2", "attention in attention",
        "attention", "attention in (model)", "lstm", "head",
    ]  # fmt: skip
    assert [layer.number for layer in named.values()] == list(range(11))
    assert named["act"].units == 8
    assert named["lstm"].units == 12
    assert [name for name, layer in named.items() if layer.is_output] == ["head"]
    assert [name for name, layer in named.items() if layer.is_norm] == ["norm"]
    assert record.notes == []
    assert set(record.weights) == {name for name, _ in model.named_parameters()}
    for name in ("conv", "act", "relu after conv2", "lstm", "head"):
        assert list(record.series(name, "rms")) == [0, 1, 2, 3], name
        assert record.series(name, "gradient_rms"), name
    assert min(record.series("act", "zeros").values()) > 0.2
    assert 0 < record.series("attention in (model)", "entropy")[0] <= 1


def test_the_values_are_those_of_hooks_and_gradients() -> None:
    """One step by hand, with torch's own operations."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    x = torch.randn(10, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    before = model[0].weight.detach().clone()
    with inspect(model) as watch:
        hidden = model[0](x)
        hidden.retain_grad()
        # A copy, so that the activation in place does not change what is compared.
        model(x).square().mean().backward()
        gradient = model[0].weight.grad.clone()
        optimizer.step()
    record = watch.record
    assert record.series("0", "rms")[0] == pytest.approx(hidden.square().mean().sqrt().item())
    assert record.series("1", "zeros")[0] == pytest.approx((hidden <= 0).float().mean().item())
    assert record.weight_series("0.weight", "norm")[0] == pytest.approx(before.norm().item())
    norm = gradient.norm().item()
    assert record.weight_series("0.weight", "gradient_norm")[0] == pytest.approx(norm)
    assert record.weight_series("0.weight", "update_norm")[0] == pytest.approx(0.5 * norm, rel=1e-4)


def test_hooks_are_removed_between_watched_steps_after_the_block_and_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def n_hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    with inspect(model, every=3) as watch:
        assert n_hooks() == 8
        for _ in range(2):
            model(torch.randn(4, 6)).sum().backward()
            optimizer.step()
            assert n_hooks() == 0
        optimizer.step()
        assert n_hooks() == 8
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.randn(4, 7))
        assert torch.overrides._get_current_function_mode() is None
        model(torch.randn(4, 6)).sum().backward()
        optimizer.step()
    assert n_hooks() == 0
    assert watch.record.steps == [0, 3]
    with pytest.raises(RuntimeError, match="shapes"), inspect(model):
        model(torch.randn(4, 7))
    assert n_hooks() == 0


def test_an_evaluation_in_the_loop_is_not_watched() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        for _ in range(2):
            model(torch.zeros(4, 6) + 1).sum().backward()
            optimizer.step()
            with torch.no_grad():
                model(torch.full((4, 6), 1e6))
    assert max(watch.record.series("(input)", "rms").values()) == 1.0


def test_a_module_that_is_called_twice_has_one_row_per_step() -> None:
    record, _ = train(Shared())
    assert record is not None
    assert list(record.series("layer", "rms")) == [0, 1, 2, 3]
    assert "relu_" not in " ".join(record.layers)
    assert "relu after layer" in record.layers
    assert list(record.series("1" if "1" in record.layers else "block.1", "rms")) == [0, 1, 2, 3]


def test_weights_say_why_they_get_no_gradient() -> None:
    model = Shared()
    model.block.requires_grad_(False)
    only_head = lambda parameters, lr: torch.optim.SGD(model.head.parameters(), lr)  # noqa: E731
    record, _ = train(model, optimizer=only_head)
    assert record is not None
    last = {name: record.weight_series(name, "gradient_norm")[3] for name in record.weights}
    assert last["block.0.weight"] == FROZEN
    assert last["unused.weight"] == NO_OPTIMIZER
    assert last["layer.weight"] == NO_OPTIMIZER
    assert last["head.weight"] > 0
    record, _ = train(Shared())
    assert record is not None
    assert record.weight_series("unused.weight", "gradient_norm")[3] == NO_GRADIENT
    assert record.weight_series("unused.weight", "update_norm")[3] == 0


def test_optimizers_that_step_once_per_batch_make_one_step_together() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    both = [torch.optim.SGD(model[i].parameters(), lr=0.1 * (i + 1)) for i in (0, 2)]
    with inspect(model, every=2) as watch:
        for batch in range(9):
            model(torch.full((16, 6), float(batch))).square().mean().backward()
            for optimizer in both:
                optimizer.step()
                optimizer.zero_grad()
    assert watch.verdicts() == []
    assert watch.record.series("(input)", "mean") == {0: 0, 2: 2, 4: 4, 6: 6, 8: 8}
    for name in ("0.weight", "2.weight"):
        assert list(watch.record.weight_series(name, "update_norm")) == [0, 2, 4, 6, 8]
        assert min(watch.record.weight_series(name, "gradient_norm").values()) >= 0
    assert watch.record.values[2] == {"lr": pytest.approx(0.3)}


def test_optimizers_that_take_turns_make_one_step_together() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    both = [torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2)]
    with inspect(model, every=1) as watch:
        for batch in range(10):
            model.zero_grad()
            model(torch.randn(16, 6)).square().mean().backward()
            both[batch % 2].step()
    assert watch.record.steps == [0, 1, 2, 3, 4]
    for name in ("0.weight", "2.weight"):
        assert min(watch.record.weight_series(name, "update_norm").values()) > 0


def test_a_parameter_without_an_optimizer_delays_only_the_first_step() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        for batch in range(5):
            model(torch.full((16, 6), float(batch))).square().mean().backward()
            optimizer.step()
    assert watch.record.steps == [0, 1, 2, 3, 4]
    assert watch.record.series("(input)", "mean") == {0: 0.5, 2: 2, 3: 3, 4: 4}
    with inspect(model, every=1) as watch:
        model(torch.randn(16, 6)).square().mean().backward()
        optimizer.step()
    assert watch.record.steps == [0]


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.SGD,
        lambda p, lr: torch.optim.SGD(p, lr, weight_decay=0.1, momentum=0.9),
    ],
)
def test_embedding_rows_that_no_batch_has_used(optimizer: Any) -> None:
    model = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(12, 2))
    opt = optimizer(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        for step in range(4):
            model(torch.tensor([[step, 10, 11], [12, 10, 11]])).square().sum().backward()
            opt.step()
            opt.zero_grad()
    # Rows 10, 11, 12 and one more in each step.
    assert list(watch.record.weight_series("0.weight", "unused_rows").values()) == [16, 15, 14, 13]


def test_silent_units_are_known_by_their_last_activity() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with inspect(model, every=1) as watch:
        for step in range(4):
            with torch.no_grad():
                model[0].weight.zero_()
                model[0].bias.copy_(torch.tensor([1.0, 1.0 if step < 2 else -1.0, -1.0]))
            model(torch.randn(8, 4)).sum().backward()
            optimizer.step()
    assert watch.record.last_active["1"].tolist() == [3, 1, -1]
    assert list(watch.record.series("1", "silent").values()) == [1, 1, 2, 2]


def unscale(parameters: Iterable[nn.Parameter]) -> None:
    """Like a GradScaler, and then clip."""
    parameters = list(parameters)
    for each in parameters:
        assert each.grad is not None
        each.grad /= 1024.0
    nn.utils.clip_grad_norm_(parameters, 0.5)


@pytest.mark.parametrize(
    ("scale", "change"),
    [
        (1.0, lambda parameters: None),
        (1.0, lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.1)),
        (1024.0, unscale),
    ],
)
def test_accumulation_gives_the_noise_scale(
    scale: float, change: Callable[[Iterable[nn.Parameter]], object]
) -> None:
    """Gradients of a linear model whose mean and variance are known."""
    model = nn.Linear(50, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    draws = torch.Generator().manual_seed(0)
    with inspect(model, every=1) as watch:
        for _ in range(60):
            for _ in range(4):
                x = 0.3 + torch.randn(1, 50, generator=draws)  # gradient of a micro-batch
                (scale * model(x).sum() / 4).backward()
            change(model.parameters())
            optimizer.step()
            optimizer.zero_grad()
    # |G|² = 50 · 0.09 = 4.5, tr(Σ) = 50; 60 steps estimate the ratio to about 10%.
    assert watch.record.noise_scale() == pytest.approx(50 / 4.5, rel=0.25)
    record, _ = train(Shared())
    assert record is not None
    assert record.noise_scale() is None
    assert noise_scale([(-1.0, 2.0)]) is None
    assert noise_scale([(1.0, -2.0)]) is None


def test_equal_units_of_several_calls_are_those_of_the_call_with_most_of_them() -> None:
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight[3] = layer.weight[1]
        layer.bias[3] = layer.bias[1]

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            self.layer(torch.ones_like(x))  # no unit varies, so that none equals another
            return self.layer(x)

    record = record_of(Twice(), torch.randn(32, 6), steps=1)
    found = {each: record.series("layer", each)[0] for each in ("twins", "twin_a", "twin_b")}
    assert found == {"twins": 2, "twin_a": 1, "twin_b": 3}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # by torch.compile itself
def test_a_compiled_region_hides_its_layers_and_a_note_says_so() -> None:
    model = nn.Sequential(
        nn.Linear(36, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3)
    )
    model[1].compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        for _ in range(2):
            model(torch.randn(4, 36)).sum().backward()
            optimizer.step()
    assert list(watch.record.layers) == ["(input)", "0", "2"]
    [note] = watch.record.notes
    assert "2 layers in 1" in note
    assert watch.record.weight_series("1.0.weight", "update_norm")[0] > 0


@pytest.mark.parametrize("function", ["output_statistics", "gradient_statistics"])
def test_statistics_that_fail_do_not_end_the_training(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Tensor:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(layer_statistics, function, fail)
    torch.manual_seed(0)
    one = Mixed()
    torch.manual_seed(0)
    other = Mixed()
    record, losses = train(one)
    _, same = train(other, watching=False)
    assert losses == same
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    assert record is not None
    assert record.steps == [0, 1, 2, 3]
    of = "the gradients of conv2" if function == "gradient_statistics" else "conv2"
    assert f"No statistics of {of}: RuntimeError: out of memory." in record.notes
    assert record.weight_series("head.weight", "update_norm")


class Weights(nn.Module):
    """Attention without parameters and without modules inside."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class Attends(nn.Module):
    def __init__(self, weights: nn.Module, *, classifies: bool = False) -> None:
        super().__init__()
        self.layer, self.weights, self.classifies = nn.Linear(6, 6), weights, classifies

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        if isinstance(self.weights, nn.Softmax):
            x = self.weights(x @ x.transpose(1, 2)) @ x
        else:
            x = self.weights(x)
        return x.softmax(-1) if self.classifies else x


def record_of(model: nn.Module, x: Tensor, steps: int = 2) -> LayerRecord:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    return watch.record


@pytest.mark.parametrize("weights", [Weights(), nn.Softmax(-1)])
def test_attention_in_a_module_without_parts_is_recorded(weights: nn.Module) -> None:
    record = record_of(Attends(weights), torch.randn(8, 5, 6))
    assert list(record.layers) == ["(input)", "layer", "weights"]
    assert 0 < record.series("weights", "entropy")[1] <= 1
    assert record.series("weights", "rms")


def test_probabilities_of_the_model_are_not_attention() -> None:
    """Classes of each position, as ``(batch, positions, classes)``, look like attention weights."""
    by_function = record_of(Attends(nn.Tanh(), classifies=True), torch.randn(8, 5, 6))
    assert list(by_function.layers) == ["(input)", "layer", "weights"]
    model = nn.Sequential(nn.Linear(6, 6), nn.Softmax(-1))
    by_module = record_of(model, torch.randn(8, 5, 6))
    assert list(by_module.layers) == ["(input)", "0", "1"]
    assert by_module.series("1", "rms")
    assert by_module.series("1", "entropy") == {}


def test_the_bounds_of_hardtanh_are_its_own() -> None:
    x = 10 + torch.randn(64, 6)
    wide = record_of(nn.Sequential(nn.Identity(), nn.Hardtanh(0, 20), nn.Linear(6, 2)), x)
    assert wide.series("1", "saturated") == {0: 0.0, 1: 0.0}
    narrow = record_of(nn.Sequential(nn.Identity(), nn.Hardtanh(0, 2), nn.Linear(6, 2)), x)
    assert narrow.series("1", "saturated") == {0: 1.0, 1: 1.0}


def test_the_record_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    record, _ = train(Mixed(), accumulate=2)
    assert record is not None
    path = record.save(tmp_path / "inspect.jsonl")
    for found in (load_record(path), load_record(tmp_path)):
        assert found.layers == record.layers
        assert found.weights == record.weights
        assert found.steps == record.steps
        for name in record.rows:
            for column in ("rms", "silent", "entropy", "gradient_rms"):
                expected = record.series(name, column)
                assert found.series(name, column) == pytest.approx(expected, rel=1e-4)
            for step, shares in record.histograms(name).items():
                assert torch.allclose(found.histograms(name)[step], shares, atol=1e-4)
    restored = LayerRecord()
    restored.load_state_dict(record.state_dict())
    assert list(restored._text(restored.steps)) == list(record._text(record.steps))
    with pytest.raises(InputError, match="cannot be read as the record"):
        load_record(tmp_path / "other.jsonl")


def test_a_block_without_a_step_says_so() -> None:
    model = nn.Linear(2, 1)
    with inspect(model) as watch:
        model(torch.ones(1, 2))
    assert watch.record.steps == []
    assert "No optimizer" in watch.record.notes[-1]


def test_every_is_checked_and_none_watches_fewer_steps_later() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(InputError, match="every"):
        inspect(model, every=0)
    with pytest.raises(ArgumentError, match="every"):
        inspect(model, every="ten")  # pyright: ignore[reportArgumentType]
    watched = [step for step in range(301) if inspect(model).watches(step)]
    assert watched == [*range(10), *range(10, 100, 10), 100, 200, 300]


def test_the_size_of_an_input_is_that_before_the_call() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 2))
    x = torch.randn(32, 8)
    with torch.no_grad():
        before = float(model[0](x).square().mean().sqrt())
    with inspect(model, every=1) as watch:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        model(x).square().mean().backward()
        optimizer.step()
    found = watch.record.series("1", "input_rms")[0]
    assert found == pytest.approx(before, rel=1e-6)
    assert watch.record.series("1", "rms")[0] < 0.9 * before


def test_the_columns_of_a_record_follow_its_steps() -> None:
    record = LayerRecord()
    size = len(WEIGHT_COLUMNS)
    record.add([StepReading(0, {"a": torch.arange(ROW_SIZE).float()}, {"w": torch.ones(size)})])
    assert record.series("a", COLUMNS[2]) == {0: 2.0}
    assert record.weight_series("w", "norm") == {0: 1.0}
    record.add(
        [StepReading(3, {"a": torch.full((ROW_SIZE,), torch.nan)}, {"w": torch.zeros(size)})]
    )
    assert record.series("a", COLUMNS[2]) == {0: 2.0}
    assert record.weight_series("w", "norm") == {0: 1.0, 3: 0.0}
    other = LayerRecord()
    other.add([StepReading(7, {"a": torch.zeros(ROW_SIZE)})])
    record.load_state_dict(other.state_dict())
    assert record.series("a", COLUMNS[2]) == {7: 0.0}
    with pytest.raises(InputError, match="No watched weight is called 'w'"):
        record.weight_series("w", "norm")


def test_unread_steps_of_a_long_loop_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flambeau.inspect.watch.inspection.MOST_STEPS", 4)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    most = 0
    with inspect(model, every=1) as watch:
        for _ in range(20):
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
            most = max(most, len(watch._watch._pending))  # type: ignore[union-attr]
    assert most == 4
    # All steps up to 4, every second one up to 8, every fourth up to 16, then every eighth.
    assert watch.record.steps == [0, 8, 16]


@pytest.mark.parametrize("absent", ["", "torch._C.DisableTorchFunction"])
def test_statistics_are_not_watched_themselves(absent: str, report_absent: Any) -> None:
    """They call ``clamp``, which is a watched function."""
    if absent:
        report_absent(absent)
    x = torch.randn(8, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = model[:2](x).square().mean().sqrt().item()
    with inspect(model, every=1) as watch:
        model(x).sum().backward()
        optimizer.step()
    assert list(watch.record.layers) == ["(input)", "0", "1", "2"]
    assert watch.record.notes == []
    assert watch.record.series("1", "rms")[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("dtype", "lr", "fix"),
    [
        (torch.float32, 1e-12, "Check the learning rate of its parameter group."),
        (torch.bfloat16, 1e-4, "Keep the weights in float32"),
        (torch.float16, 1e-5, "Keep the weights in float32"),
    ],
)
def test_updates_that_are_lost_in_the_rounding_of_weights_are_named(
    dtype: torch.dtype, lr: float, fix: str
) -> None:
    """Around 1, bfloat16 numbers are 0.0039 apart or more, float16 ones 0.0005."""
    model = nn.Linear(4, 2, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.5, -1.0, 1.5], [-1.5, 1.0, 1.0, -1.0]]))
        model.bias.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    with inspect(model, every=1) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    [verdict] = watch.verdicts()
    assert verdict.kind == "frozen"
    assert fix in verdict.fix
    name = str(dtype).removeprefix("torch.")
    assert (f"its {name} weights do not change" in verdict.text) == (dtype != torch.float32)


def test_statistics_of_unknown_names_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()
    assert list(watch.record.series("1", "rms")) == [0]
    with pytest.raises(
        InputError, match=r"layer is called 'relu'\. Known names: \(input\), 0, 1\."
    ):
        watch.record.series("relu", "rms")
    with pytest.raises(InputError, match=r"No watched layer is called 'relu'"):
        watch.record.histograms("relu")
    with pytest.raises(InputError, match=r"statistic of a layer is called 'rmse'.*'rms'"):
        watch.record.series("1", "rmse")
    with pytest.raises(InputError, match=r"No watched weight is called '0\.weights'.*'0\.weight'"):
        watch.record.weight_series("0.weights", "norm")
    with pytest.raises(InputError, match="statistic of a weight is called 'size'"):
        watch.record.weight_series("0.weight", "size")


def test_gradients_of_a_plain_loop_are_those_that_the_optimizer_gets() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        model(torch.full((3, 4), 5.0)).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
    norms = [watch.record.weight_series(name, "gradient_norm")[0] for name in ("weight", "bias")]
    assert norms[0] ** 2 + norms[1] ** 2 == pytest.approx(0.25**2, rel=1e-4)


def test_copies_of_the_model_in_a_watched_step_are_not_watched(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        copies = [copy.deepcopy(model), AveragedModel(model).module]
        torch.save(model, tmp_path / "model.pt")
        copies.append(torch.load(tmp_path / "model.pt", weights_only=False))
        for _ in range(3):
            for each in copies:
                each(torch.ones(5, 4)).sum().backward()
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
    assert watch.record.layers["0"].per_sample == 8
    assert b"flambeau" not in (tmp_path / "model.pt").read_bytes()
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_compiled_object_that_the_loop_calls_in_place_of_the_model_is_noted() -> None:
    model = nn.Linear(4, 1)
    other = copy.deepcopy(model)  # like torch.compile(model), another object with the same weights
    other.weight, other.bias = model.weight, model.bias
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspect(model, every=1) as watch:
        for _ in range(4):
            other(torch.ones(2, 4)).sum().backward()
            optimizer.step()
    assert "pass that object" in str(watch)


def test_a_lazy_model_is_refused_before_the_loop() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    with pytest.raises(InputError, match=r"'0.weight' has no shape yet.*Call the model once"):
        inspect(model).__enter__()


def test_inputs_that_are_not_finite_are_a_fault_of_the_data() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.ones(8, 4)
    x[3, 2] = torch.nan
    with inspect(model, every=1) as watch:
        for _ in range(4):
            model(x).nansum().backward()
            optimizer.step()
    [verdict] = watch.verdicts()
    assert verdict.layer.startswith("(input")
    assert "Look at the data" in verdict.fix


def test_an_optimizer_that_follows_the_first_step_belongs_to_it() -> None:
    """As in a GAN whose discriminator is updated first, with the generator's output detached."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)})
    g, d = (torch.optim.SGD(model[name].parameters(), lr=0.01) for name in ("g", "d"))
    expected: dict[str, dict[int, float]] = {"g.weight": {}, "d.weight": {}}

    def update(optimizer: torch.optim.Optimizer, name: str, loss: Tensor, step: int) -> None:
        optimizer.zero_grad()
        loss.backward()
        expected[name][step] = model.get_parameter(name).grad.norm().item()
        optimizer.step()

    with inspect(model, every=1) as watch:
        for step in range(6):
            fake = model["g"](torch.randn(8, 2))
            update(d, "d.weight", model["d"](fake.detach()).mean(), step)
            update(g, "g.weight", -model["d"](fake).mean(), step)
    assert watch.record.steps == list(range(6))
    for name, norms in expected.items():
        found = watch.record.weight_series(name, "gradient_norm")
        if name == "g.weight":
            assert found.pop(0) == NO_OPTIMIZER
            del norms[0]
        assert found == pytest.approx(norms, rel=1e-5)


def test_calls_of_another_thread_without_gradients_are_not_watched() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inside, done, errors = threading.Barrier(2, timeout=60), threading.Event(), []

    class Waits(nn.Module):
        """Lets the other thread call the layers in the middle of a pass."""

        def forward(self, x: Tensor) -> Tensor:
            if threading.current_thread() is threading.main_thread():
                inside.wait()
                inside.wait()
            return x

    model.insert(1, Waits())

    def evaluate() -> None:
        try:
            while not done.is_set():
                inside.wait()
                if not done.is_set():
                    with torch.no_grad():
                        model(torch.full((4, 4), 100.0))
                inside.wait()
        except Exception as error:  # noqa: BLE001 - of any kind: the main thread reports it
            errors.append(error)
            inside.abort()

    thread = threading.Thread(target=evaluate)
    thread.start()
    with inspect(model, every=1) as watch:
        for _ in range(4):
            loss = model(torch.ones(4, 4)).sum()
            loss.backward()
            optimizer.step()
    done.set()
    inside.wait()
    inside.wait()
    thread.join()
    assert not errors
    assert max(watch.record.series("(input)", "rms").values()) == pytest.approx(1.0)
    assert len(watch.record.series("0", "rms")) == 4
    assert watch.record.noise_scale() is None


@pytest.mark.parametrize(
    ("batch", "steps", "is_found"), [(1, 8, False), (1, 70, True), (24, 3, True)]
)
def test_few_samples_do_not_show_that_units_are_dead(
    batch: int, steps: int, is_found: bool
) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[0].bias[:6] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with inspect(model, every=1) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(batch, 4)).sum().backward()
            optimizer.step()
    assert ("dead" in [verdict.kind for verdict in watch.verdicts()]) == is_found
