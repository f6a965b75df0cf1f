"""``learner.interpret()``: the scores of ``evaluate``, and a report for every kind of task."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Data, Learner, Task, TensorData
from flambeau.data import Batch, Preview
from flambeau.errors import ArgumentError, InputError
from flambeau.report import (
    Confusion,
    Interpretation,
    LabelCounts,
    ReportDetails,
    interpret,
    interpretation_page,
)
from flambeau.task import Classification, MeanLoss, score

from .test_page import check_self_contained

NAMES = ["ant", "bee <b>", "cat & $dog$"]


def classes(n: int = 240, **given: Any) -> Data:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=draws)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return TensorData.from_tensors(x, y, **{"test": 0.1, "class_names": NAMES, **given})


@pytest.fixture(scope="module")
def fitted() -> Learner:
    learner = Learner(classes(), choices={"batch_size": 16}, quiet=True)
    learner.fit(4, lr=0.01)
    return learner


@pytest.fixture(scope="module")
def found(fitted: Learner) -> Interpretation:
    return fitted.interpret()


def test_scores_are_those_of_evaluate(fitted: Learner, found: Interpretation) -> None:
    assert found.predictions.scores == fitted.evaluate()
    assert fitted.interpret("test").predictions.scores == fitted.evaluate("test")
    assert {"accuracy", "macro_f1", "loss"} <= found.intervals.keys()
    for name, interval in found.intervals.items():
        assert interval.value == pytest.approx(found.scores[name], rel=1e-4)


def test_predictions_are_those_of_predict(fitted: Learner, found: Interpretation) -> None:
    predictions = fitted.predict(fitted.data.raw("valid"))
    assert [NAMES[int(each)] for each in found.predicted] == [each.label for each in predictions]
    figures = found.predictions
    assert torch.equal(figures.predicted, found.predicted)
    expected = [each.probability for each in predictions]
    assert figures.figure("probability").tolist() == pytest.approx(expected, abs=1e-6)
    for row, each in enumerate(predictions):
        ranked = sorted(each.probabilities.items(), key=lambda pair: -pair[1])
        top = figures.figure("top_classes")[row].tolist()
        assert [NAMES[index] for index in top] == [name for name, _ in ranked]
    assert found.predictions.ids.tolist() == fitted.data.split.valid.tolist()
    assert len(found) == 48


def test_confusion_counts_every_sample(found: Interpretation) -> None:
    confusion = found.confusion()
    assert isinstance(confusion, Confusion)
    assert int(confusion.matrix.sum()) == 48
    correct = int(confusion.matrix.diagonal().sum())
    assert correct / 48 == pytest.approx(found.scores["accuracy"])
    wrong = sum(pair.count for pair in found.most_confused(100))
    assert correct + wrong == 48
    assert [row.name for row in found.class_scores()] == NAMES


def test_top_losses_are_sorted_and_average_to_the_loss(found: Interpretation) -> None:
    top = found.top_losses(48)
    losses = [each.loss for each in top]
    assert losses == sorted(losses, reverse=True)
    assert sum(losses) / 48 == pytest.approx(found.scores["loss"], rel=1e-5)
    first = top[0]
    assert first.loss == pytest.approx(-math.log(first.probability), rel=1e-4)
    row = found.predictions.ids.tolist().index(first.id)
    assert first.target == NAMES[int(found.predictions.targets[row])]
    assert str(first).startswith(f"sample {first.id}, loss")


def test_it_prints_scores_with_intervals(found: Interpretation) -> None:
    text = str(found)
    assert text.startswith("48 valid samples")
    assert "95% interval" in text
    assert "predicted as" in text


def test_baselines_are_scored_on_the_same_samples(found: Interpretation, fitted: Learner) -> None:
    assert set(found.baselines) == {"majority class", "logistic regression"}
    [target] = fitted.built.dataset("valid").targets.values()
    [train] = fitted.built.dataset("train").targets.values()
    most = train.bincount().argmax()
    expected = float((target == most).double().mean())
    assert found.baselines["majority class"]["accuracy"] == pytest.approx(expected)
    assert fitted.interpret("train").baselines == {}


def test_the_page_has_all_sections(found: Interpretation, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    path = found.report(tmp_path / "report.html")
    html = path.read_text(encoding="utf-8")
    parsed = check_self_contained(html)
    words = " ".join(parsed.words)
    titles = ["Scores", "Training", "Classes", "Highest losses", "Calibration", "Data", "Plan"]
    for title in (*titles, "About", "majority class", "bee <b>", "cat & $dog$", "48 valid samples"):
        assert title in words, title
    for key in found.details.plan:
        assert key in words
    assert f"{found.scores['accuracy']:.4f}" in words
    assert not has_nan(words)


def has_nan(text: str) -> bool:
    return "nan" in text.lower().replace("nanosecond", "").split()


def test_sections_can_be_added(found: Interpretation) -> None:
    from flambeau.report import Table

    page = found.page()
    page.add("Importances", Table(["column", "weight"], [["age", 0.3]]))
    assert "Importances</h2>" in page.html()


def test_without_matplotlib_the_page_has_no_plots(found: Interpretation, monkeypatch) -> None:
    monkeypatch.setattr(interpretation_page, "can_plot", lambda: False)
    html = found.page().html()
    assert "matplotlib is not installed" in html
    assert "<svg" not in html


def test_plots_of_an_interpretation(found: Interpretation) -> None:
    pytest.importorskip("matplotlib")
    assert (
        found.plot_confusion()
        .axes[0]
        .get_title()
        .endswith("correct (" + (f"{found.scores['accuracy']:.1%})"))
    )
    assert found.plot_calibration().axes
    assert found.plot_scores().axes
    with pytest.raises(ArgumentError, match="regression"):
        found.plot_residuals()


def test_images_of_samples_are_shown(fitted: Learner, monkeypatch) -> None:
    monkeypatch.setattr(type(fitted.data), "preview", lambda self, row: Preview(f"row {row}!"))
    found = fitted.interpret()
    html = found.page().html()
    assert f"row {found.top_losses(1)[0].id}!" in html


# ---------------------------------------------------------------- other tasks


def test_a_multi_label_task() -> None:
    pytest.importorskip("matplotlib")
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(
        x, (x[:, :3] > 0).float(), task="multi_label", class_names=["r", "g", "<b>"]
    )
    learner = Learner(data, quiet=True)
    learner.fit(3, lr=0.01)
    found = learner.interpret()
    assert found.predictions.scores == learner.evaluate()
    assert {"micro_f1", "macro_f1", "exact_match", "loss"} <= found.intervals.keys()
    counts = found.confusion()
    assert isinstance(counts, LabelCounts)
    assert int(counts.true_positives[0] + counts.false_negatives[0]) == int(
        found.predictions.targets[:, 0].sum()
    )
    assert found.top_losses(1)[0].target
    assert found.calibration().bins
    check_self_contained(found.page().html())
    with pytest.raises(ArgumentError, match="multi_label"):
        found.most_confused()


def test_a_regression_task() -> None:
    pytest.importorskip("matplotlib")
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    y = torch.stack([1000 + 50 * x[:, 0], x[:, 1]], dim=1)
    learner = Learner(TensorData.from_tensors(x, y), quiet=True)
    learner.fit(5, lr=0.01)
    found = learner.interpret()
    assert found.predictions.scores == learner.evaluate()
    rows = torch.tensor(learner.data.split.valid)
    assert torch.allclose(found.predictions.targets.double(), y[rows].double())
    assert float(found.predicted[:, 0].mean()) == pytest.approx(1000, rel=0.05)
    errors = (found.predicted - found.predictions.targets).abs()
    assert float(errors.mean()) == pytest.approx(found.scores["mae"])
    assert {"mae", "rmse", "r2"} <= found.intervals.keys()
    assert set(found.baselines) == {"mean", "ridge regression"}
    html = found.page().html()
    assert "Residuals</h2>" in html
    assert "Calibration</h2>" not in html
    check_self_contained(html)
    with pytest.raises(ArgumentError, match="classification or multi-label"):
        found.confusion()


class Distance(Task):
    """A user-defined task with only a loss."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return (outputs.squeeze(1) - batch.target).square().sum(), float(len(outputs))


