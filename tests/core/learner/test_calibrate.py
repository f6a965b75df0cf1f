"""``learner.calibrate``: fitted on the calibration part, used by predictions and exports."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Learner, Predictor, TensorData
from flambeau.errors import InputError
from flambeau.learner.calibrating import _Scores
from flambeau.learner.start import Start
from flambeau.report.calibration import calibration
from flambeau.task import Classification, MultiLabel
from flambeau.task.task import StepContext

DRAW = torch.Generator().manual_seed(0)
X = torch.randn(600, 6, generator=DRAW)
NOISE = torch.randn(600, 3, generator=DRAW)
Y = (X[:, :3] + 1.5 * NOISE).argmax(1)
LABELS = (X[:, :3] + NOISE > torch.tensor([0.0, 1.0, 1.8])).long()


def data(targets: torch.Tensor = Y, **arguments) -> TensorData:
    return TensorData.from_tensors(X, targets, valid=0.2, calibration=0.3, **arguments)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 3))


@pytest.fixture(scope="module")
def trained() -> Learner:
    learner = Learner(data(), quiet=True, choices={"metrics": ["accuracy", "log_loss"]})
    learner.fit(15, lr=0.03)
    head = [each for each in learner.model.modules() if isinstance(each, nn.Linear)][-1]
    with torch.no_grad():  # overconfident
        head.weight *= 3
        head.bias *= 3
    return learner


def logits_of(learner: Learner, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    outputs = learner.predictor().outputs(learner.data.raw(part)).double()
    return outputs, Y[torch.from_numpy(learner.data.split.part(part))]


def test_the_scores_before_and_after_are_those_of_predictions(trained: Learner) -> None:
    trained.task.calibration = {}
    result = trained.calibrate()
    t = result.values["temperature"]
    assert t > 1.2
    assert trained.task.calibration == result.values
    assert result.n_samples == 180
    assert list(result.parts) == ["calibration", "valid"]
    for part, scores in result.parts.items():
        logits, y = logits_of(trained, part)
        for found, temperature in ((scores.before, 1.0), (scores.after, t)):
            p = (logits / temperature).softmax(1)
            one_hot = nn.functional.one_hot(y, 3).double()
            assert found["log_loss"] == pytest.approx(float(-p[one_hot > 0].log().mean()), rel=1e-6)
            assert found["brier"] == pytest.approx(
                float((p - one_hot).square().sum(1).mean()), rel=1e-6
            )
            assert found["ece"] == pytest.approx(slow_ece(p, y), rel=1e-5)
        assert scores.after["log_loss"] < scores.before["log_loss"]
        assert scores.after["ece"] < scores.before["ece"]
        assert scores.after["accuracy"] == scores.before["accuracy"]
        assert scores.curve_after is not None
        assert scores.curve_after.ece == scores.after["ece"]
    text = str(result)
    assert text.startswith(f"temperature {t:.4g}; fitted on 180 calibration samples\npart ")
    assert f"{result.parts['valid'].after['ece']:.4f}" in text


def slow_ece(p: torch.Tensor, y: torch.Tensor) -> float:
    confidence, predicted = p.max(1)
    total = 0.0
    for low in torch.linspace(0, 0.9, 10).tolist():
        here = (confidence > low) & (confidence <= low + 0.1 + 1e-9)
        if here.any():
            gap = (predicted == y)[here].double().mean() - confidence[here].mean()
            total += float(gap.abs()) * int(here.sum())
    return total / len(p)


def test_a_second_call_gives_the_same_values(trained: Learner) -> None:
    first = trained.calibrate()
    second = trained.calibrate()
    assert second.values == first.values
    assert second.parts["valid"].before == first.parts["valid"].before


def test_predictions_metrics_reports_and_exports_use_the_values(
    trained: Learner, tmp_path: Path
) -> None:
    result = trained.calibrate()
    p = (logits_of(trained, "valid")[0] / result.values["temperature"]).softmax(1)
    raw = trained.data.raw("valid")
    loaded = Predictor.load(trained.export(tmp_path / "model"))
    assert loaded.task.calibration == result.values
    for predictions in (trained.predict(raw), loaded.predict(raw)):
        shown = torch.tensor([list(each.probabilities.values()) for each in predictions])
        assert torch.allclose(shown.double(), p, atol=1e-6)
    after = result.parts["valid"].after
    assert trained.evaluate()["log_loss"] == pytest.approx(after["log_loss"], rel=1e-9)
    assert trained.interpret().calibration().ece == pytest.approx(after["ece"], rel=1e-9)


def test_only_the_calibration_part_is_read_for_the_fit(trained: Learner) -> None:
    expected = trained.calibrate().values
    y = Y.clone()
    others = torch.from_numpy(trained.data.split.valid)
    y[others] = (y[others] + 1) % 3
    other = TensorData.from_tensors(X, y, split=trained.data.split)
    learner = Learner(other, trained.model, task=Classification(["0", "1", "2"]), quiet=True)
    learner.built.preprocessor = trained.built.preprocessor
    assert learner.calibrate().values == expected


def test_without_a_calibration_part_it_says_how_to_make_one() -> None:
    learner = Learner(TensorData.from_tensors(X, Y), quiet=True)
    with pytest.raises(InputError, match=r"no calibration samples.*calibration=0\.2"):
        learner.calibrate()
    assert not learner.task.calibration


def test_training_further_and_loading_weights_remove_the_values(tmp_path: Path) -> None:
    learner = Learner(data(), net(), quiet=True, choices={"probe": "off"})
    learner.fit(3, lr=0.03)
    before = learner.save(tmp_path / "weights.safetensors")
    learner.calibrate()
    assert learner.task.calibration
    learner.fit(1, lr=0.03)
    assert not learner.task.calibration
    learner.calibrate()
    learner.load(before)
    assert not learner.task.calibration


def test_labels_get_thresholds_that_raise_f1() -> None:
    task = MultiLabel(["a", "b", "rare"], metrics=["macro_f1"])
    learner = Learner(data(LABELS), net(), task=task, quiet=True, choices={"probe": "off"})
    learner.fit(8, lr=0.02)
    result = learner.calibrate()
    assert set(result.values) == {"temperature", "thresholds"}
    scores = result.parts["calibration"]
    assert scores.after["macro_f1"] > scores.before["macro_f1"]
    assert scores.after["log_loss"] < scores.before["log_loss"]
    raw = learner.data.raw("valid")
    truth = LABELS[torch.from_numpy(learner.data.split.valid)]
    chosen = torch.tensor([[c in p.labels for c in task.classes] for p in learner.predict(raw)])
    f1 = 2 * (chosen & (truth > 0)).sum(0) / (chosen.sum(0) + truth.sum(0))
    assert learner.evaluate()["macro_f1"] == pytest.approx(float(f1.mean()), abs=1e-6)
    found = learner.interpret()
    assert torch.equal(found.predicted, chosen)
    assert found.intervals["macro_f1"].value == pytest.approx(float(f1.mean()), abs=1e-6)


class Shifted(Classification):
    """A task that fits a value of its own."""

    def calibrate(self, pairs):
        outputs = torch.cat([outputs for outputs, _ in pairs])
        return {"mean": outputs.mean(0).tolist()}

    def calibrated(self, outputs):
        mean = self.calibration.get("mean")
        return outputs if mean is None else outputs - torch.tensor(mean)


class Forgetful(Shifted):
    def arguments(self):
        return {"classes": list(self.classes)}


def test_a_task_of_ones_own() -> None:
    learner = Learner(data(), net(), task=Shifted(["0", "1", "2"]), quiet=True)
    result = learner.calibrate()
    assert len(result.values["mean"]) == 3
    assert result.parts["valid"].after["accuracy"] != result.parts["valid"].before["accuracy"]
    forgetful = Forgetful(["0", "1", "2"])
    with pytest.raises(InputError, match=r"Forgetful\.arguments\(\) has no 'calibration'"):
        Learner(data(), net(), task=forgetful, quiet=True).calibrate()
    assert not forgetful.calibration


def test_a_task_without_anything_to_fit_is_refused() -> None:
    learner = Learner(data(X[:, 0].clone()), quiet=True)
    with pytest.raises(InputError, match="Regression has no calibration to fit"):
        learner.calibrate()


def test_a_failed_fit_keeps_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(data(), net(), quiet=True, choices={"probe": "off"})
    learner.fit(2, lr=0.03)
    values = learner.calibrate().values

    def fails(pairs: object) -> dict[str, float]:
        raise InputError("no minimum")

    monkeypatch.setattr(learner.task, "calibrate", fails)
    with pytest.raises(InputError, match="no minimum"):
        learner.calibrate()
    assert learner.task.calibration == values


def test_batches_are_read_once_for_the_fit() -> None:
    seen: list[int] = []

    class Counts(Classification):
        def calibrate(self, pairs):
            rows = list(pairs)
            seen.extend(int(i) for _, batch in rows for i in batch.indices)
            assert all(isinstance(batch, Batch) for _, batch in rows)
            return super().calibrate(rows)

    learner = Learner(data(), net(), task=Counts(["0", "1", "2"]), quiet=True)
    learner.fit(2, lr=0.03)
    learner.calibrate()
    assert sorted(seen) == sorted(learner.data.split.calibration.tolist())


class Sharper(Classification):
    """Predicts with logits that are five times as large as those of the loss."""

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Tensor:
        logits: Tensor = model(batch.input)
        return 5 * logits


def test_metrics_of_a_calibrated_task_are_those_of_its_predictions() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 4, generator=generator)
    y = (x[:, 0] + torch.randn(600, generator=generator) > 0).long()
    task = Sharper(["no", "yes"], metrics=["accuracy", "log_loss"])
    data = TensorData.from_tensors(x, y, valid=0.3, calibration=0.3)
    learner = Learner(data, nn.Linear(4, 2), task=task, quiet=True)
    learner.fit(2, lr=1e-2)
    before = learner.evaluate()
    result = learner.calibrate()
    after = learner.evaluate()
    rows = data.split.valid
    predicted = learner.predict(x[rows])
    right = torch.tensor(
        [
            each.probabilities["yes" if y[r] else "no"]
            for each, r in zip(predicted, rows, strict=True)
        ]
    )
    expected = float(-right.double().log().mean())
    assert after["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert after["log_loss"] == pytest.approx(result.parts["valid"].after["log_loss"], rel=1e-5)
    assert after["loss"] == before["loss"]


def twice(weights: torch.Tensor) -> torch.Tensor:
    """Rows of a data set in which each sample occurs as often as its weight says."""
    return torch.arange(len(weights)).repeat_interleave(weights)


@pytest.mark.parametrize("labels", [False, True])
def test_a_weight_counts_as_repeated_rows(labels: bool) -> None:
    draws = torch.Generator().manual_seed(3)
    weights = torch.randint(0, 4, (200,), generator=draws)
    outputs = torch.randn(200, 3, generator=draws) * 3
    noise = torch.randn(200, 3, generator=draws) * 4
    targets = (outputs + noise > 1).long() if labels else (outputs + noise).argmax(1)
    task = MultiLabel(["a", "b", "c"]) if labels else Classification(["a", "b", "c"])
    batch = Batch({"x": outputs}, {"y": targets}, sample_weight=weights.float())
    rows = twice(weights)
    repeated = Batch({"x": outputs[rows]}, {"y": targets[rows]})
    parts = [(outputs[at], batch.rows(at)) for at in (slice(0, 150), slice(150, 200))]
    weighted, expanded = task.calibrate(parts), task.calibrate([(outputs[rows], repeated)])
    assert weighted.keys() == expanded.keys()
    for name, value in weighted.items():
        assert value == pytest.approx(expanded[name], rel=1e-9)
    found, expected = _Scores(task, {}), _Scores(task, {})
    for each in parts:
        found.add(*each)
    expected.add(outputs[rows], repeated)
    (scores, curve), (wanted, wanted_curve) = found.compute(), expected.compute()
    assert scores == pytest.approx(wanted, rel=1e-12)
    assert curve is not None
    assert wanted_curve is not None
    assert [each.count for each in curve.bins] == [each.count for each in wanted_curve.bins]


def test_the_temperature_of_weighted_logits() -> None:
    outputs = torch.tensor([[2.0, 0.0]] * 4 + [[0.0, 2.0]] * 4)
    targets = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    weights = torch.tensor([1.0, 1, 1, 2, 1, 1, 1, 1])
    batch = Batch({"x": outputs}, {"y": targets}, sample_weight=weights)
    found = Classification(["a", "b"]).calibrate([(outputs, batch)])["temperature"]
    # 6 of 9 are right, so the probability of the predicted class must be 2/3: exp(2 / T) = 2.
    assert found == pytest.approx(2 / math.log(2), rel=1e-12)


def test_samples_of_weight_0_alone_cannot_be_fitted() -> None:
    batch = Batch({"x": X[:4, :3]}, {"y": Y[:4]}, sample_weight=torch.zeros(4))
    with pytest.raises(InputError, match="all its samples have the weight 0"):
        Classification(["a", "b", "c"]).calibrate([(X[:4, :3], batch)])


def test_fractional_weights_have_intervals() -> None:
    p = torch.tensor([[0.9, 0.1]] * 3).double()
    y, weights = torch.tensor([0, 0, 1]), torch.tensor([0.1, 0.1, 0.1])
    found = calibration(p, y, weights=weights)
    equal = calibration(p, y)
    assert found.bins[0].accuracy.low == pytest.approx(equal.bins[0].accuracy.low, rel=1e-6)
    uneven = calibration(p, y, weights=torch.tensor([8.0, 0.1, 0.1])).bins[0].accuracy
    assert uneven.high - uneven.low > equal.bins[0].accuracy.high - equal.bins[0].accuracy.low


def plain_and_calibrated(learner: Learner, x: Tensor = X) -> tuple[Tensor, Tensor]:
    """Return softmax of the logits without and with the fitted temperature."""
    logits = learner.predictor().outputs(x)
    return logits.softmax(1), (logits / learner.task.calibration["temperature"]).softmax(1)


def probabilities(learner: Learner | Predictor, x: Tensor = X) -> Tensor:
    rows = [list(found.probabilities.values()) for found in learner.predict(x)]
    return torch.tensor(rows)


def test_unchanged_weights_of_an_export_keep_their_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Learner(data(), quiet=True, choices={"probe": "off"})
    first.fit(3, lr=0.1)
    first.calibrate()
    values = dict(first.task.calibration)
    plain, expected = plain_and_calibrated(first)
    assert not torch.allclose(plain, expected, atol=1e-3)
    path = first.export(tmp_path / "export")
    file = first.save(tmp_path / "weights")
    started = Learner(data(), start=path, quiet=True)
    assert "calibration" in started.plan["start"].reason
    given = Learner(data(), start=path, task=Classification(["0", "1", "2"]), quiet=True)
    loaded = [Learner(data(), quiet=True) for _ in range(2)]
    for learner, source in zip(loaded, (path, file), strict=True):
        learner.load(source)
    again = Learner(data(), start=started.export(tmp_path / "again"), quiet=True)
    for learner in (started, given, *loaded, again):
        assert torch.allclose(probabilities(learner), expected, atol=1e-6)
        assert learner.task.calibration == values
        assert "temperature" in repr(learner)
    new_head = Learner(data(), start=Start(path, new_head=True), quiet=True)
    assert new_head.task.calibration == {}
    assert "calibration" not in new_head.plan["start"].reason
    capsys.readouterr()
    started.quiet = False
    started.fit(1, lr=0.01)
    assert not started.task.calibration
    assert "temperature" not in repr(started)
    assert "the calibration (temperature" in capsys.readouterr().err
    plain = started.predictor().outputs(X).softmax(1)
    assert torch.allclose(probabilities(started), plain, atol=1e-6)


def test_thresholds_of_labels_are_kept_until_other_weights_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Learner(data(LABELS), quiet=True, choices={"probe": "off"})
    before = first.save(tmp_path / "before")
    first.fit(2, lr=0.1)
    first.calibrate()
    expected = [each.labels for each in first.predict(X[:50])]
    learner = Learner(data(LABELS), start=first.export(tmp_path / "export"))
    assert learner.task.thresholds == first.task.thresholds
    assert [each.labels for each in learner.predict(X[:50])] == expected
    capsys.readouterr()
    learner.load(before)
    assert not learner.task.calibration
    assert "the calibration (temperature" in capsys.readouterr().err
