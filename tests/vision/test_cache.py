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
from flambeau.errors import FlambeauWarning, InputError, PlanError, StorageError
from flambeau_vision import ImageData, ImageOptions, cache
from flambeau_vision.cache import cached, room_bytes
from flambeau_vision.resize import Geometry, load_all

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
    return sorted((folder / "pictures").iterdir())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were decoded, call by call."""
    calls: list[int] = []
    original = cache.load_readable

    def counted(items, *args, places, **options):
        calls.append(len(places))
        return original(items, *args, places=places, **options)

    monkeypatch.setattr(cache, "load_readable", counted)
    return calls


# ---------------------------------------------------------------- one file


def test_the_pixels_are_those_of_decoding_and_are_decoded_once(
    tmp_path: Path, decoded: list[int]
) -> None:
    items = photos(tmp_path)
    for _ in range(2):
        loaded = cached(items, GEOMETRY, folder=tmp_path / "cache")
        assert torch.equal(loaded.pixels, load_all(items, GEOMETRY))
        assert loaded.unreadable == ()
    assert decoded == [6]
    (entry,) = entries(tmp_path / "cache")
    assert (entry / "pixels.bin").stat().st_size == 6 * 3 * 8 * 8


def test_chunks_leave_no_seam(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_CHUNK_BYTES", 4 * 3 * 8 * 8)
    items = photos(tmp_path)
    loaded = cached(items, GEOMETRY, folder=tmp_path / "cache")
    assert decoded == [4, 2]
    assert torch.equal(loaded.pixels, load_all(items, GEOMETRY))


@pytest.mark.parametrize("change", ["content", "time", "order", "fewer", "geometry", "decoder"])
def test_whatever_changes_the_pixels_makes_another_file(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    items, geometry = photos(tmp_path), GEOMETRY
    cached(items, geometry, folder=tmp_path / "cache")
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
        monkeypatch.setattr(cache, "_FORMAT", 0)
    loaded = cached(items, geometry, folder=tmp_path / "cache")
    assert torch.equal(loaded.pixels, load_all(items, geometry))
    assert len(decoded) == 2


@pytest.mark.parametrize("damage", ["short", "long", "no record", "no pixels", "json", "other key"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, decoded: list[int], damage: str) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    expected = cached(items, GEOMETRY, folder=folder).pixels.clone()
    (entry,) = entries(folder)
    pixels, record = entry / "pixels.bin", entry / "cache.json"
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
    assert torch.equal(cached(items, GEOMETRY, folder=folder).pixels, expected)
    assert decoded == [6, 6]


def test_writing_into_the_tensor_stays_in_this_process(tmp_path: Path) -> None:
    items = photos(tmp_path)
    first = cached(items, GEOMETRY, folder=tmp_path / "cache").pixels
    expected = first.clone()
    first.zero_()
    assert torch.equal(cached(items, GEOMETRY, folder=tmp_path / "cache").pixels, expected)


def test_items_in_memory_are_found_again_by_their_content(
    tmp_path: Path, decoded: list[int]
) -> None:
    random = np.random.default_rng(0)

    def items(last: int) -> list[object]:
        array = np.full((9, 9, 3), last, np.uint8)
        content = photos(tmp_path)[0].read_bytes()
        return [content, Image.fromarray(random_pixels), array, torch.zeros(3, 5, 5)]

    random_pixels = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    for last in (1, 1, 2):
        loaded = cached(items(last), GEOMETRY, folder=tmp_path / "cache")
        assert torch.equal(loaded.pixels, load_all(items(last), GEOMETRY))
    assert decoded == [4, 4]


# ---------------------------------------------------------------- what goes wrong


def test_nothing_is_left_of_a_file_that_could_not_be_finished(tmp_path: Path) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    items[3].write_bytes(b"")
    with pytest.raises(InputError, match=r"Item 3 of 6: .*3\.jpg is empty"):
        cached(items, GEOMETRY, folder=folder)
    assert entries(folder) == []


def test_what_cannot_be_read_is_left_out_where_it_may_be(
    tmp_path: Path, decoded: list[int]
) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    items[3].write_bytes(b"")
    for _ in range(2):
        loaded = cached(items, GEOMETRY, folder=folder, skip=True)
        assert loaded.unreadable == (3,)
        assert torch.equal(loaded.pixels, load_all(items[:3] + items[4:], GEOMETRY))
    assert decoded == [6]
    with pytest.raises(InputError, match=r"3\.jpg is empty"):  # the file is no excuse
        cached(items, GEOMETRY, folder=folder)


def test_a_full_disk_is_told_before_anything_is_decoded(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = photos(tmp_path)
    monkeypatch.setattr(cache, "room_bytes", lambda folder: 1_151)
    with pytest.raises(StorageError, match=r"(?s)FLAMBEAU_CACHE.*cache.: .files"):
        cached(items, GEOMETRY, folder=tmp_path / "cache")
    assert decoded == []
    monkeypatch.setattr(cache, "room_bytes", lambda folder: 1_152)
    cached(items, GEOMETRY, folder=tmp_path / "cache")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        cached(photos(tmp_path), GEOMETRY, folder=tmp_path / "file")


def test_the_disk_filling_up_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "load_readable", full)
    with pytest.raises(StorageError, match="disk is full"):
        cached(photos(tmp_path), GEOMETRY, folder=tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_the_least_recently_used_makes_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    monkeypatch.setattr(cache, "room_bytes", lambda folder: 2 * 2 * 3 * 8 * 8)
    kept: dict[int, Path] = {}
    for place in (0, 2):
        before = set(entries(folder)) if folder.exists() else set()
        cached(items[place : place + 2], GEOMETRY, folder=folder)
        (kept[place],) = set(entries(folder)) - before
        os.utime(kept[place] / "cache.json", (place, place))
    mapped = cached(items[:2], GEOMETRY, folder=folder).pixels  # used again, so the other goes
    cached(items[4:], GEOMETRY, folder=folder)
    assert kept[0].exists()
    assert not kept[2].exists()
    os.utime(kept[0] / "cache.json", (0, 0))
    cached(items[2:4], GEOMETRY, folder=folder)
    assert not kept[0].exists()
    assert torch.equal(mapped, load_all(items[:2], GEOMETRY))  # still mapped


def test_room_is_a_share_of_the_disk_and_counts_what_caches_hold(tmp_path: Path) -> None:
    assert 0 < room_bytes(tmp_path / "not" / "there") < 10**15
    cached(photos(tmp_path), GEOMETRY, folder=tmp_path / "cache")
    assert sum(size for _, size, _ in cache._entries(tmp_path / "cache" / "pictures")) == 1_152


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


def test_of_several_at_once_one_decodes(tmp_path: Path, decoded: list[int]) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:  # a lock is one file's, so threads meet it as processes do
        futures = [pool.submit(cached, items, GEOMETRY, folder=folder) for _ in range(4)]
    expected = load_all(items, GEOMETRY)
    assert all(torch.equal(future.result().pixels, expected) for future in futures)
    assert decoded == [6]
    assert len(entries(folder)) == 1  # no lock and no half file stays


_PROCESS = """
import sys
from flambeau_vision.cache import cached
from flambeau_vision.resize import Geometry
folder, *items = sys.argv[1:]
print(int(cached(items, Geometry(8, 3), folder=folder).pixels.sum()))
"""


@pytest.mark.slow
def test_processes_at_once_share_one_file(tmp_path: Path) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    command = [sys.executable, "-c", _PROCESS, str(folder), *map(str, items)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {int(process.communicate(timeout=120)[0]) for process in processes}
    assert sums == {int(load_all(items, GEOMETRY).sum())}
    assert len(entries(folder)) == 1


def test_a_lock_file_left_by_a_killed_process_stops_nobody(tmp_path: Path) -> None:
    items, folder = photos(tmp_path), tmp_path / "cache"
    cached(items, GEOMETRY, folder=folder)
    (entry,) = entries(folder)
    (entry / "cache.json").unlink()
    entry.with_name(f"{entry.name}.lock").touch()
    cached(items, GEOMETRY, folder=folder)
    assert entries(folder) == [entry]


# ---------------------------------------------------------------- as data


def data_in(tmp_path: Path, **options: object) -> ImageData:
    chosen = ImageOptions(cache_folder=tmp_path / "cache", **options)
    return ImageData.from_folder(tmp_path / "photos", valid=0.25, options=chosen)


def test_disk_memory_and_files_give_the_same_batches(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 24)
    data = data_in(tmp_path)
    options = LoaderOptions(batch_size=5, shuffle=True, seed=1)
    for part in ("train", "valid"):
        passes = []
        for place in ("disk", "memory", "files"):
            values = {**VALUES, "cache": place}
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


def test_a_new_object_over_the_same_files_decodes_nothing(
    tmp_path: Path, decoded: list[int]
) -> None:
    photos(tmp_path / "photos", 24)
    for _ in range(2):
        data = data_in(tmp_path)
        data.dataset("train", data.preprocessor(VALUES), VALUES)
    assert decoded == [18]


def test_the_place_can_be_said_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 24)
    data = data_in(tmp_path, cache="disk")
    assert data.choices == {"cache": "disk"}
    with pytest.raises(PlanError, match="cache='ram' is none of 'memory', 'disk', 'files'"):
        data.preprocessor({**VALUES, "cache": "ram"})
    with pytest.raises(InputError, match="cache='ram' is none of"):
        ImageOptions(cache="ram")


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_files_that_break_before_they_are_decoded_follow_the_policy(
    tmp_path: Path, place: str
) -> None:
    values = {**VALUES, "cache": place}
    photos(tmp_path / "photos", 24)
    strict, lenient = data_in(tmp_path), data_in(tmp_path, unreadable="skip")
    broken = lenient.raw("train")[3]
    broken.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{broken.name} is empty"):
        strict.preprocessor(values)
    with pytest.warns(FlambeauWarning, match=rf"1 train pictures .* left out: .*{broken.name}"):
        preprocessor = lenient.preprocessor(values)
    dataset = lenient.dataset("train", preprocessor, values)
    (batch,) = dataset.loader(LoaderOptions(batch_size=100)).batches(0)
    rows = [int(row) for row in lenient.split.train]
    assert batch.indices.tolist() == rows[:3] + rows[4:]
    assert batch.target.tolist() == lenient.targets.values[rows[:3] + rows[4:]].tolist()
    assert batch.weight == len(batch) == 17
    assert f"could not be read in training and were left out: {broken}" in lenient.report()