def test_a_user_defined_task_has_scores_and_losses() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    learner = Learner(
        TensorData.from_tensors(x, x[:, 0]), nn.Linear(3, 1), task=Distance(), quiet=True
    )
    found = learner.interpret()
    assert found.predictions.kind == "other"
    assert found.predictions.scores == learner.evaluate()
    assert found.intervals["loss"].value == pytest.approx(found.scores["loss"], rel=1e-5)
    top = found.top_losses(3)
    assert (top[0].target, top[0].probability) == ("", None)
    check_self_contained(found.page().html())
    with pytest.raises(ArgumentError, match="Distance"):
        found.confusion()


class Batchwise(Task):
    """A loss of the whole batch, with a user-defined ``evaluate``."""

    def forward(self, model: nn.Module, batch: Batch, context: Any) -> Any:
        return (super().forward(model, batch, context),)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return outputs[0].mean() * len(batch), float(len(batch))

    def evaluate(self, model: nn.Module, batches: Any, context: Any) -> dict[str, float]:
        metric = MeanLoss()
        for batch in batches:
            metric.update(*self.loss(self.forward(model, batch, context), batch))
        return {"loss": score(metric), "bleu": 12.5}


def test_a_task_without_a_loss_per_sample() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    learner = Learner(
        TensorData.from_tensors(x, x[:, 0]), nn.Linear(3, 1), task=Batchwise(), quiet=True
    )
    found = learner.interpret()
    assert found.scores == learner.evaluate() == {**found.scores, "bleu": 12.5}
    with pytest.raises(ArgumentError, match="Batchwise has no loss per sample"):
        found.top_losses()
    html = found.page().html()
    assert "Highest losses" not in html
    assert "Batchwise has no loss per sample" in html


