"""Paths that no domain recognises: the cause is named, and options that make them readable."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau.domain import Recognition, recognise_domain
from flambeau.errors import DomainError, InputError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.decode import decode
from flambeau_vision.domain import recognise
from flambeau_vision.foreign_files import describe_foreign_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(8):
        Image.new("L", (8, 6), number).save(tmp_path / f"{'ab'[number % 2]}_{number}.png")
    return tmp_path


TEXT = "file,label\na_0.png,caf\u00e9\nb_1.png,b\n"


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("latin.csv", TEXT.encode("latin-1"), "line 2: byte 12 of the line is not UTF-8"),
        ("wide.csv", TEXT.encode("utf-16"), "UTF-16"),
        ("wide.txt", TEXT.encode("utf-16"), "UTF-16"),
        ("ragged.csv", b"file,label\na_0.png,a,b\n", "Row 0 .* has 3 fields"),
        ("data.parquet", b"PAR1xxxx", "Parquet"),
        ("list.txt", b"a_0.png a\nb_1.png b\n", "separate the columns by commas, and name"),
        ("list", b"file,label\na_0.png,a\n", "name the file .csv"),
        ("t.tsv", b"file,label\na_0.png,a\n", "in a .tsv file by tab"),
        ("d.json", b'[{"file": "a_0.png"}]', "It is JSON.*from_df"),
        ("d.npz", b"PK\3\4", "numpy.load"),
        ("d.npy", b"\x93NUMPY", "from_arrays"),
        ("d.pkl", b"\x80\4", "from_arrays"),
        ("d.h5", b"\x89HDF\r\n", "HDF5"),
        ("d.feather", b"ARROW1\0\0", "read_feather"),
        ("d.xls", b"\xd0\xcf\x11\xe0\xa1", "workbook"),
        ("d.7z", b"7z\xbc\xaf\x27", "Unpack it"),
        ("d.xml", b"<annotation/>", "one sub-folder per class"),
    ],
)
def test_the_cause_is_named(root: Path, name: str, content: bytes, cause: str) -> None:
    (root / name).write_bytes(content)
    message = rf"No installed domain recognises(.|\n)*vision: .*{cause}"
    with pytest.raises(DomainError, match=message):
        recognise_domain(root / name)
    if name not in ("list.txt", "list", "d.xml"):
        with pytest.raises(InputError, match=cause):
            ImageData.from_path(root / name, {})


def test_a_table_of_ids_is_told_of_the_suffix(root: Path) -> None:
    (root / "ids.csv").write_text("id,label\n0001,a\n0002,b\n")
    found = recognise(root / "ids.csv", {})
    assert found is not None
    assert (found.certainty, "--suffix" in found.reason) == ("no", True)


def test_columns_may_be_separated_by_bars(root: Path) -> None:
    (root / "bars.csv").write_text("file|label\na_0.png|a\nb_1.png|b\na_2.png|a\nb_3.png|b\n")
    assert ImageData.from_csv(root / "bars.csv").targets.names == ("a", "b")


def test_objects_of_torch_are_no_text_in_portuguese(root: Path) -> None:
    for content, cause in ((b"PK\3\4", "from_arrays"), (b"Um gato\n", None)):
        (root / "d.pt").write_bytes(content)
        found = describe_foreign_file(root / "d.pt")
        assert found is None if cause is None else cause in str(found)


def test_archives_and_files_without_extension_are_named(root: Path) -> None:
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        archive.writestr("a/1.png", b"x")
    found = recognise(root / "photos.zip", {})
    assert found is not None
    assert (found.certainty, "Unpack it" in found.reason) == ("no", True)
    with pytest.raises(InputError, match="It is an archive"):
        ImageData.from_path(root / "photos.zip", {})
    for name in ("ant", "bee"):
        (root / "bare" / name).mkdir(parents=True)
        (root / "bare" / name / "0001").write_bytes(b"x")
    assert "2 no extension" in str(recognise(root / "bare", {}))
    (root / "packed").mkdir()
    (root / "photos.zip").rename(root / "packed" / "train.zip")
    assert "but 1 .zip. Unpack the archives" in str(recognise(root / "packed", {}))


def test_a_table_with_tabs_is_recognised(root: Path) -> None:
    rows = "".join(f"{'ab'[n % 2]}_{n}.png\t{'ab'[n % 2]}\n" for n in range(8))
    (root / "t.tsv").write_text("image\tkind\n" + rows)
    assert isinstance(found := recognise(root / "t.tsv", {}), Recognition)
    assert found.certainty == "sure"
    assert ImageData.from_path(root / "t.tsv", {}).targets.names == ("a", "b")


def test_ids_get_a_suffix(root: Path) -> None:
    for number in range(8):
        Image.new("L", (8, 6), number).save(root / f"{number}.jpg")
    (root / "t.csv").write_text("id,kind\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(8)))
    data = ImageData.from_path(root / "t.csv", {"file": "id", "suffix": ".jpg"})
    assert [Path(item).name for item in data.samples["image"]] == [f"{n}.jpg" for n in range(8)]
    assert recognise(root / "t.csv", {"file": "id"}) is not None
    with pytest.raises(InputError, match=r"/0 does not exist\..*--suffix"):
        ImageData.from_path(root / "t.csv", {"file": "id"})


def test_ids_are_numbers_of_numpy_and_extensions_have_a_dot_and_a_case(root: Path) -> None:
    for number in range(4):
        Image.new("L", (8, 6), number).save(root / f"{number}.JPG", "JPEG")
    frame = {"file": [np.int64(number) for number in range(4)], "label": ["a", "b"] * 2}
    data = ImageData.from_df(frame, root=root, options=ImageOptions(suffix=".JPG"))
    assert [Path(item).name for item in data.samples["image"]] == [f"{n}.JPG" for n in range(4)]
    with pytest.raises(InputError, match=r"suffix='JPG' has no dot"):
        ImageOptions(suffix="JPG")
    with pytest.raises(InputError, match=r"0\.JPG exists: .* upper and lower case"):
        ImageData.from_df(frame, root=root, options=ImageOptions(suffix=".jpg"))


def test_cells_may_have_the_images(root: Path) -> None:
    draws = np.random.default_rng(0)
    images = [draws.integers(0, 256, (8, 6, 3)).astype(np.uint8) for _ in range(4)]
    files = [io.BytesIO() for _ in images]
    for image, file in zip(images, files, strict=True):
        Image.fromarray(image).save(file, "PNG")
    content = [file.getvalue() for file in files]
    cells = [
        content,
        [{"bytes": each, "path": None} for each in content],
        [Image.fromarray(image) for image in images],
    ]
    for column in cells:
        frame = {"image": column, "label": ["a", "b"] * 2}
        data = ImageData.from_df(frame, "image")
        [raw] = data.raw("train")[:1]
        row = int(data.split.train[0])
        assert np.array_equal(decode(raw), images[row])
    with pytest.raises(InputError, match=r"The file of row 0 is \[0\.0, 0\.0") as error:
        ImageData.from_df({"image": [[0.0] * 1_000] * 2, "label": ["a", "b"]}, "image")
    assert len(str(error.value)) < 200


def test_labels_come_from_file_names(root: Path) -> None:
    data = ImageData.from_path(root, {"pattern": "(.+)_[0-9]+"})
    assert data.targets.counts() == {"a": 4, "b": 4}
    firsts = [item.name[0] for item in data.samples["image"]]
    assert [data.targets.text(row) for row in range(8)] == firsts
    assert "group of '(.+)_[0-9]+'" in data.readings[0].what
    ordered = ImageData.from_path(root, {"pattern": "(.)", "classes": "b,a"})
    assert ordered.targets.names == ("b", "a")
    for pattern, message in (
        ("a_", "has no group"),
        ("(", "not a valid regular expression"),
        ("(x).", "8 of 8 file names do not match"),
    ):
        with pytest.raises(InputError, match=message):
            ImageData.from_path(root, {"pattern": pattern})
    with pytest.raises(InputError, match="--pattern"):
        ImageData.from_path(root, {})


def test_several_label_columns_and_resize_on_the_command_line(root: Path) -> None:
    rows = "".join(f"{'ab'[n % 2]}_{n}.png,{n % 2},{n // 4}\n" for n in range(8))
    (root / "t.csv").write_text("file,odd,high\n" + rows)
    data = ImageData.from_path(root / "t.csv", {"target": "odd,high", "resize": "squash"})
    assert (data.targets.kind, data.targets.names) == ("multi_label", ("odd", "high"))
    assert data.targets.values.tolist() == [[n % 2, n // 4] for n in range(8)]
    assert data.options.resize == "squash"


def test_an_archive_is_named_by_every_constructor(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("ant/1.png", b"")
    for read in (ImageData.from_folder, ImageData.from_csv):
        with pytest.raises(InputError, match=r"photos\.zip .*It is an archive\. Unpack it"):
            read(tmp_path / "photos.zip")
