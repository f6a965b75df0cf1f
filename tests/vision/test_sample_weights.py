"""Weights of images: a weight of 2 counts as the same image twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from flambeau import Learner
from flambeau.data.loader import LoaderOptions
from flambeau.data.split import Split
from flambeau.errors import InputError, ResumeError
from flambeau_vision import ImageData, ImageOptions

N, N_VALID = 12, 6
IMAGES = np.random.default_rng(0).integers(0, 256, (N + N_VALID, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(N + N_VALID) % 2
WEIGHTS = np.array([0, 3, 1, 2] * 5)[: N + N_VALID]
CHOICES: dict[str, Any] = {
    "normalisation": "none", "augmentation": None, "device": "cpu", "probe": "off",
    "precision": "fp32",
}  # fmt: skip


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(108, 2).double()

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.flatten(1).double())


def split(n: int, n_train: int) -> Split:
    return Split.from_indices(range(n_train), range(n_train, n))


def files(folder: Path) -> list[str]:
    names = [f"{number}.png" for number in range(len(IMAGES))]
    for name, image in zip(names, IMAGES, strict=True):
        Image.fromarray(image).save(folder / name)
    return names


def trained(data: ImageData, **choices: Any) -> Learner:
    learner = Learner(
        data,
        Double(),
        choices={**CHOICES, "batch_size": len(data.split.train), **choices},
        quiet=True,
    )
    learner.fit(4, lr=0.05)
    return learner


@pytest.mark.filterwarnings("ignore::flambeau.errors.FlambeauWarning")
@pytest.mark.parametrize("source", ["arrays", "memory", "files"])
def test_weights_equal_repeated_images(source: str, tmp_path: Path) -> None:
    options = ImageOptions(weight="seen", verify=False, size=6)
    whole = split(N + N_VALID, N)
    if source == "arrays":
        data = ImageData.from_arrays(IMAGES, LABELS, sample_weight=WEIGHTS, split=whole)
        weighted = trained(data)
    else:
        frame = {"file": files(tmp_path), "label": LABELS, "seen": WEIGHTS}
        data = ImageData.from_df(frame, root=tmp_path, split=whole, options=options)
        weighted = trained(data, cache=source, **({"num_workers": 0} if source == "files" else {}))
    rows = np.repeat(np.arange(N + N_VALID), WEIGHTS)
    repeats = split(len(rows), int(WEIGHTS[:N].sum()))
    repeated = trained(ImageData.from_arrays(IMAGES[rows], LABELS[rows], split=repeats))
    for ours, theirs in zip(weighted.model.parameters(), repeated.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        assert weighted.history.column(name) == pytest.approx(
            repeated.history.column(name), rel=1e-12
        )


def test_batches_have_the_weights_of_their_rows(tmp_path: Path) -> None:
    frame = {"file": files(tmp_path), "label": LABELS, "w": WEIGHTS + 0.5}
    data = ImageData.from_df(frame, root=tmp_path, options=ImageOptions(weight="w", size=6))
    learner = Learner(data, choices={**CHOICES, "cache": "files", "num_workers": 0}, quiet=True)
    dataset = learner.built.dataset("train")
    for batch in dataset.loader(LoaderOptions(batch_size=5, shuffle=True)).batches(0):
        assert batch.sample_weight is not None
        assert batch.indices is not None
        assert batch.sample_weight.tolist() == (WEIGHTS + 0.5)[batch.indices.numpy()].tolist()
        assert batch.weight == float(batch.sample_weight.sum())
    assert data.subset({"train": [0, 1], "valid": [2]}).fingerprint()["sample weights"]


def test_separate_parts_have_no_weights() -> None:
    images, labels = IMAGES[:N], LABELS[:N]
    valid = (IMAGES[N:], LABELS[N:])
    data = ImageData.from_arrays(images, labels, valid=valid, sample_weight=WEIGHTS[:N])
    learner = Learner(data, choices=CHOICES, quiet=True)
    weights = {part: next(learner.built.batches(part)).sample_weight for part in ("train", "valid")}
    assert weights["valid"] is None
    assert weights["train"] is not None
    assert weights["train"].tolist() == WEIGHTS[:N].tolist()


def test_unreadable_files_leave_the_weights_of_the_others(tmp_path: Path) -> None:
    names = files(tmp_path)
    (tmp_path / names[1]).write_bytes(b"no image")
    frame = {"file": names, "label": LABELS, "w": np.arange(len(names)) + 1.0}
    options = ImageOptions(weight="w", size=6, unreadable="skip")
    data = ImageData.from_df(frame, root=tmp_path, options=options)
    kept = [1.0, *range(3, len(names) + 1)]
    assert torch.as_tensor(data.samples["sample_weight"]).tolist() == kept


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -2.0, 1.0], "sample_weight is -2 in row 1"),
        ([1.0, float("nan"), 1.0], "sample_weight is nan in row 1"),
        ([1.0, float("inf"), 1.0], "sample_weight is inf in row 1"),
        ([0.0, 0.0, 0.0], "Every sample_weight is 0"),
        (["1", "much", "1"], r"'seen' has weights that are not numbers \(.*'much'"),
        ([1.0, None, 1.0], "'seen' has weights that are not numbers|is nan in row 1"),
    ],
)
def test_invalid_weights_are_refused(weights: list[Any], message: str, tmp_path: Path) -> None:
    frame = {"file": files(tmp_path), "label": LABELS, "seen": weights * 6}
    with pytest.raises(InputError, match=message):
        ImageData.from_df(frame, root=tmp_path, options=ImageOptions(weight="seen"))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="18 train images, but 12 weights in sample_weight"):
        ImageData.from_arrays(IMAGES, LABELS, sample_weight=WEIGHTS[:N])
    with pytest.raises(InputError, match="sample_weight is -1 in row 0"):
        ImageData.from_arrays(IMAGES, LABELS, sample_weight=-np.ones(N + N_VALID))
    options = ImageOptions(weight="seen")
    with pytest.raises(InputError, match=r"weight='seen' names a column.*sample_weight="):
        ImageData.from_arrays(IMAGES, LABELS, options=options)
    with pytest.raises(InputError, match=r"weight='seen' names a column.*\(--weight\)"):
        ImageData.from_folder(tmp_path, options=options)
    with pytest.raises(InputError, match=r"'seen'.*Name the column with weight=…"):
        ImageData.from_df(
            {"file": files(tmp_path), "label": LABELS}, root=tmp_path, options=options
        )


def test_a_run_is_not_resumed_with_other_weights(tmp_path: Path) -> None:
    def learner(weights: Any) -> Learner:
        data = ImageData.from_arrays(IMAGES, LABELS, sample_weight=weights)
        return Learner(data, choices=CHOICES, folder=tmp_path / "run", quiet=True)

    learner(WEIGHTS).fit(1)
    with pytest.raises(ResumeError, match="sample weights"):
        learner(WEIGHTS + 1).resume()


def test_the_command_line_names_the_column(tmp_path: Path) -> None:
    rows = zip(files(tmp_path), LABELS, WEIGHTS, strict=True)
    lines = ["file,label,seen", *(f"{name},{label},{seen}" for name, label, seen in rows)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = ImageData.from_path(tmp_path / "labels.csv", {"weight": "seen", "target": "label"})
    assert torch.as_tensor(data.samples["sample_weight"]).tolist() == WEIGHTS.tolist()
