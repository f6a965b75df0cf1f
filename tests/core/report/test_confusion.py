import pytest
import torch

from flambeau.errors import ArgumentError, InputError
from flambeau.report import Confusion, LabelCounts, wilson
from flambeau.task.batch_summary import PairCounts

metrics = pytest.importorskip("sklearn.metrics")


def drawn(n: int = 400, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    targets = torch.randint(classes - 1, (n,), generator=draws)  # the last class never occurs
    predicted = torch.where(
        torch.rand(n, generator=draws) < 0.6,
        targets,
        torch.randint(classes, (n,), generator=draws),
    )
    return predicted, targets


def of_matrix(matrix: torch.Tensor, classes: tuple[str, ...]) -> Confusion:
    pairs = matrix.nonzero().repeat_interleave(matrix[matrix > 0], dim=0)
    return Confusion.of(pairs[:, 1], pairs[:, 0], classes)


def test_counts_and_shares_are_those_of_scikit_learn() -> None:
    predicted, targets = drawn()
    names = list("abcde")
    found = Confusion.of(predicted, targets, names)
    labels = list(range(5))
    expected = metrics.confusion_matrix(targets, predicted, labels=labels)
    assert found.matrix.tolist() == expected.tolist()
    for by, theirs in (("target", "true"), ("predicted", "pred"), ("all", "all")):
        shares = metrics.confusion_matrix(targets, predicted, labels=labels, normalize=theirs)
        assert torch.allclose(found.normalised(by), torch.tensor(shares), atol=1e-12)
    with pytest.raises(ArgumentError, match="'true'"):
        found.normalised("true")


def test_precision_recall_and_f1_are_those_of_scikit_learn() -> None:
    predicted, targets = drawn()
    rows = Confusion.of(predicted, targets, list("abcde")).class_scores()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        targets, predicted, labels=list(range(5)), zero_division=0
    )
    for index, row in enumerate(rows[:4]):
        assert row.precision.value == pytest.approx(precision[index])
        assert row.recall.value == pytest.approx(recall[index])
        assert row.f1 == pytest.approx(f1[index])
        assert row.support == support[index]
    assert rows[0].recall == wilson(
        int(((predicted == targets) & (targets == 0)).sum()), rows[0].support
    )
    assert rows[4].recall is None, "a class without samples has no recall"
    assert rows[4].precision.value == 0
    assert rows[4].f1 == 0


def test_an_absent_class_has_no_scores() -> None:
    row = Confusion.of(torch.tensor([0]), torch.tensor([0]), ["a", "b"]).class_scores()[1]
    assert (row.precision, row.recall, row.f1, row.support) == (None, None, None, 0)


def test_the_most_confused_pairs_come_largest_first() -> None:
    matrix = torch.tensor([[50, 3, 0], [7, 13, 0], [3, 0, 0]])
    confusion = of_matrix(matrix, ("ant", "bee", "cat"))
    found = confusion.most_confused(3)
    assert [(pair.target, pair.predicted, pair.count) for pair in found] == [
        ("bee", "ant", 7),
        ("ant", "bee", 3),
        ("cat", "ant", 3),
    ]
    assert found[0].share == pytest.approx(7 / 20)
    assert str(found[0]) == "bee predicted as ant: 7 (35.0%)"
    assert len(confusion.most_confused(1)) == 1
    assert confusion.matrix.tolist() == matrix.tolist()


def test_it_prints_counts_or_pairs_for_many_classes() -> None:
    text = str(of_matrix(torch.tensor([[50, 3], [0, 1]]), ("ant", "bee")))
    assert text.splitlines()[2].split() == ["ant", "50", "3"]
    many = torch.eye(40, dtype=torch.long)
    many[3, 5] = 2
    assert str(of_matrix(many, tuple(map(str, range(40))))) == "3 predicted as 5: 2 (66.7%)"


def test_invalid_class_indices_are_refused() -> None:
    with pytest.raises(
        InputError, match="target class index 2 is out of range: there are 2 classes"
    ):
        Confusion.of(torch.tensor([0, 1]), torch.tensor([2, 0]), ["a", "b"])
    with pytest.raises(InputError, match=r"\(2,\)"):
        Confusion.of(torch.tensor([0, 1]), torch.tensor([0]), ["a", "b"])


def test_only_pairs_that_were_seen_are_held() -> None:
    names = [f"word {index}" for index in range(33_000)]
    targets, predicted = torch.tensor([7, 7, 32_999, 5]), torch.tensor([9, 9, 32_999, 7])
    found = Confusion.of(predicted, targets, names)
    assert found.seen.pairs.tolist() == [[5, 7], [7, 9], [32_999, 32_999]]
    assert found.seen.counts.tolist() == [1, 2, 1]
    assert str(found.most_confused(1)[0]) == "word 7 predicted as word 9: 2 (100.0%)"
    scores = found.class_scores()
    assert (scores[7].support, scores[7].predicted, scores[7].f1) == (2, 1, 0)
    assert scores[32_999].f1 == 1
    with pytest.raises(ArgumentError, match=r"33,000 classes .* \(8.7 GB\)"):
        _ = found.matrix


def test_counts_of_batches_add_up() -> None:
    predicted, targets = drawn()
    whole = PairCounts.of(targets, predicted)
    parts = PairCounts.of(targets[:90], predicted[:90]) + PairCounts.of(
        targets[90:], predicted[90:]
    )
    assert parts.pairs.tolist() == whole.pairs.tolist()
    assert parts.counts.tolist() == whole.counts.tolist()


def test_counts_by_label_are_those_of_scikit_learn() -> None:
    draws = torch.Generator().manual_seed(1)
    targets = torch.rand(200, 3, generator=draws) > 0.6
    predicted = targets ^ (torch.rand(200, 3, generator=draws) > 0.8)
    found = LabelCounts.of(predicted, targets, ["red", "green", "blue"])
    expected = metrics.multilabel_confusion_matrix(targets, predicted)
    for index in range(3):
        (tn, fp), (fn, tp) = expected[index]
        counts = (
            found.true_negatives,
            found.false_positives,
            found.false_negatives,
            found.true_positives,
        )
        assert [int(each[index]) for each in counts] == [tn, fp, fn, tp]
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(targets, predicted)
    for index, row in enumerate(found.class_scores()):
        assert row.precision.value == pytest.approx(precision[index])
        assert row.recall.value == pytest.approx(recall[index])
        assert row.f1 == pytest.approx(f1[index])
    assert "green" in str(found)
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        LabelCounts.of(predicted, targets, ["red", "green"])
