"""Compare ``fit_auto`` on image data sets in a time budget with a grid of sizes and recipes.

A cell is a data set, a setting, a seed and a budget. One command runs one cell and appends one line
to a file; a cell that is already in the file is skipped, so that an interrupted series can be
continued:

    FLAMBEAU_DATA=… python -m flambeau_bench.image_budgets cell fashion_mnist auto --seed 0
    FLAMBEAU_DATA=… python -m flambeau_bench.image_budgets cell ants_bees_wide 64/one_cycle --seed 0
    FLAMBEAU_DATA=… python -m flambeau_bench.image_budgets all
    python -m flambeau_bench.image_budgets results
    python -m flambeau_bench.image_budgets compare --out now.jsonl --with before.jsonl

"auto" is ``Learner(data).fit_auto(minutes)`` without further arguments. "SIZE/RECIPE" fixes the
image size and trains for the same time: recipe "auto" with ``fit_auto``, "one_cycle" with as many
epochs of one cycle as fit into the time. ``--precision fp32`` trains as a machine without fast
bf16 does. "compare" takes the cells that two files share and compares their correct answers image
by image; the second file may come from another commit of flambeau.
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
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import typer

from flambeau import Learner, Split, TrainingOptions
from flambeau.report import paired_difference, text_table
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
"""The fields of a line that identify its cell."""

CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_VALID = 0.1
_MOST_ANSWERS = 2_000
"""Larger test sets keep no answers by image, so that a line stays short."""

_SPEED_LIMIT_S = 2.0


# ---------------------------------------------------------------- data sets


def fashion_mnist(n: int | None = None) -> tuple[Labelled, Labelled]:
    """Return train and test images of Fashion-MNIST; of train only the first ``n``."""
    parts = read_fashion_mnist(Size("whole", {"train": n or 60_000, "valid": 10_000}))
    train, test = (_labelled(*parts[part]) for part in ("train", "valid"))
    return train, test


def _labelled(images: Any, labels: Any) -> Labelled:
    return list(images), [str(label) for label in labels]


def cifar10(counts: Mapping[str, int] | None = None) -> tuple[Labelled, Labelled]:
    """Return train and test images of CIFAR-10; ``counts`` limits classes and train images."""
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
    """Return decreasing image counts of the CIFAR-10 classes, from 1,000 to 100."""
    return {name: round(1_000 * 10 ** (-index / 9)) for index, name in enumerate(CIFAR10)}


def ants_bees(place: Callable[[Any, int], Any] = lambda image, _: image) -> tuple[Labelled, ...]:
    """Return the train and test photographs of ants and bees, each as ``place`` returns it."""
    from PIL import Image

    found: dict[str, Labelled] = {part: ([], []) for part in ("train", "val")}
    with tarfile.open(folder_of("hymenoptera") / "hymenoptera.tar") as archive:
        for member in sorted(archive.getmembers(), key=lambda each: each.name):
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            part, label, _ = member.name.split("/")
            image = Image.open(io.BytesIO(file.read())).convert("RGB")
            found[part][0].append(place(image, len(found[part][0])))
            found[part][1].append(label)
    return found["train"], found["val"]


def on_wide_canvas(image: Any, index: int) -> Any:
    """Return the image at the left (even index) or right end of a grey 3:1 canvas."""
    from PIL import Image

    height = max(image.height, -(-image.width // 3))
    canvas = Image.new("RGB", (3 * height, height), (128, 128, 128))
    left = canvas.width - image.width if index % 2 else 0
    canvas.paste(image, (left, (height - image.height) // 2))
    return canvas


DATA_SETS: Mapping[str, Callable[[], tuple[Labelled, ...]]] = {
    "fashion_mnist": fashion_mnist,
    "fashion_mnist_2k": lambda: fashion_mnist(2_000),
    "cifar10_12k": cifar10,
    "cifar10_2_uneven": lambda: cifar10({"cat": 1_000, "dog": 250}),
    "cifar10_10_uneven": lambda: cifar10(uneven_counts()),
    "ants_bees": ants_bees,
    "ants_bees_wide": lambda: ants_bees(on_wide_canvas),
}

SIZES: Mapping[str, tuple[int, int]] = {
    "fashion_mnist": (20, 28),
    "fashion_mnist_2k": (20, 28),
    "cifar10_12k": (24, 32),
    "cifar10_2_uneven": (24, 32),
    "cifar10_10_uneven": (24, 32),
    "ants_bees": (64, 128),
    "ants_bees_wide": (64, 128),
}
"""The image sizes of the grid by data set. Each is combined with each of `RECIPES`."""

RECIPES = ("auto", "one_cycle")


def settings_of(name: str) -> list[str]:
    """Return the settings of a data set: "auto", and each "SIZE/RECIPE" of the grid."""
    return ["auto", *(f"{size}/{recipe}" for size in SIZES[name] for recipe in RECIPES)]


# ---------------------------------------------------------------- one cell


def make_data(train: Labelled, test: Labelled, size: int | None, seed: int) -> ImageData:
    """Return data with a tenth of train for validation; ``test`` is used only after training.

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


