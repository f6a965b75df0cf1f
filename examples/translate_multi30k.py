"""Translate Multi30k from English to German with a recurrent model, lower-cased or cased.

Reads ``train.en.gz``, ``val.*`` and ``test_2016_flickr.*`` from a folder, by default
``$FLAMBEAU_DATA/multi30k`` (https://github.com/multi30k/dataset, for research only). Trains for a
number of epochs, keeps the weights of the epoch with the highest BLEU on val, and evaluates on test
2016 once.

    uv run python examples/translate_multi30k.py [FOLDER] [--epochs N] [--cased] [--model NAME]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from flambeau import Learner, TrainingOptions
from flambeau_text import TranslationData, TranslationOptions


def load(folder: Path, cased: bool = False) -> TranslationData:
    """Read 29,000 train, 1,014 valid and 1,000 test pairs of captions, lower-cased by default."""

    def pair(name: str) -> tuple[Path, Path]:
        return folder / f"{name}.en.gz", folder / f"{name}.de.gz"

    return TranslationData.from_files(
        *pair("train"),
        valid=pair("val"),
        test=pair("test_2016_flickr"),
        options=TranslationOptions(lowercase=not cased),
    )


def learner(data: TranslationData, model: str = "rnn", folder: Path | None = None) -> Learner:
    """Return a learner with the plan's choices that keeps the epoch with the best BLEU on val."""
    torch.manual_seed(0)  # dropout
    options = TrainingOptions(clip_norm=1.0, keep_best="valid_bleu")
    return Learner(data, model, training=options, folder=folder)


def main() -> None:
    """Train, then evaluate on test once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--model", default="rnn")
    parser.add_argument("--cased", action="store_true", help="keep capital letters")
    parser.add_argument("--run", type=Path, default=None)
    given = parser.parse_args()
    folder = given.folder or Path(os.environ.get("FLAMBEAU_DATA", ".")) / "multi30k"
    run = learner(load(folder, given.cased), given.model, given.run)
    print(run.plan)
    started = time.perf_counter()
    run.fit(given.epochs)
    seconds = time.perf_counter() - started
    loader = run.built.loader("train")
    tokens = sum(batch.weight or 0.0 for batch in loader.batches(0)) * len(run.history.rows)
    print(f"{tokens / seconds:,.0f} target tokens/s, evaluations included ({seconds:.0f} s)")
    print(run.interpret("test"))


if __name__ == "__main__":
    main()
