"""Train a small translation model in one process or in several, and save the results.

python two_processes.py FOLDER ARCHITECTURE      under RANK, WORLD_SIZE, … or alone
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from flambeau import Learner, TrainingOptions
from flambeau_text import InverseSigmoid, TeacherForcing
from flambeau_text.models import rnn, transformer
from flambeau_text.translation.demo import dates_data

RANK, WORLD_SIZE = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
CONFIGS = {
    "rnn": {"embedding_dim": 12, "hidden_size": 12, "dropout": 0.0},
    "transformer": {"d_model": 12, "nhead": 2, "dim_feedforward": 16, "dropout": 0.0},
}
# The gradient of the bias of a Transformer's keys is 0 apart from rounding, because softmax does
# not depend on it. AdamW would divide that rounding error by its eps, 1e-8.
STEPS = {
    "rnn": {"optimizer": "adamw", "lr": 0.01},
    "transformer": {"optimizer": "sgd", "lr": 0.1},
}


def main(folder: Path, architecture: str) -> None:
    """Train two epochs in float64 with scheduled sampling, label smoothing and accumulation."""
    torch.manual_seed(RANK)  # different initial weights on each rank: those of rank 0 are used
    data = dates_data(60, 0)
    plan = Learner(data, quiet=True).plan.values
    arguments = {
        **data.model_arguments(data.preprocessor(plan), plan),
        "config": CONFIGS[architecture],
    }
    model = {"rnn": rnn, "transformer": transformer}[architecture](**arguments).double()
    forcing = TeacherForcing(InverseSigmoid(3.0), "sample")
    choices = {
        "batch_size": 8, **STEPS[architecture],
        "device": "cpu", "probe": "off", "precision": "fp32",
        "teacher_forcing": forcing.as_json(), "label_smoothing": 0.1, "accumulate": 2,
    }  # fmt: skip
    run = Learner(data, model, choices=choices, quiet=True, training=TrainingOptions(doctor=False))
    run.fit(2)
    found = {
        "weights": dict(run.model.state_dict()),
        "losses": list(run.history.step_losses),
        "bleu": run.history.column("valid_bleu"),
    }
    torch.save(found, folder / f"{architecture}.{RANK}-of-{WORLD_SIZE}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2])
