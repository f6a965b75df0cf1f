"""The finder on real fits: it leaves no trace, refuses where nothing is learned, has a bound."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from flambeau import EMA, Callback, Data, Learner, ReduceOnPlateau, TensorData, TrainingOptions
from flambeau.data.batch import Batch
from flambeau.task import Task
from flambeau.tuning import lr_finder
from flambeau.tuning.lr_finder import MAX_STEPS, MIN_STEPS


class Net(nn.Module):
    """Batch norm and dropout; draws from every generator in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.stem = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + 0.01 * random.random() + 0.01 * float(np.random.rand())
        return self.head(self.stem(x))


def table(n: int = 200) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


class Noisy(Dataset[Any]):
    """Augments with the global generators, as a user's own data set does."""

    def __init__(self) -> None:
        self.x, self.y = table()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.rand(6) + random.random() + float(np.random.rand())
        return self.x[index] + 0.1 * noise, int(self.y[index])


VALID = DataLoader(TensorDataset(*table(40)), 16)


def tensors() -> Data:
    return TensorData.from_tensors(*table(), valid=0.2)


def loaders() -> Data:
    own = torch.Generator().manual_seed(3)
    return TensorData.from_loaders(
        DataLoader(Noisy(), 16, shuffle=True, generator=own), VALID, n_classes=3
    )


def momentum(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stem": torch.optim.SGD(model.stem.parameters(), values["lr"], momentum=0.9),
        "head": torch.optim.AdamW(model.head.parameters(), values["lr"] / 10),
    }


class Kept:
    """An optimizer that is made once and goes on in every fit, with what it remembers."""

    def __init__(self) -> None:
        self.made: dict[str, Any] | None = None

    def __call__(self, model: nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
        if self.made is None:
            self.made = {"main": torch.optim.Adam(model.parameters())}
        for group in self.made["main"].param_groups:
            group["lr"] = values["lr"]
        return self.made


EVERYTHING = {
    "average": EMA(0.9),
    "accumulate": 2,
    "clip_norm": 1.0,
    "controllers": (ReduceOnPlateau(patience=1),),
    "keep_best": "valid_loss",
}
CASES: Mapping[str, tuple[Callable[[], Data], Callable[[], dict[str, Any]], dict[str, Any]]] = {
    "plain": (tensors, dict, {}),
    "everything at once": (tensors, lambda: dict(EVERYTHING), {}),
    "bf16": (tensors, dict, {"precision": "bf16"}),
    "a loader of one's own": (loaders, dict, {}),
    "several optimizers": (tensors, lambda: {"optimizer": momentum}, {}),
    "an optimizer that is kept": (tensors, lambda: {"optimizer": Kept()}, {}),
}


def make(case: str = "plain", model: nn.Module | None = None, **arguments: Any) -> Learner:
    data, options, choices = CASES[case]
    return Learner(
        data(),
        model or Net(),
        choices={"batch_size": 16, **choices, **arguments.pop("choices", {})},
        training=TrainingOptions(**options(), doctor=False),
        quiet=True,
        **arguments,
    )


def outcome(learner: Learner) -> list[Any]:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in learner.history.rows]
    weights = {name: value.tolist() for name, value in learner.model.state_dict().items()}
    generators = [float(torch.rand(1)), random.random(), float(np.random.rand())]
    return [list(learner.history.step_losses), rows, weights, generators]


@pytest.mark.parametrize("case", CASES)
def test_a_fit_is_the_same_with_and_without_it(case: str) -> None:
    def run(find: bool) -> list[Any]:
        seen: list[Tensor] = []

        class Batches(Callback):
            def on_step_start(self, state: Any) -> None:
                seen.append(state.model.head.weight.clone())

        learner = make(case, callbacks=[Batches()])
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        if find:
            learner.lr_find()
        learner.fit(1, lr=1e-2)
        if find:
            before = learner.plan, len(learner.history.rows), len(seen)
            found = learner.lr_find()
            assert MIN_STEPS / 3 < found.steps <= MAX_STEPS
            assert (learner.plan, len(learner.history.rows), len(seen)) == before
        learner.freeze()
        learner.fit(1, lr=1e-3)
        return outcome(learner)

    assert run(find=True) == run(find=False)


def test_modes_and_requires_grad_are_restored() -> None:
    model = Net()
    model.stem[0].weight.requires_grad_(False)
    model.eval()
    model.stem[1].train()
    learner = make(model=model)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    learner.lr_find()
    after = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    assert after == before


