import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau.errors import InputError
from flambeau_vision import ImageData
from flambeau_vision.duplicates import difference_hash, find_duplicates, search_duplicates
from flambeau_vision.filename_groups import groups_across_parts


def photograph(seed: int, width: int = 200, height: int = 150) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def different(root: Path, n: int = 20) -> list[Path]:
    return [save(photograph(seed), root / f"{seed}.jpg", quality=92) for seed in range(n)]


def test_copies_of_every_kind_are_found_across_parts(tmp_path: Path) -> None:
    files = different(tmp_path / "train")
    copy = tmp_path / "valid" / "copy.jpg"
    copy.parent.mkdir()
    copy.write_bytes(files[3].read_bytes())
    planted = {
        3: copy,
        5: save(photograph(5), tmp_path / "valid" / "again.jpg", quality=30),
        7: save(photograph(7).resize((100, 75)), tmp_path / "valid" / "half.png"),
        9: save(photograph(9).resize((333, 250)), tmp_path / "valid" / "larger.jpg"),
        11: save(photograph(11).convert("L"), tmp_path / "valid" / "grey.png"),
    }
    items = [*files, *planted.values()]
    parts = ["train"] * len(files) + ["valid"] * len(planted)
    labels = ["ant"] * (len(files) + len(planted) - 1) + ["bee"]
    found = find_duplicates(items, parts, labels)
    assert {(pair.rows[0], items[pair.rows[1]]) for pair in found} == set(planted.items())
    assert all(pair.across_parts for pair in found)
    assert [pair.kind for pair in found if pair.rows[0] == 3] == ["exact"]
    assert {pair.kind for pair in found if pair.rows[0] != 3} == {"near"}
    # Those with two labels come first.
    assert [pair.rows[0] for pair in found if pair.labels_differ] == [11] == [found[0].rows[0]]
    assert f"{files[11]} (train) is a near-duplicate of {planted[11]} (valid)" in str(found[0])
    assert str(found[0]).endswith("labels ant and bee")


def test_different_images_are_not_duplicates(tmp_path: Path) -> None:
    files = different(tmp_path, 60)
    result = search_duplicates(files)
    assert result.pairs == ()
    assert (result.total, result.compared, result.uniform) == (60, 60, 0)


def test_the_hash_matches_a_loop() -> None:
    cells = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0)) * 255
    given = difference_hash(cells)  # of the size of the hash, so nothing is resized
    for image, bits in zip(cells.tolist(), given.tolist(), strict=True):
        expected = [1 if row[x + 1] > row[x] else -1 for row in image for x in range(8)]
        assert bits == expected


