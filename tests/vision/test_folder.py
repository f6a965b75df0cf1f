import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from flambeau.errors import InputError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.folder import list_folder


def make(root: Path, *names: str, size: tuple[int, int] = (10, 8)) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, 0, 0)).save(root / name)


def test_class_folders_are_sorted_and_searched_recursively(tmp_path: Path) -> None:
    make(tmp_path, "bee/2.jpg", "ant/deep/er/1.png", "bee/1.JPG", "ant/0.jpg")
    listing = list_folder(tmp_path)
    assert listing.classes == ("ant", "bee")
    names = [str(file.relative_to(tmp_path)) for file in listing.files]
    assert names == ["ant/0.jpg", "ant/deep/er/1.png", "bee/1.JPG", "bee/2.jpg"]
    assert listing.labels == ("ant", "ant", "bee", "bee")
    assert set(listing.parts) == {None}


def test_hidden_and_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg", "a/.hidden.jpg", ".cache/1.jpg", "__MACOSX/a/1.jpg")
    make(tmp_path, "a/.thumbs/1.jpg")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert len(listing.files) == 2
    assert listing.notes == ("skipped files without an image extension: 1 .txt",)


@pytest.mark.parametrize("valid_name", ["valid", "val", "Validation"])
def test_part_folders_are_never_classes(tmp_path: Path, valid_name: str) -> None:
    for part in ("train", valid_name, "test"):
        make(tmp_path, f"{part}/a/1.png", f"{part}/b/1.png")
    make(tmp_path, "stray/1.png")
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert sorted(set(listing.parts)) == ["test", "train", "valid"]
    used, unused = listing.readings
    assert f"{valid_name} (2 images) as valid" in used.what
    assert used.confidence >= 0.5 > unused.confidence
    assert "not used: stray (1 images)" in unused.what


def test_a_test_folder_beside_the_classes_is_a_part(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/1.png", "test/a/1.png", "test/unlabelled.png")
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert sorted(map(str, listing.parts)) == ["None", "None", "test"]


def test_given_classes_set_the_order_and_may_be_named_test(tmp_path: Path) -> None:
    make(tmp_path, "test/1.png", "b/1.png", "c/1.png")
    listing = list_folder(tmp_path, ["test", "b"])
    assert listing.classes == ("test", "b")
    assert set(listing.labels) == {"test", "b"}
    with pytest.raises(InputError, match=r"no images of zebra; its class folders are b, c, test"):
        list_folder(tmp_path, ["b", "zebra"])


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("train_images", "testing images"),
        ("TrainSet", "Test-Data"),
        ("train2017", "val2017"),
        ("dataset_train", "dataset_validation"),
    ],
)
def test_parts_are_recognised_by_more_names(tmp_path: Path, train: str, test: str) -> None:
    for part in (train, test):
        make(tmp_path, *(f"{part}/{name}/{number}.png" for name in "ab" for number in range(5)))
    listing = list_folder(tmp_path)
    assert listing.classes == ("a", "b")
    assert listing.parts.count("train") == 10
    assert len(set(listing.parts)) == 2
    assert all(reading.confidence >= 0.5 for reading in listing.readings)


