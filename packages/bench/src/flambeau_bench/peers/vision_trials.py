"""Choose epochs and learning rate of the sides of ``peers-vision`` on held-out train images.

python -m flambeau_bench.peers.vision_trials --peers fastai,pytorch-lightning

The rule is the same for every side: for its default setting the learning rate that its
documentation shows, for its fast setting the best of ``RATES`` after three epochs; then the least
of ``EPOCHS`` that reaches the target. flambeau's plan chooses its own rate. The choice is written
to ``peers_vision.json`` in the folder of the peer, with the accuracy of each trial.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flambeau_bench.case import Size
from flambeau_bench.cases.peers_vision import ROWS, SETTINGS_FILE, USUAL, PeersVision
from flambeau_bench.peers.environment import prepare
from flambeau_bench.peers.peer import FLAMBEAU, PLAIN, Peer, choose_peers, known_peers
from flambeau_bench.peers.peer_case import Row

RATES = (1e-3, 3e-3, 1e-2)
"""Learning rates that a fast setting tries."""

EPOCHS = (3, 4, 6, 8, 10, 14, 20)
"""Numbers of epochs, tried in this order until one reaches the target."""

_RATE_EPOCHS = 3

Accuracy = Callable[[int, float], float]
"""``accuracy(epochs, lr)`` trains and returns the accuracy on held-out images."""


def choose(accuracy: Accuracy, setting: str, target: float) -> dict[str, Any]:
    """Return epochs and learning rate of a setting, with all trials.

    Args:
        accuracy: Trains a side once.
        setting: "default" or "fast".
        target: The accuracy to reach; if no number of epochs does, the last is used.
    """
    trials: list[dict[str, float]] = []

    def tried(epochs: int, lr: float) -> float:
        found = accuracy(epochs, lr)
        trials.append({"epochs": epochs, "lr": lr, "accuracy": found})
        return found

    lr = float(USUAL["lr"])
    if setting == "fast":
        lr = max(RATES, key=lambda rate: tried(_RATE_EPOCHS, rate))
    epochs = next((count for count in EPOCHS if tried(count, lr) >= target), EPOCHS[-1])
    return {"epochs": epochs, "lr": lr, "trials": trials}


def choose_and_write(case: PeersVision, peer: Peer, size: Size, log: Callable[[str], None]) -> None:
    """Choose for both settings of a peer, and write its settings file.

    Raises:
        SideError: The side failed.
    """
    chosen: dict[str, Any] = {}
    for row in ROWS:
        if row.job_row == "fp32":
            continue

        def accuracy(epochs: int, lr: float, row: Row = row) -> float:
            request = {"epochs": epochs, "lr": lr, "held_out": True}
            with (
                tempfile.TemporaryDirectory() as folder,
                case.start(peer, row, size, Path(folder)) as side,
            ):
                found = float(side.run(request)["facts"]["quality"]["accuracy"])
            log(f"{peer.name}, {row.setting}: {epochs} epochs, lr {lr:g}: {found:.4f}")
            return found

        chosen[row.setting] = choose(accuracy, row.setting, size["thousandths"] / 1_000)
    path = peer.folder / SETTINGS_FILE
    path.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Run the trials of the named peers, and of plain PyTorch and flambeau."""
    parser = argparse.ArgumentParser(
        description="Choose epochs and learning rates on held-out images."
    )
    parser.add_argument("--peers", default="", help="Names or paths, with commas; all by default.")
    named = [name for name in parser.parse_args(arguments).peers.split(",") if name]
    case, known = PeersVision(), known_peers()
    size = case.sizes["cpu"]

    def log(line: str) -> None:
        sys.stderr.write(line + "\n")

    if reason := case.skip_reason(size):
        log(f"No trials: {reason}")
        raise SystemExit(1)
    chosen = [known[PLAIN], known[FLAMBEAU], *choose_peers(named, case.name)]
    for peer in chosen:
        if (peer.folder / SETTINGS_FILE).is_file():
            log(f"{peer.name}: kept ({SETTINGS_FILE} exists; delete it to try again)")
        elif peer.program(case.name) is None:
            log(f"{peer.name}: has no program for {case.name}")
        elif reason := prepare(peer, log):
            log(f"{peer.name}: absent, {reason}")
        else:
            choose_and_write(case, peer, size, log)


if __name__ == "__main__":
    main(sys.argv[1:])
