"""``learner.load`` accepts weights only where their inputs and outputs mean the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Learner, Predictor, TensorData
from flambeau.errors import ArtefactError

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
Y = (X[:, 0] > 5).long()
CHOICES: dict[str, Any] = {"epochs": 5, "precision": "fp32", "device": "cpu", "probe": "off"}


def learner(x: torch.Tensor = X, y: torch.Tensor = Y, **options: Any) -> Learner:
    return Learner(TensorData.from_tensors(x, y, **options), choices=CHOICES, quiet=True)


def saved(first: Learner, kind: str, folder: Path) -> Path:
    if kind == "checkpoint":
        again = Learner(first.data, choices=CHOICES, folder=folder / "run", quiet=True)
        again.fit(1)
        return folder / "run"
    return first.export(folder / "export") if kind == "export" else first.save(folder / "weights")


@pytest.mark.parametrize("kind", ["export", "file", "checkpoint"])
def test_another_order_of_the_classes_is_refused(tmp_path: Path, kind: str) -> None:
    path = saved(learner(class_names=["no", "yes"]), kind, tmp_path)
    other = learner(X, 1 - Y, class_names=["yes", "no"])
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    with pytest.raises(ArtefactError, match=r"are no, yes in this order, .* are yes, no: .*start="):
        other.load(path)
    for name, value in other.model.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(ArtefactError, match="are no, yes in this order"):
        learner(class_names=["cat", "dog"]).load(path)


@pytest.mark.parametrize("kind", ["export", "file"])
def test_the_same_data_load_the_weights(tmp_path: Path, kind: str) -> None:
    first = learner(class_names=["no", "yes"])
    first.fit()
    again = learner(class_names=["no", "yes"])
    again.load(saved(first, kind, tmp_path))
    assert torch.equal(again.predictor().outputs(X), first.predictor().outputs(X))


def test_a_predictor_and_its_export_use_the_same_batches(tmp_path: Path) -> None:
    # On some processors the last bits of an output depend on the size of its batch.
    first = Learner(TensorData.from_tensors(X, Y), choices={**CHOICES, "batch_size": 5}, quiet=True)
    loaded = Predictor.load(first.export(tmp_path / "export"))
    assert first.predictor().batch_size == loaded.batch_size != 5


def test_another_preprocessor_than_the_exports_is_refused(tmp_path: Path) -> None:
    first = learner()
    first.fit()
    path = first.export(tmp_path / "export")
    scaled = learner(X * 100)
    with pytest.raises(ArtefactError, match=r"another preprocessor .*: mean \(\[5.*start=EXPORT"):
        scaled.load(path)
    plain = Learner(
        TensorData.from_tensors(X, Y), choices={**CHOICES, "normalisation": "none"}, quiet=True
    )
    with pytest.raises(ArtefactError, match=r"another preprocessor .*standardised"):
        plain.load(path)
    # The error says how to train the export further.
    further = Learner(TensorData.from_tensors(X * 100, Y), start=path, quiet=True)
    expected = Predictor.load(path, device="cpu").outputs(X)
    assert torch.allclose(further.predictor().outputs(X), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["file", "checkpoint"])
def test_another_preprocessor_than_that_of_weights_is_refused(tmp_path: Path, kind: str) -> None:
    path = saved(learner(), kind, tmp_path)
    learner().load(path)
    with pytest.raises(ArtefactError, match=r"another preprocessor .*: mean"):
        learner(X * 100).load(path)


@pytest.mark.parametrize("kind", ["export", "file", "checkpoint"])
def test_another_scale_of_the_targets_is_refused(tmp_path: Path, kind: str) -> None:
    target = X.sum(1, keepdim=True)
    path = saved(learner(X, target), kind, tmp_path)
    with pytest.raises(ArtefactError, match=r"scaled with mean .* other units"):
        learner(X, target * 100).load(path)


def test_another_model_is_named_first(tmp_path: Path) -> None:
    path = learner(class_names=["no", "yes"]).export(tmp_path / "export")
    data = TensorData.from_tensors(X, Y, class_names=["a", "b"])
    with pytest.raises(ArtefactError, match="does not fit the model"):
        Learner(data, nn.Sequential(nn.Linear(4, 2)), quiet=True).load(path)
