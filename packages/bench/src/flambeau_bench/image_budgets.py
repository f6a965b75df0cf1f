"""``fit_auto`` on image sets within a time budget, against a grid of sizes and recipes.

A cell is a data set, a setting, a seed and a budget. One command runs one cell and appends one line
to a file; a cell that the file has already is skipped, so that an interrupted series continues:

    FLAMBEAU_DATA=… python -m flambeau_bench.image_budgets cell fashion_mnist auto --seed 0
    FLAMBEAU_DATA=… python -m flambeau_bench.image_budgets cell ants_bees_wide 64/one_cycle --seed 0
    FLAMBEAU_DATA=… python -m flambeau_bench.image_budgets all
    python -m flambeau_bench.image_budgets results

"auto" is ``Learner(data).fit_auto(minutes)`` without further arguments. "SIZE/RECIPE" fixes the
size and trains as long: with ``fit_auto`` ("auto"), or with one cycle of the epochs that fit.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import typer

from flambeau import Learner, Split, TrainingOptions
from flambeau.report import text_table
from flambeau.tuning.budget import intervals_within
from flambeau.tuning.speed import measure_speed
from flambeau_bench import machine
from flambeau_bench.case import Size
from flambeau_bench.cases.vision_fit import read_fashion_mnist
from flambeau_bench.real_data import folder_of
from flambeau_vision import ImageData, ImageOptions

Labelled = tuple[list[Any], list[str]]
"""Images that ``ImageData.from_items`` accepts, and their labels."""

KEYS = ("data", "setting", "seed", "minutes")
"""What identifies a cell."""

CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_VALID = 0.1
_SPEED_LIMIT_S = 2.0


# ---------------------------------------------------------------- data sets


def fashion_mnist(n: int | None = None) -> tuple[Labelled, Labelled]:
    """Return train and test images of Fashion-MNIST; the first ``n`` of train."""
    parts = read_fashion_mnist(Size("whole", {"train": n or 60_000, "valid": 10_000}))
    train, test = (_labelled(*parts[part]) for part in ("train", "valid"))
    return train, test


def _labelled(images: Any, labels: Any) -> Labelled:
    return list(images), [str(label) for label in labels]


def cifar10(counts: Mapping[str, int] | None = None) -> tuple[Labelled, Labelled]:
    """Return train and test images; with ``counts`` only these classes, so many of train each."""
    found: dict[str, Labelled] = {"train": ([], []), "test": ([], [])}
    taken: dict[str, int] = defaultdict(int)
    with zipfile.ZipFile(folder_of("cifar10_12k") / "cifar10_12k.zip") as archive:
        for name in sorted(archive.namelist()):
            part, _, rest = name.partition("/")
            label, _, file = rest.partition("/")
            if not file or (counts is not None and label not in counts):
                continue
            if part == "train" and counts is not None and taken[label] >= counts[label]:
                continue
            taken[label] += part == "train"
            found[part][0].append(archive.read(name))
            found[part][1].append(label)
    return found["train"], found["test"]


def uneven_counts() -> dict[str, int]:
    """Return 1,000 images of the first class of CIFAR-10 down to 100 of the last."""
    return {name: round(1_000 * 10 ** (-index / 9)) for index, name in enumerate(CIFAR10)}


def ants_bees_wide() -> tuple[Labelled, Labelled]:
    """Return the photographs of ants and bees at one end of a grey canvas of 3:1."""
    from PIL import Image

    found: dict[str, Labelled] = {part: ([], []) for part in ("train", "val")}
    with tarfile.open(folder_of("hymenoptera") / "hymenoptera.tar") as archive:
        for member in sorted(archive.getmembers(), key=lambda each: each.name):
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            part, label, _ = member.name.split("/")
            image = Image.open(io.BytesIO(file.read())).convert("RGB")
            height = max(image.height, -(-image.width // 3))
            canvas = Image.new("RGB", (3 * height, height), (128, 128, 128))
            right = len(found[part][0]) % 2 == 1
            left = canvas.width - image.width if right else 0
            canvas.paste(image, (left, (height - image.height) // 2))
            found[part][0].append(canvas)
            found[part][1].append(label)
    return found["train"], found["val"]


DATA_SETS: Mapping[str, Callable[[], tuple[Labelled, Labelled]]] = {
    "fashion_mnist": fashion_mnist,
    "fashion_mnist_2k": lambda: fashion_mnist(2_000),
    "cifar10_12k": cifar10,
    "cifar10_2_uneven": lambda: cifar10({"cat": 1_000, "dog": 250}),
    "cifar10_10_uneven": lambda: cifar10(uneven_counts()),
    "ants_bees_wide": ants_bees_wide,
}

SIZES: Mapping[str, tuple[int, int]] = {
    "fashion_mnist": (20, 28),
    "fashion_mnist_2k": (20, 28),
    "cifar10_12k": (24, 32),
    "cifar10_2_uneven": (24, 32),
    "cifar10_10_uneven": (24, 32),
    "ants_bees_wide": (64, 128),
}
"""The sizes of the grid. Its recipes are "auto" and "one_cycle"."""

RECIPES = ("auto", "one_cycle")


def settings_of(name: str) -> list[str]:
    """Return the settings of a data set: "auto", and the grid."""
    return ["auto", *(f"{size}/{recipe}" for size in SIZES[name] for recipe in RECIPES)]


# ---------------------------------------------------------------- one cell


def make_data(train: Labelled, test: Labelled, size: int | None, seed: int) -> ImageData:
    """Return data with a tenth of train for validation. The test part is scored once, at the end.

    Images of equal size without a file are kept as arrays.
    """
    options = ImageOptions(size=size)
    if all(isinstance(image, np.ndarray) for image in train[0]):
        return ImageData.from_arrays(
            np.stack(train[0]),
            train[1],
            test=(np.stack(test[0]), test[1]),
            valid=_VALID,
            seed=seed,
            options=options,
        )
    known = ImageData.from_items(
        list(zip(*train, strict=True)), valid=_VALID, seed=seed, options=options
    )
    rows = {"train": known.split.train.tolist(), "valid": known.split.valid.tolist()}
    n, m = len(train[0]), len(test[0])
    items = [*zip(*train, strict=True), *zip(*test, strict=True)]
    split = Split.from_parts({**rows, "test": list(range(n, n + m))})
    return ImageData.from_items(items, split=split, options=options)


def run_cell(name: str, setting: str, seed: int, minutes: float) -> dict[str, Any]:
    """Train one cell and return its line of figures."""
    size, _, recipe = setting.partition("/") if setting != "auto" else ("", "", "auto")
    train, test = DATA_SETS[name]()
    started_s = time.perf_counter()
    data = make_data(train, test, int(size) if size else None, seed)
    learner = Learner(data, seed=seed, quiet=True)
    left_s = 60 * minutes - (time.perf_counter() - started_s)
    if recipe == "auto":
        learner.fit_auto(left_s / 60)
    else:
        learner.fit_one_cycle(_fitting_epochs(learner, left_s))
    elapsed_s = time.perf_counter() - started_s
    values = learner.plan.values
    kept = ("image_size", "resize", "architecture", "epochs", "batch_size", "lr", "precision")
    return {
        "data": name,
        "setting": setting,
        "seed": seed,
        "minutes": minutes,
        "valid": round(learner.evaluate("valid")["accuracy"], 4),
        "test": round(learner.evaluate("test")["accuracy"], 4),
        "balanced": round(_balanced_accuracy(learner, data), 4),
        "elapsed_s": round(elapsed_s, 1),
        "steps": len(learner.history.step_losses),
        **{key: values.get(key) for key in kept},
        "reason": learner.plan["image_size"].reason,
        "machine": machine.host(),
    }


def _fitting_epochs(learner: Learner, seconds: float) -> int:
    started_s = time.perf_counter()
    components = learner.built.components()
    speed = measure_speed(components, TrainingOptions(), _SPEED_LIMIT_S)
    epoch_s = components.train.steps_per_epoch * speed.step_s + speed.evaluation_s
    return max(1, intervals_within(seconds - (time.perf_counter() - started_s), epoch_s))


def _balanced_accuracy(learner: Learner, data: ImageData) -> float:
    """Return the mean over the classes of the share of their test images that is right."""
    targets = [data.targets.text(int(row)) for row in data.split.test]
    predictions = learner.predict(data.raw("test"))
    right: dict[str, list[bool]] = defaultdict(list)
    for prediction, target in zip(predictions, targets, strict=True):
        right[target].append(str(prediction.label) == target)
    return mean(mean(each) for each in right.values())


# ---------------------------------------------------------------- the file


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the results; a line that was not written completely is left out."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # the process ended while it wrote: the cell runs again
            continue
    return lines


def run_missing(
    path: Path,
    cells: Sequence[tuple[str, str, int]],
    minutes: float,
    run: Callable[[str, str, int, float], dict[str, Any]] = run_cell,
) -> int:
    """Run the cells that the file lacks, append a line for each, and return their number."""
    done = {tuple(line[key] for key in KEYS) for line in read_lines(path)}
    missing = [cell for cell in cells if (*cell, minutes) not in done]
    for name, setting, seed in missing:
        line = run(name, setting, seed, minutes)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        typer.echo(f"{name} {setting} seed {seed}: {line['test']:.3f}")
    return len(missing)


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the mean scores, and by how many points "auto" is behind the best of the grid."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        scores[line["data"]][line["setting"]].append(line["test"])
    rows: list[list[str]] = []
    for name, by_setting in scores.items():
        grid = [mean(each) for setting, each in by_setting.items() if setting != "auto"]
        for setting, each in by_setting.items():
            behind = ""
            if setting == "auto" and grid:
                behind = f"{100 * (max(grid) - mean(each)):+.1f}"
            rows.append([name, setting, str(len(each)), f"{mean(each):.3f}", behind])
    return text_table(["data", "setting", "runs", "accuracy", "points behind the grid"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one cell or all cells that the file lacks, or print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["cell", "all", "results"])
    parser.add_argument("data", nargs="?", choices=[*DATA_SETS])
    parser.add_argument("setting", nargs="?", help='"auto", or SIZE/RECIPE such as 48/one_cycle')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of all")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--out", type=Path, default=Path("image-budgets.jsonl"))
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    if given.command == "results":
        typer.echo(table(read_lines(given.out)))
        return
    if given.command == "cell":
        if given.data is None or given.setting is None:
            parser.error("give a data set and a setting")
        cells = [(given.data, given.setting, given.seed)]
    else:
        names = [given.data] if given.data else [*DATA_SETS]
        cells = [
            (name, setting, seed)
            for seed in range(given.seeds)
            for name in names
            for setting in settings_of(name)
        ]
    if not run_missing(given.out, cells, given.minutes):
        typer.echo(f"{given.out} has every cell.")


if __name__ == "__main__":
    main()
