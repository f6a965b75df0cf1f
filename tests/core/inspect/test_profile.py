"""``Learner.profile`` names planted bottlenecks, promises their gain, and changes nothing.

No test compares a time with a limit: a planted cause takes about ten times as long as the rest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from flambeau import EMA, Batch, Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, FlambeauWarning, StorageError
from flambeau.inspect import Profile, profile_changes
from flambeau.torch_internals import dispatch_mode_class
from flambeau.tuning.trial import Trial

QUIET = TrainingOptions(doctor=False)


def decode(index: int) -> Tensor:
    """Like the decoder of a library: the time passes in compiled code."""
    time.sleep(0.004)
    return torch.full((6,), float(index % 7))


def loop(index: int) -> Tensor:
    """Only Python."""
    total = 0
    for number in range(60_000):
        total += number % (index % 5 + 2)
    return torch.full((6,), float(total % 7))


class Samples(Dataset[tuple[Tensor, int]]):
    def __init__(self, read: Callable[[int], Tensor], n: int = 2_000) -> None:
        self.read, self.n = read, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.read(index), index % 2


def small_net(inputs: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 2))


def table(n: int = 2_000, inputs: int = 6) -> TensorData:
    x = torch.randn(n, inputs, generator=torch.Generator().manual_seed(0))
    return TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=0.02)


def learner_of(
    data: TensorData,
    model: nn.Module,
    choices: Mapping[str, Any],
    training: TrainingOptions = QUIET,
) -> Learner:
    choices = {"probe": "off", "lr": 0.01, "num_threads": 1, **choices}
    return Learner(data, model, choices=choices, training=training, quiet=True)


def reading_with(read: Callable[[int], Tensor], workers: int) -> Learner:
    data = TensorData.from_datasets(Samples(read), n_classes=2)
    return learner_of(data, small_net(), {"batch_size": 8, "num_workers": workers})


def slow_decoding() -> Learner:
    return reading_with(decode, 0)


def one_worker() -> Learner:
    return reading_with(decode, 1)


def tiny_batches() -> Learner:
    layers = [layer for _ in range(24) for layer in (nn.Linear(6, 6), nn.ReLU())]
    return learner_of(table(), nn.Sequential(*layers, nn.Linear(6, 2)), {"batch_size": 2})


def small_batch_for_the_memory() -> Learner:
    """A table of 26 MB, of which a step reads two rows, and updates all."""
    x = torch.randint(200_000, (400, 1), generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, x[:, 0] % 2, valid=0.02)
    model = nn.Sequential(nn.Embedding(200_000, 32), nn.Flatten(), nn.Linear(32, 2))
    return learner_of(data, model, {"batch_size": 2, "optimizer": "adamw"})


def python_transform(batch: Batch, seed: int) -> Batch:
    for index in range(4):
        loop(index)
    return batch


def slow_transform() -> Learner:
    training = TrainingOptions(doctor=False, transforms=(python_transform,))
    return learner_of(table(), small_net(), {"batch_size": 8}, training)


def slow_python_in_the_data() -> Learner:
    return reading_with(loop, 0)


class Waits(nn.Module):
    """Waits in compiled code, as for a file or a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return self.net(x)


def waiting_model() -> Learner:
    return learner_of(table(), Waits(), {"batch_size": 8})


