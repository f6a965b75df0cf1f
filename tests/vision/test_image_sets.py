"""Image sets of torchvision and Hugging Face, as data of images and as plain data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, random_split

from flambeau import Learner, TensorData
from flambeau.errors import ArgumentError, FlambeauWarning, InputError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.decode import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 16, 20, 3), dtype=np.uint8)


class Pairs(Dataset):
    """Like a set of torchvision: (Pillow image, class number), names in ``classes``."""

    classes = ("cat", "dog")
    transform = None

    def __init__(self, n: int = 24) -> None:
        self.n, self.read = n, Counter[int]()
        self.targets = [row % 2 for row in range(n)]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not 0 <= index < self.n:
            raise IndexError(index)
        self.read[index] += 1
        return Image.fromarray(PIXELS[index]), self.targets[index]


class Mappings(Dataset):
    """A set of mappings with tensors."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels = torch.from_numpy(PIXELS[index]).permute(2, 0, 1)
        return {"photo": pixels.float() / 255, "kind": torch.tensor(index % 2)}


class Column:
    def __init__(self, names: list[str] | None = None) -> None:
        if names:
            self.names = names


class HuggingFace:
    """The methods of a ``datasets.Dataset`` that are used; the package is not installed."""

    def __init__(self, names: list[str], format_: str | None = None) -> None:
        image = type("Image", (), {})()
        self.features = {"id": Column(), "img": image, "label": Column(names)}
        self.format = {"type": format_}
        self.column_names = list(self.features)

    def with_format(self, *_: Any) -> None:
        raise AssertionError("not needed")

    def __len__(self) -> int:
        return 24

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return [row % 2 for row in range(24)]
        return {"id": key, "img": Image.fromarray(PIXELS[key]), "label": key % 2}


def check(data: ImageData, names: list[str]) -> Learner:
    """Check content and order of the data, and that they train."""
    assert data.facts()["class_names"] == names
    for row in (0, 5):
        assert data.targets.text(row) == names[row % 2]
    learner = Learner(data, quiet=True, choices={"num_workers": 0, "probe": "off"})
    train = learner.built.dataset("train")
    row = int(train.ids[0])
    wanted = learner.built.preprocessor.encode([PIXELS[row]]).input[0]
    assert torch.equal(train.inputs["image"][0], wanted)
    learner.fit(1)
    assert len(learner.predict(data.raw("valid"))) == len(data.split.valid)
    return learner


def test_sets_of_torchvision_give_images_and_class_names() -> None:
    check(ImageData.from_datasets(Pairs()), ["cat", "dog"])


def test_mappings_of_tensors_are_read_by_name() -> None:
    check(ImageData.from_datasets(Mappings(), image="photo", label="kind"), ["0", "1"])


def test_sets_of_hugging_face_give_images_and_class_names() -> None:
    check(ImageData.from_datasets(HuggingFace(["cat", "dog"])), ["cat", "dog"])


