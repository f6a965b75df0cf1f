"""``vision-fit``: three epochs of Fashion-MNIST with a learner's defaults, or a usual program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import folder_of, missing_reason
from flambeau_bench.side.cpu_time import process_and_children_s
from flambeau_bench.side.fashion_arrays import read_part
from flambeau_bench.side.idx_file import ImageArray
from flambeau_bench.side.small_resnet import SmallResNet
from flambeau_bench.side.torch_fashion import FashionImages
from flambeau_bench.time_slices import running_s

if TYPE_CHECKING:
    from flambeau import Learner

USUAL, USUAL_WORKERS, FLAMBEAU = "usual program", "usual program, 2 workers", "flambeau"
WORKERS = {USUAL: 0, USUAL_WORKERS: 2}
LR = 1e-3  # the default of torch's AdamW

ArraysByPart = dict[str, tuple[ImageArray, NDArray[np.int64]]]
"""Images ``(n, 28, 28)`` and labels ``(n,)`` of "train" and "valid"."""


class VisionFit(Case):
    """Train the same net of four convolutions with a usual PyTorch program and with a learner.

    The usual program is a shuffling ``DataLoader`` over a per-sample data set, fp32, and AdamW with
    torch's defaults. flambeau's side is ``Learner(data, net)`` with the choices of its plan. Net,
    data, batch size and epochs are the same; precision, schedule and order of the batches differ.
    The case requires nearly the same accuracy. The time is measured from raw arrays to the last
    evaluation; each run is in a new process, with one seed per pair.
    """

    name: ClassVar = "vision-fit"
    question: ClassVar = "How long do three epochs of Fashion-MNIST take, compared with usual code?"
    fresh: ClassVar = True
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            {"train": 6_000, "valid": 2_000, "epochs": 1, "batch_size": 128, "thousandths": 100},
            pairs=1,
            floor_pairs=1,
        ),
        "cpu": Size(
            "cpu",
            {"train": 60_000, "valid": 10_000, "epochs": 3, "batch_size": 128, "thousandths": 3},
            pairs=3,
            floor_pairs=1,
        ),
        "gpu": Size(
            "gpu",
            {"train": 60_000, "valid": 10_000, "epochs": 3, "batch_size": 128, "thousandths": 3},
            pairs=3,
            floor_pairs=1,
            device="cuda",
        ),
    }

    def skip_reason(self, size: Size) -> str:
        return super().skip_reason(size) or missing_reason("fashion_mnist")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        planned = "flambeau uses the choice of its plan"
        may_differ = {
            "order_hash": "the programs shuffle differently",
            "settings.precision": planned,
            "settings.groups": planned,
        }
        criteria = (
            Criterion("wall_s", "ratio", "× the usual wall time", limit=0.55),
            Criterion("cpu_s", "ratio", "× the usual CPU time"),
            Criterion("accuracy", "difference", "higher accuracy"),
            Criterion("wall_s", "value", "s"),
        )
        return [
            Comparison("no workers", USUAL, FLAMBEAU, criteria, may_differ),
            Comparison("2 workers", USUAL_WORKERS, FLAMBEAU, criteria, may_differ),
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        parts = read_fashion_mnist(size)
        model = _seeded_net(pair)
        init_hash = fingerprint.of_weights(model)
        run = flambeau_program if side == FLAMBEAU else usual_program
        wall, cpu = running_s(), process_and_children_s()
        done = run(model, parts, size, pair, WORKERS.get(side, 0))
        figures = {
            "wall_s": running_s() - wall,
            "cpu_s": process_and_children_s() - cpu,
            "accuracy": done["accuracy"],
        }
        return Measurement(
            figures,
            steps=done["steps"],
            samples=size["epochs"] * len(parts["train"][0]),
            init_hash=init_hash,
            settings={
                **fingerprint.machine_settings(),
                **done["settings"],
                "batch_size": size["batch_size"],
            },
            quality={
                "accuracy": done["accuracy"],
                # A short run on a subset is noisier and only checks that everything works.
                "allowed_below": size["thousandths"] / 1_000,
            },
            notes=done.get("notes", ""),
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require a mean accuracy at most 0.003 below the baseline's (0.1 at size "quick")."""
        baseline = mean(float(a.quality["accuracy"]) for a, _ in pairs)
        candidate = mean(float(b.quality["accuracy"]) for _, b in pairs)
        allowed = float(pairs[0][0].quality["allowed_below"])
        return Gate(
            candidate >= baseline - allowed,
            f"mean accuracy {candidate:.4f}, baseline {baseline:.4f}, over {len(pairs)} seeds; at "
            f"most {allowed:g} lower is allowed",
        )


