"""Random class names survive the export: the predictor has them as given, in the same order."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flambeau import Learner, Predictor, TensorData

INPUTS = torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
CLASSES = st.lists(NAMES.filter(str.strip), min_size=2, max_size=4, unique=True)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # of a machine that others use, too
)
@given(names=CLASSES, as_text=st.booleans())
def test_class_names_survive_the_export(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], as_text: bool
) -> None:
    numbers = np.arange(len(INPUTS)) % len(names)
    if as_text:
        data = TensorData.from_tensors(INPUTS, np.array(names)[numbers])
        names = sorted(names)
    else:
        data = TensorData.from_tensors(INPUTS, torch.from_numpy(numbers), class_names=names)
    folder = tmp_path_factory.mktemp("names") / "export"
    learner = Learner(data, quiet=True, choices={"batch_size": 8})
    learner.export(folder)
    predictor = Predictor.load(folder)
    [prediction] = predictor.predict(INPUTS[:1])
    assert list(prediction.probabilities) == names
    assert prediction.label == max(names, key=prediction.probabilities.__getitem__)
