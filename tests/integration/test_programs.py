"""The programs of ``examples/programs`` are as short as plain PyTorch, and reach its result."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau_bench.syntax_nodes import count_nodes

FOLDER = Path(__file__).parents[2] / "examples" / "programs"
NAMES = sorted(path.stem.removesuffix("_plain") for path in FOLDER.glob("*_plain.py"))
Found = dict[str, Any]


def generated_mean(found: Found) -> float:
    return -abs(found["generator"](torch.randn(4000, 2)).mean().item() - 4)


def bound(found: Found) -> float:
    """The evidence lower bound of the points, for the terms that either program has."""
    vae, x = found["vae"].eval(), found["points"]
    decoded, mean, log_var = vae(x)
    error = (decoded - x).square().sum(1) / 0.02
    divergence = (mean.square() + log_var.exp() - 1 - log_var).sum(1) / 2
    return -(error + divergence).mean().item()


def nearest_centre(found: Found) -> float:
    """Accuracy of the class whose mean feature is nearest."""
    features = torch.nn.functional.normalize(found["encoder"].eval()(found["x"]))
    label = found["label"]
    centres = torch.stack([features[label == each].mean(0) for each in (0, 1)])
    return (torch.cdist(features, centres).argmin(1) == label).float().mean().item()


def pairs_told_apart(found: Found) -> float:
    a, b = torch.randn(2, 4000, 8)
    same = (a[:, 0] > 0) == (b[:, 0] > 0)
    return ((found["model"].eval()(a, b) < 0.5) == same).float().mean().item()


def accuracy(found: Found) -> float:
    x = torch.randn(4000, 8)
    return (found["student"].eval()(x).argmax(1) == (x[:, 0] * x[:, 1] > 0)).float().mean().item()


def written(found: Found) -> float:
    text = "".join(found["alphabet"][code] for code in found["written"])
    return float(text in found["TEXT"])


RESULTS: dict[str, tuple[Callable[[Found], float], float, float]] = {
    # name: (the figure, higher is better; what the plain program reaches; the tolerance)
    "characters": (written, 1.0, 0.0),
    "distillation": (accuracy, 0.95, 0.02),
    "gan": (generated_mean, -0.3, 0.2),
    "siamese": (pairs_told_apart, 0.93, 0.02),
    "simclr": (nearest_centre, 0.92, 0.03),
    "vae": (bound, -5.5, 0.5),
}


def test_all_programs_are_compared() -> None:
    assert sorted(RESULTS) == NAMES
    assert len(list(FOLDER.glob("*.py"))) == 2 * len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_program_is_no_longer_than_plain_pytorch(name: str) -> None:
    assert count_nodes(FOLDER / f"{name}.py") <= count_nodes(FOLDER / f"{name}_plain.py")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_counts(name: str) -> None:
    page = (FOLDER.parents[1] / "docs" / "training.md").read_text("utf-8")
    counts = [count_nodes(FOLDER / f"{file}.py") for file in (name, f"{name}_plain")]
    assert f"{name}.py) | {counts[0]} | {counts[1]} |" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_program_reaches_the_result_of_plain_pytorch(name: str) -> None:
    figure, wanted, tolerance = RESULTS[name]
    reached: dict[str, float] = {}
    for program in (f"{name}_plain", name):
        found = runpy.run_path(str(FOLDER / f"{program}.py"))
        torch.manual_seed(1)
        with torch.no_grad():
            reached[program] = figure(found)
    assert reached[f"{name}_plain"] >= wanted
    assert reached[name] >= reached[f"{name}_plain"] - tolerance
