"""``language``: tokens per second of language models, compared with a plain PyTorch loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import folder_of, missing_reason

if TYPE_CHECKING:
    from flambeau_bench.cases.language_sides import Job
    from flambeau_text import LanguageModelData

BY_HAND, FLAMBEAU = "plain loop", "flambeau"

EQUAL_STEPS = 8
"""Number of first steps whose losses are compared."""

EQUAL_WITHIN: Mapping[str, float] = {"fp32": 1e-5, "bf16": 1e-3}
"""Allowed relative difference of the losses of these steps, by precision. flambeau sums the loss
over 512 tokens at a time, which rounds differently."""

VALID_WITHIN = 0.02
"""Allowed difference of the mean validation loss, in nats per token: after hundreds of steps the
rounding has grown."""


@dataclass(frozen=True)
class Variant:
    """A network with the rows of a batch and its precision."""

    architecture: str
    rows: int
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    precision: str = "fp32"


_AWD = {"embedding_dim": 256, "hidden_size": 512, "num_layers": 2}
_DECODER = {"depth": 4, "width": 256, "window": 256}

VARIANTS: Mapping[str, Variant] = {
    "awd_lstm fp32": Variant("awd_lstm", 32, _AWD),
    "awd_lstm bf16": Variant("awd_lstm", 32, _AWD, "bf16"),
    "decoder fp32": Variant("decoder", 32, _DECODER),
    "decoder bf16": Variant("decoder", 32, _DECODER, "bf16"),
}
"""The variants by name."""

_SMALL: Mapping[str, Mapping[str, Any]] = {
    "awd_lstm": {"embedding_dim": 16, "hidden_size": 24, "num_layers": 2},
    "decoder": {"depth": 1, "width": 64, "window": 64},
}
"""Sizes of the networks for the suite "quick", which only checks that everything works."""


class Language(Case):
    """WikiText-2 in sub-words: one epoch from the initial weights, with the state carried.

    The plain loop has the same network, initial weights, batches (ready before it starts),
    precision, clipping and fused AdamW, and computes all logits for ``F.cross_entropy``. The losses
    of the first steps must be equal up to rounding, and so must the validation losses at the end.
    The figure is wall time of the steps, so the machine should be otherwise idle.
    """

    name: ClassVar = "language"
    question: ClassVar = "How many tokens per second, compared with a plain PyTorch loop?"
    sizes: ClassVar = {
        "quick": Size("quick", {"documents": 60, "vocabulary": 300}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {"documents": 1_200, "vocabulary": 8_000}, pairs=5, floor_pairs=2),
        "gpu": Size(
            "gpu",
            {"documents": 20_000, "vocabulary": 16_000},
            pairs=5,
            floor_pairs=2,
            device="cuda",
        ),
    }

    def __init__(self) -> None:
        self._data: dict[str, LanguageModelData] = {}

    def skip_reason(self, size: Size) -> str:
        missing = super().skip_reason(size)
        return missing if missing or size.name == "quick" else missing_reason("wikitext2")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        # Tiny networks on a short text show whether it works, not how fast it is.
        limit = 0.98 if size.name != "quick" else None
        criteria = (
            Criterion("tokens_per_s", "ratio", "× the tokens/s", limit, at_most=False),
            Criterion("tokens_per_s", "value", "tokens/s"),
            Criterion("valid_loss", "difference", "nats per token higher on validation"),
        )
        return [Comparison(name, BY_HAND, FLAMBEAU, criteria) for name in VARIANTS]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        from flambeau_bench.cases.language_sides import SIDES

        done = SIDES[side](self._job(comparison.variant, size, pair))
        n = sum(done.tokens)
        return Measurement(
            {"tokens_per_s": n / done.seconds, "valid_loss": done.valid_loss},
            steps=len(done.losses),
            samples=n,
            init_hash=done.init_hash,
            order_hash=done.order_hash,
            settings=done.settings,
            quality={
                "valid_loss": done.valid_loss,
                **{f"{_STEP}{step}": loss for step, loss in enumerate(done.losses[:EQUAL_STEPS])},
            },
        )

    def _job(self, variant: str, size: Size, seed: int) -> Job:
        from flambeau_bench.cases.language_sides import Job

        if size.name not in self._data:
            self._data[size.name] = documents_of(size)
        chosen = VARIANTS[variant]
        config = _SMALL[chosen.architecture] if size.name == "quick" else chosen.config
        rows = 4 if size.name == "quick" else chosen.rows
        return Job(
            self._data[size.name],
            chosen.architecture,
            config,
            rows,
            chosen.precision,
            seed,
            size.device,
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require equal losses in the first steps, and equal validation losses."""
        allowed = EQUAL_WITHIN[VARIANTS[comparison.variant].precision]
        largest = max(largest_difference(a.quality, b.quality) for a, b in pairs)
        valid = [
            mean(float(side.quality["valid_loss"]) for side in sides)
            for sides in zip(*pairs, strict=True)
        ]
        passed = largest <= allowed and abs(valid[1] - valid[0]) <= VALID_WITHIN
        return Gate(
            passed,
            f"the losses of the first {EQUAL_STEPS} steps differ by at most {largest:.1e} (allowed "
            f"{allowed:g}); validation loss {valid[1]:.4f} over {len(pairs)} seeds (baseline "
            f"{valid[0]:.4f}, {VALID_WITHIN:g} more or less is allowed)",
        )


_STEP = "loss_of_step_"


def largest_difference(
    baseline: Mapping[str, float | str], candidate: Mapping[str, float | str]
) -> float:
    """Return the largest relative difference of the losses of the first steps."""
    names = {name for name in (*baseline, *candidate) if name.startswith(_STEP)}
    differences = [abs(float(candidate[name]) / float(baseline[name]) - 1.0) for name in names]
    # max() of numbers with NaN among them may return any of them.
    return max(differences) if all(each < float("inf") for each in differences) else float("inf")


def documents_of(size: Size) -> LanguageModelData:
    """Return the first paragraphs of WikiText-2; for the suite "quick" those of the demo."""
    from flambeau_text import LanguageModelData, LanguageOptions
    from flambeau_text.language.demo import python_topics

    options = LanguageOptions(tokenizer="bpe", vocab_size=size["vocabulary"])
    if size.name == "quick":
        found = python_topics(size["documents"])
        return LanguageModelData(found.samples, found.split, options)
    folder = folder_of("wikitext2")
    whole = LanguageModelData.from_files(
        folder / "train.txt.gz", valid=folder / "valid.txt.gz", options=options
    )
    split = whole.split
    return whole.subset(
        {
            "train": split.train[: size["documents"]].tolist(),
            "valid": split.valid[: size["documents"] // 4].tolist(),
        }
    )