def test_folders_read_by_torchvision_are_the_same_data(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for row, image in enumerate(PIXELS):
        path = tmp_path / ("cat", "dog")[row % 2] / f"{row:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    own = ImageData.from_folder(tmp_path)
    theirs = ImageData.from_datasets(datasets.ImageFolder(tmp_path))
    assert theirs.facts()["class_counts"] == own.facts()["class_counts"]
    encode = Learner(own, quiet=True).built.preprocessor.encode
    assert torch.equal(encode(own.raw("train")).input, encode(theirs.raw("train")).input)


def test_parts_are_sets_or_shares_and_subsets_keep_their_rows() -> None:
    whole = Pairs()
    train, valid = random_split(whole, [18, 6], torch.Generator().manual_seed(0))
    data = ImageData.from_datasets(train, valid=valid, test=Pairs(12))
    assert {part: len(data.split.part(part)) for part in ("train", "valid", "test")} == {
        "train": 18, "valid": 6, "test": 12,
    }  # fmt: skip
    for subset, rows in ((train, data.split.train), (valid, data.split.valid)):
        wanted = [Pairs.classes[index % 2] for index in subset.indices]
        assert [data.targets.text(int(row)) for row in rows] == wanted
    drawn = ImageData.from_datasets(whole, test=Pairs(12), valid=0.25)
    assert (len(drawn.split.valid), len(drawn.split.test)) == (6, 12)


@pytest.mark.parametrize("cache", ["memory", "files", "disk"])
def test_a_test_set_is_not_read_again_before_its_scores(tmp_path: Path, cache: str) -> None:
    test = Pairs(12)
    options = ImageOptions(cache=cache, cache_folder=tmp_path)
    data = ImageData.from_datasets(Pairs(), test=test, options=options)
    headers = test.read.total()
    learner = Learner(data, quiet=True, choices={"num_workers": 0, "probe": "off"})
    learner.fit(1)
    assert test.read.total() == headers
    learner.evaluate("test")
    assert test.read.total() > headers


def test_concatenated_sets_keep_their_class_names() -> None:
    first, second = Pairs(16), Pairs(8)
    second.targets = [1] * 8
    both = ConcatDataset([first, Subset(second, [5, 2])])
    data = ImageData.from_datasets(both)
    assert data.targets.names == ("cat", "dog")
    assert data.targets.values.tolist() == [row % 2 for row in range(16)] + [1, 1]
    pixels = [decode(item) for item in data.samples["image"]]
    assert np.array_equal(pixels, PIXELS[[*range(16), 5, 2]])
    second.classes = ("dog", "cat")
    with pytest.raises(InputError, match=r"one data set of train are dog, cat.*two meanings"):
        ImageData.from_datasets(both)
    second.classes, second.transform = first.classes, lambda image: image
    with pytest.raises(InputError, match="train data set has a transform"):
        ImageData.from_datasets(both)


@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_of_unlabelled_samples_are_refused(part: str) -> None:
    unlabelled = Pairs()
    unlabelled.targets = [0, -1, 1, -1] * 6
    sets = {"train": Pairs(), part: unlabelled}
    with pytest.raises(InputError, match=rf"12 of 24 labels of {part} .*0\.\.1 \(sample 1: -1\)"):
        ImageData.from_datasets(**sets)
    data = ImageData.from_datasets(Subset(unlabelled, range(0, 24, 2)))
    assert data.targets.counts() == {"cat": 6, "dog": 6}


class Compose:
    """As that of torchvision."""

    def __init__(self, *transforms: Any) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        return image


class ToTensor:
    """As that of torchvision, which changes the type only."""


def test_compositions_are_transforms_unless_they_change_the_type_only() -> None:
    images = Pairs()
    images.transform = Compose(ToTensor())
    assert ImageData.from_datasets(images).targets.names == ("cat", "dog")
    images.transform = Compose(ToTensor(), lambda image: image)
    with pytest.raises(InputError, match=r"a transform \(Compose\)"):
        ImageData.from_datasets(images)


def test_random_transforms_are_found_by_reading_twice() -> None:
    class Flipped(Pairs):
        def __getitem__(self, index: int) -> tuple[Any, int]:
            image, label = super().__getitem__(index)
            turned = self.read[index] % 2 == 1
            return (image.rotate(180) if turned else image), label

    with pytest.raises(InputError, match=r"image 0 of Flipped differs each time.*random"):
        ImageData.from_datasets(Flipped())


def test_several_labels_of_hugging_face_have_their_names() -> None:
    images = HuggingFace([])
    images.features["label"] = Column()
    images.features["label"].feature = Column(["sun", "sea", "sky"])
    labels = [[0, 1], [2], [], [1]] * 6
    get = HuggingFace.__getitem__
    images.__class__ = type(
        "HuggingFace",
        (HuggingFace,),
        {"__getitem__": lambda self, key: labels if key == "label" else get(self, key)},
    )
    data = ImageData.from_datasets(images)
    assert (data.targets.kind, data.targets.names) == ("multi_label", ("sun", "sea", "sky"))
    assert data.targets.values[:4].tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_what_cannot_be_used_is_named() -> None:
    changed = Pairs()
    changed.transform = lambda image: image.rotate(9)
    with pytest.raises(InputError, match=r"train data set has a transform.*data set without"):
        ImageData.from_datasets(changed)
    with pytest.raises(InputError, match="set_transform"):
        ImageData.from_datasets(HuggingFace(["cat", "dog"], "custom"))
    with pytest.raises(ArgumentError, match=r"keys 'train', 'test'.*valid=sets"):
        ImageData.from_datasets({"train": Pairs(), "test": Pairs()})
    with pytest.raises(ArgumentError, match="generator, which lacks __len__"):
        ImageData.from_datasets(iter(pair for pair in ()))
    with pytest.raises(InputError, match=r"classes of valid are dog, cat.*two meanings"):
        ImageData.from_datasets(HuggingFace(["cat", "dog"]), valid=HuggingFace(["dog", "cat"]))
    with pytest.raises(ArgumentError, match="no column 'picture'"):
        ImageData.from_datasets(HuggingFace(["cat", "dog"]), image="picture")
    with pytest.raises(InputError, match="without a label at 'kind'"):
        ImageData.from_datasets(Pairs(), label="kind")


def test_plain_data_of_images_name_the_class_for_images() -> None:
    x = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
    learner = Learner(TensorData.from_tensors(x, torch.arange(24) % 2), quiet=True)
    assert "ImageData.from_datasets" in learner.plan["architecture"].reason
    with pytest.warns(FlambeauWarning, match=r"images-as-vectors.*ImageData\.from_arrays"):
        learner.fit(1)
    with pytest.raises(InputError, match=r"ImageData\.from_datasets"):
        TensorData.from_datasets(Pairs())
    for shape, is_named in (((28, 28), True), ((28, 9), False), ((8, 8), False)):
        grey = TensorData.from_tensors(torch.rand(24, *shape), torch.arange(24) % 2)
        reason = Learner(grey, quiet=True).plan["architecture"].reason
        assert ("ImageData.from_arrays" in reason) is is_named


def test_the_numbers_of_class_to_idx_name_the_labels() -> None:
    train, valid = Pairs(), Pairs()
    train.classes = valid.classes = None
    train.class_to_idx, valid.class_to_idx = {"dog": 1, "cat": 0}, {"cat": 0, "dog": 1}
    data = ImageData.from_datasets(train, valid=valid)
    assert data.facts()["class_names"] == ["cat", "dog"]
    valid.class_to_idx = {"cat": 1, "dog": 0}
    with pytest.raises(InputError, match="two meanings"):
        ImageData.from_datasets(train, valid=valid)
