"""The options of ``flambeau predict`` for sampling, which all text models with a decoder have."""

from __future__ import annotations

from flambeau.domain import CliOption

SAMPLING_OPTIONS = (
    CliOption("temperature", float, "Sample tokens with this temperature.", "temperature"),
    CliOption("top-k", int, "Sample among this number of most probable tokens.", "top_k"),
    CliOption(
        "top-p",
        float,
        "Sample among the most probable tokens whose probabilities add up to this.",
        "top_p",
    ),
    CliOption("seed", int, "Seed of the sampling.", "seed"),
)
