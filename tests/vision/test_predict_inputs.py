"""What ``predict`` takes for one image and for several: arrays, files, folders, open files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner, Predictor
from flambeau.errors import ArtefactError, InputError
from flambeau_vision import ImageData, ImageOptions

GREY = np.random.default_rng(0).integers(0, 256, (12, 9, 7), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
LABELS = ["a", "b"] * 6


def trained(images: object, **options: object) -> Learner:
    data = ImageData.from_arrays(images, LABELS, options=ImageOptions(**options))
    return Learner(data, quiet=True, choices={"probe": "off"})


def probabilities(predictions: list) -> np.ndarray:
    return np.array([list(each.probabilities.values()) for each in predictions])


GREY_FORMS = {
    "array": GREY,
    "tensor": torch.from_numpy(GREY),
    "floats": (GREY / 255).astype(np.float32),
}


@pytest.mark.parametrize("form", GREY_FORMS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 12])
def test_a_stack_of_grey_images_has_one_prediction_each(form: str, n: int, tmp_path: Path) -> None:
    images = GREY_FORMS[form]
    learner = trained(images)
    each = [learner.predict(image) for image in images[:n]]
    assert probabilities(learner.predict(images[:n])) == pytest.approx(probabilities(each))
    loaded = Predictor.load(learner.export(tmp_path / "model"))
    assert probabilities(loaded.predict(images[:n])) == pytest.approx(probabilities(each))


@pytest.mark.parametrize("layout", ["HWC", "CHW", "1HW"])
def test_arrays_with_channels_are_one_image_with_three_axes_and_several_with_four(
    layout: str,
) -> None:
    images = {"HWC": COLOUR, "CHW": COLOUR.transpose(0, 3, 1, 2), "1HW": GREY[:, None]}[layout]
    learner = trained(images)
    several = learner.predict(images[:3])
    assert len(several) == 3
    assert learner.predict(images[1]).probabilities == pytest.approx(several[1].probabilities)


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW"])
def test_raw_images_are_in_the_form_that_predict_takes(layout: str) -> None:
    images = {"HW": GREY, "HWC": COLOUR, "CHW": COLOUR.transpose(0, 3, 1, 2)}[layout]
    learner = trained(images)
    raw = learner.data.raw("train")
    assert learner.predict(raw[0]).probabilities == pytest.approx(
        learner.predict(list(raw))[0].probabilities
    )


def test_grey_images_given_as_items_are_stacked_too() -> None:
    learner = Learner(ImageData.from_items(list(zip(GREY, LABELS, strict=True))), quiet=True)
    assert len(learner.predict(GREY[:3])) == 3
    assert learner.predict(GREY[0]).label in "ab"


def test_a_stack_without_an_axis_of_channels_is_several_images_for_a_model_of_files(
    folder: Path,
) -> None:
    learner = Learner(ImageData.from_folder(folder), quiet=True)
    assert len(learner.predict(GREY[:6])) == 6
    assert learner.predict(COLOUR[0]).label in ("ant", "bee")


class GreySet:
    """A data set as torchvision's MNIST: a stack of arrays, read one by one."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __len__(self) -> int:
        return len(GREY)

    def __getitem__(self, row: int) -> tuple[Any, str]:
        image = GREY[row]
        return (Image.fromarray(image) if self.form == "pillow" else image), LABELS[row]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_a_stack_for_a_model_of_single_grey_images_is_stacked_or_asked_for(
    n: int, convert: Any
) -> None:
    arrays = Learner(ImageData.from_datasets(GreySet("array")), quiet=True)
    each = probabilities(arrays.predict(list(GREY[:n])))
    assert probabilities(arrays.predict(convert(GREY[:n]))) == pytest.approx(each)
    pictures = Learner(ImageData.from_datasets(GreySet("pillow")), quiet=True)
    if n == 5:
        assert len(pictures.predict(convert(GREY[:n]))) == n
        return
    with pytest.raises(InputError, match=rf"is {n} grey images, or one image of {n} channels"):
        pictures.predict(convert(GREY[:n]))
    assert len(pictures.predict(list(GREY[:n]))) == n
    assert len(pictures.predict([convert(GREY[:n])])) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six photographs."""
    for row, image in enumerate(COLOUR):
        path = tmp_path / "photos" / ("ant", "bee")[row % 2] / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


def test_a_folder_gives_the_predictions_for_its_images(folder: Path) -> None:
    learner = Learner(ImageData.from_folder(folder), quiet=True)
    (folder / "notes.txt").write_text("no image")
    files = ImageData.inputs_from_path(folder)
    assert files == [str(path) for path in sorted(folder.rglob("*.png"))]
    wanted = probabilities(learner.predict(files))
    assert probabilities(learner.predict(folder)) == pytest.approx(wanted)
    assert probabilities(learner.predict(str(folder))) == pytest.approx(wanted)
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="empty is a folder without images"):
        learner.predict(folder / "empty")


def test_open_files_and_buffers_are_one_image(folder: Path) -> None:
    learner = Learner(ImageData.from_folder(folder), quiet=True)
    path = folder / "ant" / "00.png"
    wanted = learner.predict(path).probabilities
    buffer = io.BytesIO(path.read_bytes())
    with path.open("rb") as file:
        assert learner.predict(file).probabilities == pytest.approx(wanted)
        assert learner.predict([buffer, file])[1].probabilities == pytest.approx(wanted)
    assert learner.predict(buffer).probabilities == pytest.approx(wanted)  # from its start
    with path.open(errors="replace") as text, pytest.raises(InputError, match="'rb'"):
        learner.predict(text)
    with pytest.raises(InputError, match=r"00\.png cannot be read"):
        learner.predict(file)  # closed


class Column:
    """A column of a Hugging Face data set, which is neither a list nor an array."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: Any) -> Any:
        return self.items[key]


