"""Train a language model with carried state in one process or in several, and save the results.

python stream_processes.py FOLDER whole|begun|resumed      under RANK, WORLD_SIZE, … or alone
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from flambeau import Callback, Learner, TrainingOptions
from flambeau.callbacks import Checkpointing
from flambeau_text import LanguageModelData, LanguageOptions

RANK, WORLD_SIZE = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
TEXTS = [
    "".join(f"{chr(97 + (at * k) % 26)}{' ' * (k % 3 == 0)}" for k in range(150)) + "\n"
    for at in range(12)
]
CHOICES: dict[str, Any] = {
    "model_config": {"embedding_dim": 8, "hidden_size": 12, "num_layers": 2},
    "batch_size": 5, "bptt": 20, "lr": 0.01, "device": "cpu", "probe": "off", "precision": "fp32",
}  # fmt: skip


class EnoughError(Exception):
    pass


class End(Callback):
    """Ends every process by itself before the same step, or by a signal to the last one."""

    def __init__(self, how: str) -> None:
        self.how = how

    every_process = True

    def on_step_start(self, state: Any) -> None:
        if self.how == "error" and state.position.step == 9:
            raise EnoughError

    def on_step_end(self, state: Any) -> None:
        if self.how == "signal" and state.position.step == 9 and RANK == WORLD_SIZE - 1:
            signal.raise_signal(signal.SIGINT)


def learner(folder: Path | None = None, *callbacks: Callback) -> Learner:
    torch.manual_seed(RANK)
    data = LanguageModelData.from_texts(
        TEXTS, valid=2, options=LanguageOptions(tokenizer="character")
    )
    options = TrainingOptions(doctor=False)
    return Learner(data, "awd_lstm", choices=CHOICES, seed=0, quiet=True, folder=folder,
                   callbacks=list(callbacks), training=options)  # fmt: skip


def main(folder: Path, action: str) -> None:
    """Train three epochs of 12 steps; "begun" runs end in the first one."""
    name, _, how = action.partition("-")
    place = folder / how / "run"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if name == "begun":
            saving = [Checkpointing(every_s=1e-9)] if how == "error" else []
            run = learner(place, *saving, End(how))
            with contextlib.suppress(EnoughError, KeyboardInterrupt):
                run.fit(3)
        elif name == "resumed":
            run = learner(place)
            run.resume()
        else:
            run = learner()
            run.fit(3)
    found = {
        "weights": dict(run.model.state_dict()),
        "losses": list(run.history.step_losses),
        "step": run._position.step,
        "warnings": [str(each.message) for each in caught if "carry-lost" in str(each.message)],
    }
    torch.save(found, folder / f"{action}.{RANK}-of-{WORLD_SIZE}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2])