# ---------------------------------------------------------------- edges


def test_bf16_training_is_interpreted_in_fp32() -> None:
    learner = Learner(classes(), choices={"precision": "bf16"}, quiet=True)
    learner.fit(1)
    found = learner.interpret()
    expected = [each.probability for each in learner.predict(learner.data.raw("valid"))]
    assert found.predictions.figure("probability").tolist() == pytest.approx(expected, abs=1e-6)
    assert found.predictions.scores == learner.evaluate()


def test_a_class_without_valid_samples_and_a_single_sample() -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 3
    for n in (1, 5):
        valid = (x[:n], torch.zeros(n, dtype=torch.long))
        data = TensorData.from_tensors(x, y, valid=valid, class_names=NAMES)
        found = Learner(data, quiet=True).interpret()
        rows = found.class_scores()
        assert [row.support for row in rows] == [n, 0, 0]
        assert rows[1].recall is None
        html = found.page().html()
        words = " ".join(check_self_contained(html).words)
        assert "No valid sample has the classes bee <b>, cat & $dog$" in words
        assert not has_nan(words)
        assert f"{n} valid sample" in words


def test_a_single_regression_sample_has_no_nan() -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, x[:, :1], valid=(x[:1], x[:1, :1]))
    found = Learner(data, quiet=True).interpret()
    assert not has_nan(str(found))
    assert not has_nan(" ".join(check_self_contained(found.page().html()).words))


def test_a_page_of_a_hundred_classes() -> None:
    pytest.importorskip("matplotlib")
    x = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    names = [f"class number {number}" for number in range(100)]
    data = TensorData.from_tensors(x, torch.arange(1000) % 100, class_names=names)
    html = Learner(data, quiet=True).interpret().page().html()
    check_self_contained(html)
    assert "The 50 of 100 classes with the lowest F1" in html
    assert len(html) < 400_000


def test_non_finite_outputs_are_reported() -> None:
    learner = Learner(classes(), quiet=True)
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.fill_(math.nan)
    found = learner.interpret()
    words = " ".join(check_self_contained(found.page().html()).words)
    assert "not finite" in words
    assert "Expected calibration" not in words
    assert not has_nan(words)
    with pytest.raises(InputError):
        found.calibration()


def test_a_user_defined_metric_has_no_interval() -> None:
    class Always:
        def update(self, outputs: Tensor, targets: Tensor) -> None: ...

        def compute(self) -> float:
            return 0.123

        def reset(self) -> None: ...

    task = Classification(NAMES, metrics={"accuracy": Always()})
    found = Learner(classes(), task=task, quiet=True).interpret()
    assert found.scores["accuracy"] == 0.123
    assert "accuracy" not in found.intervals
    assert "macro_f1" in found.intervals


def test_ignored_targets_are_not_counted() -> None:
    model, task = nn.Linear(2, 3), Classification(NAMES, ignore_index=2)
    x, y = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3
    found = interpret(model, task, lambda: [Batch({"x": x}, {"target": y})])
    assert int(found.confusion().matrix.sum()) == 6
    assert found.predictions.ids.tolist() == list(range(9))
    assert sum(each.count for each in found.calibration().bins) == 6
    assert found.top_losses(9)[-1].target == ""
    check_self_contained(found.page().html())


def test_a_part_without_samples_is_refused() -> None:
    with pytest.raises(InputError, match="test samples"):
        Learner(classes(test=0.0), quiet=True).interpret("test")
    with pytest.raises(InputError, match="has no samples"):
        interpret(nn.Linear(1, 2), Classification(NAMES[:2]), list, details=ReportDetails())
