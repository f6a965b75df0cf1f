import pytest
import torch

from flambeau.errors import ArgumentError, InputError
from flambeau.report import Confusion, LabelCounts, wilson

metrics = pytest.importorskip("sklearn.metrics")


def answers(n: int = 400, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    truth = torch.randint(classes - 1, (n,), generator=draws)  # the last class never occurs
    predicted = torch.where(
        torch.rand(n, generator=draws) < 0.6,
        truth,
        torch.randint(classes, (n,), generator=draws),
    )
    return predicted, truth


def test_counts_and_shares_are_those_of_scikit_learn() -> None:
    predicted, truth = answers()
    names = list("abcde")
    found = Confusion.of(predicted, truth, names)
    labels = list(range(5))
    expected = metrics.confusion_matrix(truth, predicted, labels=labels)
    assert found.matrix.tolist() == expected.tolist()
    for by, theirs in (("truth", "true"), ("predicted", "pred"), ("all", "all")):
        shares = metrics.confusion_matrix(truth, predicted, labels=labels, normalize=theirs)
        assert torch.allclose(found.normalised(by), torch.tensor(shares), atol=1e-12)
    with pytest.raises(ArgumentError, match="'true'"):
        found.normalised("true")


def test_precision_recall_and_f1_are_those_of_scikit_learn() -> None:
    predicted, truth = answers()
    rows = Confusion.of(predicted, truth, list("abcde")).table()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=list(range(5)), zero_division=0
    )
    for place, row in enumerate(rows[:4]):
        assert row.precision.value == pytest.approx(precision[place])
        assert row.recall.value == pytest.approx(recall[place])
        assert row.f1 == pytest.approx(f1[place])
        assert row.support == support[place]
    assert rows[0].recall == wilson(
        int(((predicted == truth) & (truth == 0)).sum()), rows[0].support
    )
    assert rows[4].recall is None, "a class without samples has no recall"
    assert rows[4].precision.value == 0
    assert rows[4].f1 == 0


def test_a_class_that_is_neither_true_nor_predicted_has_no_scores() -> None:
    row = Confusion.of(torch.tensor([0]), torch.tensor([0]), ["a", "b"]).table()[1]
    assert (row.precision, row.recall, row.f1, row.support) == (None, None, None, 0)


def test_the_most_confused_pairs_come_largest_first() -> None:
    matrix = torch.tensor([[50, 3, 0], [7, 13, 0], [3, 0, 0]])
    found = Confusion(matrix, ("ant", "bee", "cat")).most_confused(3)
    assert [(pair.truth, pair.predicted, pair.count) for pair in found] == [
        ("bee", "ant", 7),
        ("ant", "bee", 3),
        ("cat", "ant", 3),
    ]
    assert found[0].share == pytest.approx(7 / 20)
    assert str(found[0]) == "bee taken for ant: 7 (35.0%)"
    assert len(Confusion(matrix, ("ant", "bee", "cat")).most_confused(1)) == 1
    assert matrix[0, 0] == 50, "the counts stay as they were"


def test_it_prints_counts_or_for_many_classes_the_pairs() -> None:
    text = str(Confusion(torch.tensor([[50, 3], [0, 1]]), ("ant", "bee")))
    assert text.splitlines()[2].split() == ["ant", "50", "3"]
    many = torch.eye(40, dtype=torch.long)
    many[3, 5] = 2
    assert str(Confusion(many, tuple(map(str, range(40))))) == "3 taken for 5: 2 (66.7%)"


def test_numbers_that_are_no_class_are_named() -> None:
    with pytest.raises(InputError, match="true class 2 is none of 0 to 1"):
        Confusion.of(torch.tensor([0, 1]), torch.tensor([2, 0]), ["a", "b"])
    with pytest.raises(InputError, match=r"\(2,\)"):
        Confusion.of(torch.tensor([0, 1]), torch.tensor([0]), ["a", "b"])


def test_counts_by_label_are_those_of_scikit_learn() -> None:
    draws = torch.Generator().manual_seed(1)
    truth = torch.rand(200, 3, generator=draws) > 0.6
    chosen = truth ^ (torch.rand(200, 3, generator=draws) > 0.8)
    found = LabelCounts.of(chosen, truth, ["red", "green", "blue"])
    expected = metrics.multilabel_confusion_matrix(truth, chosen)
    for place in range(3):
        (rest, wrong), (missed, right) = expected[place]
        counts = (found.rest, found.wrong, found.missed, found.right)
        assert [int(each[place]) for each in counts] == [rest, wrong, missed, right]
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, chosen)
    for place, row in enumerate(found.table()):
        assert row.precision.value == pytest.approx(precision[place])
        assert row.recall.value == pytest.approx(recall[place])
        assert row.f1 == pytest.approx(f1[place])
    assert "green" in str(found)
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        LabelCounts.of(chosen, truth, ["red", "green"])