def run_cell(
    name: str, setting: str, seed: int, minutes: float, precision: str | None = None
) -> dict[str, Any]:
    """Train one cell and return its results as one line of the file."""
    size, _, recipe = setting.partition("/") if setting != "auto" else ("", "", "auto")
    train, test = DATA_SETS[name]()
    started_s = time.perf_counter()
    data = make_data(train, test, int(size) if size else None, seed)
    choices = {} if precision is None else {"precision": precision}
    learner = Learner(data, seed=seed, quiet=True, choices=choices)
    left_s = 60 * minutes - (time.perf_counter() - started_s)
    if recipe == "auto":
        learner.fit_auto(left_s / 60)
    else:
        learner.fit_one_cycle(_fitting_epochs(learner, left_s))
    elapsed_s = time.perf_counter() - started_s
    values = learner.plan.values
    correct = _correct(learner, data)
    kept = ("image_size", "resize", "architecture", "epochs", "batch_size", "lr", "precision")
    return {
        "data": name,
        "setting": setting,
        "seed": seed,
        "minutes": minutes,
        "valid": round(learner.evaluate("valid")["accuracy"], 4),
        "test": round(learner.evaluate("test")["accuracy"], 4),
        "balanced": round(mean(mean(each) for each in correct.values()), 4),
        "correct": "".join(str(int(one)) for each in correct.values() for one in each)
        if len(data.split.test) <= _MOST_ANSWERS
        else None,
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


def _correct(learner: Learner, data: ImageData) -> dict[str, list[bool]]:
    """Return by class which test images were predicted correctly, in the order of the data."""
    targets = [data.targets.text(int(row)) for row in data.split.test]
    predictions = learner.predict(data.raw("test"))
    correct: dict[str, list[bool]] = {target: [] for target in sorted(set(targets))}
    for prediction, target in zip(predictions, targets, strict=True):
        correct[target].append(str(prediction.label) == target)
    return correct


# ---------------------------------------------------------------- the file


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the results file, without lines that were not written completely."""
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
    """Run the cells that are not in the file, append a line for each, and return their number."""
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
    """Return a table of mean scores, and by how many points "auto" is below the best setting."""
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


def compare(now: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the differences in test accuracy over the cells that both files have.

    The interval is of the mean over the seeds, by resampling of the images.
    """
    earlier = {tuple(line[key] for key in KEYS): line for line in before}
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for line in now:
        other = earlier.get(tuple(line[key] for key in KEYS))
        if other is not None and line["correct"] and other["correct"]:
            pairs[line["data"], line["setting"]].append((line["correct"], other["correct"]))
    rows: list[list[str]] = []
    for (name, setting), each in pairs.items():
        # (images, seeds) of 0 and 1
        ours, theirs = (
            torch.tensor([[int(one) for one in pair[side]] for pair in each]).double().T
            for side in (0, 1)
        )
        found = paired_difference(lambda right: right.mean(dim=(1, 2)), ours, theirs)
        scores = [f"{float(right.mean()):.3f}" for right in (ours, theirs)]
        rows.append([name, setting, str(len(each)), *scores, str(found)])
    return text_table(["data", "setting", "runs", "now", "before", "difference"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one cell or all cells that are not in the file, or print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["cell", "all", "results", "compare"])
    parser.add_argument("data", nargs="?", choices=[*DATA_SETS])
    parser.add_argument("setting", nargs="?", help='"auto", or SIZE/RECIPE such as 48/one_cycle')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds for the command all")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--precision", help='such as "fp32"; the plan chooses by default')
    parser.add_argument("--out", type=Path, default=Path("image-budgets.jsonl"))
    parser.add_argument("--with", dest="other", type=Path, help="the file to compare with")
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    if given.command == "results":
        typer.echo(table(read_lines(given.out)))
        return
    if given.command == "compare":
        if given.other is None:
            parser.error("give the file to compare with: --with before.jsonl")
        typer.echo(compare(read_lines(given.out), read_lines(given.other)))
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
    run = partial(run_cell, precision=given.precision)
    if not run_missing(given.out, cells, given.minutes, run):
        typer.echo(f"Nothing to run: {given.out} already has these cells.")


if __name__ == "__main__":
    main()
