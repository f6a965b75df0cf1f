"""What a report keeps of the samples: the figures of scikit-learn, and never all outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Task
from flambeau.data import Batch
from flambeau.errors import InputError
from flambeau.nested import tensors_in
from flambeau.report import Confusion, Interpretation, LabelCounts, interpret
from flambeau.report.predictions import Collector
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.batch_summary import Summary, class_summary, pack_labels, unpack_labels

N = 40


def waves(n: int, width: int, scale: float = 2.0) -> Tensor:
    """Return outputs that any library can repeat: ``scale · sin(1.7 i)``, row by row."""
    return scale * (1.7 * torch.arange(n * width, dtype=torch.float64)).sin().view(n, width)


def found_in_batches(task: Task, outputs: Tensor, targets: Tensor) -> Interpretation:
    """Interpret a model that returns its input, in batches of 7."""

    def batches() -> Iterator[Batch]:
        for each, target in zip(outputs.split(7), targets.split(7), strict=True):
            yield Batch({"outputs": each}, {"target": target})

    return interpret(nn.Identity(), task, batches)


# The literal figures were computed with numpy 2.4, scipy 1.17 and scikit-learn 1.9 from the
# formulas above in float64; scikit-learn's metrics have the names that the comments give.


def test_figures_of_classes_are_those_of_scikit_learn() -> None:
    pytest.importorskip("matplotlib")
    rows = torch.arange(N)
    targets = (rows * 5 + rows // 9) % 7
    found = found_in_batches(Classification(list("abcdefgh")), waves(N, 8), targets)
    scores = found.scores
    assert scores["loss"] == pytest.approx(2.9007367384, abs=1e-9)  # log_loss
    assert scores["accuracy"] == 0.125  # accuracy_score
    assert scores["top_5_accuracy"] == 0.65  # top_k_accuracy_score(k=5)
    assert scores["balanced_accuracy"] == pytest.approx(0.1333333333, abs=1e-9)  # recall_score
    assert scores["macro_f1"] == pytest.approx(0.1127913753, abs=1e-9)  # f1_score("macro")
    confusion = found.confusion()
    assert isinstance(confusion, Confusion)
    assert confusion.matrix.tolist() == [  # confusion_matrix
        [0, 1, 0, 1, 2, 1, 1, 0], [0, 1, 1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 0, 1, 1, 0],
        [0, 1, 1, 1, 1, 0, 1, 1], [1, 0, 0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0, 1, 1],
        [1, 0, 0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0],
    ]  # fmt: skip
    pairs = [(each.target, each.predicted, each.count) for each in found.most_confused(3)]
    assert pairs == [("a", "e", 2), ("a", "b", 1), ("a", "d", 1)]
    assert found.most_confused(1)[0].share == pytest.approx(2 / 6)
    calibration = found.calibration()
    assert calibration.ece == pytest.approx(0.2546678733, abs=1e-9)
    assert calibration.brier == pytest.approx(1.0196956555, abs=1e-9)
    assert calibration.confidence == pytest.approx(0.3796678733, abs=1e-9)
    assert [each.count for each in calibration.bins] == [27, 13]
    top = found.top_losses(3)
    assert [(each.id, each.target, each.predicted) for each in top] == [
        (32, "c", "a"), (19, "g", "e"), (27, "f", "d"),
    ]  # fmt: skip
    assert [each.loss for each in top] == pytest.approx([4.9570668183, 4.8768965431, 4.8695683444])
    assert top[0].probability == pytest.approx(0.0070335282, abs=1e-9)
    html = found.page().html()
    for figure in ("0.125", "0.65", "0.1128", "0.1333", "33.3%", "error 0.255", "score 1.020"):
        assert figure in html, figure


def test_figures_of_labels_are_those_of_scikit_learn() -> None:
    outputs = waves(N, 3)
    cosines = (2.3 * torch.arange(N * 3, dtype=torch.float64)).cos().view(N, 3)
    targets = (cosines + 0.5 * outputs > 0).double()
    found = found_in_batches(MultiLabel(["r", "g", "b"], threshold=0.6), outputs, targets)
    assert found.scores["loss"] == pytest.approx(0.4447503945, abs=1e-9)
    assert found.scores["exact_match"] == pytest.approx(0.4)  # accuracy_score
    assert found.scores["micro_f1"] == pytest.approx(0.7289719626, abs=1e-9)
    assert found.scores["macro_f1"] == pytest.approx(0.7287876111, abs=1e-9)
    counts = found.confusion()
    assert isinstance(counts, LabelCounts)
    assert counts.true_negatives.tolist() == [18, 18, 16]  # multilabel_confusion_matrix
    assert counts.false_positives.tolist() == [5, 4, 5]
    assert counts.false_negatives.tolist() == [5, 4, 6]
    assert counts.true_positives.tolist() == [12, 14, 13]
    assert found.calibration().ece == pytest.approx(0.1226338507, abs=1e-9)
    assert found.calibration().brier == pytest.approx(0.1430052805, abs=1e-9)
    top = found.top_losses(2)
    assert [(each.id, each.target, each.predicted) for each in top] == [
        (35, "b", "r"), (15, "g", "r, g"),
    ]  # fmt: skip
    assert top[0].loss == pytest.approx(0.8571958789, abs=1e-9)
    assert torch.equal(found.predicted, outputs.sigmoid() >= 0.6)
    assert torch.equal(found.predictions.targets, targets.bool())


def test_figures_of_numbers_are_those_of_scikit_learn() -> None:
    outputs, rows = waves(N, 2, 1.0), torch.arange(N, dtype=torch.float64)
    noise = torch.stack([0.3 * (3.1 * rows).cos(), 0.5 * (1.3 * rows).cos()], dim=1)
    mean, std = torch.tensor([10.0, -1.0]).double(), torch.tensor([5.0, 2.0]).double()
    task = Regression(["a", "b"], mean=[10.0, -1.0], std=[5.0, 2.0])
    found = found_in_batches(task, outputs, mean + std * (outputs + noise))
    assert found.scores["loss"] == pytest.approx(0.0857603177, abs=1e-9)
    assert found.scores["mae"] == pytest.approx(0.7848687444, abs=1e-9)
    assert found.scores["rmse"] == pytest.approx(0.8797586094, abs=1e-9)
    assert found.scores["r2"] == pytest.approx(0.8661700738, abs=1e-9)
    assert str(found.top_losses(1)[0]) == (
        "sample 0, loss 0.17: target a 11.5, b 1.983, predicted a 10, b 0.9833"
    )
    assert torch.allclose(found.predicted, mean + std * outputs)


@pytest.mark.parametrize("kind", [Classification, MultiLabel])
def test_nothing_kept_has_a_number_for_each_sample_and_class(kind: Any) -> None:
    n, n_classes = 60, 500
    outputs = torch.randn(n, n_classes, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(n) * 3
    if kind is MultiLabel:
        targets = nn.functional.one_hot(targets, n_classes)
    found = found_in_batches(
        kind([f"word {index}" for index in range(n_classes)]), outputs, targets
    )
    found.page()
    largest = max(each.numel() for each in tensors_in(vars(found)))
    # Bits of labels, 8 to a byte; sums of labels are 4 numbers each, whatever n is.
    assert largest <= max(n * n_classes // 8 + n, 4 * n_classes)
    assert found.most_confused(1) if kind is Classification else found.confusion()


def test_pages_of_many_classes_list_pairs_in_place_of_the_matrix() -> None:
    pytest.importorskip("matplotlib")
    for n_classes, has_matrix in ((50, True), (51, False)):
        names = [f"c{index}" for index in range(n_classes)]
        outputs = torch.eye(n_classes)[(torch.arange(n_classes) + 1) % n_classes]
        found = found_in_batches(Classification(names), outputs, torch.arange(n_classes))
        html = found.page().html()
        assert ('aria-label="Confusion matrix"' in html) == has_matrix
        assert "Most frequent errors" in html


def test_a_summary_does_not_depend_on_how_rows_are_grouped(monkeypatch) -> None:
    outputs = torch.randn(9, 11, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, -1, 4, 5, 6, -1, 10])
    whole = class_summary(outputs, targets, None)
    monkeypatch.setattr("flambeau.task.batch_summary._MOST_VALUES", 25)
    pieces = class_summary(outputs, targets, None)
    for name, value in whole.samples.items():
        assert torch.equal(value, pieces.samples[name]) or name == "target_probability"
    kept = targets >= 0
    known = whole.samples["target_probability"]
    assert torch.equal(known[kept], pieces.samples["target_probability"][kept])
    assert bool(known[~kept].isnan().all())
    bins = whole.sums["calibration"].bins
    assert int(bins[:, 0].sum()) == 7
    assert torch.allclose(bins, pieces.sums["calibration"].bins, rtol=1e-12)


def test_labels_are_packed_in_bits() -> None:
    labels = torch.rand(5, 19, generator=torch.Generator().manual_seed(0)) > 0.5
    assert pack_labels(labels).shape == (5, 3)
    assert torch.equal(unpack_labels(pack_labels(labels), 19), labels)


# ---------------------------------------------------------------- summaries of other tasks


class Sentences(Task):
    """A task whose summary has texts, a figure and a sum of its own."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return outputs["x"].sum(), float(len(batch))

    def forward(self, model: nn.Module, batch: Batch, context: Any) -> Any:
        return {"x": model(batch.input)}

    def summarise(self, outputs: Any, batch: Batch) -> Summary:
        values = outputs["x"].tolist()
        return Summary(
            "sentences",
            {
                "loss": outputs["x"],
                "target_text": [f"reference {value:g}" for value in values],
                "predicted_text": [f"sentence {value:g}" for value in values],
            },
            {"characters": sum(len(str(value)) for value in values)},
        )


