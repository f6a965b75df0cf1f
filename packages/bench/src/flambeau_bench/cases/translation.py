"""``translation``: target tokens a second, batches by tokens against the usual padded loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Gate, Question, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import why_missing
from flambeau_bench.table import markdown_table, number

if TYPE_CHECKING:
    from flambeau_bench.cases.translation_sides import Sides

PADDED, OURS = "padded loop", "flambeau"

EQUAL_WITHIN = 1e-5
"""Relative difference that losses on equal batches may have, in fp32. Ours leaves padding out and
sums the loss 512 words at a time, which rounds in another way (1e-7 was seen after 8 steps); a
mistake, such as padding that counts, is a thousand times as large."""

TOKENS_WITHIN = 0.03
"""Relative difference that the mean target tokens a step may have. Mostly there is none;
near 16 sentences a batch no number of steps that ours can have is nearer than 2.1% to theirs."""

VALID_WITHIN = 0.05
"""Nats a token by which our mean loss on valid may be higher. Batches of like lengths may teach a
little less in the first steps: at size cpu ours was .01 higher of 6.1, the mean of five seeds."""

_SEARCHED, _EQUAL = "tokens_per_s_at_", "loss_on_equal_batches_"


@dataclass(frozen=True)
class Setting:
    """What is trained, in which precision, and what the padded loop calls.

    Attributes:
        architecture: A model of flambeau_text by name.
        precision: "fp32" or "bf16".
        plain: The loop's model is written in plain PyTorch; else it is flambeau's.
    """

    architecture: str
    precision: str
    plain: bool = True


_SETTINGS = {
    f"{architecture} {precision}{label}": Setting(architecture, precision, plain)
    for architecture, label, plain in (
        ("rnn", "", True),
        ("rnn", ", our forward", False),
        # flambeau's Transformer is plain PyTorch.
        ("transformer", "", True),
    )
    for precision in ("fp32", "bf16")
}
"""By variant."""


def _questions(size: Size, setting: Setting) -> tuple[Question, ...]:
    # Made sentences and a minute's training say whether it works, not how fast it is.
    limit = 1.5 if setting.plain and size.name != "quick" else None
    return (
        Question("tokens_per_s", "ratio", "× the target tokens/s", limit, at_most=False),
        Question("tokens_per_s", "value", "target tokens/s"),
        Question("valid_loss", "difference", "nats a token more on valid"),
    )


class Translation(Case):
    """Multi30k, English to German: a pass over the pairs, forced, from the first weights on.

    The padded loop takes a fixed number of random sentences a batch, as many as make it fastest;
    ours is ``Learner.fit`` with batches by tokens, as large as make the target tokens of a step
    equal. Tokens, model, first weights, precision, optimizer, clipping, rate and threads are the
    same. The loop's recurrent model is written in plain PyTorch; in the variants "our forward" it
    calls flambeau's, which leaves batches and loss as the difference. A new seed each pair for
    weights and dropout; the batches stay, so that the untimed first run has met every shape that is
    timed, on both sides.

    What is told is wall time, so the machine should be quiet.

    A pass lasts so long that its fixed cost, which a slope would take off, is nothing.
    """

    name: ClassVar = "translation"
    asks: ClassVar = "How many target tokens a second against padded batches in random order?"
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
            pairs=3,
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
        self._sides: dict[tuple[str, str], Sides] = {}

    def why_not(self, size: Size) -> str:
        missing = super().why_not(size)
        return missing if missing or size.name == "quick" else why_missing("multi30k")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        batching = "the batches are what is compared"
        may_differ = {"order_hash": batching, "settings.batch": batching, "steps": batching}
        # A CPU takes the recurrent model, by the plan; the Transformer would double the time.
        taken = [
            (variant, setting)
            for variant, setting in _SETTINGS.items()
            if size.name != "cpu" or setting.architecture == "rnn"
        ]
        return [
            Comparison(variant, PADDED, OURS, _questions(size, setting), may_differ)
            for variant, setting in taken
        ]

    def sides(self, variant: str, size: Size) -> Sides:
        """Both programs of a variant; made, and the batch size searched for, once."""
        from flambeau_bench.cases.translation_sides import Sides

        key = variant, size.name
        if key not in self._sides:
            self._sides[key] = Sides(_SETTINGS[variant], size)
        return self._sides[key]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        sides = self.sides(comparison.variant, size)
        sentences, average_pairs = sides.batch_sizes
        if side == PADDED:
            fit, equal = sides.padded_fit(pair), sides.padded_losses
            batch, searched = f"{sentences} sentences", sides.searched
        else:
            fit, equal = sides.flambeau_fit(pair), sides.flambeau_losses
            batch, searched = f"tokens of {average_pairs} average pairs", {}
        valid_loss = sides.valid_loss(fit.model)
        steps, volume = len(fit.losses), fit.volume
        done = sum(volume.tokens[:steps])
        return Measurement(
            {
                "tokens_per_s": done / fit.watch.seconds,
                "valid_loss": valid_loss,
                **{f"{_SEARCHED}{sentences}": speed for sentences, speed in searched.items()},
            },
            steps=steps,
            items=sum(volume.sentences[:steps]),
            init_hash=fit.init_hash,
            order_hash=fingerprint.of_numbers(volume.tokens),
            settings={
                **fingerprint.machine_settings(),
                **fit.settings,
                "batch": batch,
            },
            quality={
                "valid_loss": valid_loss,
                "tokens_a_step": done / steps,
                "padding": volume.padding,
                **{f"{_EQUAL}{step}": loss for step, loss in enumerate(equal)},
            },
            notes=_notes(sides) if side == OURS else "",
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Equal losses on equal batches, as many tokens a step, and learned as much from them."""
        apart = max(unequal(a.quality, b.quality) for a, b in pairs)
        theirs, ours = (
            {name: mean(float(side.quality[name]) for side in sides) for name in _MEANS}
            for sides in zip(*pairs, strict=True)
        )
        tokens = abs(ours["tokens_a_step"] / theirs["tokens_a_step"] - 1.0)
        passed = (
            apart <= EQUAL_WITHIN
            and tokens <= TOKENS_WITHIN
            and ours["valid_loss"] <= theirs["valid_loss"] + VALID_WITHIN
        )
        return Gate(
            passed,
            f"losses on equal batches at most {apart:.1e} apart (allowed {EQUAL_WITHIN:g}), "
            f"{ours['tokens_a_step']:.1f} target tokens a step against "
            f"{theirs['tokens_a_step']:.1f}, with {ours['padding']:.2f} against "
            f"{theirs['padding']:.2f} places each, valid loss {ours['valid_loss']:.3f} against "
            f"{theirs['valid_loss']:.3f}, at most {VALID_WITHIN:g} more, over {len(pairs)} seeds",
        )

    def section(self, records: Sequence[Mapping[str, Any]], folder: Path) -> str:
        lines = [
            (record["size"]["name"], record["variant"], name.removeprefix(_SEARCHED), number(speed))
            for record in records
            if record["case"] == self.name and record["kind"] == "run" and record["figures"]
            if record["phase"] == "pairs" and record["pair"] == 0
            for name, speed in record["figures"].items()
            if name.startswith(_SEARCHED)
        ]
        if not lines:
            return ""
        columns = ("size", "variant", "sentences a batch", "target tokens/s")
        title = "## Translation: the padded loop's batch size"
        return f"{title}\n\n{markdown_table(columns, lines)}"


_MEANS = ("valid_loss", "tokens_a_step", "padding")


def unequal(baseline: Mapping[str, float | str], candidate: Mapping[str, float | str]) -> float:
    """The largest relative difference of two sides' losses on equal batches."""
    names = {name for name in (*baseline, *candidate) if name.startswith(_EQUAL)}
    found = [abs(float(candidate[name]) / float(baseline[name]) - 1.0) for name in names]
    # The largest of numbers with NaN among them is any of them.
    return max(found) if all(map(math.isfinite, found)) else math.inf


def _notes(sides: Sides) -> str:
    sizes = ", ".join(map(str, sides.searched))
    sentences, average_pairs = sides.batch_sizes
    return (
        f"of {sizes} sentences a batch {sides.fastest} were the fastest by hand; steps are equal "
        f"with {sentences}, and tokens of {average_pairs} average pairs for ours"
    )
