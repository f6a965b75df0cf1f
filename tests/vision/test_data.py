from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner
from flambeau.data.loader import LoaderOptions
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, InputError, PlanError, SplitError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.preprocess import channel_statistics

pd = pytest.importorskip("pandas")

VALUES = {"image_size": 8, "channels": 3, "cache": "memory", "normalisation": "train"}


def save(path: Path, value: int = 0, size: tuple[int, int] = (10, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)
    return path


def folder(root: Path, n: int = 10) -> Path:
    for number in range(n):
        save(root / "ant" / f"{number:02}.png", number)
        save(root / "bee" / f"{number:02}.png", 100 + number)
    return root


def arrays(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, 8, 8), dtype=np.uint8), np.arange(n) % 4


def first_batch(data: ImageData, part: str, values: dict = VALUES):
    dataset = data.dataset(part, data.preprocessor(values), values)
    return next(iter(dataset.loader(LoaderOptions(batch_size=100)).batches(0)))


# ---------------------------------------------------------------- folders


def test_folder_of_classes_is_split_by_class(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder(tmp_path), valid=0.2, test=0.1, seed=3)
    facts = data.facts()
    assert (facts["n_train"], facts["n_valid"], facts["n_test"]) == (14, 4, 2)
    assert facts["class_counts"] == [7, 7]
    again = ImageData.from_folder(tmp_path, valid=0.2, test=0.1, seed=3)
    assert data.raw("valid") == again.raw("valid")
    assert data.raw("valid") != ImageData.from_folder(tmp_path, test=0.1, seed=4).raw("valid")


