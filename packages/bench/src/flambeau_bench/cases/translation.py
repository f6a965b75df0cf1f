"""``translation``: target tokens per second with batches by tokens, compared with a padded loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.cases.translation_variant import VARIANTS, TranslationVariant
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import missing_reason
from flambeau_bench.verdict_table import markdown_table, number

if TYPE_CHECKING:
    from flambeau_bench.cases.translation_sides import TranslationSides

PADDED, FLAMBEAU = "padded loop", "flambeau"

EQUAL_WITHIN = 1e-5
"""Allowed relative difference of losses on equal batches, in fp32. flambeau skips padding and sums
the loss over 512 tokens at a time, which rounds differently (1e-7 was measured after 8 steps). A
mistake such as counting padding causes a difference a thousand times as large."""

TOKENS_WITHIN = 0.03
"""Allowed relative difference of the mean target tokens per step. The difference is mostly 0; near
16 sentences per batch, flambeau cannot match the number of steps better than to 2.1%."""

VALID_WITHIN = 0.05
"""Nats per token by which flambeau's mean validation loss may be higher. Batches of similar lengths
may train slightly slower in the first steps: at size "cpu" the loss was 0.01 higher, at 6.1 (mean
of five seeds)."""

_SPEED_AT, _EQUAL = "tokens_per_s_at_", "loss_on_equal_batches_"


def _criteria(size: Size, variant: TranslationVariant) -> tuple[Criterion, ...]:
    # Synthetic sentences and a short training show whether it works, not how fast it is.
    limit = 1.5 if variant.plain and size.name != "quick" else None
    return (
        Criterion("tokens_per_s", "ratio", "× the target tokens/s", limit, at_most=False),
        Criterion("tokens_per_s", "value", "target tokens/s"),
        Criterion("valid_loss", "difference", "nats per token higher on validation"),
    )


class Translation(Case):
    """Multi30k, English to German: one teacher-forced epoch from the initial weights.

    The padded loop has a fixed number of random sentences per batch: the number with which it is
    fastest. flambeau's side is ``Learner.fit`` with batches by tokens, of the size that gives
    equally many target tokens per step. Tokens, model, initial weights, precision, optimizer,
    clipping, learning rate and threads are the same. The recurrent model of the padded loop is
    written in plain PyTorch; in the variants "flambeau forward" the loop calls flambeau's forward
    pass, so that only batches and loss differ. Each pair has a new seed for weights and dropout but
    the same batches, so that all timed shapes already occurred in the untimed first run of each
    side.

    The figure is wall time, so the machine should be otherwise idle. An epoch takes so long that
    its fixed cost, which a slope would subtract, is negligible.
    """

    name: ClassVar = "translation"
    question: ClassVar = "How many target tokens per second, compared with padded batches?"
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            {
                "train": 128,
                "valid": 32,
                "searched": 32,
                "smallest": 8,
                "largest": 32,
            },
            pairs=1,
            floor_pairs=1,
        ),
        "cpu": Size(
            "cpu",
            {
                "train": 2_048,
                "valid": 256,
                "searched": 1_024,
                "smallest": 8,
                "largest": 256,
            },
            pairs=5,
            floor_pairs=2,
        ),
        "gpu": Size(
            "gpu",
            {
                "train": 29_000,
                "valid": 1_014,
                "searched": 8_192,
                "smallest": 32,
                "largest": 2_048,
            },
            pairs=5,
            floor_pairs=2,
            device="cuda",
        ),
    }

    def __init__(self) -> None:
        self._sides: dict[tuple[str, str], TranslationSides] = {}

    def skip_reason(self, size: Size) -> str:
        missing = super().skip_reason(size)
        return missing if missing or size.name == "quick" else missing_reason("multi30k")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        batching = "the comparison is between ways of batching"
        may_differ = {"order_hash": batching, "settings.batch": batching, "steps": batching}
        # The plan chooses the recurrent model on a CPU; the Transformer would double the time.
        return [
            Comparison(name, PADDED, FLAMBEAU, _criteria(size, variant), may_differ)
            for name, variant in VARIANTS.items()
            if size.name != "cpu" or variant.architecture == "rnn"
        ]

    def sides(self, variant: str, size: Size) -> TranslationSides:
        """Return both programs of a variant; only the first call creates them."""
        from flambeau_bench.cases.translation_sides import TranslationSides

        key = variant, size.name
        if key not in self._sides:
            self._sides[key] = TranslationSides(VARIANTS[variant], size)
        return self._sides[key]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        sides = self.sides(comparison.variant, size)
        sentences, average_pairs = sides.batch_sizes
        if side == PADDED:
            fit, equal = sides.padded_fit(pair), sides.padded_losses
            batch, speeds = f"{sentences} sentences", sides.speeds
        else:
            fit, equal = sides.flambeau_fit(pair), sides.flambeau_losses
            batch, speeds = f"tokens of {average_pairs} average pairs", {}
        valid_loss = sides.valid_loss(fit.model)
        steps, counts = len(fit.losses), fit.counts
        done = sum(counts.tokens[:steps])
        return Measurement(
            {
                "tokens_per_s": done / fit.watch.seconds,
                "valid_loss": valid_loss,
                **{f"{_SPEED_AT}{sentences}": speed for sentences, speed in speeds.items()},
            },
            steps=steps,
            samples=sum(counts.sentences[:steps]),
            init_hash=fit.init_hash,
            order_hash=fingerprint.of_numbers(counts.tokens),
            settings={
                **fingerprint.machine_settings(),
                **fit.settings,
                "batch": batch,
            },
            quality={
                "valid_loss": valid_loss,
                "tokens_per_step": done / steps,
                "padding": counts.padding,
                **{f"{_EQUAL}{step}": loss for step, loss in enumerate(equal)},
            },
            notes=_notes(sides) if side == FLAMBEAU else "",
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require equal losses on equal batches, equal tokens per step and no higher final loss."""
        largest = max(largest_loss_difference(a.quality, b.quality) for a, b in pairs)
        baseline, candidate = (
            {name: mean(float(side.quality[name]) for side in sides) for name in _MEANS}
            for sides in zip(*pairs, strict=True)
        )
        tokens = abs(candidate["tokens_per_step"] / baseline["tokens_per_step"] - 1.0)
        passed = (
            largest <= EQUAL_WITHIN
            and tokens <= TOKENS_WITHIN
            and candidate["valid_loss"] <= baseline["valid_loss"] + VALID_WITHIN
        )
        return Gate(
            passed,
            f"losses on equal batches differ by at most {largest:.1e} (allowed {EQUAL_WITHIN:g}); "
            f"over {len(pairs)} seeds {candidate['tokens_per_step']:.1f} target tokens per step "
            f"(baseline {baseline['tokens_per_step']:.1f}), {candidate['padding']:.2f} positions "
            f"per token (baseline {baseline['padding']:.2f}), validation loss "
            f"{candidate['valid_loss']:.3f} (baseline {baseline['valid_loss']:.3f}, at most "
            f"{VALID_WITHIN:g} higher is allowed)",
        )

    def section(self, records: Sequence[Mapping[str, Any]], folder: Path) -> str:
        lines = [
            (record["size"]["name"], record["variant"], name.removeprefix(_SPEED_AT), number(speed))
            for record in records
            if record["case"] == self.name and record["kind"] == "run" and record["figures"]
            if record["phase"] == "pairs" and record["pair"] == 0
            for name, speed in record["figures"].items()
            if name.startswith(_SPEED_AT)
        ]
        if not lines:
            return ""
        columns = ("size", "variant", "sentences per batch", "target tokens/s")
        title = "## Translation: batch size of the padded loop"
        return f"{title}\n\n{markdown_table(columns, lines)}"


_MEANS = ("valid_loss", "tokens_per_step", "padding")


def largest_loss_difference(
    baseline: Mapping[str, float | str], candidate: Mapping[str, float | str]
) -> float:
    """Return the largest relative difference of the losses of two sides on equal batches."""
    names = {name for name in (*baseline, *candidate) if name.startswith(_EQUAL)}
    differences = [abs(float(candidate[name]) / float(baseline[name]) - 1.0) for name in names]
    # max() of numbers with NaN among them may return any of them.
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def _notes(sides: TranslationSides) -> str:
    sizes = ", ".join(map(str, sides.speeds))
    sentences, average_pairs = sides.batch_sizes
    return (
        f"of {sizes} sentences per batch, {sides.fastest} were fastest in the padded loop; the "
        f"numbers of steps are equal with {sentences} sentences in the padded loop and the tokens "
        f"of {average_pairs} average pairs in flambeau"
    )
