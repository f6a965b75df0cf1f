"""Paths that no domain recognises: the cause is named, and options that make them readable."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from flambeau.domain import Recognition, recognise_domain
from flambeau.errors import DomainError, InputError
from flambeau_vision import ImageData
from flambeau_vision.domain import recognise


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
        ("ids.csv", b"id,label\n0001,a\n0002,b\n", "--suffix"),
    ],
)
def test_the_cause_is_named(root: Path, name: str, content: bytes, cause: str) -> None:
    (root / name).write_bytes(content)
    message = rf"No installed domain recognises(.|\n)*vision: .*{cause}"
    with pytest.raises(DomainError, match=message):
        recognise_domain(root / name)
    if name != "ids.csv":
        with pytest.raises(InputError, match=cause):
            ImageData.from_path(root / name, {})


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
        ("(", "no regular expression"),
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