def test_part_folders_are_kept(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        folder(tmp_path / part, n={"train": 5, "val": 2, "test": 3}[part])
    data = ImageData.from_folder(tmp_path)
    for part, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        assert {path.parts[-3] for path in data.raw(part)} == {name}
    assert "Folders used as parts" in data.report()


def test_valid_is_drawn_from_train_if_it_has_no_folder(tmp_path: Path) -> None:
    folder(tmp_path / "train", 10)
    folder(tmp_path / "test", 4)
    data = ImageData.from_folder(tmp_path, valid=0.2)
    assert len(data.raw("valid")) == 4
    assert {path.parts[-3] for path in (*data.raw("train"), *data.raw("valid"))} == {"train"}
    assert len(data.raw("test")) == 8


def test_a_class_without_train_images_is_refused(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "valid")
    save(tmp_path / "valid" / "wasp" / "1.png")
    with pytest.raises(SplitError, match="class has images in valid but none in train: wasp"):
        ImageData.from_folder(tmp_path)


def test_unreadable_files_raise_or_are_skipped_and_reported(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "ant" / "05.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r'(?s)05\.png cannot be read.*unreadable="skip"'):
        ImageData.from_folder(tmp_path)
    data = ImageData.from_folder(tmp_path, unreadable="skip")
    assert len(data.samples) == 19
    assert len(data.samples.problems) == 1
    assert "1 could not be read" in data.report()
    assert "05.png" in data.report()


def test_a_given_split_refers_to_the_original_rows(tmp_path: Path) -> None:
    folder(tmp_path, 3)
    (tmp_path / "ant" / "00.png").write_bytes(b"")
    split = Split.from_indices(train=[0, 1, 3, 4], valid=[2, 5])
    data = ImageData.from_folder(tmp_path, split=split, unreadable="skip")
    assert [path.name for path in data.raw("train")] == ["01.png", "00.png", "01.png"]
    assert [path.name for path in data.raw("valid")] == ["02.png", "02.png"]
    with pytest.raises(SplitError, match="row 9"):
        ImageData.from_folder(tmp_path, split=Split.from_indices([0, 1], [9]), unreadable="skip")


# ---------------------------------------------------------------- tables


def test_df_with_split_column_and_root(tmp_path: Path) -> None:
    folder(tmp_path)
    frame = pd.DataFrame(
        {
            "name": [f"{c}/{i:02}.png" for c in ("ant", "bee") for i in range(4)],
            "kind": ["ant"] * 4 + ["bee"] * 4,
            "part": ["train", "train", "valid", "test"] * 2,
        }
    )
    data = ImageData.from_df(frame, "name", "kind", root=tmp_path, split="part")
    assert [path.name for path in data.raw("test")] == ["03.png", "03.png"]
    assert first_batch(data, "valid").target.tolist() == [0, 1]
    frame["part"] = [False, False, True, True] * 2
    data = ImageData.from_df(frame, "name", "kind", root=tmp_path, split="part")
    assert len(data.raw("valid")) == 4
    with pytest.raises(InputError, match=r"its columns are name, kind, part\. .*label=…"):
        ImageData.from_df(frame, root=tmp_path)
    with pytest.raises(InputError, match=r"no column 'knd'\. Did you mean 'kind'.*label=…"):
        ImageData.from_df(frame, "name", "knd", root=tmp_path)
    frame["part"] = "holdout"
    with pytest.raises(SplitError, match="'holdout' in row 0"):
        ImageData.from_df(frame, "name", "kind", root=tmp_path, split="part")


def test_df_with_missing_labels_and_files_names_the_row(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    frame = pd.DataFrame({"file": ["a.png", "a.png"], "label": ["x", None]})
    with pytest.raises(InputError, match=r"row 1 \(.*a\.png\) is missing"):
        ImageData.from_df(frame, root=tmp_path)
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        ImageData.from_df({"file": ["gone.png"], "label": ["x"]}, root=tmp_path)
    with pytest.raises(InputError, match="file of row 0 is nan"):
        ImageData.from_df({"file": [float("nan")], "label": ["x"]}, root=tmp_path)


def test_csv_types_follow_the_columns(tmp_path: Path) -> None:
    folder(tmp_path)
    names = [f"{c}/{i:02}.png" for c in ("ant", "bee") for i in range(5)]
    lines = [
        f"{name},{i % 2},{i / 4},red;{'big' if i % 2 else 'small'}" for i, name in enumerate(names)
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["file,label,length,tags", *lines]), encoding="utf-8")
    assert ImageData.from_csv(path).targets.kind == "classification"
    assert ImageData.from_csv(path, label="length").targets.kind == "regression"
    tagged = ImageData.from_csv(path, label="tags", options=ImageOptions(sep=";"))
    assert tagged.targets.names == ("big", "red", "small")
    several = ImageData.from_csv(path, label=["label", "length"])
    assert several.targets.names == ("label", "length")
    path.write_text("file,label\na.png\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"Row 0 of .* has 1 fields, but the header has 2"):
        ImageData.from_csv(path)


def test_several_columns_of_0_and_1_are_multi_label(tmp_path: Path) -> None:
    folder(tmp_path, 4)
    frame = {
        "file": [f"{c}/{i:02}.png" for c in ("ant", "bee") for i in range(4)],
        "wet": [0, 1] * 4,
        "red": [1, 1, 0, 0] * 2,
    }
    data = ImageData.from_df(frame, label=["wet", "red"], root=tmp_path, valid=2)
    assert data.targets.kind == "multi_label"
    assert data.targets.names == ("wet", "red")
    assert data.targets.values[:3].tolist() == [[0, 1], [1, 1], [0, 0]]


# ---------------------------------------------------------------- arrays and pairs


@pytest.mark.parametrize("channels", [1, 3])
def test_layouts_and_types_of_arrays_agree(channels: int) -> None:
    random = np.random.default_rng(0)
    nhwc = random.integers(0, 256, (20, 6, 7, channels), dtype=np.uint8)
    labels = [0, 1] * 10
    nchw = nhwc.transpose(0, 3, 1, 2)
    given = [nhwc, nchw, torch.from_numpy(nchw.copy()), nhwc / 255.0, nhwc.astype(np.float32)]
    given += [nhwc.astype(np.uint16) * 257, nhwc.astype(np.int64)]
    if channels == 1:
        given.append(nhwc[:, :, :, 0])
    for images in given:
        items = ImageData.from_arrays(images, labels).samples["image"]
        assert torch.equal(items, torch.from_numpy(nchw.copy()))
    read_only = nhwc.copy()
    read_only.flags.writeable = False
    assert len(ImageData.from_arrays(read_only, labels).samples) == 20


def test_given_parts_and_drawn_parts_of_arrays() -> None:
    x, y = arrays()
    data = ImageData.from_arrays(x, y, valid=0.25, test=(x[:8], y[:8]))
    assert [data.facts()[f"n_{part}"] for part in ("train", "valid", "test")] == [30, 10, 8]
    assert data.split.test.tolist() == list(range(40, 48))
    data = ImageData.from_arrays(x, y, valid=(x[:4], y[:4]), test=0.0)
    assert [data.facts()[f"n_{part}"] for part in ("train", "valid", "test")] == [40, 4, 0]
    data = ImageData.from_arrays(x, y, valid=0.2, test=0.2)
    assert [data.facts()[f"n_{part}"] for part in ("train", "valid", "test")] == [24, 8, 8]


def test_invalid_arrays_are_refused() -> None:
    x, y = arrays()
    with pytest.raises(InputError, match="40 train images, but 39 labels"):
        ImageData.from_arrays(x, y[:-1])
    with pytest.raises(InputError, match="values from -1 to"):
        ImageData.from_arrays(x.astype(np.float32) - 1 - x.min(), y)
    with pytest.raises(InputError, match="are both possible"):
        ImageData.from_arrays(np.zeros((4, 3, 8, 3), np.uint8), [0, 1, 0, 1])
    with pytest.raises(InputError, match="are both impossible"):
        ImageData.from_arrays(np.zeros((4, 8, 8, 8), np.uint8), [0, 1, 0, 1])
    with pytest.raises(InputError, match="different shape"):
        ImageData.from_arrays(x, y, test=(x[:, :4], y))
    with pytest.raises(InputError, match="differ in size"):
        ImageData.from_arrays(np.array([x[0], x[0][:4]], dtype=object), [0, 1])
    with pytest.raises(InputError, match=r"shape \(8, 8\)"):
        ImageData.from_arrays(x[0], y)


def test_arrays_are_resized_and_converted_on_request() -> None:
    x, y = arrays()
    data = ImageData.from_arrays(x, y, size=16)
    assert data.choices == {"image_size": 16}
    batch = first_batch(data, "train", {**VALUES, "image_size": 16})
    assert batch.input.shape == (32, 3, 16, 16)
    assert torch.equal(batch.input[:, 0], batch.input[:, 2])


def test_items_of_any_kind(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 50)
    items = [
        (path, "file"),
        (str(path), "file"),
        (path.read_bytes(), "other"),
        (np.full((9, 9, 3), 50, np.uint8), "other"),
        (Image.open(path).copy(), "other"),
    ]
    data = ImageData.from_items(items, split=Split.from_indices([0, 1, 2, 3], [4]))
    assert (first_batch(data, "train").input == 50).all()
    with pytest.raises(InputError, match="Item 1 is a str, not a pair"):
        ImageData.from_items([(path, 1), "b.png"])
    with pytest.raises(InputError, match="the list is empty"):
        ImageData.from_items([])


# ---------------------------------------------------------------- from the plan


def test_memory_and_files_give_the_same_batches(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder(tmp_path))
    preprocessor = data.preprocessor(VALUES)
    options = LoaderOptions(batch_size=5, shuffle=True, seed=1)
    memory = data.dataset("train", preprocessor, VALUES).loader(options)
    files = data.dataset("train", preprocessor, {**VALUES, "cache": "files"}).loader(options)
    for one, other in zip(memory.batches(2), files.batches(2), strict=True):
        assert torch.equal(one.input, other.input)
        assert torch.equal(one.target, other.target)
        assert torch.equal(one.indices, other.indices)
        assert one.weight == other.weight == len(one)


def test_the_loader_names_a_file_that_becomes_unreadable(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder(tmp_path))
    values = {**VALUES, "cache": "files"}
    dataset = data.dataset("train", data.preprocessor(values), values)
    broken = data.raw("train")[3]
    broken.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{broken.name} is empty"):
        list(dataset.loader(LoaderOptions(batch_size=4)).batches(0))


def test_encoding_raw_items_equals_the_loader(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder(tmp_path))
    preprocessor = data.preprocessor(VALUES)
    assert torch.equal(
        preprocessor.encode(data.raw("valid")).input, first_batch(data, "valid").input
    )


def test_everything_is_fitted_on_train_only() -> None:
    x, y = arrays()
    split = Split.from_indices(range(20), range(20, 30), range(30, 40))
    original = ImageData.from_arrays(x, y, split=split)
    changed = x.copy()
    changed[20:] = 255
    other = ImageData.from_arrays(changed, y, split=split)
    values = {**VALUES, "channels": 1}
    assert original.preprocessor(values).arguments() == other.preprocessor(values).arguments()
    assert original.facts() == other.facts()
    mean, std = channel_statistics(torch.from_numpy(x[:20]).unsqueeze(1))
    assert original.preprocessor(values).arguments()["mean"] == mean
    assert original.preprocessor(values).arguments()["std"] == std


def test_statistics_of_many_files_come_from_train_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flambeau_vision.image_store._STATISTICS_FROM", 6)
    items = [(np.full((4, 4), 10 if row < 20 else 200, np.uint8), row % 2) for row in range(30)]
    data = ImageData.from_items(items, split=Split.from_indices(range(20), range(20, 30)))
    preprocessor = data.preprocessor({**VALUES, "channels": 1, "cache": "files"})
    assert preprocessor.arguments()["mean"] == [10 / 255]


@pytest.mark.parametrize(
    ("given", "mean"), [("none", [0.0] * 3), ({"mean": [0.1] * 3, "std": [1.0] * 3}, [0.1] * 3)]
)
def test_normalisation_can_be_given(given: object, mean: list[float]) -> None:
    data = ImageData.from_arrays(*arrays())
    assert data.preprocessor({**VALUES, "normalisation": given}).arguments()["mean"] == mean


def test_normalisation_and_geometry_follow_the_weights() -> None:
    data = ImageData.from_arrays(*arrays())
    values = {
        **VALUES,
        "image_size": 224,
        "architecture": "resnet18",
        "weights": "IMAGENET1K_V1",
        "normalisation": "weights",
    }
    arguments = data.preprocessor(values).arguments()
    assert arguments["mean"] == [0.485, 0.456, 0.406]
    assert arguments["crop"] == 224 / 256
    grey = data.preprocessor({**values, "channels": 1}).arguments()
    assert grey["mean"] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)]
    with pytest.raises(PlanError, match=r"unknown for weights=None\. Use normalisation='train'"):
        data.preprocessor({**values, "weights": None})
    with pytest.raises(PlanError, match="Choose 'train', 'weights', 'none'"):
        data.preprocessor({**VALUES, "normalisation": "batch"})


def test_builder_arguments_follow_labels_and_plan() -> None:
    x, y = arrays()
    data = ImageData.from_arrays(x, y, class_names=["a", "b", "c", "d"])
    assert data.model_arguments(data.preprocessor(VALUES), VALUES) == {
        "in_channels": 3,
        "n_outputs": 4,
        "image_size": 8,
    }
    weights = data.model_arguments(
        data.preprocessor({**VALUES, "weights": "DEFAULT"}), {**VALUES, "weights": "DEFAULT"}
    )
    assert weights["weights"] == "DEFAULT"
    assert data.task_arguments(data.preprocessor(VALUES), VALUES) == {
        "classes": ["a", "b", "c", "d"]
    }
    with pytest.raises(PlanError, match=r"task is 'regression'.*ImageOptions\(task='regression'\)"):
        data.task_arguments(
            data.preprocessor({**VALUES, "task": "regression"}), {**VALUES, "task": "regression"}
        )
    numbers = ImageData.from_arrays(x, y / 2, split=Split.from_indices(range(8), range(8, 40)))
    assert numbers.task_arguments(numbers.preprocessor(VALUES), VALUES) == {
        "names": ["value"],
        "mean": [0.75],
        "std": [pytest.approx((y[:8] / 2).std())],
    }


def test_augmentation_is_a_transform_if_it_is_active() -> None:
    data = ImageData.from_arrays(*arrays())
    assert data.transforms({"augmentation": None}) == ()
    (augment,) = data.transforms({"augmentation": {"flip": False, "zoom": [1.0, 1.2]}})
    assert augment.augmentation.zoom == (1.0, 1.2)
    nothing = {"flip": False, "rotate_degrees": 0.0, "zoom": [1.0, 1.0], "shift": 0.0}
    assert data.transforms({"augmentation": nothing}) == ()


def test_a_missing_part_says_how_to_get_it() -> None:
    data = ImageData.from_arrays(*arrays())
    with pytest.raises(InputError, match=r"no test images\. Pass test="):
        data.dataset("test", data.preprocessor(VALUES), VALUES)


def test_subset_keeps_the_named_rows() -> None:
    data = ImageData.from_arrays(*arrays())
    rows = {part: data.split.part(part)[:5].tolist() for part in ("train", "valid")}
    small = data.subset(rows)
    assert (small.facts()["n_train"], small.facts()["n_valid"]) == (5, 5)
    assert data.facts()["n_train"] == 32


def test_folds_hold_out_each_image_once() -> None:
    data = ImageData.from_arrays(*arrays(), test=0.1)
    rows = sorted([*data.split.train, *data.split.valid])
    folds = data.folds(3)
    assert sorted(row for each in folds for row in each.split.valid) == rows
    names = data.targets.names
    for each in folds:
        labels = [names[int(at)] for at in each.targets.select(each.split.valid).values]
        counts = [labels.count(name) for name in names]
        assert max(counts) - min(counts) <= 1


def test_paths_from_the_command_line(tmp_path: Path) -> None:
    folder(tmp_path)
    data = ImageData.from_path(tmp_path, {"valid": 0.5, "size": 32, "seed": None})
    assert data.facts()["n_valid"] == 10
    assert data.choices == {"image_size": 32}
    (tmp_path / "t.csv").write_text("image,kind\nant/00.png,a\nant/01.png,b\nbee/00.png,a\n")
    data = ImageData.from_path(tmp_path / "t.csv", {"valid": 1})
    assert data.targets.names == ("a", "b")
    with pytest.raises(ArgumentError, match=r"Unknown option 'vaild' .*Did you mean 'valid'"):
        ImageData.from_path(tmp_path, {"vaild": 0.1})


# ---------------------------------------------------------------- report and contact sheets


def test_report_has_sizes_classes_and_split(tmp_path: Path) -> None:
    folder(tmp_path)
    save(tmp_path / "ant" / "grey.jpg", size=(30, 20), mode="L")
    report = ImageData.from_folder(tmp_path).report()
    for words in (
        "21 images, classification",
        "2 different, width 10 to 30 (median 10), height 8 to 20",
        "colour mode: RGB 20, L 1",
        "format: PNG 20, JPEG 1",
        "ant",
        "class balance in train",
        "random, stratified (seed 0)",
    ):
        assert words in report


def test_show_draws_a_sheet_and_saves_it(tmp_path: Path) -> None:
    x, y = arrays()
    data = ImageData.from_arrays(x, y, class_names=["a", "b", "c", "a very long name indeed it is"])
    sheet = data.show(6, path=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as saved:
        assert saved.size == sheet.size
    assert sheet.size[0] > 3 * 112
    assert sheet.tobytes() == data.show(6).tobytes()


def test_wrong_predictions_are_red(tmp_path: Path) -> None:
    data = ImageData.from_arrays(*arrays())
    targets = [data.targets.text(row) for row in data.split.valid]
    right = data.show_predictions(targets, n=4, path=tmp_path / "right.png")
    wrong = data.show_predictions(["?"] * len(targets), n=4)
    redness = [np.asarray(image).astype(int) for image in (right, wrong)]
    red = [((pixels[..., 0] - pixels[..., 1]) > 80).sum() for pixels in redness]
    assert red[0] == 0
    assert red[1] > 50
    with pytest.raises(InputError, match="3 predictions for 8 valid images"):
        data.show_predictions(targets[:3])


# ---------------------------------------------------------------- real photographs


def test_ants_and_bees(realdata: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(realdata / "hymenoptera" / "hymenoptera.tar") as archive:
        # Python before 3.11.4 has no filters; later ones warn without one.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    data = ImageData.from_folder(tmp_path)
    facts = data.facts()
    assert (facts["n_train"], facts["n_valid"], facts["n_test"]) == (244, 153, 0)
    assert facts["class_counts"] == [123, 121]
    assert facts["modes"] == {"RGB": 244}
    assert not data.samples.problems
    batch = first_batch(data, "valid", {**VALUES, "image_size": 64})
    assert batch.input.shape == (100, 3, 64, 64)


def test_a_split_column_is_used_by_from_path(tmp_path: Path) -> None:
    names = [f"{kind}{index}.png" for kind in "ab" for index in range(3)]
    for name in names:
        Image.new("L", (8, 8)).save(tmp_path / name)
    parts = ["train", "train", "valid"] * 2
    rows = "\n".join(f"{name};{name[0]};{part}" for name, part in zip(names, parts, strict=True))
    (tmp_path / "t.csv").write_text(f"file;label;split\n{rows}\n", encoding="utf-8")
    data = ImageData.from_path(tmp_path / "t.csv", {})
    assert [len(data.raw(part)) for part in ("train", "valid")] == [4, 2]
    for data in (
        ImageData.from_csv(tmp_path / "t.csv"),
        ImageData.from_df(pd.read_csv(tmp_path / "t.csv", sep=";"), root=tmp_path),
    ):
        assert len(data.split.valid) == 2
        assert "The column 'split' of" in data.report()
        assert "The column 'split' of" in Learner(data, quiet=True).plan["split"].reason
    for data in (
        ImageData.from_csv(tmp_path / "t.csv", split=False, valid=4),
        ImageData.from_path(tmp_path / "t.csv", {"split": "none", "valid": 4}),
    ):
        assert len(data.split.valid) == 4
    (tmp_path / "t.csv").write_text(f"file;label;split\n{rows}\n".replace("valid", "held"))
    with pytest.raises(SplitError, match=r"column 'split' has 'held' in row 2 of t.csv.*--split"):
        ImageData.from_path(tmp_path / "t.csv", {})
    with pytest.raises(SplitError, match=r"column 'split' has 'held' in row 2 of t.csv.*--split"):
        ImageData.from_csv(tmp_path / "t.csv")


def test_a_flag_column_is_the_split(tmp_path: Path) -> None:
    names = [f"{kind}{index}.png" for kind in "ab" for index in range(3)]
    for name in names:
        Image.new("L", (8, 8)).save(tmp_path / name)
    frame = pd.DataFrame(
        {"image": names, "kind": [name[0] for name in names], "is_valid": [True, False, False] * 2}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    for data in (
        ImageData.from_df(frame, root=tmp_path),
        ImageData.from_csv(tmp_path / "t.csv"),
        ImageData.from_path(tmp_path / "t.csv", {}),
    ):
        assert [Path(item).name for item in data.raw("valid")] == ["a0.png", "b0.png"]


def test_labels_that_are_all_different_are_refused(tmp_path: Path) -> None:
    items = [(np.full((8, 8), index, np.uint8), f"{index}.5 cm") for index in range(6)]
    with pytest.raises(SplitError, match=r"different labels.*regression"):
        ImageData.from_items(items)


def test_a_single_image_is_refused_for_training(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "cat.png")
    with pytest.raises(InputError, match=r"is a single image.*flambeau predict"):
        ImageData.from_path(tmp_path / "cat.png", {})


def test_columns_of_different_lengths_are_named() -> None:
    with pytest.raises(InputError, match="file 2, label 1"):
        ImageData.from_df({"file": ["a.png", "b.png"], "label": ["x"]})


@pytest.mark.parametrize("names", [("7", "8"), ("1.10", "1.2")])
def test_file_names_that_look_like_numbers_stay_text(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for number in range(8):
        image = Image.new("RGB", (8, 8), (number * 20, 0, 0))
        image.save(tmp_path / f"{names[number % 2]}{number}", format="PNG")
    rows = "".join(f"{names[n % 2]}{n},{n % 2}\n" for n in range(8))
    (tmp_path / "t.csv").write_text("file,label\n" + rows)
    data = ImageData.from_csv(tmp_path / "t.csv")
    assert len(data.samples) == 8
    data = ImageData.from_path(tmp_path / "t.csv", {"file": "file", "target": "label"})
    assert len(data.samples) == 8
