"""Train for ``bn-finetune``: a source network, then each policy on shifted images of new classes.

Policies A and B exist in other libraries but not in flambeau. They are built here from norm layers
that never update their statistics, or whose scale and shift are frozen.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import Data, Learner, TensorData
from flambeau.data.split import Split
from flambeau.errors import FlambeauWarning
from flambeau_bench.case import Size
from flambeau_bench.cases.vision_fit import read_fashion_mnist

OLD_CLASSES = 5  # the source learns classes 0–4, the target has 5–9
BATCHES = (2, 4, 32)
TRAINED = ("head", "all")
SHIFTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda x: x,
    "mild": lambda x: 0.7 * x + 0.2,
    "strong": lambda x: 0.5 * (1 - x) + 0.35,
}
"""Functions that shift pixels in 0..1: "clean" none; "mild" less contrast and brighter; "strong"
inverted, half the contrast and brighter."""

POLICIES: Mapping[str, str] = {
    "A": (
        "batch statistics in training, statistics of the old data in evaluation; scale and shift "
        "frozen"
    ),
    "B": "batch statistics in training, which update the stored statistics; scale and shift frozen",
    "C": 'stored statistics in training and evaluation: bn="eval"',
    "D": 'norm layers trained: bn="train"',
    "E": "statistics computed once from the new data; scale and shift frozen in frozen groups",
    "E+": 'as E, but scale and shift are trained in frozen groups too: bn="adapt"',
    "auto": 'the choice of bn="auto"',
}
_BN = {"A": "train", "B": "train", "C": "eval", "D": "train", "E": "adapt", "E+": "adapt"}

_VALID = 16  # images
_WHOLE = Size("whole", {"train": 60_000, "valid": 10_000})
# Usual mean and std of Fashion-MNIST. The source network keeps its normalisation.
_MEAN, _STD = 0.2860, 0.3530


class ConvNet(nn.Module):
    """Five convolutions with batch norm, and a linear head on the mean over the image.

    Args:
        width: Channels of the first convolution; the last two have four times as many.
        classes: Outputs.
    """

    def __init__(self, width: int = 12, classes: int = OLD_CLASSES) -> None:
        super().__init__()
        one, two, four = width, 2 * width, 4 * width
        self.body = nn.Sequential(
            *_convolution(1, one, 1),
            *_convolution(one, two, 2),
            *_convolution(two, two, 1),
            *_convolution(two, four, 2),
            *_convolution(four, four, 1),
        )
        self.head = nn.Linear(four, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(batch, classes)`` for images ``(batch, 1, 14, 14)``."""
        return self.head(self.body(x).mean(dim=(2, 3)))


def _convolution(n_in: int, n_out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    ]


@dataclass(frozen=True)
class Cell:
    """One combination of settings of the experiment.

    Attributes:
        trained: "head" (the body's group is frozen) or "all".
        batch_size: Images per batch.
        shift: A name in ``SHIFTS``.
    """

    trained: str
    batch_size: int
    shift: str

    def __str__(self) -> str:
        return f"{self.trained}, batch {self.batch_size}, {self.shift}"


@dataclass(frozen=True)
class Scale:
    """The counts of a ``Size`` in hashable form, as a key of cached results.

    Attributes:
        width: Width of the network.
        source: Number of images to train the source network on.
        source_epochs: Number of epochs over these images.
        target: Number of images of the new classes to train on.
        tests: Largest number of images of the new classes to evaluate on.
        epochs: Pairs of batch size and epochs over the target images.
    """

    width: int
    source: int
    source_epochs: int
    target: int
    tests: int
    epochs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, size: Size) -> Scale:
        """Return the counts of a size."""
        return cls(
            width=size["width"],
            source=size["source"],
            source_epochs=size["source_epochs"],
            target=size["target"],
            tests=size["tests"],
            epochs=tuple((batch, size[f"epochs_of_{batch}"]) for batch in BATCHES),
        )


@dataclass(frozen=True)
class FineTuneResult:
    """The result of one fine-tuning run.

    Attributes:
        error_pct: Error in percent on test images.
        gap: Loss on the train images in eval mode, divided by the loss with batch statistics.
        chosen: The policy that was used; for "auto", the one that it chose.
        evidence: The measurements of policy "auto".
        warned: Whether the warning [train-eval-gap] was raised.
        steps: Optimizer steps.
    """

    error_pct: float
    gap: float
    chosen: str
    evidence: Mapping[str, Any]
    warned: bool
    steps: int


def cells(size: Size) -> Iterator[Cell]:
    """Return all combinations of settings at a size; the quick size has fewer."""
    for trained in TRAINED:
        for batch_size in BATCHES if size.name != "quick" else BATCHES[-1:]:
            for shift in SHIFTS if size.name != "quick" else ("strong",):
                yield Cell(trained, batch_size, shift)