@pytest.mark.parametrize("names", [("train", "test"), ("training_set", "test_set")])
def test_names_of_parts_as_the_only_classes_are_asked_for(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    make(tmp_path, *(f"{name}/{number}.png" for name in names for number in range(5)))
    option = ",".join(sorted(names))
    with pytest.raises(InputError, match=f"names of parts.*classes=.*--classes {option}"):
        ImageData.from_folder(tmp_path)
    data = ImageData.from_folder(tmp_path, classes=names)
    assert data.targets.names == names


def test_an_unlabelled_test_folder_is_reported(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png")
    listing = list_folder(tmp_path)
    assert set(listing.parts) == {"train"}
    assert (
        "without class folders their images have no labels: test (2 images)"
        in listing.readings[1].what
    )


def test_folders_without_labelled_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        list_folder(tmp_path / "gone")
    make(tmp_path, "1.png", "2.png")
    with pytest.raises(InputError, match=r"contains 2 images directly.*from_csv"):
        list_folder(tmp_path)
    make(tmp_path, "only/1.png")
    with pytest.raises(InputError, match="has a single class"):
        list_folder(tmp_path)


def test_system_files_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, "ant/0.jpg", "bee/0.jpg")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.jpg"):
        (tmp_path / "ant" / name).write_bytes(b"x")
    (tmp_path / "__MACOSX" / "ant").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "ant" / "0.jpg").write_bytes(b"x")
    listing = list_folder(tmp_path)
    assert (len(listing.files), listing.classes, listing.notes) == (2, ("ant", "bee"), ())


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    make(tmp_path / "data", "ant/0.jpg", "ant/1.jpg", "bee/0.jpg", "bee/1.jpg")
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "elsewhere" / "x.png")
    ant = tmp_path / "data" / "ant"
    (ant / "more").symlink_to(tmp_path / "elsewhere")
    (ant / "again").symlink_to(tmp_path / "elsewhere")
    (ant / "loop").symlink_to(tmp_path / "data" / "ant")
    (tmp_path / "data" / "wasp").symlink_to(tmp_path / "elsewhere")
    names = [
        os.path.relpath(file, tmp_path / "data") for file in list_folder(tmp_path / "data").files
    ]
    assert names == [
        "ant/0.jpg",
        "ant/1.jpg",
        "ant/again/x.png",
        "bee/0.jpg",
        "bee/1.jpg",
        "wasp/x.png",
    ]


def test_broken_links_are_problems(tmp_path: Path) -> None:
    make(tmp_path, "ant/0.jpg", "ant/1.jpg", "bee/0.jpg", "bee/1.jpg")
    (tmp_path / "ant" / "self.jpg").symlink_to(tmp_path / "ant" / "self.jpg")
    (tmp_path / "bee" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    data = ImageData.from_folder(tmp_path, unreadable="skip")
    assert [Path(problem.source).name for problem in data.samples.problems] == [
        "self.jpg",
        "gone.jpg",
    ]


def test_a_folder_that_cannot_be_listed_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "ant/0.jpg", "bee/0.jpg")
    original = os.scandir

    def refuse(path: str):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"bee cannot be listed \(Permission denied\)"):
        list_folder(tmp_path)


SYSTEM_FOLDERS = ("@eaDir", "$RECYCLE.BIN", "lost+found", "System Volume Information", "#recycle")


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_folders_of_the_system_are_no_classes(tmp_path: Path, name: str) -> None:
    make(tmp_path, "ant/0.png", "bee/0.png", f"{name}/0.png", f"ant/{name}/0.png")
    listing = list_folder(tmp_path)
    assert (listing.classes, len(listing.files)) == (("ant", "bee"), 2)


def test_class_folders_without_images_are_named(tmp_path: Path) -> None:
    make(tmp_path, "train/ant/0.png", "train/bee/0.png", "valid/ant/0.png")
    (tmp_path / "train" / "cow").mkdir()
    (tmp_path / "valid" / "bee").mkdir()
    (tmp_path / "valid" / "bee" / "0.raw").touch()
    reading = list_folder(tmp_path).readings[-1]
    assert "no images: train/cow (empty), valid/bee (1 .raw)" in reading.what
    assert reading.confidence < 0.5
    make(tmp_path / "flat", "ant/0.png", "bee/0.png")
    (tmp_path / "flat" / "cow").mkdir()
    [reading] = list_folder(tmp_path / "flat").readings
    assert "cow (empty)" in reading.what
    with pytest.raises(InputError, match="no images of cow"):
        list_folder(tmp_path / "flat", ["ant", "bee", "cow"])


def test_a_wrapper_folder_is_told(tmp_path: Path) -> None:
    make(tmp_path, "dataset/ant/0.png", "dataset/bee/0.png")
    with pytest.raises(InputError, match=r"If ant, bee are the classes or parts, pass .*dataset"):
        list_folder(tmp_path)
    make(tmp_path / "parts", "d/train/ant/0.png", "d/train/bee/0.png", "d/test/ant/0.png")
    with pytest.raises(InputError, match=r"If test, train are the .* parts, pass .*parts/d"):
        list_folder(tmp_path / "parts")


