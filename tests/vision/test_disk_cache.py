import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau.cache_folder import default_folder
from flambeau.data.loader import LoaderOptions
from flambeau.data.mapped_store import MappedStore
from flambeau.errors import FlambeauWarning, InputError, PlanError, StorageError
from flambeau_vision import ImageData, ImageOptions, disk_cache
from flambeau_vision.disk_cache import available_cache_bytes, load_cached
from flambeau_vision.load_images import load_all
from flambeau_vision.resize import Geometry

GEOMETRY = Geometry(8, 3)
VALUES = {"image_size": 8, "channels": 3, "cache": "disk", "normalisation": "train"}


def photos(root: Path, n: int = 6) -> list[Path]:
    random = np.random.default_rng(0)
    paths: list[Path] = []
    for number in range(n):
        path = root / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "images").iterdir())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images decoded in each call."""
    calls: list[int] = []
    original = disk_cache.load_readable

    def counted(items, *args, indices, **options):
        calls.append(len(indices))
        return original(items, *args, indices=indices, **options)

    monkeypatch.setattr(disk_cache, "load_readable", counted)
    return calls


# ---------------------------------------------------------------- one file


def test_images_are_decoded_once(tmp_path: Path, decoded: list[int]) -> None:
    items = photos(tmp_path)
    for _ in range(2):
        loaded = load_cached(items, GEOMETRY, folder=tmp_path / "cache")
        assert torch.equal(loaded.pixels, load_all(items, GEOMETRY))
        assert loaded.unreadable == ()
    assert decoded == [6]
    (entry,) = entries(tmp_path / "cache")
    assert (entry / "array.bin").stat().st_size == 6 * 3 * 8 * 8


def test_chunks_are_concatenated(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "_CHUNK_BYTES", 4 * 3 * 8 * 8)
    items = photos(tmp_path)
    loaded = load_cached(items, GEOMETRY, folder=tmp_path / "cache")
    assert decoded == [4, 2]
    assert torch.equal(loaded.pixels, load_all(items, GEOMETRY))


@pytest.mark.parametrize("change", ["content", "time", "order", "fewer", "geometry", "decoder"])
def test_a_change_of_the_pixels_makes_a_new_cache(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    items, geometry = photos(tmp_path), GEOMETRY
    load_cached(items, geometry, folder=tmp_path / "cache")
    if change == "content":
        Image.new("RGB", (9, 9)).save(items[2])
    elif change == "time":
        os.utime(items[2], ns=(1, 1))
    elif change == "order":
        items = items[::-1]
    elif change == "fewer":
        items = items[:-1]
    elif change == "geometry":
        geometry = Geometry(8, 3, "squash")
    else:
        monkeypatch.setattr(disk_cache, "_FORMAT", 0)
    loaded = load_cached(items, geometry, folder=tmp_path / "cache")
    assert torch.equal(loaded.pixels, load_all(items, geometry))
    assert len(decoded) == 2


@pytest.mark.parametrize("damage", ["short", "long", "no record", "no pixels", "json", "other key"])
def test_a_damaged_cache_is_rewritten(tmp_path: Path, decoded: list[int], damage: str) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    expected = load_cached(items, GEOMETRY, folder=folder).pixels.clone()
    (entry,) = entries(folder)
    pixels, record = entry / "array.bin", entry / "record.json"
    if damage == "short":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "long":
        pixels.write_bytes(pixels.read_bytes() + b"\0")
    elif damage == "no record":
        record.unlink()
    elif damage == "no pixels":
        pixels.unlink()
    elif damage == "json":
        record.write_text("[]")
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), "key": "0" * 32}))
    assert torch.equal(load_cached(items, GEOMETRY, folder=folder).pixels, expected)
    assert decoded == [6, 6]


def test_writing_into_the_tensor_stays_in_this_process(tmp_path: Path) -> None:
    items = photos(tmp_path)
    first = load_cached(items, GEOMETRY, folder=tmp_path / "cache").pixels
    expected = first.clone()
    first.zero_()
    assert torch.equal(load_cached(items, GEOMETRY, folder=tmp_path / "cache").pixels, expected)


def test_the_key_of_items_in_memory_is_their_content(tmp_path: Path, decoded: list[int]) -> None:
    random = np.random.default_rng(0)

    def items(last: int) -> list[object]:
        array = np.full((9, 9, 3), last, np.uint8)
        content = photos(tmp_path)[0].read_bytes()
        return [content, Image.fromarray(random_pixels), array, torch.zeros(3, 5, 5)]

    random_pixels = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    for last in (1, 1, 2):
        loaded = load_cached(items(last), GEOMETRY, folder=tmp_path / "cache")
        assert torch.equal(loaded.pixels, load_all(items(last), GEOMETRY))
    assert decoded == [4, 4]


# ---------------------------------------------------------------- errors


def test_an_unfinished_cache_is_removed(tmp_path: Path) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    items[3].write_bytes(b"")
    with pytest.raises(InputError, match=r"Item 3 of 6: .*3\.jpg is empty"):
        load_cached(items, GEOMETRY, folder=folder)
    assert entries(folder) == []


def test_unreadable_items_are_skipped_only_on_request(tmp_path: Path, decoded: list[int]) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    items[3].write_bytes(b"")
    for _ in range(2):
        loaded = load_cached(items, GEOMETRY, folder=folder, skip=True)
        assert loaded.unreadable == (3,)
        assert torch.equal(loaded.pixels, load_all(items[:3] + items[4:], GEOMETRY))
    assert decoded == [6]
    with pytest.raises(InputError, match=r"3\.jpg is empty"):  # the existing cache is not used
        load_cached(items, GEOMETRY, folder=folder)


def test_too_little_disk_space_raises_before_decoding(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = photos(tmp_path)
    monkeypatch.setattr(MappedStore, "available_bytes", lambda store: 1_151)
    with pytest.raises(StorageError, match=r"(?s)FLAMBEAU_CACHE.*cache.: .files"):
        load_cached(items, GEOMETRY, folder=tmp_path / "cache")
    assert decoded == []
    monkeypatch.setattr(MappedStore, "available_bytes", lambda store: 1_152)
    load_cached(items, GEOMETRY, folder=tmp_path / "cache")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        load_cached(photos(tmp_path), GEOMETRY, folder=tmp_path / "file")


def test_a_disk_that_fills_up_leaves_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache, "load_readable", full)
    with pytest.raises(StorageError, match="disk is full"):
        load_cached(photos(tmp_path), GEOMETRY, folder=tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_the_least_recently_used_cache_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    monkeypatch.setattr(MappedStore, "available_bytes", lambda store: 2 * 2 * 3 * 8 * 8)
    kept: dict[int, Path] = {}
    for first in (0, 2):
        before = set(entries(folder)) if folder.exists() else set()
        load_cached(items[first : first + 2], GEOMETRY, folder=folder)
        (kept[first],) = set(entries(folder)) - before
        os.utime(kept[first] / "record.json", (first, first))
    # Used again, so that the other one is removed first.
    mapped = load_cached(items[:2], GEOMETRY, folder=folder).pixels
    load_cached(items[4:], GEOMETRY, folder=folder)
    assert kept[0].exists()
    assert not kept[2].exists()
    os.utime(kept[0] / "record.json", (0, 0))
    load_cached(items[2:4], GEOMETRY, folder=folder)
    assert not kept[0].exists()
    assert torch.equal(mapped, load_all(items[:2], GEOMETRY))  # still mapped


def test_available_bytes_include_existing_caches(tmp_path: Path) -> None:
    assert 0 < available_cache_bytes(tmp_path / "not" / "there") < 10**15
    load_cached(photos(tmp_path), GEOMETRY, folder=tmp_path / "cache")
    caches = disk_cache.image_caches(tmp_path / "cache").list_arrays()
    assert sum(size for _, size, _ in caches) == 1_152


def test_the_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAMBEAU_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("FLAMBEAU_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert default_folder() == tmp_path / "xdg" / "flambeau"


# ---------------------------------------------------------------- several processes


def test_of_several_threads_one_decodes(tmp_path: Path, decoded: list[int]) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    # The lock belongs to an open file, so it excludes threads as it does processes.
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(load_cached, items, GEOMETRY, folder=folder) for _ in range(4)]
    expected = load_all(items, GEOMETRY)
    assert all(torch.equal(future.result().pixels, expected) for future in futures)
    assert decoded == [6]
    assert len(entries(folder)) == 1  # no lock or partial file remains


_PROCESS = """
import sys
from flambeau_vision.disk_cache import load_cached
from flambeau_vision.resize import Geometry
folder, *items = sys.argv[1:]
print(int(load_cached(items, Geometry(8, 3), folder=folder).pixels.sum()))
"""


@pytest.mark.slow
def test_processes_at_once_share_one_file(tmp_path: Path) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    command = [sys.executable, "-c", _PROCESS, str(folder), *map(str, items)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {int(process.communicate(timeout=120)[0]) for process in processes}
    assert sums == {int(load_all(items, GEOMETRY).sum())}
    assert len(entries(folder)) == 1


def test_a_stale_lock_file_is_ignored(tmp_path: Path) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    load_cached(items, GEOMETRY, folder=folder)
    (entry,) = entries(folder)
    (entry / "record.json").unlink()
    entry.with_name(f"{entry.name}.lock").touch()
    load_cached(items, GEOMETRY, folder=folder)
    assert entries(folder) == [entry]


# ---------------------------------------------------------------- with ImageData


def data_in(tmp_path: Path, **options: object) -> ImageData:
    chosen = ImageOptions(cache_folder=tmp_path / "cache", **options)
    return ImageData.from_folder(tmp_path / "photos", valid=0.25, options=chosen)


def test_disk_memory_and_files_give_the_same_batches(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 24)
    data = data_in(tmp_path)
    options = LoaderOptions(batch_size=5, shuffle=True, seed=1)
    for part in ("train", "valid"):
        passes = []
        for mode in ("disk", "memory", "files"):
            values = {**VALUES, "cache": mode}
            dataset = data.dataset(part, data.preprocessor(values), values)
            passes.append(list(dataset.loader(options).batches(2)))
        for disk, *others in zip(*passes, strict=True):
            for other in others:
                assert torch.equal(disk.input, other.input)
                assert torch.equal(disk.target, other.target)
                assert torch.equal(disk.indices, other.indices)
                assert disk.weight == other.weight
    assert data.preprocessor(VALUES).arguments() == (
        data.preprocessor({**VALUES, "cache": "memory"}).arguments()
    )


def test_a_new_object_reads_the_existing_cache(tmp_path: Path, decoded: list[int]) -> None:
    photos(tmp_path / "photos", 24)
    for _ in range(2):
        data = data_in(tmp_path)
        data.dataset("train", data.preprocessor(VALUES), VALUES)
    assert decoded == [18]


def test_the_cache_can_be_given_and_is_checked(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 24)
    data = data_in(tmp_path, cache="disk")
    assert data.choices == {"cache": "disk"}
    with pytest.raises(PlanError, match=r"cache='ram'\. Choose 'memory', 'disk' or 'files'"):
        data.preprocessor({**VALUES, "cache": "ram"})
    with pytest.raises(InputError, match="Unknown cache='ram'"):
        ImageOptions(cache="ram")


@pytest.mark.parametrize("mode", ["disk", "memory"])
def test_unreadable_files_follow_the_policy_in_a_cache(tmp_path: Path, mode: str) -> None:
    values = {**VALUES, "cache": mode}
    photos(tmp_path / "photos", 24)
    strict, lenient = data_in(tmp_path), data_in(tmp_path, unreadable="skip")
    broken = lenient.raw("train")[3]
    broken.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{broken.name} is empty"):
        strict.preprocessor(values)
    with pytest.warns(FlambeauWarning, match=rf"1 train images .* skipped: .*{broken.name}"):
        preprocessor = lenient.preprocessor(values)
    dataset = lenient.dataset("train", preprocessor, values)
    (batch,) = dataset.loader(LoaderOptions(batch_size=100)).batches(0)
    rows = [int(row) for row in lenient.split.train]
    assert batch.indices.tolist() == rows[:3] + rows[4:]
    assert batch.target.tolist() == lenient.targets.values[rows[:3] + rows[4:]].tolist()
    assert batch.weight == len(batch) == 17
    assert f"could not be read during training and were skipped: {broken}" in lenient.report()
