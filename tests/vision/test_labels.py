"""Labels of images in every form, as the constructors read them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flambeau import Learner
from flambeau.errors import ArgumentError, InputError
from flambeau_vision import ImageData, ImageOptions

INDICES = np.arange(30) % 3
ONE_HOT = np.eye(3, dtype=np.int64)[INDICES]


def pixels(n: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8)


def files(folder: Path, n: int) -> list[str]:
    for number, image in enumerate(pixels(n)):
        Image.fromarray(image).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(n)]


@pytest.mark.parametrize("labels", [ONE_HOT, ONE_HOT.astype(float), INDICES[:, None]])
def test_one_hot_arrays_are_classes(labels: np.ndarray) -> None:
    data = ImageData.from_arrays(pixels(), labels, class_names=["a", "b", "c"])
    assert (data.targets.kind, data.targets.names) == ("classification", ("a", "b", "c"))
    assert data.targets.values.tolist() == INDICES.tolist()


def test_a_separate_validation_set_is_one_hot_too() -> None:
    data = ImageData.from_arrays(pixels(), ONE_HOT, valid=(pixels(3), ONE_HOT[:3]))
    assert data.targets.values[data.split.valid].tolist() == [0, 1, 2]


def test_columns_of_frames_and_tables_name_the_classes(tmp_path: Path) -> None:
    words = pd.Series(list("xyz"))[INDICES]
    dummies = pd.get_dummies(words).reset_index(drop=True)
    data = ImageData.from_arrays(pixels(), dummies)
    assert [data.targets.text(row) for row in range(3)] == ["x", "y", "z"]
    frame = dummies.assign(file=files(tmp_path, 30))
    for table in (frame, frame.assign(**{name: dummies[name].astype(int) for name in "xyz"})):
        found = ImageData.from_df(table, label=["x", "y", "z"], root=tmp_path)
        assert found.targets.kind == "classification"
        assert found.targets.values.tolist() == INDICES.tolist()


def test_items_may_have_one_hot_rows() -> None:
    data = ImageData.from_items(list(zip(pixels(), ONE_HOT.astype("f4"), strict=True)))
    assert data.targets.values.tolist() == INDICES.tolist()


def test_text_in_several_label_columns_is_refused(tmp_path: Path) -> None:
    frame = {"file": files(tmp_path, 2), "x": ["a", "b"], "y": [0, 1]}
    with pytest.raises(InputError, match="column 'x' has 'a' in row 0"):
        ImageData.from_df(frame, label=["x", "y"], root=tmp_path)


def test_the_plan_has_the_reading_and_the_doctor_names_doubtful_ones() -> None:
    clear = Learner(ImageData.from_arrays(pixels(), ONE_HOT), quiet=True)
    choice = clear.plan["task"]
    assert "exactly one 1" in choice.reason
    assert choice.alternatives == ("multi_label", "regression")
    assert "--task multi_label" in choice.override
    assert "doubtful-reading" not in clear.doctor().codes
    labels = ONE_HOT.copy()
    labels[7, 0] = 1 - labels[7, 0]
    learner = Learner(ImageData.from_arrays(pixels(), labels), quiet=True)
    assert learner.plan["task"].confidence < 0.5
    [finding] = [each for each in learner.doctor().findings if each.code == "doubtful-reading"]
    assert "only the rows 7" in finding.what
    assert "--task classification" in finding.fix


def test_classes_and_label_columns_without_order_are_refused() -> None:
    with pytest.raises(ArgumentError, match="classes is a set, which has no order"):
        ImageOptions(classes={"ant", "bee"})
    assert ImageOptions(classes={1: "ant", 0: "bee"}).classes == ("bee", "ant")


def test_an_ordered_categorical_label_keeps_its_order(tmp_path: Path) -> None:
    names = ["low", "high", "mid"] * 10
    frame = pd.DataFrame({"file": files(tmp_path, 30), "label": names})
    assert ImageData.from_df(frame, root=tmp_path).targets.names == ("high", "low", "mid")
    frame["label"] = pd.Categorical(names, ["low", "mid", "high", "top"], ordered=True)
    for table in (frame, {name: frame[name] for name in frame}):
        data = ImageData.from_df(table, root=tmp_path)
        assert data.targets.names == ("low", "mid", "high")
        assert [data.targets.text(row) for row in range(3)] == ["low", "high", "mid"]
