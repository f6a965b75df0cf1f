"""Tables of images: without a header, and with columns that have to be found."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from flambeau import Learner, Split
from flambeau.errors import InputError
from flambeau_vision import ImageData, ImageOptions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(12):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    return tmp_path


def write(root: Path, rows: list[str], name: str = "t.csv") -> Path:
    (root / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root / name


def labelled(root: Path, labels: list[str], header: str = "file;label") -> Path:
    return write(root, [header, *(f"{n}.png;{label}" for n, label in enumerate(labels))])


@pytest.mark.parametrize("columns", [{}, {"file": "0", "label": "1"}])
def test_a_csv_without_header_keeps_its_first_image(root: Path, columns: dict) -> None:
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(12)]
    data = ImageData.from_csv(write(root, rows), **columns)
    assert [Path(item).name for item in data.samples["image"]] == [f"{n}.png" for n in range(12)]
    assert data.targets.text(0) == "a"


def test_a_csv_without_header_on_the_command_line(root: Path) -> None:
    path = write(root, [f"{'ab'[number % 2]}\t{number}.png" for number in range(12)])
    for options in ({}, {"file": "1", "target": "0"}):
        data = ImageData.from_path(path, options)
        assert (len(data.samples), data.targets.names) == (12, ("a", "b"))
    reading = ImageData.from_path(path, {}).readings[0]
    assert "first line is not a header" in reading.what
    assert "the images are in the column '1' and the labels are in the column '0'" in reading.what
    assert "--target" in reading.override


def test_a_frame_whose_header_is_a_row_is_refused(root: Path) -> None:
    path = write(root, [f"{number}.png,{'ab'[number % 2]}" for number in range(12)])
    with pytest.raises(InputError, match=r"named '0\.png'.*header=None"):
        ImageData.from_df(pd.read_csv(path), "0.png", "a", root=root)
    frame = pd.read_csv(path, header=None)
    assert len(ImageData.from_df(frame, root=root).samples) == 12


def test_columns_are_found_and_said(root: Path) -> None:
    frame = pd.DataFrame({"kind": list("ab") * 6, "path": [f"{n}.png" for n in range(12)]})
    learner = Learner(ImageData.from_df(frame, root=root), quiet=True)
    assert "labels are in the column 'kind'" in learner.plan["targets"].reason
    with pytest.raises(InputError, match=r"labels; .* kind, path, x\..*--target"):
        ImageData.from_df(frame.assign(x=1), root=root)
    with pytest.raises(InputError, match=r"no column 'knid'.*label=….*--target"):
        ImageData.from_df(frame, label="knid", root=root)


@pytest.mark.parametrize(
    ("labels", "kind", "names", "doubt"),
    [
        (["001", "01", "1"] * 4, "classification", ("001", "01", "1"), ""),
        (["1_2", "12"] * 6, "classification", ("12", "1_2"), ""),
        (["red,round", "red", "blue"] * 4, "classification", None, "separated by ','"),
        ([" Ant", "ant"] * 6, "classification", (" Ant", "ant"), "several spellings"),
        (["1,5", "2,5", "3,0"] * 4, "classification", None, "decimal comma"),
        (["0.0", "1.0"] * 6, "regression", ("value",), "could be class numbers"),
        ([str(age) for age in range(30, 36)] * 2, "classification", None, "they are amounts"),
    ],
)
def test_labels_are_read_as_written_and_doubts_named(
    root: Path, labels: list[str], kind: str, names: tuple | None, doubt: str
) -> None:
    data = ImageData.from_csv(labelled(root, labels))
    assert data.targets.kind == kind
    assert names is None or data.targets.names == names
    found = [r for r in data.readings if r.confidence < 0.5]
    assert doubt in " ".join(reading.what for reading in found)
    assert bool(found) == bool(doubt)
    if doubt:
        assert f"doubtful: {found[0].what}" in data.report()
        assert Learner(data, quiet=True).plan[found[0].key].confidence < 0.5


def with_patients(root: Path, column: str = "patient", each: int = 3) -> Path:
    header = f"file,label,{column},age"
    rows = [f"{n}.png,{'ab'[n % 2]},p{n // each},{n + 20}" for n in range(12)]
    return write(root, [header, *rows])


def test_columns_that_are_not_used_are_named(root: Path) -> None:
    data = ImageData.from_csv(with_patients(root, "camera"), file="file", label="label")
    assert "note: Columns of t.csv that are not used: camera, age." in data.report()
    assert "doubtful" not in data.report()
    weighted = ImageOptions(weight="age")
    data = ImageData.from_csv(with_patients(root, "camera"), options=weighted)
    assert "not used: camera." in data.report()


@pytest.mark.parametrize("column", ["patient", "Patient_ID", "subject no", "videos"])
def test_a_random_split_beside_a_column_of_groups_is_doubtful(root: Path, column: str) -> None:
    path = with_patients(root, column)
    data = ImageData.from_csv(path)
    [doubt] = [each for each in data.readings if each.confidence < 0.5]
    assert (doubt.key, doubt.evidence["groups"]) == ("split", 4)
    [finding] = [
        each for each in Learner(data, quiet=True).doctor().findings if "reading" in each.code
    ]
    assert f"The column {column!r} of t.csv has 4 values" in finding.what
    groups = [n // 3 for n in range(12)]
    by_group = Split.by_group(groups, valid=0.25)
    for options in ({"split": by_group}, {"split": False}, {"valid": 0}):
        found = ImageData.from_csv(path, **options).readings
        assert all(each.confidence > 0.5 for each in found), options
    alone = ImageData.from_csv(with_patients(root, column, each=1))
    assert all(each.confidence > 0.5 for each in alone.readings)


def test_folders_of_names_that_look_the_same_are_named(root: Path) -> None:
    for folder in ("caf\u00e9", "cafe\u0301", "Tea", "tea"):
        (root / "d" / folder).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), number).save(root / "d" / folder / f"{number}.png")
    data = ImageData.from_folder(root / "d")
    assert len(data.targets.names) == 4
    assert "2 class names are in several spellings" in data.readings[0].what