def test_uniform_images_are_counted_but_not_paired(tmp_path: Path) -> None:
    files = different(tmp_path / "a", 5)
    for number in range(4):
        level = (number // 2 * 30,) * 3  # two black ones, and two dark grey ones
        files.append(save(Image.new("RGB", (50, 40), level), tmp_path / f"flat{number}.png"))
    result = search_duplicates(files, ["train", "valid", "train"] * 3)
    assert result.pairs == ()
    assert result.uniform == 4
    arrays = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    assert search_duplicates(arrays).uniform == 6
    assert search_duplicates(arrays).pairs == ()


def test_each_further_copy_is_in_one_pair(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (50, 3, 12, 12), dtype=torch.uint8)
    images[10:40] = images[5]
    parts = ["train"] * 30 + ["valid"] * 20
    found = find_duplicates(images, parts)
    assert len(found) == 30
    assert sum(pair.across_parts for pair in found) == 10
    assert all(pair.across_parts for pair in found[:10])
    assert all(parts[pair.rows[0]] == "train" for pair in found)
    assert found[0].names[0] == f"row {found[0].rows[0]}"


def test_a_near_copy_of_a_duplicate_is_paired_across_parts() -> None:
    images = np.stack([np.asarray(photograph(seed)) for seed in (0, 1, 2, 2, 2)])
    images[4] = np.asarray(photograph(2).resize((100, 75)).resize((200, 150)))
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    found = find_duplicates(tensor, ["train", "train", "train", "valid", "valid"])
    assert [(pair.kind, pair.rows) for pair in found] == [("exact", (2, 3)), ("near", (2, 4))]


def test_more_images_than_the_limit_are_sampled(tmp_path: Path) -> None:
    files = different(tmp_path, 12)
    files.append(save(photograph(0), tmp_path / "again.jpg", quality=50))
    assert len(search_duplicates(files).pairs) == 1
    none = search_duplicates(files, limit=0)
    assert (none.pairs, none.compared) == ((), 0)
    some = search_duplicates(files, limit=6)
    assert some.compared == 6
    assert search_duplicates(files, limit=6) == some
    twice = [*files, files[2]]
    assert [pair.kind for pair in search_duplicates(twice, limit=0).pairs] == ["exact"]


@pytest.mark.parametrize("kind", ["bytes", "arrays", "pillow"])
def test_images_that_are_not_files(kind: str, tmp_path: Path) -> None:
    paths = different(tmp_path, 6)
    if kind == "bytes":
        items = [path.read_bytes() for path in paths]
    elif kind == "arrays":
        items = [np.asarray(photograph(seed)) for seed in range(6)]
    else:
        items = [photograph(seed) for seed in range(6)]
    items.append(items[1].copy() if kind != "bytes" else bytes(items[1]))
    (pair,) = find_duplicates(items)
    assert (pair.kind, pair.rows, pair.names) == ("exact", (1, 6), ("row 1", "row 6"))


def test_unreadable_images_are_skipped(tmp_path: Path) -> None:
    files = different(tmp_path, 4)
    files.append(tmp_path / "missing.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    files.append(tmp_path / "broken.jpg")
    assert search_duplicates(files).compared == 4
    with pytest.raises(InputError, match="2 parts for 6 images"):
        search_duplicates(files, ["train", "valid"])


def test_the_report_names_duplicates(tmp_path: Path) -> None:
    for label in ("ant", "bee"):
        for seed in range(6):
            number = seed + 10 * (label == "bee")
            save(photograph(number), tmp_path / "train" / label / f"{seed}.jpg")
            save(photograph(number + 100), tmp_path / "valid" / label / f"{seed}.jpg")
    clean = ImageData.from_folder(tmp_path)
    assert "duplicates: none (24 images compared by bytes and perceptual hash)" in clean.report()
    assert "duplicates" not in clean.report(duplicates=False)
    copied = save(photograph(3), tmp_path / "valid" / "bee" / "copy.jpg", quality=40)
    report = ImageData.from_folder(tmp_path).report()
    assert "1 pair, 1 across parts, which makes metrics too good, 1 with different" in report
    assert f"{copied} (valid); labels ant and bee" in report


def test_large_data_sets_are_hashed_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flambeau_vision.report._ARRAYS_COMPARED", 10)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    data = ImageData.from_arrays(images, ["a", "b"] * 10)
    assert "data.report(duplicates=True) also compares perceptual hashes" in data.report()
    assert "by bytes and perceptual hash)" in data.report(duplicates=True)


def test_many_bytes_are_read_for_a_comparison_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flambeau_vision.report._BYTES_COMPARED", 10_000)
    for row, image in enumerate(np.random.default_rng(0).integers(0, 256, (20, 32, 32), np.uint8)):
        path = tmp_path / ("train", "test")[row > 9] / "ab"[row % 2] / f"{row}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)  # 2,102 bytes each
    data = ImageData.from_folder(tmp_path)
    read: list[Path] = []
    content = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or content(path))
    assert "duplicates: not searched, because 42.0 kB of files would be read" in data.report()
    assert not read
    assert "duplicates: none (20 images" in data.report(duplicates=True)
    assert len(read) >= 20


# ---------------------------------------------------------------- names


def test_frames_of_one_film_in_two_parts_are_a_group() -> None:
    names = [f"film{film}_frame{frame:03}.png" for film in range(4) for frame in range(5)]
    parts = ["train"] * 12 + ["valid"] * 8  # the third film lies in both
    (group,) = groups_across_parts(names, parts)
    assert (group.name, group.parts) == ("film2", ("train", "valid"))
    assert group.rows == (10, 11, 12, 13, 14)


def test_numbered_folders_are_groups_unless_they_are_classes() -> None:
    items = [Path(f"x/patient{p}/{n}.png") for p in range(3) for n in range(4)]
    parts = ["train", "train", "valid", "train"] * 3
    assert [group.name for group in groups_across_parts(items, parts)] == [
        "patient0", "patient1", "patient2",
    ]  # fmt: skip
    assert groups_across_parts(items, parts, [path.parent.name for path in items]) == []


@pytest.mark.parametrize(
    "names",
    [
        [f"IMG_{number:04}.jpg" for number in range(40)],
        [f"{number}.jpg" for number in range(40)],
        [f"{10**9 + number * 7919}_{number * 2654435761 % 2**32:08x}.jpg" for number in range(40)],
        [f"cat.{number}.jpg" for number in range(40)],
    ],
)
def test_consecutive_numbers_are_not_groups(names: list[str]) -> None:
    assert groups_across_parts(names, ["train", "valid"] * 20) == []


@pytest.mark.realdata
@pytest.mark.slow
def test_ants_and_bees_have_no_duplicates(tmp_path: Path) -> None:
    folder = os.environ.get("FLAMBEAU_DATA")
    if folder is None:
        pytest.skip("FLAMBEAU_DATA is not set")
    with tarfile.open(Path(folder) / "hymenoptera" / "hymenoptera.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    files = sorted(tmp_path.rglob("*.jpg"))
    parts = ["train" if "train" in file.parts else "valid" for file in files]
    result = search_duplicates(files, parts)
    assert result.compared == len(files) > 380
    assert result.pairs == ()
    assert groups_across_parts(files, parts, [file.parent.name for file in files]) == []
