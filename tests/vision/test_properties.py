"""Tables of images with random labels, columns and separators, in any order of rows and columns."""

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from flambeau.errors import InputError
from flambeau_vision import ImageData

repeatable = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # of a machine that others use, too
)

N = 12
FILES = [f"{number}.png" for number in range(N)]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
LABELS: dict[str, Any] = {
    "text": st.sampled_from(["ant", "é", "ant bee", " ant", "中", "NA", "1,5", 'the "bee"']),
    "codes": st.sampled_from(["007", "07", "7", "1_0"]),
    "integers": st.integers(0, 4).map(str),
    "floats": st.floats(-9, 9).map(repr),
    "any": TEXT,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(FILES):
        Image.new("L", (8, 8), number).save(folder / name)
    return folder


@st.composite
def labels_of_files(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(LABELS[draw(st.sampled_from(sorted(LABELS)))], min_size=N, max_size=N))


@st.composite
def forms(draw: st.DrawFn) -> tuple[str, int, list[int], list[int]]:
    """A separator, a way to quote, an order of the rows and one of the columns."""
    separator = draw(st.sampled_from(",;\t"))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    rows, columns = draw(st.permutations(range(N))), draw(st.permutations(range(3)))
    return separator, quoting, list(rows), list(columns)


COLUMNS = st.sampled_from([("file", "label"), ("path", "kind"), ("é ", "B")])
PLAIN = (",", csv.QUOTE_MINIMAL, list(range(N)), list(range(3)))


def write(folder: Path, table: dict[str, list[str]], form: Any) -> Path:
    separator, quoting, rows, columns = form
    names = [list(table)[column] for column in columns if column < len(table)]
    path = folder / "random.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting)
        writer.writerow(names)
        writer.writerows([table[name][row] for name in names] for row in rows)
    return path


def read(path: Path, **options: Any) -> tuple[Any, ...]:
    """Kind and class names, and the label of each file; or the words that open an error."""
    try:
        data = ImageData.from_csv(path, **options)
    except InputError as error:
        return "error", str(error).split()[:2], {}
    files = [Path(file).name for file in data.samples["image"]]
    labels = {file: data.targets.text(row) for row, file in enumerate(files)}
    return data.targets.kind, data.targets.names, labels


@repeatable
@given(
    labels_of_files(), st.sampled_from([("file", "label"), ("path", "kind"), ("é ", "B")]), forms()
)
def test_the_form_and_order_of_a_table_do_not_change_its_labels(
    folder: Path, labels: list[str], names: tuple[str, str], form: Any
) -> None:
    table = dict(zip(names, (FILES, labels), strict=True))
    kind, classes, found = read(write(folder, table, PLAIN))
    assert read(write(folder, table, form)) == (kind, classes, found)
    if kind == "classification":
        assert found == dict(zip(FILES, labels, strict=True))
        assert set(classes) == set(labels)


@repeatable
@given(
    st.lists(st.sampled_from(["train", "valid", "test", "calibration"]), min_size=N, max_size=N),
    st.sampled_from(["split", "is it", "Partition"]),
    forms(),
)
def test_a_split_column_is_used_as_it_is(
    folder: Path, parts: list[str], column: str, form: Any
) -> None:
    parts = ["train", "train", "valid", *parts[3:]]  # two classes in train, and a valid part
    labels = ["a", "b", *"ab" * 5]
    table = {"file": FILES, "label": labels, column: parts}
    data = ImageData.from_csv(write(folder, table, form))
    for part in set(parts):
        files = {Path(data.samples["image"][row]).name for row in data.split.part(part)}
        assert files == {file for file, each in zip(FILES, parts, strict=True) if each == part}
