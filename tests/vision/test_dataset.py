from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner
from flambeau.data.loader import LoaderOptions
from flambeau.errors import FlambeauWarning, InputError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.load_images import load_all

VALUES = {"image_size": 8, "channels": 3, "cache": "files", "normalisation": "none"}
OPTIONS = LoaderOptions(batch_size=4, shuffle=True, seed=1)


def folder(root: Path, n: int = 12) -> Path:
    for number in range(n):
        for index, name in enumerate(("ant", "bee")):
            (root / name).mkdir(parents=True, exist_ok=True)
            colour = (100 * index + number, 0, 0)
            Image.new("RGB", (10, 8), colour).save(root / name / f"{number:02}.png")
    return root


def files_of(root: Path, unreadable: str):
    data = ImageData.from_folder(root, valid=4, unreadable=unreadable)
    return data, data.dataset("train", data.preprocessor(VALUES), VALUES)


def test_a_file_that_becomes_unreadable_is_named(tmp_path: Path) -> None:
    data, dataset = files_of(folder(tmp_path), "raise")
    passed = list(dataset.loader(OPTIONS).batches(0))
    assert sum(len(batch) for batch in passed) == 20
    broken = data.raw("train")[7]
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InputError, match=rf"Item 7 of 20: .*{broken.name} cannot be read"):
        list(dataset.loader(OPTIONS).batches(1))


def test_skipping_a_file_keeps_the_order_of_the_others(tmp_path: Path) -> None:
    data, dataset = files_of(folder(tmp_path), "skip")
    complete = [batch.indices.tolist() for batch in dataset.loader(OPTIONS).batches(3)]
    broken = data.raw("train")[7]
    row = int(data.split.train[7])
    broken.unlink()
    with pytest.warns(FlambeauWarning, match=rf"1 of 20 images .*{broken.name}"):
        batches = list(dataset.loader(OPTIONS).batches(3))
    assert [batch.indices.tolist() for batch in batches] == [
        [number for number in numbers if number != row] for numbers in complete
    ]
    for batch in batches:
        rows = batch.indices.tolist()
        assert batch.weight == len(batch) == len(rows)
        assert batch.target.tolist() == data.targets.values[rows].tolist()
        items = [data.samples["image"][number] for number in rows]
        assert torch.equal(batch.input, load_all(items, dataset.geometry))
    resumed = dataset.loader(OPTIONS)
    for one, other in zip(resumed.batches(3, start_step=2), batches[2:], strict=True):
        assert torch.equal(one.input, other.input)  # no second warning in this pass
    assert f"1 could not be read during training and were skipped: {broken}" in data.report()


def test_a_restored_file_is_used_again(tmp_path: Path) -> None:
    data, dataset = files_of(folder(tmp_path), "skip")
    broken = data.raw("train")[7]
    content = broken.read_bytes()
    broken.write_bytes(b"")
    loader = dataset.loader(OPTIONS)
    with pytest.warns(FlambeauWarning, match="1 of 20"):
        assert sum(len(batch) for batch in loader.batches(0)) == 19
    broken.write_bytes(content)
    assert sum(len(batch) for batch in loader.batches(1)) == 20


def test_a_batch_without_readable_files_raises(tmp_path: Path) -> None:
    data, dataset = files_of(folder(tmp_path), "skip")
    for path in data.raw("train"):
        path.unlink()
    with pytest.raises(InputError, match=r"None of the 4 images of a batch can be read: .*\.png"):
        list(dataset.loader(OPTIONS).batches(0))


@pytest.mark.slow
def test_workers_skip_the_same_files_and_report_them(tmp_path: Path) -> None:
    data, dataset = files_of(folder(tmp_path), "skip")
    data.raw("train")[7].unlink()
    passes = []
    for workers in (0, 2):
        # Each data set warns once; the flags belong to the data, in shared memory.
        dataset = data.dataset("train", data.preprocessor(VALUES), VALUES)
        options = LoaderOptions(batch_size=4, shuffle=True, seed=1, num_workers=workers)
        data._images.unreadable.zero_()
        with pytest.warns(FlambeauWarning, match="1 of 20"):
            passes.append(list(dataset.loader(options).batches(0)))
    for one, other in zip(*passes, strict=True):
        assert torch.equal(one.input, other.input)
        assert torch.equal(one.indices, other.indices)
    assert "1 could not be read during training" in data.report()


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["files", "memory", "disk"])
def test_training_continues_without_unreadable_files(
    tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAMBEAU_CACHE", str(tmp_path / "cache"))
    data = ImageData.from_folder(
        folder(tmp_path / "photos"),
        valid=4,
        size=8,
        options=ImageOptions(cache=cache, unreadable="skip"),
    )
    data.raw("train")[7].write_bytes(b"")
    data.raw("valid")[1].write_bytes(b"")
    with pytest.warns(FlambeauWarning, match="can no longer be read"):
        learner = fitted(data, tmp_path / "run")
    assert "2 could not be read during training" in data.report()
    assert np.isfinite(learner.history.rows[-1]["valid_loss"])


def fitted(data: ImageData, run: Path) -> Learner:
    learner = Learner(data, choices={"num_workers": 0}, folder=run, quiet=True)
    learner.fit(2)
    return learner
