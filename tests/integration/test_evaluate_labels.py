"""``flambeau evaluate`` on labels of other forms: columns of classes, file names, tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flambeau import Learner
from flambeau.cli.app import build_app
from flambeau.errors import InputError
from flambeau_vision import ImageData, ImageOptions


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images named ant_0.png … bee_5.png."""
    folder = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    for name in ("ant", "bee"):
        for index in range(6):
            pixels = draws.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}_{index}.png")
    return folder


def evaluate(*words: object) -> tuple[str, str]:
    """Return what the command prints to standard output and to standard error."""
    result = CliRunner().invoke(build_app(), ["evaluate", *(str(word) for word in words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout, result.stderr


@pytest.mark.parametrize("values", [("1", "0"), ("True", "False")])
def test_columns_of_classes_are_read_as_in_training(
    photos: Path, tmp_path: Path, values: tuple[str, str]
) -> None:
    yes, no = values
    rows = [
        f"{file},{yes if 'ant' in file.name else no},{no if 'ant' in file.name else yes}"
        for file in sorted(photos.iterdir())
    ]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["file,ant,bee", *rows]) + "\n")
    data = ImageData.from_csv(table, label=["ant", "bee"])
    assert data.targets.kind == "classification"
    assert data.targets.values.tolist() == [0] * 6 + [1] * 6
    model = Learner(data, quiet=True).export(tmp_path / "model")
    assert evaluate(model, table)[0].startswith("12 samples (all)\n")
    table.write_text("\n".join(["file,ant,bee", *rows[:3]]) + "\n")
    out, notes = evaluate(model, table)
    assert out.startswith("3 samples (all)\n")
    assert "No sample has the class bee" in notes


def test_labels_in_file_names_are_compared_with_the_classes(photos: Path, tmp_path: Path) -> None:
    options = ImageOptions(pattern=r"(.+)_[0-9]+")
    data = ImageData.from_folder(photos, options=options)
    model = Learner(data, quiet=True).export(tmp_path / "model")
    new = tmp_path / "new"
    (new / "test").mkdir(parents=True)
    (new / "train").mkdir()
    for index, file in enumerate(sorted(photos.iterdir())):
        name = file.name.replace("bee", "zebra") if index > 8 else file.name
        part = "test" if index % 3 == 0 else "train"
        (new / part / name.replace("ant", "Ant")).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"1 of 3 classes .* zebra \(3\)"):
        evaluate(model, new)
    out, notes = evaluate(model, new, "--unknown", "skip", "--json")
    assert '"samples": 3,\n  "parts": [\n    "test"\n  ]' in out
    assert "Ant as ant" in notes
    with pytest.raises(InputError, match="images of Ant, zebra, which the model does not have"):
        ImageData.from_folder(new, options=ImageOptions(like=model))


def test_rows_with_unknown_tags_are_counted_and_left_out_on_request(
    photos: Path, tmp_path: Path
) -> None:
    files = sorted(photos.iterdir())

    def table(tags: list[str]) -> Path:
        path = tmp_path / "tags.csv"
        rows = [f"{file},{tag}" for file, tag in zip(files, tags, strict=True)]
        path.write_text("\n".join(["file,label", *rows]) + "\n")
        return path

    data = ImageData.from_csv(table(["red;big", "red", "big"] * 4), options=ImageOptions(sep=";"))
    model = Learner(data, quiet=True).export(tmp_path / "model")
    other = table(["RED;big", "red;new", "big"] * 4)
    with pytest.raises(InputError, match=r"1 of 4 classes .* new \(4\)"):
        evaluate(model, other)
    out, notes = evaluate(model, other, "--unknown", "skip")
    assert out.startswith("8 samples (all)\n")
    assert "RED as red" in notes
    assert "new (4)" in notes
