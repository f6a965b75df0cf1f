"""Write the data of the programs: a small part of real data sets, in files that all of them read.

The published weights of ResNet-18 are large and need a network, so a ResNet-18 that is trained here
on five classes of CIFAR-10 takes their place, in the file in which torch keeps the published ones,
and in the format of timm, which KerasHub reads. The programs are those that a user of the published
weights writes.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flambeau.data.tables import read_csv
from flambeau_bench.case import Size
from flambeau_bench.cases.vision_fit import read_fashion_mnist
from flambeau_bench.real_data import folder_of

CLOTHES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
KNOWN = ("airplane", "automobile", "bird", "cat", "deer")
"""The classes of CIFAR-10 on which the weights are trained."""
NEW = ("dog", "frog", "horse", "ship", "truck")
"""The classes to which the programs fine-tune."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in published weights
_MOST_WORDS = 12
_EPOCHS = 8


def prepare(folder: Path) -> None:
    """Write all data; a set that is there already is kept.

    Args:
        folder: The folder for the data, about 60 MB. The data sets are read from the folder named
            in ``FLAMBEAU_DATA``.
    """
    writers = {
        "fashion": write_fashion,
        "photos": write_photos,
        "captions": write_captions,
        "reviews": write_reviews,
        "adult": write_adult,
        "resnet18": write_weights,
    }
    for name, write in writers.items():
        if (folder / name).exists():
            continue
        part = folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        part.rename(folder / name)


def write_fashion(folder: Path) -> None:
    """Write 500 train and 200 test images of each class of Fashion-MNIST as PNG files."""
    from PIL import Image

    parts = read_fashion_mnist(Size("whole", {"train": 60_000, "valid": 10_000}))
    for part, name, most in (("train", "train", 500), ("valid", "test", 200)):
        images, labels = (np.asarray(each) for each in parts[part])
        for number, label in enumerate(CLOTHES):
            target = folder / name / label
            target.mkdir(parents=True)
            rows = np.flatnonzero(labels == number)[:most]
            for row in rows:
                Image.fromarray(images[row].reshape(28, 28)).save(target / f"{row:05}.png")


def write_photos(folder: Path) -> None:
    """Write 100 train and 200 test images of five classes of CIFAR-10."""
    for part, most in (("train", 100), ("test", 200)):
        taken: Counter[str] = Counter()
        for label, file, content in _cifar10(part, NEW):
            taken[label] += 1
            if taken[label] <= most:
                target = folder / part / label / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


def write_captions(folder: Path) -> None:
    """Write 8,000 train pairs of Multi30k of at most 12 words, and all such pairs of test 2016."""
    source = folder_of("multi30k")
    for name, file, most in (("train", "train", 8_000), ("test", "test_2016_flickr", None)):
        sides = [
            gzip.decompress((source / f"{file}.{language}.gz").read_bytes()).decode().splitlines()
            for language in ("en", "de")
        ]
        pairs = [
            pair
            for pair in zip(*sides, strict=True)
            if max(len(side.split()) for side in pair) <= _MOST_WORDS
        ]
        for language, lines in zip(("en", "de"), zip(*pairs[:most], strict=True), strict=True):
            (folder / f"{name}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_reviews(folder: Path) -> None:
    """Write 5,000 train and 2,500 test reviews of IMDb, in random order."""
    for name, file, most in (("train", "train", 5_000), ("test", "test_10k", 2_500)):
        source = read_csv(folder_of("imdb") / f"{file}.csv.gz")
        rows = list(zip(source.column("text"), source.column("label"), strict=True))
        random.Random(0).shuffle(rows)
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as target:
            csv.writer(target).writerows([("text", "label"), *rows[:most]])


def write_adult(folder: Path) -> None:
    """Write the train and test rows of Adult."""
    for part in ("train", "test"):
        content = (folder_of("adult") / f"adult_{part}.csv.gz").read_bytes()
        (folder / f"{part}.csv").write_bytes(gzip.decompress(content))


def write_weights(folder: Path) -> None:
    """Train a ResNet-18 on five classes of CIFAR-10; write it as torchvision and timm name it."""
    from safetensors.torch import save_file
    from torchvision.models import ResNet18_Weights

    weights = train_resnet18()
    save_file(weights, folder / "model.safetensors")
    config = {
        "architecture": "resnet18",
        "num_classes": 1000,
        "num_features": 512,
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": _MEAN,
            "std": _STD,
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    hub = folder.parent / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True, exist_ok=True)
    torch.save(weights, hub / Path(ResNet18_Weights.DEFAULT.url).name)


def train_resnet18() -> dict[str, torch.Tensor]:
    """Return the weights of a ResNet-18 of 1,000 classes, of which five occur, after training."""
    import io

    from PIL import Image
    from torchvision.models import resnet18

    torch.manual_seed(0)
    rows = [
        (np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), KNOWN.index(label))
        for label, _, content in _cifar10("train", KNOWN)
    ]
    images = torch.from_numpy(np.stack([image for image, _ in rows])).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]
    labels = torch.tensor([label for _, label in rows])
    model: nn.Module = resnet18(num_classes=1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    steps = _EPOCHS * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(_EPOCHS):
        for batch in torch.randperm(len(images)).split(64)[: steps // _EPOCHS]:
            x = images[batch]
            flipped = torch.rand(len(x), 1, 1, 1) < 0.5
            loss = cross_entropy(model(torch.where(flipped, x.flip(3), x)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.state_dict()


def _cifar10(part: str, labels: tuple[str, ...]) -> list[tuple[str, str, bytes]]:
    """Return class, file name and content of the images of some classes, in name order."""
    with zipfile.ZipFile(folder_of("cifar10_12k") / "cifar10_12k.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        paths = [name.split("/") for name in names]
        return [
            (path[1], path[2], archive.read("/".join(path)))
            for path in paths
            if path[0] == part and path[1] in labels
        ]