def test_a_summary_may_have_texts_and_sums() -> None:
    values = torch.arange(20.0)
    found = found_in_batches(Sentences(), values, values)
    assert found.predictions.kind == "sentences"
    assert found.predictions.summary.sums == {"characters": sum(map(len, map(str, range(20)))) + 40}
    assert str(found.top_losses(1)[0]) == (
        "sample 19, loss 19: target reference 19, predicted sentence 19"
    )
    html = found.page().html()
    assert "sentence 19" in html
    assert "Classes</h2>" not in html


def test_sums_of_batches_are_added_in_order() -> None:
    collected = Collector()
    for index in range(13):
        collected.add(Summary("x", {}, {"all": [index], "some": 1} if index else {"all": [0]}), 3)
    total = collected.total()
    assert total.sums == {"all": list(range(13))}, "a sum that a batch lacks is dropped"


def test_a_figure_without_one_entry_per_sample_is_refused() -> None:
    with pytest.raises(InputError, match=r"'bleu' of a summary has 2 entries for 3 samples"):
        Collector().add(Summary("x", {"bleu": [1.0, 2.0]}), 3)


def test_a_batch_of_another_kind_leaves_losses_and_scores() -> None:
    collected = Collector()
    losses = torch.tensor([1.0, 2.0])
    collected.add(class_summary(torch.eye(2), torch.tensor([0, 1]), losses), 2)
    collected.add(Summary(samples={"loss": losses}), 2)
    total = collected.total()
    assert (total.kind, list(total.samples), total.sums) == ("other", ["loss"], {})
