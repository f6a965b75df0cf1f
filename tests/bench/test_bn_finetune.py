"""The experiment at a tiny scale: each policy does what it says, and the report is correct."""

from __future__ import annotations

import copy
import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flambeau_bench.case import Size
from flambeau_bench.cases import bn_policies, bn_report
from flambeau_bench.cases.bn_finetune import BatchNormFineTune
from flambeau_bench.cases.bn_policies import Cell, ConvNet, Scale

SCALE = Scale(
    width=4, source=120, source_epochs=1, target=48, tests=60, epochs=((2, 1), (4, 1), (32, 4))
)


def write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write ten classes of different brightness as files of Fashion-MNIST."""
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    draws = np.random.default_rng(0)
    for stem, n in (("train", 400), ("t10k", 200)):
        labels = np.arange(n) % 10
        pixels = draws.integers(0, 40, (n, 28, 28)) + 20 * labels[:, None, None]
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)
    monkeypatch.setenv("FLAMBEAU_DATA", str(tmp_path))
    for cached in (
        bn_policies.train,
        bn_policies.source,
        bn_policies._images,
        bn_policies._target,
    ):
        cached.cache_clear()


def trained_with(monkeypatch: pytest.MonkeyPatch, cell: Cell, policy: str) -> tuple[Any, ...]:
    """Return the networks before and after fine-tuning, and the result."""
    nets: list[ConvNet] = []
    real = bn_policies._gap

    def gap(net: ConvNet, *arguments: Any) -> float:
        nets.append(copy.deepcopy(net))
        return real(net, *arguments)

    monkeypatch.setattr(bn_policies, "_gap", gap)
    bn_policies.train.cache_clear()
    outcome = bn_policies.train(cell, policy, 0, SCALE)
    return bn_policies.source(0, SCALE)[0], nets[-1], outcome


@pytest.mark.parametrize("trained", ["head", "all"])
@pytest.mark.parametrize("policy", ["A", "B", "C", "D", "E", "E+"])
def test_each_policy_changes_what_it_says(
    policy: str, trained: str, images: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, _ = trained_with(monkeypatch, Cell(trained, 32, "strong"), policy)
    moved = {"statistics": False, "scale": False, "weight": False}
    for old, new in zip(before.body, after.body, strict=True):
        if isinstance(old, nn.BatchNorm2d):
            moved["statistics"] |= not torch.equal(old.running_mean, new.running_mean)
            moved["scale"] |= not torch.equal(old.weight, new.weight)
        elif isinstance(old, nn.Conv2d):
            moved["weight"] |= not torch.equal(old.weight, new.weight)
    everything = trained == "all"
    assert moved == {
        "statistics": policy not in "AC",
        "scale": policy in ("D", "E+") or (everything and policy in "CE"),
        "weight": everything,
    }


def test_auto_is_bitwise_equal_to_the_policy_it_chose(images: None) -> None:
    for batch_size, policy in ((2, "E+"), (32, "D")):
        cell = Cell("head", batch_size, "strong")
        auto = bn_policies.train(cell, "auto", 0, SCALE)
        chosen = bn_policies.train(cell, policy, 0, SCALE)
        assert auto.chosen == chosen.chosen
        assert (auto.error_pct, auto.gap) == (chosen.error_pct, chosen.gap)


def test_a_measurement_has_its_evidence(images: None) -> None:
    case, counts = BatchNormFineTune(), {"width": 4, "source": 120, "source_epochs": 1}
    counts |= {"target": 48, "tests": 60, "epochs_of_2": 1, "epochs_of_4": 1, "epochs_of_32": 4}
    size = Size("quick", counts, pairs=1, floor_pairs=0)
    comparison = next(c for c in case.comparisons(size) if c.candidate == "auto")
    measured = [case.measure(comparison, side, size, 0) for side in ("B", "auto")]
    assert measured[0].init_hash == measured[1].init_hash
    assert measured[1].notes.startswith("auto chose ")
    pairs = [(measured[0], measured[1])]
    accuracy = measured[0].quality["source_accuracy"]
    assert case.gate(comparison, pairs).passed == (accuracy >= 0.85)


# ---------------------------------------------------------------- the report


def record(policy: str, seed: int, error: float, *, gap: float = 1.0) -> dict[str, Any]:
    return {
        "case": "bn-finetune",
        "kind": "run",
        "side": policy,
        "pair": seed,
        "figures": {"error_pct": error, "gap": gap, "warned": float(gap > 2)},
        "settings": {"cell": "all, batch 32, strong"},
        "notes": "auto chose train: distance 0.5, noise 0.01 nats" if policy == "auto" else "",
    }


def some_records() -> list[dict[str, Any]]:
    means = {"A": 60.0, "B": 11.0, "C": 20.0, "D": 10.0, "E": 15.0, "auto": 10.0}
    return [
        record(policy, seed, error + seed, gap=4.0 if policy == "A" else 1.0)
        for policy, error in means.items()
        for seed in range(3)
    ]


def test_the_report_has_ratios_of_means_with_intervals(tmp_path: Path) -> None:
    records = some_records()
    text = bn_report.section([*records, *records], tmp_path)  # a repeated run counts once
    assert "mean over 3 seeds" in text
    assert "**11.0 (10.0–12.0)**" in text  # D; auto does not count
    # Means of 61, 21 and 11: ratios of 2.9 and 5.5.
    assert "2.9× (" in text
    assert "5.5× (" in text
    assert "| D | +0.0 (+0.0 to +0.0) | 4 | 1 |" in text
    assert "| train 3× | distance 0.5, noise 0.01 nats | A 3 |" in text
    for name in bn_report.FIGURES:
        assert (tmp_path / name).stat().st_size > 5_000


def test_without_records_there_is_no_section(tmp_path: Path) -> None:
    assert bn_report.section([{"case": "other", "kind": "run"}], tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
