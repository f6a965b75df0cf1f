"""Names of the batch norm policies of a phase; ``Phase.bn`` describes each."""

from __future__ import annotations

from typing import Literal

BatchNormPolicy = Literal["auto", "train", "eval", "adapt"]

BATCH_NORM_POLICIES: tuple[BatchNormPolicy, ...] = ("adapt", "auto", "eval", "train")

BN_STATISTICS = ("fresh", "running")
"""Statistics in the first evaluations of a phase: computed anew, or the running statistics."""