def test_columns_are_several_images_and_buffers_of_bytes_one(folder: Path) -> None:
    learner = Learner(ImageData.from_folder(folder), quiet=True)
    path = folder / "ant" / "00.png"
    wanted = learner.predict(path).probabilities
    for buffer in (path.read_bytes(), bytearray(path.read_bytes()), memoryview(path.read_bytes())):
        assert learner.predict(buffer).probabilities == pytest.approx(wanted)
    found = learner.predict(Column([str(path), Image.open(path)]))
    assert [each.probabilities for each in found] == [pytest.approx(wanted)] * 2


def test_errors_are_a_column_of_their_own_beside_the_predictions(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    learner = Learner(ImageData.from_folder(folder), quiet=True)
    files = pandas.Series([str(folder / "ant" / "00.png"), "missing.png"], index=[5, 7])
    found = learner.predict(files, errors="return")
    assert list(found.index) == [5, 7]
    assert list(found.columns) == ["label", "probability", "ant", "bee", "error"]
    assert found["label"][5] in ("ant", "bee")
    assert "missing.png does not exist" in found["error"][7]


def test_open_files_are_items_to_train_on(folder: Path) -> None:
    files = sorted(folder.rglob("*.png"))
    pairs = [(io.BytesIO(path.read_bytes()), path.parent.name) for path in files]
    learner = Learner(ImageData.from_items(pairs), quiet=True)
    learner.fit(1)
    assert len(learner.predict([item for item, _ in pairs])) == 12


def test_the_others_are_predicted_beside_an_invalid_image(folder: Path) -> None:
    learner = Learner(ImageData.from_folder(folder), quiet=True)
    good = [str(path) for path in sorted(folder.rglob("*.png"))]
    broken = folder / "broken.png"
    broken.write_bytes(b"no image")
    items = [good[0], str(folder / "missing.png"), good[1], broken, folder / "ant", good[2]]
    with pytest.raises(InputError, match=r"Item 1: .*missing\.png does not exist"):
        learner.predict(items)
    found = learner.predict(items, errors="return")
    wanted = probabilities(learner.predict(good[:3]))
    assert probabilities([found[0], found[2], found[5]]) == pytest.approx(wanted)
    for position, words in ((1, "missing.png does not exist"), (3, "broken.png"), (4, "a folder")):
        assert isinstance(found[position], InputError)
        assert str(found[position]).startswith(f"Item {position}: ")
        assert words in str(found[position])


def test_the_folder_of_a_run_is_that_of_its_export(folder: Path, tmp_path: Path) -> None:
    learner = Learner(ImageData.from_folder(folder), quiet=True, folder=tmp_path / "run")
    learner.fit(1)
    with pytest.raises(ArtefactError, match=r"folder of a run.*learner\.load.*learner\.export"):
        Predictor.load(tmp_path / "run")
    learner.export(tmp_path / "run" / "model")
    path = folder / "ant" / "00.png"
    loaded = Predictor.load(tmp_path / "run").predict(path)
    assert loaded.probabilities == pytest.approx(learner.predict(path).probabilities)
