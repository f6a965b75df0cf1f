"""Peers on Fashion-MNIST: planted faults, and what must be chosen before a side is measured."""

from __future__ import annotations

import gzip
import importlib.util
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from flambeau_bench.case import Size
from flambeau_bench.cases.peers_vision import PeersVision, settings_of
from flambeau_bench.measurement import Measurement
from flambeau_bench.peers.environment import prepare
from flambeau_bench.peers.live_side import LiveSide, SideError
from flambeau_bench.peers.peer import FLAMBEAU, PLAIN, Peer, known_peers
from flambeau_bench.peers.peer_case import Row
from flambeau_bench.peers.rounds import measure_row
from flambeau_bench.peers.vision_trials import choose
from flambeau_bench.side import protocol
from flambeau_bench.side.protocol import Job
from flambeau_bench.side.torch_fashion import FashionTask
from flambeau_bench.verdict import Outcome, judge

BASELINES = Path(__file__).parents[2] / "packages" / "bench" / "baselines"
SIZE = Size(
    "quick",
    {"train": 48, "valid": 16, "batch_size": 16, "thousandths": 0, "epochs": 2},
    pairs=1,
    floor_pairs=0,
)


def program_of(peer: str) -> ModuleType:
    """Return the module of a side's program."""
    path = BASELINES / peer / "peers_vision.py"
    spec = importlib.util.spec_from_file_location(f"peers_vision_of_{peer}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain = program_of("plain")


class SideHere(LiveSide):
    """A side in this process."""

    def __init__(self, peer: Peer, job: Job, build: protocol.Build) -> None:
        self.peer, self._job, self._build = peer, job, build
        self.ready = {"versions": {"torch": torch.__version__}, "imports": {}}

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        answer = protocol._measured(self._build, FashionTask(self._job, request))
        return json.loads(json.dumps(answer))

    def close(self) -> None:
        """End nothing."""


class VisionHere(PeersVision):
    """The case with sides in this process: plain PyTorch as flambeau, and "faulty"."""

    def __init__(self, data: Path, build: protocol.Build) -> None:
        self.data, self.build = data, build

    def job(self, row: Row, size: Size) -> Job:
        return replace(super().job(row, size), data=str(self.data))

    def start(self, peer: Peer, row: Row, size: Size, folder: Path) -> LiveSide:
        build = self.build if peer.name == "faulty" else plain.build
        return SideHere(peer, self.job(row, size), build)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write random images in the format of Fashion-MNIST."""
    draws = np.random.default_rng(0)
    for stem, count in (("train", 48), ("t10k", 16)):
        images = draws.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", images[:, 0, 0] % 10)):
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            content = gzip.compress(head + values.tobytes())
            (tmp_path / f"{stem}-{name}-ubyte.gz").write_bytes(content)
    return tmp_path


def outcome(data: Path, build: protocol.Build) -> Outcome:
    """Return the outcome of a side in the table with equal precision and epochs."""
    case = VisionHere(data, build)
    [*_, row] = case.rows(SIZE)
    others = {name: Peer(name, data) for name in (PLAIN, FLAMBEAU)}
    [measured] = measure_row(case, row, SIZE, Peer("faulty", data), others, lambda line: None)
    return judge(case, measured)[0]


def test_without_a_fault_the_rounds_are_valid(data: Path) -> None:
    found = outcome(data, plain.build)
    assert found.invalid_pairs == {}
    assert found.gate.passed


class OnRandomImages(PeersVision):
    """The case on the images of a test, with sides in processes."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def job(self, row: Row, size: Size) -> Job:
        return replace(super().job(row, size), data=str(self.data))


@pytest.mark.baselines
@pytest.mark.parametrize("name", sorted(known_peers().keys() - {FLAMBEAU}))
def test_a_real_peer_trains_in_all_settings(name: str, data: Path) -> None:
    """Installs the peer; minutes on the first run."""
    known = known_peers()
    assert prepare(known[name], print) == ""
    case = OnRandomImages(data)
    for row in case.rows(SIZE):
        [measured] = measure_row(case, row, SIZE, known[name], known, print)
        assert judge(case, measured)[0].invalid_pairs == {}, row.name


def skip_a_batch(task: FashionTask) -> Callable[[], object]:
    task.train_images, task.train_labels = task.train_images[:32], task.train_labels[:32]
    return plain.build(task)


def train_in_bf16(task: FashionTask) -> Callable[[], object]:
    fit = plain.build(task)

    def in_bf16() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return fit()

    return in_bf16


def start_from_other_weights(task: FashionTask) -> Callable[[], object]:
    task.seed += 1
    return plain.build(task)


def leave_the_evaluation_out(task: FashionTask) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=task.lr)
    x = torch.from_numpy(task.train_images).unsqueeze(1).float()
    y = torch.from_numpy(task.train_labels)

    def fit() -> None:
        task.model.train()
        for _ in range(task.epochs):
            for rows in torch.randperm(len(x)).split(task.batch_size):
                F.cross_entropy(task.model(x[rows]), y[rows]).backward()
                optimizer.step()
                optimizer.zero_grad()

    return fit


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (skip_a_batch, "skipped steps (4 and 6)"),
        (train_in_bf16, "differ in precision: bfloat16, float32 and float32"),
        (start_from_other_weights, "differ in seed: 1 and 0"),
        (leave_the_evaluation_out, "differ in evaluated last: False and True"),
    ],
)
def test_a_fault_of_a_side_voids_its_rounds(
    data: Path, fault: Callable[[FashionTask], Callable[[], object]], reason: str
) -> None:
    found = outcome(data, fault)
    assert found.verdict == "INVALID"
    assert reason in found.invalid_pairs[0]


