"""``learner.fit_folds``: equal to separate fits, held-out predictions, resumable."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from flambeau import Classification, Learner, Split, TensorData
from flambeau.errors import ArgumentError, FlambeauError, InputError
from flambeau.learner.fold_runs import FoldResult
from flambeau.training.events import Callback

N = 97  # folds of unequal sizes
DRAW = torch.Generator().manual_seed(0)
X = torch.randn(N, 4, generator=DRAW)
Y = (X[:, :3] + torch.randn(N, 3, generator=DRAW)).argmax(1)
VALUE = X[:, 0] * 30 + 200 + torch.randn(N, generator=DRAW)
CHOICES = {"batch_size": 16, "lr": 0.01, "keep_best": None}


def classes(**more: object) -> TensorData:
    return TensorData.from_tensors(X, Y, valid=0.2, test=0.1, **more)


def learner(data: TensorData | None = None, **more: object) -> Learner:
    choices = {**CHOICES, **more.pop("choices", {})}
    return Learner(data or classes(), quiet=True, choices=choices, **more)


@pytest.fixture(scope="module")
def result() -> FoldResult:
    return learner().fit_folds(4, 2, epochs=3)


def separate(result: FoldResult) -> list[Learner]:
    """Return the learners of the folds, trained one by one."""
    found = []
    for fold in classes().folds(4):
        for seed in (0, 1):
            each = learner(fold, seed=seed)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                each.fit(3)
            found.append(each)
    return found


def test_the_models_equal_separate_fits(result: FoldResult) -> None:
    fits = separate(result)
    assert [(each.fold, each.seed) for each in result.members] == [
        (fold, seed) for fold in (1, 2, 3, 4) for seed in (0, 1)
    ]
    for member, fit in zip(result.members, fits, strict=True):
        for (name, one), other in zip(
            member.model.state_dict().items(), fit.model.state_dict().values(), strict=True
        ):
            assert torch.equal(one, other), name
        assert member.scores == fit.evaluate("valid")
        assert member.history.rows[-1]["valid_loss"] == fit.history.rows[-1]["valid_loss"]


def test_held_out_predictions_are_means_over_the_seeds(result: FoldResult) -> None:
    expected = torch.full((N, 3), torch.nan, dtype=torch.float64)
    fits = iter(separate(result))
    for fold in classes().folds(4):
        rows = torch.tensor(fold.split.valid)
        each = [next(fits).predictor().outputs(X[rows]).double().softmax(1) for _ in range(2)]
        expected[rows] = torch.stack(each).mean(0)
    rows = result.held_out.rows
    data = classes()
    assert rows.tolist() == sorted([*data.split.train, *data.split.valid])
    assert torch.allclose(result.held_out.outputs, expected[rows], rtol=0, atol=1e-6)
    assert torch.equal(result.held_out.batch.target, Y[rows])
    decoded = result.predictions
    assert len(decoded) == len(rows)
    assert decoded[5].probability == pytest.approx(float(expected[rows[5]].max()), abs=1e-6)


def test_the_scores_are_those_of_scikit_learn(result: FoldResult) -> None:
    held_out = result.held_out
    p, y = held_out.outputs.numpy(), held_out.batch.target.numpy()
    for fold, scores in result.fold_scores.items():
        own = held_out.folds.numpy() == fold
        assert scores["accuracy"] == pytest.approx(accuracy_score(y[own], p[own].argmax(1)))
        assert scores["loss"] == pytest.approx(log_loss(y[own], p[own], labels=[0, 1, 2]))
    assert result.scores["loss"] == pytest.approx(log_loss(y, p))
    interval = result.interpretation.intervals["accuracy"]
    assert interval.low < interval.value == accuracy_score(y, p.argmax(1)) < interval.high
    text = str(result)
    assert text.startswith("Predictions for held-out rows by 4 folds with 2 seeds each\nfold")
    assert f"{interval.low:.4g} to {interval.high:.4g}" in text


def test_the_learner_is_not_trained(result: FoldResult) -> None:
    one = learner()
    before = copy.deepcopy(one.model.state_dict())
    one.fit_folds(2, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert not one.history.rows


def test_dropout_depends_on_the_seed_of_the_model_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Linear(32, 3))
    splits = [fold.split for fold in classes().folds(2)]

    def outputs(global_seed: int, seed: int) -> torch.Tensor:
        torch.manual_seed(global_seed)
        return learner(model=net).fit_folds(splits, [seed], epochs=2).held_out.outputs

    assert torch.equal(outputs(0, 3), outputs(1, 3))
    assert not torch.equal(outputs(0, 3), outputs(0, 4))


def test_numbers_are_predicted_in_the_units_of_the_targets() -> None:
    data = TensorData.from_tensors(X, VALUE, valid=0.2)
    found = learner(data).fit_folds(3, epochs=30, lr=0.05)
    means = {float(member.task.mean[0]) for member in found.members}
    assert len(means) == 3  # each is standardised by its own train rows
    error = found.held_out.outputs.flatten() - VALUE
    assert found.scores["rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-6)
    assert found.scores["rmse"] < 15 < float(VALUE.std())


class Interrupt(Callback):
    def __init__(self, model: int, step: int) -> None:
        self.model, self.step, self.fits = model, step, 0

    def on_fit_start(self, state) -> None:
        self.fits += 1

    def on_step_end(self, state) -> None:
        if self.fits == self.model and state.position.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("model", "step"), [(1, 2), (2, 3), (4, 8)])
def test_a_killed_run_continues_to_the_same_models(
    result: FoldResult, tmp_path: Path, model: int, step: int
) -> None:
    data, whole = classes(), learner().fit_folds(2, 2, epochs=3)
    with pytest.raises(KeyboardInterrupt) as caught:
        learner(data, folder=tmp_path, callbacks=[Interrupt(model, step)]).fit_folds(2, 2, epochs=3)
    assert "resume=True" in str(caught.value.__notes__)
    assert f"a model of fold {(model + 1) // 2}; the learner's own model" in str(
        caught.value.__notes__
    )
    again = learner(data, folder=tmp_path).fit_folds(2, 2, epochs=3, resume=True)
    for one, other in zip(whole.members, again.members, strict=True):
        for name, value in one.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[name]), (one.fold, one.seed, name)
        assert len(other.history.rows) == 3
    assert torch.equal(whole.held_out.outputs, again.held_out.outputs)
    # Once more: nothing is trained.
    third = learner(data, folder=tmp_path, callbacks=[Interrupt(1, 1)])
    assert torch.equal(
        third.fit_folds(2, 2, epochs=3, resume=True).held_out.outputs, whole.held_out.outputs
    )


@pytest.mark.parametrize("keep_best", [None, "valid_loss"])
def test_a_model_that_was_killed_after_its_last_step_is_complete(
    tmp_path: Path, keep_best: str | None
) -> None:
    def fitted(**more: object) -> FoldResult:
        one = learner(folder=tmp_path, choices={"keep_best": keep_best, "lr": 0.5})
        return one.fit_folds(2, epochs=4, **more)

    whole = fitted()
    (tmp_path / "fold-1-seed-0" / "weights.safetensors").unlink()
    assert torch.equal(fitted(resume=True).held_out.outputs, whole.held_out.outputs)
    # Killed before its first checkpoint: it starts again.
    (tmp_path / "fold-2-seed-0" / "weights.safetensors").unlink()
    shutil.rmtree(tmp_path / "fold-2-seed-0" / "checkpoints")
    assert torch.equal(fitted(resume=True).held_out.outputs, whole.held_out.outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 3}, r"other k: k differs \(2 there, 3 now\)"),
        ({"seeds": 3}, "other seeds"),
        ({"epochs": 2}, r"other arguments: epochs differs \(1 there, 2 now\)"),
        ({"recipe": "one_cycle"}, "other recipe"),
        ({"resume": False}, "already contains the models of fit_folds"),
    ],
)
def test_another_cross_validation_is_not_continued(tmp_path: Path, arguments, message) -> None:
    same = {"k": 2, "seeds": 1, "epochs": 1, "resume": True}
    learner(folder=tmp_path).fit_folds(2, epochs=1)
    with pytest.raises(ArgumentError, match=message):
        learner(folder=tmp_path).fit_folds(**{**same, **arguments})
    with pytest.raises(ArgumentError, match="other plan: batch_size differs"):
        learner(folder=tmp_path, choices={"batch_size": 8}).fit_folds(**same)
    assert json.loads((tmp_path / "folds.json").read_text())["seeds"] == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 0}, "number of models"),
        ({"seeds": [1, 1]}, "distinct whole numbers"),
        ({"seeds": "ab"}, "number of models"),
        ({"recipe": "fit_auto"}, "Unknown recipe"),
        ({"resume": True}, "needs the folder"),
        ({"epochs": 1, "steps": 1}, "a run has one length"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        learner().fit_folds(2, **arguments)


def test_a_trained_module_is_refused() -> None:
    one = learner(model=nn.Linear(4, 3))
    one.fit(1)
    with pytest.raises(InputError, match="was trained on rows that the folds hold out"):
        one.fit_folds(2)


def test_a_module_starts_each_fold_with_the_weights_it_was_given_with() -> None:
    net = nn.Linear(4, 3)
    before = copy.deepcopy(net.state_dict())
    found = learner(model=net).fit_folds(2, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for fold, member in zip(classes().folds(2), found.members, strict=True):
        own = nn.Linear(4, 3)
        own.load_state_dict(before)
        each = learner(fold, model=own)
        each.fit(1)
        assert torch.equal(each.model.weight, member.model.weight)


def test_given_splits_and_rows_that_are_never_held_out() -> None:
    data = classes()
    rows = data.split.train
    splits = [Split.from_indices(rows[20:], rows[:20]), Split.from_indices(rows[:20], rows[20:30])]
    found = learner(data).fit_folds(splits, epochs=1)
    assert found.held_out.rows.tolist() == sorted(rows[:30])
    counts = np.bincount(found.held_out.folds)
    assert counts.tolist() == [0, 20, 10]
    n = len(data.split.train) + len(data.split.valid)
    assert found.notes == (f"{n - 30} of {n} rows were never held out: no fold has them in valid.",)


def test_the_best_epoch_is_named() -> None:
    found = learner(choices={"keep_best": "valid_loss"}).fit_folds(2, epochs=1)
    assert "keep_best='valid_loss'" in found.notes[0]


def test_settings_of_the_machine_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from flambeau.plan.rules_machine import TO_MEASURE
    from flambeau.tuning import measure

    asked, own = [], measure.measure_step_settings

    def counted(plan, *arguments):
        asked.append(plan.values["probe"] in TO_MEASURE)
        return own(plan, *arguments)

    monkeypatch.setattr(measure, "measure_step_settings", counted)
    learner().fit_folds(2, 2, epochs=1)
    assert asked == [True, False, False, False]  # of the first model


def test_the_doctor_checks_the_data_once() -> None:
    x = X.clone()
    x[1:9] = x[0]  # duplicates over the parts
    data = TensorData.from_tensors(x, Y, valid=0.2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner(data).fit_folds(4, 2, epochs=1)
    texts = [str(each.message) for each in caught]
    assert len(texts) == len(set(texts))


def test_a_module_of_another_script_gets_its_first_weights_back(tmp_path: Path) -> None:
    """A script that does not seed torch makes another module each time."""

    def module(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    whole = learner(model=module(0)).fit_folds(3, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        learner(model=module(0), folder=tmp_path, callbacks=[Interrupt(2, 3)]).fit_folds(
            3, epochs=2
        )
    again = learner(model=module(1), folder=tmp_path).fit_folds(3, epochs=2, resume=True)
    assert torch.equal(whole.held_out.outputs, again.held_out.outputs)
    wider = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3))
    with pytest.raises(FlambeauError, match=r"first_weights\.safetensors"):
        learner(model=wider, folder=tmp_path).fit_folds(3, epochs=2, resume=True)


def test_a_call_that_ended_before_its_record_starts_again(tmp_path: Path) -> None:
    net = nn.Linear(4, 3)
    learner(model=net, folder=tmp_path).fit_folds(2, epochs=1)
    for path in tmp_path.iterdir():
        if path.name != "first_weights.safetensors":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    learner(model=net, folder=tmp_path).fit_folds(2, epochs=1)


class Weighted(Classification):
    def __init__(self, factor: float) -> None:
        super().__init__(["a", "b", "c"])
        self.factor = factor

    def losses(self, outputs, batch):
        return self.factor * super().losses(outputs, batch)


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (lambda: Weighted(1.0), lambda: Weighted(50.0), r"factor differs \(1.0 there, 50.0 now\)"),
        (
            lambda: Classification(["a", "b", "c"]),
            lambda: Classification(["a", "b", "c"], class_weights=[1, 1, 30]),
            "class_weights differs",
        ),
        (lambda: Classification(["a", "b", "c"]), lambda: Weighted(1.0), "class differs"),
    ],
)
def test_another_task_is_not_continued(tmp_path: Path, first, second, difference: str) -> None:
    def fitted(task: Classification, **more: object) -> FoldResult:
        return learner(task=task, folder=tmp_path).fit_folds(2, epochs=1, **more)

    fitted(first())
    with pytest.raises(ArgumentError, match=f"with other task: {difference}"):
        fitted(second(), resume=True)
    fitted(first(), resume=True)