def test_state_is_restored_after_an_error() -> None:
    class Fails(Net):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Fails.calls += 1
            if Fails.calls == 20:
                raise ValueError("at step 19")
            return super().forward(x)

    learner = make(model=Fails())
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="at step 19"):
        learner.lr_find()
    assert all(torch.equal(value, before[n]) for n, value in learner.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_value_with_an_interval_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = make().lr_find()
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 5e-4 < found.low <= found.value <= found.high < 1
    assert f"Learning rate {found.value:g}: " in str(found)
    assert len(found.sweep.rates) == len(found.sweep.losses)
    assert list(found.sweep.rates) == sorted(found.sweep.rates)
    assert found.steps == len(found.sweep.losses) + sum(len(run.losses) for run in found.runs)
    assert all(run.loss > 0 for run in found.runs)
    found.plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").stat().st_size > 1000


def test_the_limit_on_steps() -> None:
    for most in (MIN_STEPS, 100):
        assert make().lr_find(max_steps=most).steps <= most
    with pytest.raises(ValueError, match=r"max_steps is 10, but lr_find needs at least 60"):
        make().lr_find(max_steps=10)


# ---------------------------------------------------------------- no learning rate found


class Deaf(nn.Module):
    """Its answer hangs on nothing that it could learn: every input is 0, and there is no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * 0)


class Broken(nn.Module):
    """Not a number from the ``good``-th step on."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.head, self.good, self.calls = nn.Linear(6, 3), good, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(x) * (math.nan if self.calls > self.good else 1.0)


class Noise(nn.Module):
    """Draws its answer, so that the loss scatters and no weight changes that."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x * 0) + torch.randn(len(x), 3)


def same_target() -> Data:
    return TensorData.from_tensors(
        table()[0], torch.full((200,), 2.5), valid=0.2, task="regression"
    )


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (Deaf(), None, "the loss is 1.099 at every learning rate, so training does not"),
        (Broken(0), None, "the loss is not finite at the first step"),
        (Broken(3), None, "the loss is not finite after 3 steps, at lr "),
        (Noise(), None, "the loss does not decrease at any learning rate from "),
        (None, same_target(), "all targets in 30 steps are identical"),
    ],
    ids=["deaf", "not finite at once", "not finite soon", "noise", "constant target"],
)
def test_no_learning_rate_with_a_reason(
    model: nn.Module | None, data: Data | None, words: str, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    learner = Learner(data or tensors(), model, choices={"batch_size": 16}, quiet=True)
    found = learner.lr_find()
    assert found.value is found.low is found.high is None
    assert words in found.reason
    assert str(found).startswith(f"No learning rate: {found.reason} (")
    found.plot(tmp_path / "lr.png")


@pytest.mark.parametrize("n", [64, 60])
def test_targets_of_several_lengths_are_measured(n: int) -> None:
    class Sequences(Task):
        """Squared error of each position."""

        def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
            return ((outputs - batch.target) ** 2).sum(), float(batch.target.numel())

        def decode(self, outputs: Tensor) -> list[Any]:
            return list(outputs)

    draws = torch.Generator().manual_seed(0)
    batches = []
    for start in range(0, n, 8):
        x = torch.randn(min(8, n - start), 4 + start % 3, 1, generator=draws)
        batches.append((x, 2 * x))
    data = TensorData.from_loaders(batches, batches)
    found = Learner(data, nn.Linear(1, 1), task=Sequences(), quiet=True).lr_find()
    assert found.value is not None


def test_noise_rarely_gives_a_learning_rate() -> None:
    found = 0
    for seed in range(20):
        torch.manual_seed(seed)
        learner = Learner(tensors(), Noise(), choices={"batch_size": 16}, seed=seed, quiet=True)
        found += learner.lr_find().value is not None
    assert found <= 1


# ---------------------------------------------------------------- before a fit


def long_run(**arguments: Any) -> Learner:
    """Of 2,000 steps, a twentieth of which may go into measuring."""
    return make(**arguments)


@pytest.mark.slow
def test_a_long_run_of_an_unknown_model_measures_first(tmp_path: Path) -> None:
    learner = long_run()
    assert learner.plan["lr"].confidence < 0.5
    learner.fit(200, schedule="constant")
    choice = learner.plan["lr"]
    assert choice.confidence > 0.5
    assert choice.source == "rule"
    outcome = choice.evidence["lr_find"]
    assert outcome["value"] == choice.value == learner.history.rows[-1]["lr"]
    assert outcome["run_steps"] == len(learner.history.step_losses) == 2000
    assert outcome["steps"] <= 100
    assert f"{outcome['steps']} steps, {outcome['steps'] / 2000:.1%} of the run's 2,000" in (
        choice.reason
    )
    assert min(run["loss"] for run in outcome["runs"]) < outcome["start_loss"]

    # A replay measures nothing: same rate, and the same weights.
    learner.plan.save(tmp_path / "plan.json")
    again = long_run(plan=tmp_path / "plan.json")
    assert again.plan["lr"] == choice
    again.fit()
    assert again.plan["lr"] == choice
    # Nor does a second fit.
    again.fit(200)
    assert again.plan["lr"] == choice


def test_where_nothing_is_measured() -> None:
    def same_after(learner: Learner, epochs: int, **given: Any) -> None:
        before = learner.plan["lr"]
        learner.fit(epochs, **given)
        if given:
            assert learner.plan["lr"].value == given["lr"]
        else:
            assert learner.plan["lr"] == before

    same_after(long_run(), 5)  # too short
    same_after(long_run(), 120, lr=1e-2)
    same_after(long_run(choices={"lr": 1e-2}), 120)
    same_after(Learner(tensors(), choices={"batch_size": 16}, quiet=True), 120)  # MLP: documented
    same_after(make("several optimizers"), 120)


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return 200

    def __iter__(self) -> Any:
        yield from zip(*table(), strict=True)


@pytest.mark.filterwarnings(r"ignore:\[lagging-statistics\]")  # of short runs on a stream
def test_a_stream_is_measured_only_when_asked() -> None:
    data = TensorData.from_loaders(DataLoader(Stream(), 16), DataLoader(Stream(), 16), n_classes=3)
    unseen = TrainingOptions(doctor=False)  # it would batch_order a batch of the stream
    learner = Learner(data, Net(), training=unseen, quiet=True)
    before = learner.plan["lr"]
    learner.fit(120)
    assert learner.plan["lr"] == before
    with pytest.warns(UserWarning, match=r"\[loader-moved\] .*IterableDataset"):
        assert learner.lr_find().steps > 0


@pytest.mark.filterwarnings("ignore:.no-gradient")  # which is meant here
def test_the_fallback_if_no_rate_was_found() -> None:
    learner = long_run(model=Deaf())
    fallback = learner.plan["lr"].value
    learner.fit(120)
    choice = learner.plan["lr"]
    assert choice.value == fallback
    assert choice.confidence < 0.5
    assert (
        "lr_find found no learning rate: the loss is 1.099 at every learning rate" in choice.reason
    )
    learner.fit(120)
    assert learner.plan["lr"] == choice


def test_progress_lines_of_lr_find(capsys: pytest.CaptureFixture[str]) -> None:
    learner = long_run()
    learner.quiet = False
    learner.fit(200)
    said = capsys.readouterr().err
    assert (
        "No default learning rate is known for this model; running lr_find (up to 100 steps)."
        in said
    )
    assert f"Learning rate {learner.plan['lr'].value:g}: " in said


def test_rates_are_compared_on_the_same_batches_and_repeats_draw_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lr_finder, "is_noisy", lambda runs: True)  # so that runs are repeated
    seen: SimpleQueue[tuple[int, ...]] = SimpleQueue()  # lr_find restores a list

    def record(batch: Batch, seed: int) -> Batch:
        assert batch.indices is not None
        seen.put(tuple(batch.indices.tolist()))
        return batch

    draws = torch.Generator().manual_seed(1)
    x = torch.randn(300, 6, generator=draws)
    y = ((x[:, 0] + 2 * torch.randn(300, generator=draws)) > 0).long()
    learner = Learner(
        TensorData.from_tensors(x, y),
        nn.Linear(6, 2),
        choices={"batch_size": 8},
        training=TrainingOptions(transforms=(record,), doctor=False),
        quiet=True,
    )
    found = learner.lr_find(max_steps=MAX_STEPS * 3)
    rows = [seen.get() for _ in range(seen.qsize())]
    position = len(found.sweep.losses)
    first = {0: {tuple(rows[:3])}}
    for run in found.runs:
        first.setdefault(run.batch_order, set()).add(tuple(rows[position : position + 3]))
        position += len(run.losses)
    assert position == len(rows)
    assert first.keys() == {0, 1, 2}
    assert [len(batches) for batches in first.values()] == [1, 1, 1]
    assert len(set.union(*first.values())) == 3
