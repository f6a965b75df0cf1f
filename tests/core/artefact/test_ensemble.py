"""Ensembles: the mean of their members, also after an export and in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Learner, Predictor, TensorData
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, ArtefactError, FlambeauError, InputError
from flambeau.learner.fold_result import FoldResult
from flambeau.task import Classification, MultiLabel, Regression, Task
from flambeau.task.averages import averages_of
from flambeau.task.log_link import Gamma, Poisson, Tweedie
from flambeau.task.model_ensemble import EnsembleTask, ModelEnsemble
from flambeau.task.quantiles import QuantileRegression

DRAW = torch.Generator().manual_seed(0)
N = 120
X = torch.randn(N, 4, generator=DRAW)
NOISE = torch.randn(N, 3, generator=DRAW)
NUMBER = X[:, 0] * 30 + 200 + NOISE[:, 0]
TARGETS: dict[str, torch.Tensor] = {
    "classification": (X[:, :3] + NOISE).argmax(1),
    "multi_label": (X[:, :3] + NOISE > 0).long(),
    "regression": NUMBER,
    "quantile_regression": NUMBER,
    "poisson": NUMBER.round(),
    "gamma": NUMBER,
    "tweedie": NUMBER,
}


@cache
def trained(kind: str) -> FoldResult:
    return fitted(kind)


def fitted(kind: str, **more: Any) -> FoldResult:
    data = TensorData.from_tensors(X, TARGETS[kind], valid=0.2, task=kind)
    choices = {"batch_size": 16, "lr": 0.02, "keep_best": None, **more.pop("choices", {})}
    return Learner(data, choices=choices, quiet=True, **more).fit_folds(3, 2, epochs=3)


@pytest.mark.parametrize("kind", TARGETS)
def test_an_ensemble_predicts_the_mean_of_its_members(kind: str, tmp_path: Path) -> None:
    found = trained(kind)
    each = []
    for member in found.members:
        alone = Predictor(member.preprocessor, member.model, member.task)
        columns: list[Any] = alone.predict(list(X[:7]))
        if kind in ("classification", "multi_label"):
            rows = [list(one.probabilities.values()) for one in columns]
        elif kind == "quantile_regression":
            rows = [list(one.quantiles.values()) for one in columns]
        else:
            rows = [[one.value] for one in columns]
        each.append(torch.tensor(rows, dtype=torch.float64))
    expected = torch.stack(each).mean(dim=0)
    loaded = Predictor.load(found.export(tmp_path / "model"), device="cpu")
    for predictor in (found.ensemble(), loaded):
        outputs = predictor.outputs(list(X[:7]))
        assert outputs.shape == (7, 3, expected.shape[1])
        assert torch.allclose(outputs.mean(dim=1), expected, rtol=1e-6, atol=1e-6)
        for one, row in zip(predictor.predict(list(X[:7])), expected, strict=True):
            if kind in ("classification", "multi_label"):
                values = list(one.probabilities.values())
            else:
                values = list(one.quantiles.values()) if "quantile" in kind else [one.value]
            assert values == pytest.approx(row.tolist(), rel=1e-6, abs=1e-6)
    assert torch.equal(loaded.outputs(list(X)), found.ensemble().outputs(list(X)))


def test_it_predicts_the_same_in_a_new_process(tmp_path: Path) -> None:
    found = trained("classification")
    torch.save(X, tmp_path / "x.pt")
    folder = found.export(tmp_path / "model")
    code = (
        "import torch; from flambeau import Predictor; "
        f"x = torch.load({str(tmp_path / 'x.pt')!r}); "
        f"p = Predictor.load({str(folder)!r}, device='cpu').predict(list(x), interval=0.8); "
        "print([[each.probability, *each.classes] for each in p])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [[e.probability, *e.classes] for e in found.predict(list(X), interval=0.8)]
    assert done.stdout.strip() == str(here)


def test_the_record_contains_every_member_and_no_code(tmp_path: Path) -> None:
    folder = trained("regression").export(tmp_path / "model")
    record = json.loads((folder / "flambeau.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == [
        "flambeau.json",
        "model.safetensors",
        "preprocessor.safetensors",
    ]
    assert [each["builder"] for each in record["model"]["arguments"]["members"]] == ["mlp"] * 6
    assert next(iter(record["task"]["arguments"]["tasks"])) == "fold 1, seed 0"
    assert record["task"]["arguments"]["folds"] == [0, 0, 1, 1, 2, 2]
    assert len(record["preprocessor"]["arguments"]["members"]) == 3
    record["model"]["arguments"]["members"][0] = {"builder": "os.system", "arguments": {}}
    (folder / "flambeau.json").write_text(json.dumps(record))
    with pytest.raises(ArtefactError, match=r"does not register the model builder 'os\.system'"):
        Predictor.load(folder)


def test_equal_preprocessors_encode_once() -> None:
    found = fitted("classification", choices={"normalisation": "none"})
    predictor = found.ensemble()
    assert len(predictor.preprocessor.members) == 1
    assert predictor.task.inputs == (0,) * 6


def test_a_module_of_the_user_is_passed_when_the_ensemble_is_loaded(tmp_path: Path) -> None:
    found = fitted("classification", model=nn.Linear(4, 3))
    folder = found.export(tmp_path / "model")
    with pytest.raises(ArtefactError, match=r"model=\.\.\."):
        Predictor.load(folder)
    model = ModelEnsemble(nn.Linear(4, 3) for _ in range(6))
    loaded = Predictor.load(folder, model=model, device="cpu")
    assert torch.equal(loaded.outputs(list(X)), found.ensemble().outputs(list(X)))


def test_some_folds_can_be_chosen(tmp_path: Path) -> None:
    found = trained("regression")
    whole, part = (found.ensemble(folds).outputs(list(X)) for folds in (None, [3, 1]))
    assert torch.equal(part, whole[:, [0, 2]])
    with pytest.raises(ArgumentError, match=r"folds is \[4\], but must be some of \[1, 2, 3\]"):
        found.export(tmp_path / "model", [4])
    with pytest.raises(ArgumentError, match=r"folds is \[\]"):
        found.ensemble([])


@pytest.mark.parametrize("kind", ["regression", "quantile_regression", "poisson", "gamma"])
def test_intervals_of_numbers_contain_the_stated_share_of_held_out_rows(kind: str) -> None:
    """The intervals are CV+, so they contain about 80% of the rows that gave the scores."""
    found = trained(kind)
    task, held_out = found.ensemble().task.for_prediction({"interval": 0.8}), found.held_out
    y = held_out.batch.target.double().flatten()
    inside = 0
    for at in range(len(y)):
        # Its own fold predicts the row as it would a new one.
        outputs = held_out.outputs[at].expand(1, 3, -1)
        ends = task.decode(outputs)[0].interval
        inside += ends["low"] <= float(y[at]) <= ends["high"]
    assert inside / len(y) == pytest.approx(0.8, abs=0.03)


def test_labels_have_no_intervals() -> None:
    with pytest.raises(InputError, match="because MultiLabel predicts none"):
        trained("multi_label").predict(list(X[:2]), interval=0.9)


def batch(targets: torch.Tensor) -> Batch:
    return Batch({"x": X[: len(targets)]}, {"y": targets})


@pytest.mark.parametrize(
    ("task", "outputs", "targets"),
    [
        (
            Classification(["a", "b", "c"]),
            torch.randn(9, 3, generator=DRAW),
            TARGETS["classification"],
        ),
        (MultiLabel(["a", "b", "c"]), torch.randn(9, 3, generator=DRAW), TARGETS["multi_label"]),
        (Regression(["v"], 200.0, 30.0), torch.randn(9, 1, generator=DRAW), NUMBER),
        (Regression(["v"], 5.0, 0.1, log="log"), torch.randn(9, 1, generator=DRAW), NUMBER),
        (QuantileRegression(["v"], mean=9.0, std=3.0), torch.randn(9, 3, generator=DRAW), NUMBER),
        (Poisson(["v"], 200.0), torch.randn(9, 1, generator=DRAW), NUMBER),
        (Gamma(["v"], 200.0), torch.randn(9, 1, generator=DRAW), NUMBER),
        (Tweedie(["v"], 200.0), torch.randn(9, 1, generator=DRAW), NUMBER),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Task) else "",
)
def test_averages_of_one_model_decode_and_score_as_its_task(task, outputs, targets) -> None:
    averages = averages_of(task)
    other = averages.of_averages()
    again = averages.from_average(averages.to_average(outputs))
    for one, same in zip(task.decode(outputs), other.decode(again), strict=True):
        for left, right in zip(vars(one).values(), vars(same).values(), strict=True):
            assert left == pytest.approx(right, rel=1e-6) if isinstance(left, dict) else True
    found = []
    for each, values in ((task, outputs), (other, again)):
        metrics = dict(each.metrics())
        each.update(metrics, values, batch(targets[:9]))
        found.append({name: float(metric.compute()) for name, metric in metrics.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_predictions_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(ArgumentError, match="Task cannot be averaged over models"):
        averages_of(Task())


@pytest.mark.parametrize(
    ("tasks", "folds", "inputs", "message"),
    [
        ({}, [], [], "has 0 tasks"),
        ({"a": Regression(["v"])}, [0, 1], [0], "2 numbers of folds"),
        ({"a": Regression(["v"])}, [1], [0], r"numbered \[1\]"),
        (
            {"a": Classification(["x", "y"]), "b": Classification(["x", "z"])},
            [0, 1],
            [0, 0],
            "Classification of x, y and Classification of x, z",
        ),
        ({"a": Regression(["x"]), "b": Poisson(["x"])}, [0, 1], [0, 0], "Poisson of x"),
    ],
)
def test_members_that_do_not_fit_are_refused(tasks, folds, inputs, message) -> None:
    with pytest.raises(FlambeauError, match=message):
        EnsembleTask(tasks, folds, inputs)
