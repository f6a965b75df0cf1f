"""Train language models on WikiText-2, and compare them with an n-gram model.

Reads ``train.txt.gz``, ``valid.txt.gz`` and ``test.txt.gz`` (2.1 million words, 33,278 different
tokens with the line end) from a folder, by default ``$FLAMBEAU_DATA/wikitext2``.

    uv run python examples/wikitext2.py ngram                    # 15 s
    uv run python examples/wikitext2.py awd_lstm --minutes 60
    uv run python examples/wikitext2.py decoder --minutes 60

Each command prints the perplexity per word of the validation part, with one word for each line end,
as published figures are counted. ``--test`` adds the test part: use it once, when nothing is to be
chosen any more.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from flambeau import Learner
from flambeau_text import KneserNey, LanguageModelData, LanguageOptions


def read(folder: Path) -> LanguageModelData:
    """Return the articles' paragraphs as documents; the words are those of the files."""
    files = {part: folder / f"{part}.txt.gz" for part in ("train", "valid", "test")}
    options = LanguageOptions(document="file", tokenizer="word")
    return LanguageModelData.from_files(
        files["train"], valid=files["valid"], test=files["test"], options=options
    )


def ngram_perplexity(data: LanguageModelData, order: int, parts: list[str]) -> dict[str, float]:
    """Return the perplexities of an interpolated modified Kneser-Ney model."""
    preprocessor = data.preprocessor(Learner(data, quiet=True).plan.values)
    streams = {
        part: preprocessor.stream(data.raw(part)).tokens.numpy() for part in ("train", *parts)
    }
    model = KneserNey(order).fit(streams["train"], len(preprocessor.tokenizer))
    return {part: model.perplexity(streams[part]) for part in parts}


def main() -> None:
    """Train one model, and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", choices=["ngram", "awd_lstm", "decoder"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--order", type=int, default=5, help="length of the n-grams")
    parser.add_argument("--test", action="store_true", help="score the test part too")
    given = parser.parse_args()
    folder = given.folder or Path(os.environ.get("FLAMBEAU_DATA", ".")) / "wikitext2"
    data = read(folder)
    parts = ["valid", "test"] if given.test else ["valid"]
    if given.model == "ngram":
        found = ngram_perplexity(data, given.order, parts)
    else:
        learner = Learner(data, given.model)
        learner.fit_auto(given.minutes)
        found = {part: learner.evaluate(part)["word_perplexity"] for part in parts}
        print(learner.predict(" = Moon = \n The moon is").text)
    print(
        json.dumps({"model": given.model, **{part: round(each, 1) for part, each in found.items()}})
    )


if __name__ == "__main__":
    main()