def _seeded_net(seed: int) -> SmallResNet:
    torch.manual_seed(seed)
    return SmallResNet()


def usual_program(
    model: nn.Module, parts: ArraysByPart, size: Size, seed: int, workers: int
) -> dict[str, Any]:
    """Train as usual PyTorch code does: loaders, epochs, and an evaluation after each epoch."""
    torch.manual_seed(seed)
    device = torch.device(size.device)
    train = DataLoader(
        FashionImages(*parts["train"]),
        batch_size=size["batch_size"],
        shuffle=True,
        num_workers=workers,
    )
    valid = DataLoader(
        FashionImages(*parts["valid"]), batch_size=size["batch_size"], num_workers=workers
    )
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    steps, accuracy = 0, 0.0
    for _ in range(size["epochs"]):
        model.train()
        for x, y in train:
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        model.eval()
        correct = 0
        with torch.no_grad():
            for x, y in valid:
                correct += int((model(x.to(device)).argmax(1) == y.to(device)).sum())
        accuracy = correct / len(parts["valid"][0])
    settings = {"optimizer": type(optimizer).__name__, "precision": "fp32"}
    return {"steps": steps, "accuracy": accuracy, "settings": settings}


def flambeau_program(
    model: nn.Module, parts: ArraysByPart, size: Size, seed: int, workers: int
) -> dict[str, Any]:
    """Train a learner with its defaults, but the batch size and epochs of the plain program."""
    learner = learner_of(model, parts, size, seed)
    history = learner.fit(size["epochs"])
    planned = {
        key: learner.plan.values.get(key)
        for key in ("precision", "memory_format", "augmentation", "lr", "schedule")
    }
    return {
        "steps": len(history.step_losses),
        "accuracy": float(history.rows[-1]["valid_accuracy"]),
        "settings": {"optimizer": _class_of(learner), "precision": planned["precision"]},
        "notes": ", ".join(f"{key} {value}" for key, value in planned.items()),
    }


def learner_of(
    model: nn.Module,
    parts: ArraysByPart,
    size: Size,
    seed: int,
    choices: Mapping[str, Any] | None = None,
    *,
    quiet: bool = False,
) -> Learner:
    """Return a learner on the images with batch size and device of ``size``, and ``choices``."""
    from flambeau import Learner
    from flambeau_vision import ImageData

    data = ImageData.from_arrays(*parts["train"], valid=parts["valid"])
    chosen = {"batch_size": size["batch_size"], "device": size.device, **(choices or {})}
    return Learner(data, model, choices=chosen, seed=seed, quiet=quiet)


def _class_of(learner: Any) -> str:
    from flambeau.training.optim.optimizer import OPTIMIZERS

    build: Any = OPTIMIZERS[learner.plan.values["optimizer"]].build
    return str(build.__name__)


def read_fashion_mnist(size: Size) -> ArraysByPart:
    """Return the first images of train and test file; ``size`` has their numbers."""
    folder = folder_of("fashion_mnist")
    files: Mapping[str, str] = {"train": "train", "valid": "t10k"}
    found: ArraysByPart = {}
    for part, stem in files.items():
        images, labels = read_part(folder, stem)
        found[part] = images[: size[part]], labels[: size[part]]
    return found