class ReadsItsInput(nn.Module):
    """Reads a value on the host in each step, as one does to print a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.largest = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.largest = x.max().item()
        return self.net(x)


def host_read() -> Learner:
    return learner_of(table(), ReadsItsInput(), {"batch_size": 8})


def busy_device() -> Any:
    """A context in which each read of a value waits, as for a device that is still computing."""
    mode = dispatch_mode_class()
    assert mode is not None

    class Busy(mode):
        def __torch_dispatch__(
            self, operator: Any, types: Any, arguments: Any = (), named: Any = None
        ) -> Any:
            if operator.name() == "aten::_local_scalar_dense":
                time.sleep(0.03)
            return operator(*arguments, **(named or {}))

    return Busy()


# ---------------------------------------------------------------- the verdict

PLANTED: dict[str, tuple[Callable[[], Learner], str, str]] = {
    "slow decoding": (slow_decoding, "decoding", "decode (test_profile.py:"),
    "one worker": (one_worker, "decoding", "1 worker"),
    "tiny batches": (tiny_batches, "launch", "operators per step"),
    "a host read each step": (host_read, "synchronisation", "1× forward (test_profile.py:"),
    "a batch far below the memory": (small_batch_for_the_memory, "memory", "for 2 samples"),
    "a Python transform": (slow_transform, "Python", "loop (test_profile.py:"),
    "a model that waits": (waiting_model, "Python", "forward (test_profile.py:"),
    "Python in the data set": (slow_python_in_the_data, "Python", "loop (test_profile.py:"),
}


def profile_of(name: str, **arguments: Any) -> Profile:
    learner = PLANTED[name][0]()
    with busy_device() if name == "a host read each step" else nullcontext():
        return learner.profile(**arguments)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bottleneck_is_named(name: str) -> None:
    found = profile_of(name, steps=16, try_changes=False)
    _, part, evidence = PLANTED[name]
    assert found.bottleneck == part, str(found)
    assert found.parts[0].share > 60, str(found)
    assert evidence in found.parts[0].evidence
    assert found.changes
    assert all(change.measured is None for change in found.changes)
    assert sum(each.share for each in found.parts) == pytest.approx(100)
    assert sum(each.seconds for each in found.parts) == pytest.approx(found.step_s, rel=1e-6)
    assert {each.name for each in found.parts} == NAMES


NAMES = {
    "reading", "decoding", "transfer", "launch", "compute", "memory", "synchronisation", "Python",
    "evaluation",
}  # fmt: skip


def test_evaluations_after_every_step_are_named() -> None:
    fast, slow = Samples(lambda index: torch.ones(6), 40), Samples(decode, 16)
    data = TensorData.from_datasets(fast, valid=slow, n_classes=2)
    choices = {"batch_size": 4, "evaluate_every": 1, "num_workers": 0}
    found = learner_of(data, small_net(), choices).profile(4)
    assert found.bottleneck == "evaluation", str(found)
    [change] = found.changes
    assert change.choices["evaluate_every"] > 5
    assert change.expected > 5


def test_the_table_shows_parts_advice_and_changes() -> None:
    found = profile_of("tiny batches", steps=16, try_changes=False)
    text = str(found)
    assert text.startswith("A training step of 2 samples takes ")
    assert "on cpu with 1 thread, fp32; 16 steps timed." in text
    assert "Bottleneck: launch. " in text
    assert any(line.startswith("batch_size 2 → 16 ") for line in text.splitlines())
    assert "not tried" in text
    assert "<table>" in found._repr_html_()


def test_a_change_is_promised_before_it_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    learner = slow_decoding()
    learner.quiet = False
    found = learner.profile(4)
    [change] = found.changes
    workers = change.choices["num_workers"]
    assert workers > 1
    assert change.what == f"num_workers 0 → {workers}"
    printed = capsys.readouterr()
    line = f"Trying num_workers 0 → {workers}: {change.expected:.2f}× expected."
    assert line in printed.err + printed.out
    assert change.measured is not None
    assert change.measured > 1.2


def test_a_tried_change_counts_with_its_median_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round beside another program has half the speed; it must not halve the gain."""
    rates = iter([100.0, 40.0, 100.0, 200.0, 50.0, 200.0, 90.0, 210.0, 100.0, 200.0])
    monkeypatch.setattr(profile_changes, "samples_per_s", lambda *_: next(rates))
    [change] = slow_decoding().profile(4).changes
    assert change.measured == pytest.approx(2.0)
    assert next(rates, None) is None


def test_a_slow_change_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([100.0, 300.0])
    monkeypatch.setattr(profile_changes, "samples_per_s", lambda *_: next(rates))
    monkeypatch.setattr(profile_changes, "_TRY_LIMIT_S", 0.0)
    [change] = slow_decoding().profile(4).changes
    assert change.measured == pytest.approx(3.0)


# ---------------------------------------------------------------- nothing changes


