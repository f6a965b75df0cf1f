"""A report of weighted samples: a weight counts as repeated rows, in every part of it."""

from typing import Any

import pytest
import torch

from flambeau import Learner, Split, TensorData
from flambeau.report import Confusion
from flambeau.report.interpretation import Interpretation

DRAWS = torch.Generator().manual_seed(5)
X = torch.randn(160, 4, generator=DRAWS)
NOISE = torch.randn(160, 3, generator=DRAWS)
WEIGHTS = torch.randint(0, 4, (160,), generator=DRAWS)
ROWS = torch.arange(160).repeat_interleave(WEIGHTS)
TARGETS = {
    "classification": (X[:, :3] + NOISE).argmax(1),
    "multi_label": (X[:, :3] + NOISE > 0.5).long(),
    "regression": X[:, :2] + NOISE[:, :2],
}
N_TRAIN = 90


def interpreted(kind: str, *, repeated: bool) -> Interpretation:
    rows = ROWS if repeated else torch.arange(160)
    n_train = int((rows < N_TRAIN).sum())
    parts = {"train": list(range(n_train)), "valid": list(range(n_train, len(rows)))}
    data = TensorData.from_tensors(
        X[rows],
        TARGETS[kind][rows],
        split=Split.from_parts(parts),
        task=kind,
        sample_weight=None if repeated else WEIGHTS,
    )
    choices: dict[str, Any] = {"normalisation": "none", "device": "cpu"}
    return Learner(data, choices=choices, quiet=True).interpret("valid")


@pytest.mark.parametrize("kind", list(TARGETS))
def test_baselines_count_weights_as_repeated_rows(kind: str) -> None:
    weighted, repeated = (interpreted(kind, repeated=each).baselines for each in (False, True))
    assert len(weighted) == 2
    assert weighted.keys() == repeated.keys()
    for name, scores in weighted.items():
        # The linear model is fitted in float32.
        assert scores == pytest.approx(repeated[name], rel=2e-3, abs=1e-4), name


@pytest.mark.parametrize("kind", ["classification", "multi_label"])
def test_counts_and_calibration_are_weighted(kind: str) -> None:
    weighted, repeated = (interpreted(kind, repeated=each) for each in (False, True))
    found, expected = weighted.confusion(), repeated.confusion()
    if isinstance(found, Confusion):
        assert isinstance(expected, Confusion)
        assert torch.equal(found.matrix, expected.matrix.double())
        assert str(found) == str(expected)
        assert torch.equal(found.normalised("all"), expected.normalised("all"))
        assert found.most_confused() == expected.most_confused()
    else:
        assert str(found) == str(expected)
    for one, other in zip(weighted.class_scores(), repeated.class_scores(), strict=True):
        assert (one.support, one.predicted) == (other.support, other.predicted)
        assert one.f1 == pytest.approx(other.f1)
        assert one.recall is not None
        assert other.recall is not None
        assert one.recall.value == pytest.approx(other.recall.value)
        # Repeated rows look like more independent samples than there are.
        assert one.recall.high - one.recall.low > other.recall.high - other.recall.low
    curve, wanted = weighted.calibration(), repeated.calibration()
    assert (curve.ece, curve.brier) == pytest.approx((wanted.ece, wanted.brier), rel=1e-6)
    assert [each.count for each in curve.bins] == [each.count for each in wanted.bins]