def test_heif_images_need_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png")
    for name in ("0.heic", "1.HEIF"):
        (tmp_path / "cow").mkdir(exist_ok=True)
        (tmp_path / "cow" / name).write_bytes((tmp_path / "ant" / "0.png").read_bytes()[4:])
    with pytest.raises(InputError, match=r"2 of 6 images .*\n.*cow/0.heic is a HEIF .*pillow-heif"):
        ImageData.from_folder(tmp_path)
    registered: list[bool] = []
    plugin = SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setattr("flambeau_vision.open_image.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    for name in ("0.heic", "1.HEIF"):
        (tmp_path / "cow" / name).write_bytes((tmp_path / "ant" / "0.png").read_bytes())
    assert "cow" in ImageData.from_folder(tmp_path).targets.names
    assert registered


def test_missing_files_with_backslashes_or_other_accents_are_explained(tmp_path: Path) -> None:
    make(tmp_path, "ant/caf\u00e9.png", "bee/0.png")
    frame = {"file": ["ant\\caf\u00e9.png", "bee/0.png"], "label": ["a", "b"]}
    with pytest.raises(InputError, match=r'has backslashes.*Write "/"'):
        ImageData.from_df(frame, root=tmp_path)
    frame["file"][0] = "ant/cafe\u0301.png"
    with pytest.raises(InputError, match=r"Unicode form NFC exists"):
        ImageData.from_df(frame, root=tmp_path)
    (tmp_path / "t.csv").write_text("file,label\nant\\caf\u00e9.png,a\nbee/0.png,b\n")
    with pytest.raises(InputError, match=r"has backslashes"):
        ImageData.from_csv(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "names",
    [
        ("train/images/1.jpg", "train/masks/1.png", "val/images/2.jpg", "val/masks/2.png"),
        ("images/1.jpg", "masks/1.png"),
        ("JPEGImages/1.jpg", "SegmentationClass/1.png"),
    ],
)
def test_masks_are_not_a_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    make(tmp_path, *names)
    with pytest.raises(InputError, match=r"images and masks for segmentation.*not supported yet"):
        list_folder(tmp_path)
    classes = sorted({Path(name).parent.name for name in names})
    assert list_folder(tmp_path, classes).classes == tuple(classes)


def test_folders_named_like_masks_alone_are_classes(tmp_path: Path) -> None:
    make(tmp_path, "mask/1.jpg", "no_mask/1.jpg")  # people with and without a face mask
    assert list_folder(tmp_path).classes == ("mask", "no_mask")


def test_names_of_folders_are_amounts_of_a_regression(tmp_path: Path) -> None:
    make(tmp_path, *(f"{amount}/{index}.png" for amount in ("0", "5", "10.5") for index in "abcd"))
    data = ImageData.from_folder(tmp_path, valid=0, options=ImageOptions(task="regression"))
    assert "value in train: 0 to 10.5, mean 5.16667" in data.report()  # (0 + 5 + 10.5) / 3
    options = ImageOptions(task="regression", classes=["0", "5"])
    data = ImageData.from_folder(tmp_path, valid=0, options=options)
    assert "value in train: 0 to 5, mean 2.5" in data.report()


def test_the_report_names_small_classes(tmp_path: Path) -> None:
    sizes = {"ant": 12, "bee": 2, "wasp": 1}
    make(tmp_path, *(f"{name}/{index}.png" for name, n in sizes.items() for index in range(n)))
    report = ImageData.from_folder(tmp_path).report()
    assert "classes with a single row, kept in train: wasp" in report
    assert "classes too small for a validation row: bee" in report


def test_only_classes_are_advised_to_use_balanced_accuracy(tmp_path: Path) -> None:
    sizes = {"ant": 12, "bee": 3}
    make(tmp_path, *(f"{name}/{index}.png" for name, n in sizes.items() for index in range(n)))
    for task, advised in (("classification", True), ("multi_label", False)):
        report = ImageData.from_folder(tmp_path, options=ImageOptions(task=task)).report()
        assert "times as many): imbalanced" in report
        assert ("use balanced accuracy" in report) is advised
