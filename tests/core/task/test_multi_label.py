"""Metrics, reports and predictions of ``MultiLabel`` predict the same labels."""

import pytest
import torch

from flambeau import Batch
from flambeau.task import MultiLabel


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