def test_a_part_of_train_can_be_held_out(data: Path) -> None:
    counts = {"train": 48, "valid": 16, "batch_size": 16}
    job = Job("peers-vision", "any", counts=counts, data=str(data))
    whole, held_out = (
        FashionTask(job, {"epochs": 1, "lr": 1e-3, "held_out": held}) for held in (False, True)
    )
    assert np.array_equal(held_out.valid_images, whole.train_images[-8:])
    assert np.array_equal(held_out.train_images, whole.train_images[:-8])


def test_trials_take_the_least_epochs_that_reach_the_target() -> None:
    def accuracy(epochs: int, lr: float) -> float:
        return 0.8 + 0.01 * epochs + (0.01 if lr == 3e-3 else 0.0)

    default = choose(accuracy, "default", target=0.9)
    assert (default["epochs"], default["lr"]) == (10, 1e-3)
    fast = choose(accuracy, "fast", target=0.9)
    assert (fast["epochs"], fast["lr"]) == (10, 3e-3)
    assert len(fast["trials"]) == len(default["trials"]) + 3
    assert choose(accuracy, "default", target=2.0)["epochs"] == 20


def test_a_side_below_the_target_fails_the_gate(work: Measurement) -> None:
    case = PeersVision()
    size = case.sizes["cpu"]
    [first, _, same] = case.comparisons(size)

    def pair(accuracy: float, target: float) -> tuple[Measurement, Measurement]:
        reached = replace(work, quality={"accuracy": 0.94, "target": target})
        return reached, replace(work, quality={"accuracy": accuracy, "target": target})

    assert case.gate(first, [pair(0.929, 0.93), pair(0.931, 0.93)]).passed
    assert not case.gate(first, [pair(0.929, 0.93)]).passed
    assert case.gate(same, [pair(0.931, 0.0)]).passed
    assert not case.gate(same, [pair(0.929, 0.0)]).passed
    assert first.may_differ.keys() > same.may_differ.keys()


def test_epochs_and_rates_must_be_chosen_first(tmp_path: Path) -> None:
    mine = Peer("mine", tmp_path)
    with pytest.raises(SideError, match=r"python -m flambeau_bench\.peers\.vision_trials"):
        settings_of(mine, "default")
    settings = {"default": {"epochs": 4, "lr": 0.003, "trials": []}}
    (tmp_path / "peers_vision.json").write_text(json.dumps(settings))
    assert settings_of(mine, "default") == {"epochs": 4, "lr": 0.003}
    with pytest.raises(SideError, match="the setting 'fast'"):
        settings_of(mine, "fast")


def test_the_table_with_equal_epochs_needs_no_choice(data: Path) -> None:
    case = VisionHere(data, plain.build)
    size = Size("cpu", {"train": 48, "valid": 16, "batch_size": 16, "thousandths": 930})
    default, _, same = case.rows(size)
    side = case.start(Peer("mine", data), same, size, data)
    measured = case.measurement(side, same, size, 7)
    assert measured.notes == "3 epochs, lr 0.001"
    assert measured.settings["seed"] == 7
    with pytest.raises(SideError, match="are not chosen"):
        case.measurement(side, default, size, 7)
