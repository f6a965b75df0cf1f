"""Multi30k English to German: a recurrent model with attention, in lower case or cased.

Reads ``train.en.gz``, ``val.*`` and ``test_2016_flickr.*`` from a folder, by default
``$FLAMBEAU_DATA/multi30k`` (https://github.com/multi30k/dataset, for research alone). Trains for a
number of epochs, keeps the one with the highest BLEU on val, then looks at test 2016 once.

    uv run python examples/translate_multi30k.py [FOLDER] [--epochs N] [--cased] [--model NAME]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from flambeau import Learner, TrainingOptions
from flambeau_text import TranslationData, TranslationOptions, review


def load(folder: Path, cased: bool = False) -> TranslationData:
    """29,000 pairs of captions, 1,014 of val and 1,000 of test 2016; lower-cased by default."""

    def pair(name: str) -> tuple[Path, Path]:
        return folder / f"{name}.en.gz", folder / f"{name}.de.gz"

    return TranslationData.from_files(
        *pair("train"),
        valid=pair("val"),
        test=pair("test_2016_flickr"),
        options=TranslationOptions(lowercase=not cased),
    )


def learner(data: TranslationData, model: str = "rnn", folder: Path | None = None) -> Learner:
    """The plan's own choices; the weights of the best epoch by BLEU on val are kept."""
    torch.manual_seed(0)  # dropout
    options = TrainingOptions(clip_norm=1.0, keep_best="valid_bleu")
    return Learner(data, model, training=options, folder=folder)


def main() -> None:
    """Trains, then looks at the test set once."""
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
    words = sum(batch.weight or 0.0 for batch in loader.batches(0)) * len(run.history.rows)
    print(f"{words / seconds:,.0f} target tokens a second, evaluations included ({seconds:.0f} s)")
    print(review(run, "test"))


if __name__ == "__main__":
    main()
