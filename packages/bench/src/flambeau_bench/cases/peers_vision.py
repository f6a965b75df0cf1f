"""``peers-vision``: the same network on Fashion-MNIST to an accuracy, with other libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, ClassVar

from flambeau_bench.case import Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.peers.live_side import LiveSide, SideError
from flambeau_bench.peers.peer import Peer
from flambeau_bench.peers.peer_case import PeerCase, Row, work_of
from flambeau_bench.real_data import folder_of, missing_reason
from flambeau_bench.side.protocol import Job

SETTINGS_FILE = "peers_vision.json"
"""In the folder of a peer: the epochs and the learning rate of each setting, chosen by
``flambeau_bench.peers.vision_trials`` on the last sixth of the train images."""

USUAL = {"epochs": 10, "lr": 1e-3}
"""Used at size quick, and in the table with equal epochs."""

_AGAINST = (
    Criterion("wall_s", "ratio", "× the time of the peer", limit=1.0),
    Criterion("cpu_s", "ratio", "× the CPU time of the peer"),
    Criterion("accuracy", "difference", "higher accuracy"),
    Criterion("wall_s", "value", "s"),
)
_OWN = "each side has its own defaults"
_OWN_WORK = {
    "order_hash": "the sides shuffle differently",
    "steps": "each side trains for as many epochs as it needs",
    "samples": "each side trains for as many epochs as it needs",
    "settings.precision": _OWN,
    "settings.final_evaluations": "batches of evaluations differ",
}
_SAME_WORK = {name: _OWN_WORK[name] for name in ("order_hash", "settings.final_evaluations")}

ROWS: tuple[Row, ...] = (
    Row("default, to the target", "any", "default", False, (), _AGAINST, _OWN_WORK),
    Row("fast setting, to the target", "any", "fast", False, (), _AGAINST, _OWN_WORK),
    Row("same precision, 3 epochs", "fp32", "default", False, (), _AGAINST, _SAME_WORK),
)
"""The rows: default against default, each side's fast setting, and fp32 with equal epochs."""

_SAME_EPOCHS = 3
_ALLOWED_BELOW = 0.01  # in the row of equal epochs, whose schedules differ


class PeersVision(PeerCase):
    """Train the network of ``vision-fit`` with other libraries until it reaches an accuracy.

    A side trains for the least number of epochs with which it reached the target on held-out train
    images; the time is measured from raw arrays in memory to the last evaluation, and counts only
    if the mean test accuracy of all runs reaches the target. Sides shuffle and augment as they do.
    In the row "same precision" all train for three epochs in fp32. Each measurement is a new
    process.
    """

    name: ClassVar = "peers-vision"
    question: ClassVar = "How long does Fashion-MNIST take to an accuracy of 0.93, by library?"
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            {"train": 2_000, "valid": 1_000, "batch_size": 128, "thousandths": 300, "epochs": 1},
            pairs=1,
            floor_pairs=1,
        ),
        "cpu": Size(
            "cpu",
            {"train": 60_000, "valid": 10_000, "batch_size": 128, "thousandths": 930},
            pairs=5,
            floor_pairs=5,
        ),
    }

    def skip_reason(self, size: Size) -> str:
        return super().skip_reason(size) or missing_reason("fashion_mnist")

    def rows(self, size: Size) -> Sequence[Row]:
        return ROWS

    def job(self, row: Row, size: Size) -> Job:
        counts = dict(size.counts)
        data = "" if missing_reason("fashion_mnist") else str(folder_of("fashion_mnist"))
        return Job(
            self.name, row.job_row, row.setting, counts=counts, data=data, device=size.device
        )

    def measurement(self, side: LiveSide, row: Row, size: Size, number: int) -> Measurement:
        request: dict[str, Any] = {"seed": number}
        if "epochs" in size.counts:
            request |= {**USUAL, "epochs": size["epochs"]}
        elif row.job_row == "fp32":
            request |= {**USUAL, "epochs": _SAME_EPOCHS}
        else:
            request |= settings_of(side.peer, row.setting)
        answer = side.run(request)
        facts = answer["facts"]
        figures = {
            "wall_s": answer["build_s"] + answer["fit_s"],
            "cpu_s": answer["build_cpu_s"] + answer["fit_cpu_s"],
            "accuracy": float(facts["quality"]["accuracy"]),
        }
        work = work_of(facts)
        target = 0.0 if row.job_row == "fp32" else size["thousandths"] / 1_000
        work["quality"]["target"] = target
        return Measurement(figures, **work, versions=side.ready["versions"])

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require that both sides reach the target in the mean, or nearly equal accuracies."""
        first, second = (
            mean(float(pair[place].quality["accuracy"]) for pair in pairs) for place in (0, 1)
        )
        found = f"mean accuracy {second:.4f}, {comparison.baseline} {first:.4f}, n = {len(pairs)}"
        target = float(pairs[0][0].quality["target"])
        if target:
            return Gate(min(first, second) >= target, f"{found}; the target is {target:g}")
        passed = second >= first - _ALLOWED_BELOW
        return Gate(passed, f"{found}; at most {_ALLOWED_BELOW:g} lower is allowed")


def settings_of(peer: Peer, setting: str) -> dict[str, Any]:
    """Return the chosen epochs and learning rate of a peer in a setting.

    Raises:
        SideError: They are not chosen yet.
    """
    path = peer.folder / SETTINGS_FILE
    chosen: Mapping[str, Any] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    )
    if setting not in chosen:
        raise SideError(
            f"epochs and learning rate of {peer.name} are not chosen: {path} does not have the "
            f"setting {setting!r}. Choose them first: python -m flambeau_bench.peers.vision_trials "
            f"--peers {peer.name}",
            peer.name,
        )
    return {name: chosen[setting][name] for name in USUAL}