@lru_cache(maxsize=1_024)
def train(cell: Cell, policy: str, seed: int, scale: Scale) -> FineTuneResult:
    """Fine-tune the network pretrained with ``seed``, with the settings ``cell`` and ``policy``.

    The result is reproducible.
    """
    net = copy.deepcopy(source(seed, scale)[0])
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net.head = nn.Linear(net.head.in_features, 10 - OLD_CLASSES)
    _freeze_by_hand(net, policy, cell.trained)
    data, images, labels = _target(cell.shift, seed, scale)
    choices = {
        "batch_size": cell.batch_size,
        "normalisation": "none",
        "bn": _BN.get(policy, "auto"),
    }
    learner = Learner(data, net, choices=choices, seed=seed, quiet=True)
    if cell.trained == "head":
        learner.freeze()
    epochs = dict(scale.epochs)[cell.batch_size]
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", FlambeauWarning)
        learner.fit(epochs, lr=3e-3 if cell.trained == "head" else 1e-3, schedule="one_cycle")
    choice = learner.plan["bn"]
    return FineTuneResult(
        error_pct=100 * (1 - learner.evaluate("test")["accuracy"]),
        gap=_gap(net, images, labels, cell.batch_size),
        chosen=str(choice.value),
        evidence=dict(choice.evidence),
        warned=any("[train-eval-gap]" in str(each.message) for each in raised),
        steps=len(learner.history.step_losses),
    )


@lru_cache(maxsize=16)
def source(seed: int, scale: Scale) -> tuple[ConvNet, float]:
    """Return a network trained on clean images of classes 0–4, and its test accuracy."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = ConvNet(scale.width)
    images, labels = _images("train", new=False)
    tests, test_labels = _images("valid", new=False)
    rows = _random_rows(len(images), scale.source, seed)
    images, tests = ((each - _MEAN) / _STD for each in (images[rows], tests))
    data = _data(images, labels[rows], tests, test_labels)
    choices = {"batch_size": 64, "normalisation": "none"}
    learner = Learner(data, net, choices=choices, seed=seed, quiet=True)
    learner.fit(scale.source_epochs, lr=3e-3, schedule="one_cycle")
    return net, learner.evaluate("test")["accuracy"]


def _freeze_by_hand(net: ConvNet, policy: str, trained: str) -> None:
    scales_and_shifts = policy in "AB" or (policy == "E" and trained == "head")
    for module in net.body:
        if isinstance(module, nn.BatchNorm2d):
            if scales_and_shifts:
                module.requires_grad_(False)
            if policy == "A":
                module.momentum = 0.0  # normalises with the batch and never updates


@lru_cache(maxsize=4)
def _images(part: str, *, new: bool) -> tuple[Tensor, Tensor]:
    """Return pixels in 0..1 ``(n, 1, 14, 14)`` and labels 0..4 of the old or the new classes."""
    images, labels = (torch.from_numpy(each) for each in read_fashion_mnist(_WHOLE)[part])
    chosen = (labels >= OLD_CLASSES) == new
    pixels = F.avg_pool2d(images[chosen].unsqueeze(1).float() / 255, 2)
    return pixels, labels[chosen] - OLD_CLASSES * new


@lru_cache(maxsize=32)
def _target(shift: str, seed: int, scale: Scale) -> tuple[Data, Tensor, Tensor]:
    """Return the data of the new classes with a shift, and the train images and labels."""
    images, labels = _images("train", new=True)
    tests, test_labels = _images("valid", new=True)
    rows = _random_rows(len(images), scale.target, seed)
    tests, test_labels = tests[: scale.tests], test_labels[: scale.tests]
    change = SHIFTS[shift]
    images, tests = ((change(each) - _MEAN) / _STD for each in (images[rows], tests))
    return _data(images, labels[rows], tests, test_labels), images, labels[rows]


def _data(images: Tensor, labels: Tensor, tests: Tensor, test_labels: Tensor) -> Data:
    n, m = len(images), len(tests)
    rows = np.arange(n + m)
    # Nothing is selected on the test part. A validation part is required, so it is small.
    split = Split.from_indices(rows[:n], rows[n : n + _VALID], rows[n + _VALID :])
    return TensorData.from_tensors(
        torch.cat([images, tests]), torch.cat([labels, test_labels]), split=split
    )


def _random_rows(n: int, wanted: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:wanted]


@torch.no_grad()
def _gap(net: ConvNet, images: Tensor, labels: Tensor, batch_size: int) -> float:
    """Return the loss in eval mode divided by the loss with batch statistics, on train batches."""
    net = copy.deepcopy(net)
    whole = len(labels) // batch_size * batch_size
    losses: list[float] = []
    for training in (True, False):
        net.train(training)
        parts = zip(images[:whole].split(batch_size), labels[:whole].split(batch_size), strict=True)
        losses.append(sum(float(F.cross_entropy(net(x), y)) for x, y in parts))
    return losses[1] / losses[0]
