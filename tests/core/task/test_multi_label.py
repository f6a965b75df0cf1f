"""Metrics, reports and predictions of ``MultiLabel`` predict the same labels."""

from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from flambeau import Batch
from flambeau.task import ExactMatch, MultiLabel, MultiLabelMacroF1, SklearnMetric, StepContext


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("each", [False, True])
def test_metrics_and_predictions_agree_at_the_threshold(dtype: torch.dtype, each: bool) -> None:
    values = torch.arange(1, 100).double() / 100
    outputs = values.logit().to(dtype).unsqueeze(0)
    # Thresholds as the probabilities are after rounding, so that some are equal to them.
    for limits in (values, outputs[0].double().sigmoid(), outputs[0].sigmoid().double()):
        threshold = limits.tolist()
        names = [str(at) for at in range(99)]
        tasks = (
            [MultiLabel(names, threshold=threshold)]
            if each
            else [MultiLabel(["a"], threshold=one) for one in threshold]
        )
        for at, task in enumerate(tasks):
            mine = outputs if each else outputs[:, at : at + 1]
            [prediction] = task.decode(mine)
            decoded = torch.tensor([[name in prediction.labels for name in task.classes]])
            metric = task.known_metrics(task.thresholds)["exact_match"]()
            metric.update(mine, decoded.to(dtype))
            assert metric.compute() == 1.0
            batch = Batch({"x": mine}, {"y": decoded.to(dtype)})
            counts = task.summarise(mine, batch).sums["labels"]
            assert int(counts[1:3].sum()) == 0


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("limits", [0.3, [0.2, 0.5, 0.7]])
def test_metric_objects_use_the_threshold_of_the_task(calibrated: bool, limits: Any) -> None:
    """They score the labels that ``decode`` returns, unless they have a threshold of their own."""
    draws = torch.Generator().manual_seed(0)
    outputs = torch.randn(40, 3, generator=draws)
    targets = (torch.rand(40, 3, generator=draws) < 0.4).float()
    each = [limits] * 3 if isinstance(limits, float) else limits
    fitted = {"temperature": 1.0, "thresholds": each} if calibrated else None
    task = MultiLabel(
        ["a", "b", "c"],
        0.5 if calibrated else limits,
        calibration=fitted,
        metrics={
            "named": "macro_f1",
            "object": MultiLabelMacroF1(),
            "function": SklearnMetric(
                f1_score, "labels", higher_is_better=True, settings={"average": "macro"}
            ),
            "exact": ExactMatch(),
            "own": MultiLabelMacroF1(0.9),
            "own_function": SklearnMetric(
                accuracy_score, "labels", higher_is_better=True, threshold=0.9
            ),
        },
    )
    found = task.evaluate(
        nn.Identity(), [Batch({"x": outputs}, {"y": targets})], StepContext("evaluate")
    )
    decoded = [[name in row.labels for name in "abc"] for row in task.decode(outputs)]
    expected = f1_score(targets, decoded, average="macro")
    for name in ("named", "object", "function"):
        assert found[name] == pytest.approx(expected, abs=1e-12)
    assert found["exact"] == pytest.approx(accuracy_score(targets, decoded), abs=1e-12)
    high = (outputs.double().sigmoid() >= 0.9).int()
    assert found["own"] == pytest.approx(f1_score(targets, high, average="macro"), abs=1e-12)
    assert found["own_function"] == pytest.approx(accuracy_score(targets, high), abs=1e-12)
