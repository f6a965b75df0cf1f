"""An export gives bitwise the same outputs in a new process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flambeau.artefact.export import export
from flambeau.artefact.predictor import Predictor
from flambeau.testing import DomainUnderTest

CHILD = """
import json, sys
import numpy as np
import torch
from flambeau.artefact.predictor import Predictor

torch.set_num_threads(1)
predictor = Predictor.load(sys.argv[1], device="cpu", batch_size=8)
items = list(np.load(sys.argv[2]))
np.save(sys.argv[3], predictor.outputs(items).numpy())
print(json.dumps([prediction.label for prediction in predictor.predict(items)]))
"""


@pytest.mark.slow  # a new process imports torch
def test_a_new_process_gives_the_same_outputs(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    tested = DomainUnderTest("tensors")
    model = tested.build("mlp")
    folder = export(
        tmp_path / "export",
        domain="tensors",
        model=model,
        model_spec=tested.model_spec("mlp"),
        task=tested.task,
        preprocessor=tested.preprocessor,
    )
    items = np.stack([np.asarray(item) for item in tested.data.raw("valid")])
    np.save(tmp_path / "items.npy", items)
    process = subprocess.run(
        [sys.executable, "-c", CHILD, folder, tmp_path / "items.npy", tmp_path / "outputs.npy"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    here = Predictor(tested.preprocessor, model, tested.task, batch_size=8)
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), here.outputs(list(items)))
    assert json.loads(process.stdout) == [
        prediction.label for prediction in here.predict(list(items))
    ]
    alone = torch.cat([here.outputs([item]) for item in items])
    assert (alone - here.outputs(list(items))).abs().max() <= 1e-6
