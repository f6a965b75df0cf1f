"""``vision-fit``: three epochs of Fashion-MNIST, a learner's defaults against the usual program."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Gate, Question, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import folder_of, why_missing
from flambeau_bench.timing import process_and_children_s
from flambeau_bench.turns import running_s

USUAL, USUAL_WORKERS, OURS = "usual program", "usual program, 2 workers", "flambeau"
WORKERS = {USUAL: 0, USUAL_WORKERS: 2}
CLASSES = 10
LR = 1e-3  # torch's default of AdamW

Images = NDArray[np.uint8]
Parts = dict[str, tuple[Images, NDArray[np.int64]]]


class SmallResNet(nn.Module):
    """Four convolutions, the last two around a residual connection, and a linear head.

    Args:
        width: Channels of the first convolution; the others have twice as many.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        wide = 2 * width
        self.stem = nn.Sequential(
            *_convolution(1, width), nn.MaxPool2d(2), *_convolution(width, wide), nn.MaxPool2d(2)
        )
        self.block = nn.Sequential(*_convolution(wide, wide), *_convolution(wide, wide))
        self.head = nn.Linear(wide, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, 10)`` for pictures ``(batch, 1, 28, 28)``."""
        x = self.stem(x)
        x = x + self.block(x)
        return self.head(x.mean(dim=(2, 3)))


def _convolution(n_in: int, n_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    ]


class ByItem(TorchDataset[tuple[Tensor, int]]):
    """The usual data set: a picture becomes floats in 0..1 and is normalised, one by one."""

    def __init__(self, images: Images, labels: NDArray[np.int64]) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.from_numpy(self._images[index]).unsqueeze(0).float().div_(255.0)
        return picture.sub_(0.2860).div_(0.3530), int(self._labels[index])


class VisionFit(Case):
    """A net of four convolutions; net, data, batch size and epochs the same on both sides.

    The usual program is a shuffling ``DataLoader`` over a data set by item, fp32, AdamW as torch
    sets it up. Ours is ``Learner(data, net)`` with whatever its plan decides, so precision,
    schedule and order of the batches differ; the gate holds both to the same accuracy. Timed from
    raw arrays to the last evaluation, each run in a process of its own, a seed a pair.
    """

    name: ClassVar = "vision-fit"
    asks: ClassVar = "How long do three epochs of Fashion-MNIST take against the usual program?"
    fresh: ClassVar = True
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            {"train": 6_000, "valid": 2_000, "epochs": 1, "batch_size": 128, "thousandths": 100},
            pairs=3,
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

    def why_not(self, size: Size) -> str:
        return super().why_not(size) or why_missing("fashion_mnist")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        ours_by_design = "ours is what the plan decides"
        may_differ = {
            "order_hash": "each program shuffles in its own way",
            "settings.precision": ours_by_design,
            "settings.groups": ours_by_design,
        }
        questions = (
            Question("wall_s", "ratio", "× the usual wall time", limit=0.55),
            Question("cpu_s", "ratio", "× the usual CPU time"),
            Question("accuracy", "difference", "accuracy more"),
            Question("wall_s", "value", "s"),
        )
        return [
            Comparison("no workers", USUAL, OURS, questions, may_differ),
            Comparison("2 workers", USUAL_WORKERS, OURS, questions, may_differ),
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        parts = fashion_mnist(size)
        model = _seeded_net(pair)
        init_hash = fingerprint.of_weights(model)
        run = our_program if side == OURS else usual_program
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
            items=size["epochs"] * len(parts["train"][0]),
            init_hash=init_hash,
            settings={
                **fingerprint.machine_settings(),
                **done["settings"],
                "batch_size": size["batch_size"],
            },
            quality={
                "accuracy": done["accuracy"],
                # A short run on a subset has noise of its own; it only checks the machinery.
                "allowed_below": size["thousandths"] / 1_000,
            },
            notes=done.get("notes", ""),
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Mean accuracy over the seeds hardly below the baseline's: at most .003 at full size."""
        theirs = mean(float(a.quality["accuracy"]) for a, _ in pairs)
        ours = mean(float(b.quality["accuracy"]) for _, b in pairs)
        allowed = float(pairs[0][0].quality["allowed_below"])
        return Gate(
            ours >= theirs - allowed,
            f"mean accuracy {ours:.4f} against {theirs:.4f} over {len(pairs)} seeds, "
            f"at most {allowed:g} less",
        )


def _seeded_net(seed: int) -> SmallResNet:
    torch.manual_seed(seed)
    return SmallResNet()


def usual_program(
    model: nn.Module, parts: Parts, size: Size, seed: int, workers: int
) -> dict[str, Any]:
    """What one writes: loaders, a loop over epochs, an evaluation after each."""
    torch.manual_seed(seed)
    device = torch.device(size.device)
    train = DataLoader(
        ByItem(*parts["train"]), batch_size=size["batch_size"], shuffle=True, num_workers=workers
    )
    valid = DataLoader(ByItem(*parts["valid"]), batch_size=size["batch_size"], num_workers=workers)
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
        right = 0
        with torch.no_grad():
            for x, y in valid:
                right += int((model(x.to(device)).argmax(1) == y.to(device)).sum())
        accuracy = right / len(parts["valid"][0])
    settings = {"optimizer": type(optimizer).__name__, "precision": "fp32"}
    return {"steps": steps, "accuracy": accuracy, "settings": settings}


def our_program(
    model: nn.Module, parts: Parts, size: Size, seed: int, workers: int
) -> dict[str, Any]:
    """A learner; only batch size and epochs are fixed, so that they are the baseline's."""
    from flambeau import Learner
    from flambeau_vision import ImageData

    data = ImageData.from_arrays(*parts["train"], valid=parts["valid"])
    learner = Learner(
        data, model, choices={"batch_size": size["batch_size"], "device": size.device}, seed=seed
    )
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


def _class_of(learner: Any) -> str:
    from flambeau.training.optim.optimizer import OPTIMIZERS

    build: Any = OPTIMIZERS[learner.plan.values["optimizer"]].build
    return str(build.__name__)


def fashion_mnist(size: Size) -> Parts:
    """The first pictures of train and of the file that comes for testing, as the size says."""
    folder = folder_of("fashion_mnist")
    files: Mapping[str, str] = {"train": "train", "valid": "t10k"}
    return {
        part: (
            read_idx(folder / f"{stem}-images-idx3-ubyte.gz")[: size[part]],
            read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")[: size[part]].astype(np.int64),
        )
        for part, stem in files.items()
    }


def read_idx(path: Path) -> Images:
    """The array in a file of the MNIST format.

    Source:
        The format's description at http://yann.lecun.com/exdb/mnist: two zero bytes, a type (8 is
        uint8), the number of axes, their sizes as big-endian int32, the values.
    """
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