def digest(learner: Learner) -> str:
    found = hashlib.sha256()
    for value in learner.model.state_dict().values():
        found.update(value.detach().numpy().tobytes())
    found.update(torch.get_rng_state().numpy().tobytes())
    found.update(repr((random.getstate(), np.random.get_state())).encode())
    return found.hexdigest()


def trained(*, profiled: bool) -> str:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2)
    )
    training = TrainingOptions(doctor=False, average=EMA(), clip_norm=1.0, accumulate=2)
    learner = learner_of(table(200), net, {"batch_size": 8}, training)
    learner.fit(1)
    if profiled:
        before, plan = digest(learner), learner.plan.to_json()
        learner.profile(4)
        assert digest(learner) == before
        assert learner.plan.to_json() == plan
        assert len(learner.history.rows) == 1
        assert all(parameter.grad is None for parameter in learner.model.parameters())
    learner.fit(1)
    return digest(learner)


def test_a_fit_after_a_profile_equals_one_without() -> None:
    assert trained(profiled=True) == trained(profiled=False)


def test_an_error_in_a_step_is_raised_and_restores_the_weights() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = small_net(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 4:
                raise RuntimeError("the fourth call")
            return self.net(x)

    learner = learner_of(table(), Broken(), {"batch_size": 8})
    before = digest(learner)
    with pytest.raises(RuntimeError, match="the fourth call"):
        learner.profile(4, try_changes=False)
    assert digest(learner) == before


def test_the_trace_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trace.json"
    found = learner_of(table(), small_net(), {"batch_size": 8}).profile(
        3, try_changes=False, trace=path
    )
    assert found.trace == path
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert "aten::linear" in names
    assert str(path) in str(found)


def test_a_trace_that_cannot_be_written_is_refused_before_the_steps(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    learner = learner_of(table(), small_net(), {"batch_size": 8})
    with pytest.raises(StorageError, match=r"Cannot write .*trace\.json"):
        learner.profile(3, try_changes=False, trace=tmp_path / "file" / "trace.json")
    with pytest.raises(StorageError, match="Cannot write"):
        learner.profile(3, try_changes=False, trace=tmp_path)


def test_a_trace_that_fails_later_does_not_lose_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", full)
    path = tmp_path / "trace.json"
    learner = learner_of(table(), small_net(), {"batch_size": 8})
    found = learner.profile(3, try_changes=False, trace=path)
    assert found.trace is None
    assert any("The trace is not written: Cannot write" in note for note in found.notes)
    assert not path.exists()


def test_a_loader_of_the_user_is_profiled_and_not_changed() -> None:
    class Stream(IterableDataset[tuple[Tensor, int]]):
        def __iter__(self) -> Iterator[tuple[Tensor, int]]:
            return ((decode(index), index % 2) for index in range(400))

        def __len__(self) -> int:
            return 400

    batches = DataLoader(Stream(), batch_size=8)
    learner = learner_of(TensorData.from_loaders(batches, n_classes=2), small_net(), {})
    with pytest.warns(FlambeauWarning, match="loader-moved"):
        found = learner.profile(3)
    assert found.bottleneck == "decoding"
    assert not found.changes
    assert any("num_workers" in note for note in found.notes)


def test_steps_must_be_positive() -> None:
    with pytest.raises(ArgumentError, match="steps is 0"):
        tiny_batches().profile(0)


# ---------------------------------------------------------------- the gain


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["slow decoding", "one worker", "tiny batches", "a batch far below the memory"]
)
def test_the_measured_gain_is_near_the_promise(name: str) -> None:
    """A ratio of two measurements next to each other; the promise comes from other steps."""
    [change] = profile_of(name).changes
    assert change.measured is not None
    assert change.measured >= 1.2
    assert change.measured == pytest.approx(change.expected, rel=0.2)


def test_a_batch_that_does_not_fit_into_memory_does_not_lose_the_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> int:
        raise torch.OutOfMemoryError("out of memory\nand more")

    monkeypatch.setattr(Trial, "peak_bytes", fail)
    found = profile_of("tiny batches", steps=4, try_changes=False)
    assert "Larger batches are not tried: out of memory" in found.notes
    assert found.bottleneck == "launch"
