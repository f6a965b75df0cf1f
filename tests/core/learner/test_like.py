"""``like="export"``: data are read as an export's, and its preprocessor is kept for a new model."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from flambeau import Learner, Plan, Predictor, TensorData
from flambeau.errors import ArgumentError, ArtefactError, FlambeauWarning, InputError, PlanError

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
Y = (X[:, 0] > 5).long() + (X[:, 1] > 5).long()
NAMES = ("none", "one", "both")
WORDS = np.array(NAMES)[Y.numpy()]
FEW = 40
QUIET: dict[str, Any] = {"quiet": True}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = TensorData.from_tensors(X, Y, class_names=NAMES)
    learner = Learner(data, choices={"epochs": 1}, **QUIET)
    learner.fit()
    return learner.export(tmp_path_factory.mktemp("like") / "export")


def other(export: Path, **options: Any) -> TensorData:
    """Fewer rows with another mean and standard deviation."""
    return TensorData.from_tensors(X[:FEW] * 0.5, WORDS[:FEW], like=export, **options)


def mean_of(predictor: Predictor) -> torch.Tensor:
    return predictor.preprocessor.tensors()["mean"]


def test_class_order_and_preprocessor_are_kept_for_a_new_model(export: Path) -> None:
    data = other(export)
    assert data.like == export
    assert data.facts()["class_names"] == list(NAMES)
    learner = Learner(data, choices={"head": {"dropout": 0.2}}, **QUIET)
    old = Predictor.load(export, device="cpu")
    assert torch.equal(mean_of(learner.predictor()), mean_of(old))
    assert not torch.equal(
        next(learner.model.parameters()).cpu(), next(old.model.parameters()).cpu()
    )
    start = learner.plan.values["start"]
    assert start["export"] == str(export)
    assert start["model"] is None
    assert start["head"] == "new"
    assert learner.plan["normalisation"].reason.startswith(f"As in the export {export}")
    assert learner.plan["normalisation"].override == "Omit like=."
    assert learner.plan["architecture"].source != "user"
    learner.fit(1)


def test_without_like_the_preprocessor_is_fitted_anew(export: Path) -> None:
    learner = Learner(TensorData.from_tensors(X[:FEW] * 0.5, WORDS[:FEW]), **QUIET)
    assert learner.data.like is None
    assert learner.plan.values["start"] is None
    old = Predictor.load(export, device="cpu")
    assert not torch.allclose(mean_of(learner.predictor()), mean_of(old))


def test_some_of_the_classes_start_with_the_head(export: Path) -> None:
    rows = np.flatnonzero(WORDS != "one")
    data = TensorData.from_tensors(X[rows], WORDS[rows], like=export)
    with pytest.warns(FlambeauWarning, match="'one'.* Add train rows of it: without them"):
        learner = Learner(data, start=export, **QUIET)
    assert learner.plan.values["start"]["head"] == "kept"
    old = Predictor.load(export, device="cpu")
    assert torch.allclose(learner.predictor().outputs(X[:9]), old.outputs(X[:9]), atol=1e-6)
    finding = next(f for f in learner.doctor().findings if f.code == "class-not-in-train")
    assert finding.fix.endswith("because without them training lowers its probability.")


def test_another_export_than_like_is_refused(export: Path, tmp_path: Path) -> None:
    data = TensorData.from_tensors(X * 2, WORDS, class_names=NAMES)
    second = Learner(data, choices={"epochs": 1}, **QUIET).export(tmp_path / "second")
    with pytest.raises(ArtefactError, match=rf"read like another export, like='{export}'"):
        Learner(other(export), start=second, **QUIET)
    copy = Path(shutil.copytree(export, tmp_path / "copy"))
    assert Learner(other(export), start=copy, **QUIET).plan.values["start"]["head"] == "kept"


def test_contradictions_are_refused_with_both_values(export: Path) -> None:
    with pytest.raises(InputError, match=r"class_names is \('a', 'b'\), .*\('none', 'one', 'both'"):
        other(export, class_names=["a", "b"])
    with pytest.raises(InputError, match=r"task is 'regression', .* it is 'classification'"):
        TensorData.from_tensors(X, Y, task="regression", like=export)
    with pytest.raises(InputError, match=r"'three' in row .*, which is not in class_names"):
        TensorData.from_tensors(X, np.where(WORDS == "one", "three", WORDS), like=export)
    with pytest.raises(PlanError, match=r"normalisation is 'none', but the export .*like="):
        Learner(other(export), choices={"normalisation": "none"}, **QUIET)
    assert other(export, class_names=NAMES, task="classification").like == export


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (X[:, :3], r"input \(3,\) float32"),
        (X.double(), r"input \(4,\) float64"),
        ({"x": X}, r"x \(4,\) float32"),
    ],
)
def test_other_inputs_are_refused(export: Path, inputs: Any, found: str) -> None:
    data = TensorData.from_tensors(inputs, Y, like=export)
    with pytest.raises(InputError, match=rf"inputs are {found}, but those of the export .*\(4,\)"):
        Learner(data, **QUIET)


def test_an_export_of_another_domain_is_refused(tmp_path: Path, export: Path) -> None:
    foreign = Path(shutil.copytree(export, tmp_path / "foreign"))
    record = foreign / "flambeau.json"
    record.write_text(record.read_text().replace('"domain": "tensors"', '"domain": "vision"'))
    with pytest.raises(ArtefactError, match=r"like=.* of the domain 'vision', .* to 'tensors'"):
        other(foreign)
    with pytest.raises(ArtefactError, match="is not an export"):
        other(tmp_path / "nowhere")


def test_a_plan_replays_and_notices_another_preprocessor(export: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(export, tmp_path / "copy"))
    data = other(copy)
    first = Learner(data, **QUIET)
    first.fit(1)
    again = Learner(data, plan=Plan.from_json(first.plan.to_json()), **QUIET)
    again.fit(1)
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[name])
    with pytest.raises(ArtefactError, match="the plan keeps the preprocessor of no export"):
        unlike = TensorData.from_tensors(X, Y, class_names=NAMES)
        Learner(data, plan=Learner(unlike, **QUIET).plan, **QUIET)
    shutil.rmtree(copy)
    changed = TensorData.from_tensors(X + 1, Y, class_names=NAMES)
    Learner(changed, **QUIET).export(copy)
    with pytest.raises(ArtefactError, match=r"The preprocessor in .* the export was replaced"):
        _ = Learner(TensorData.from_tensors(X, Y), plan=first.plan, **QUIET).model


def test_only_a_start_has_a_difference(export: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="did not start from one"):
        Learner(other(export), **QUIET).export(tmp_path / "none", difference=True)


class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return X[index], Y[index]


def test_data_sets_and_loaders_are_read_like_an_export(export: Path, tmp_path: Path) -> None:
    tensors, valid = TensorDataset(X[:90], Y[:90]), TensorDataset(X[90:], Y[90:])
    data = TensorData.from_datasets(tensors, valid, like=export)
    assert data.facts()["class_names"] == list(NAMES)
    assert mean_of(Learner(data, **QUIET).predictor()).shape == (4,)
    loader = DataLoader(tensors, batch_size=30, shuffle=True)
    loaders = TensorData.from_loaders(loader, DataLoader(valid, batch_size=30), like=export)
    learner = Learner(loaders, **QUIET)
    learner.fit(1)
    assert torch.equal(mean_of(learner.predictor()), mean_of(Predictor.load(export, device="cpu")))
    samples = TensorData.from_datasets(Pairs(), Pairs(), like=export)
    assert samples.facts()["class_names"] == list(NAMES)
    for build in (TensorData.from_datasets, TensorData.from_loaders):
        source: Any = (loader, loader) if build is TensorData.from_loaders else (tensors, tensors)
        with pytest.raises(InputError, match="n_classes is 2, but class_names has 3 names"):
            build(*source, n_classes=2, like=export)


def test_an_export_of_a_module_gives_its_preprocessor(export: Path, tmp_path: Path) -> None:
    x = (X - 5) / 3
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    data = TensorData.from_tensors(x, Y, class_names=NAMES)
    folder = Learner(data, module, **QUIET).export(tmp_path / "export")
    learner = Learner(TensorData.from_tensors(x, WORDS, like=folder), **QUIET)
    assert learner.plan.values["normalisation"] == "none"
    learner.fit(1)


def test_a_subset_is_read_like_the_same_export(export: Path) -> None:
    data = other(export)
    small = data.subset({"train": data.split.train[:9], "valid": data.split.valid})
    assert small.like == export
