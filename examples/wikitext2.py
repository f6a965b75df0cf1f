"""Train language models on WikiText-2, and compare them with an n-gram model.

Reads ``train.txt.gz``, ``valid.txt.gz`` and ``test.txt.gz`` (2.1 million words, 33,278 different
tokens with the line end) from a folder, by default ``$FLAMBEAU_DATA/wikitext2``.

    uv run python examples/wikitext2.py ngram                    # 15 s
    uv run python examples/wikitext2.py awd_lstm                 # 60 minutes on two cores
    uv run python examples/wikitext2.py decoder
    uv run python examples/wikitext2.py awd_lstm --test          # the score on the test part
    uv run python examples/wikitext2.py awd_lstm --smoke         # seconds, on synthetic text

Scores are perplexities per word, with one word for each line end, as published figures are counted.
The networks are recipes in ``examples/language_recipes``; the same command continues an interrupted
run. It writes the curve on the validation part to ``docs/benchmarks/2026-12-wikitext2``; weights
stay in the work folder. ``--test`` scores what a run of the committed recipe has trained, and
appends the look to ``looks.jsonl`` there: use it once, when nothing is to be chosen any more.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frozen_recipe
import language_run

from flambeau import Learner
from flambeau_bench.machine import host
from flambeau_text import KneserNey, LanguageModelData, LanguageOptions

EXAMPLES = Path(__file__).resolve().parent
RECIPES = EXAMPLES / "language_recipes"
RESULTS = EXAMPLES.parent / "docs" / "benchmarks" / "2026-12-wikitext2"


def read(folder: Path) -> LanguageModelData:
    """Return the parts, each as one document; the words are those of the files."""
    files = {part: folder / f"{part}.txt.gz" for part in ("train", "valid", "test")}
    options = LanguageOptions(document="file", tokenizer="word")
    return LanguageModelData.from_files(
        files["train"], valid=files["valid"], test=files["test"], options=options
    )


def ngram_perplexity(data: LanguageModelData, order: int, part: str) -> float:
    """Return the perplexity of an interpolated modified Kneser-Ney model on a part."""
    preprocessor = data.preprocessor(Learner(data, quiet=True).plan.values)
    train, scored = (preprocessor.stream(data.raw(each)).tokens.numpy() for each in ("train", part))
    return KneserNey(order).fit(train, len(preprocessor.tokenizer)).perplexity(scored)


def run_ngram(data: LanguageModelData, order: int, results: Path) -> dict[str, Any]:
    """Write and return the result of the n-gram model on the validation part."""
    started = time.monotonic()
    score = ngram_perplexity(data, order, "valid")
    record = {
        "recipe": "ngram",
        "order": order,
        "valid_word_perplexity": round(score, 2),
        "seconds": round(time.monotonic() - started, 1),
        **host(),
    }
    language_run.write_run(results / "ngram.jsonl", record, [])
    return record


def look_at_ngram(data: LanguageModelData, order: int, log: Path) -> dict[str, Any]:
    """Return the logged score of the n-gram model on the test part."""
    script = EXAMPLES / "wikitext2.py"
    commit = frozen_recipe.frozen_commit(script)
    key = {"recipe": "ngram", "order": order, "version": frozen_recipe.version_of(script)}
    return frozen_recipe.logged_look(
        log, key, commit, EXAMPLES, lambda: {"test": ngram_perplexity(data, order, "test")}
    )


# ---------------------------------------------------------------- recipes


@dataclass(frozen=True)
class Run:
    """A recipe with its run.

    Attributes:
        name: Name of the recipe.
        recipe: Its content.
        work: Folder of the run, named after the content of the recipe: a changed recipe is another
            run.
        results: Folder of the results.
    """

    name: str
    recipe: Mapping[str, Any]
    work: Path
    results: Path

    @classmethod
    def of(cls, name: str, recipe: Mapping[str, Any], work: Path, results: Path = RESULTS) -> Run:
        """Return the run of a recipe in a work folder."""
        return cls(name, recipe, work / f"{name}-{frozen_recipe.digest_of(recipe)}", results)

    @property
    def weights(self) -> Path:
        """The file of the trained weights, which exists after the training."""
        return self.work / "model.safetensors"

    @property
    def curve(self) -> Path:
        """The file of the result."""
        return self.results / f"{self.name}.jsonl"


def train(run: Run, data: LanguageModelData, *, quiet: bool = False) -> dict[str, Any]:
    """Train, or continue; write weights and curve; return the line of the run."""
    folder = run.work / "run"
    learner = language_run.make_learner(data, run.recipe, folder, quiet=quiet)
    language_run.train_or_continue(learner, run.recipe["minutes"], folder)
    learner.save(run.weights)
    score = learner.evaluate("valid")["word_perplexity"]
    record = {
        "recipe": run.name,
        "content": run.work.name,
        "valid_word_perplexity": round(score, 2),
        **language_run.summary(learner),
        "sample_text": learner.predict(" = Moon = \n The moon is").text,
    }
    language_run.write_run(run.curve, record, language_run.curve(learner))
    return record


def test_score(run: Run, data: LanguageModelData) -> dict[str, Any]:
    """Return the perplexities of the trained weights on both parts that were held out."""
    if not run.weights.exists():
        raise SystemExit(
            f"There are no weights of this recipe in {run.work}. Train it first: "
            f"python examples/wikitext2.py {run.name}"
        )
    learner = language_run.make_learner(data, run.recipe, run.work / "scoring", quiet=True)
    learner.load(run.weights)
    return {part: learner.evaluate(part)["word_perplexity"] for part in ("valid", "test")}


def look(run: Run, data: LanguageModelData, path: Path) -> dict[str, Any]:
    """Return the logged score on the test part of a recipe in the file ``path``."""
    files = (path, EXAMPLES / "wikitext2.py", EXAMPLES / "language_run.py")
    commit = frozen_recipe.frozen_commit(files[0], files[1:])
    key = {
        "recipe": run.name,
        "content": run.work.name,
        "version": frozen_recipe.version_of(*files),
    }
    log = run.results / "looks.jsonl"
    return frozen_recipe.logged_look(log, key, commit, path.parent, lambda: test_score(run, data))


# ---------------------------------------------------------------- seconds on synthetic text

_TINY: Mapping[str, Mapping[str, Any]] = {
    "awd_lstm": {"embedding_dim": 16, "hidden_size": 16, "num_layers": 2},
    "decoder": {"depth": 1, "width": 64, "window": 16},
}


def smoke_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe with a tiny network, for a run of seconds."""
    tiny = {"model_config": _TINY[recipe["model"]], "batch_size": 4, "bptt": 20, "epochs": 3}
    sample = {"exact": 10, "sampled": 10}
    choices = {**recipe["choices"], **tiny, "probe": "off"}
    return {**recipe, "choices": choices, "minutes": None, "sample": sample}


def write_smoke_data(folder: Path) -> Path:
    """Write three small parts in the format of WikiText-2."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = random.Random(0)
    words = [f"word{number}" for number in range(40)]
    for part, n in (("train", 300), ("valid", 60), ("test", 60)):
        lines = [" = Title = ", " "]
        for _ in range(n):
            first = draws.randrange(40)
            # Each word is followed by the next one, so that there is something to learn.
            line = [words[(first + at) % 40] for at in range(draws.randrange(4, 12))]
            lines.append(" " + " ".join([*line, "<unk>", "."]) + " ")
        with gzip.open(folder / f"{part}.txt.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Train or score one model."""
    recipes = sorted(path.stem for path in RECIPES.glob("*.json"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", choices=["ngram", *recipes])
    parser.add_argument("--folder", type=Path, help="folder of the data")
    parser.add_argument("--work", type=Path, default=Path("runs/wikitext2"))
    parser.add_argument("--minutes", type=float, help="another time budget than the recipe's")
    parser.add_argument("--order", type=int, default=5, help="length of the n-grams")
    parser.add_argument("--test", action="store_true", help="score the test part, and log it")
    parser.add_argument("--smoke", action="store_true", help="seconds, on synthetic text")
    given = parser.parse_args(arguments)
    folder = given.folder or Path(os.environ.get("FLAMBEAU_DATA", ".")) / "wikitext2"
    if given.smoke:
        folder = write_smoke_data(given.work / "smoke-data")
    data = read(folder)
    if given.model == "ngram":
        results = given.work / "smoke-results" if given.smoke else RESULTS
        found: Mapping[str, Any] = run_ngram(data, given.order, results)
        if given.test and given.smoke:  # of synthetic text: not a look
            found = {"test": ngram_perplexity(data, given.order, "test")}
        elif given.test:
            found = look_at_ngram(data, given.order, results / "looks.jsonl")
    else:
        path = RECIPES / f"{given.model}.json"
        recipe = json.loads(path.read_text())
        results = RESULTS
        if given.smoke:
            recipe, results = smoke_recipe(recipe), given.work / "smoke-results"
        if given.minutes is not None:
            recipe, results = {**recipe, "minutes": given.minutes}, given.work / "other-results"
        run = Run.of(given.model, recipe, given.work, results)
        if given.test and given.minutes is not None:
            parser.error("--test scores the recipe as it is committed, without --minutes.")
        elif given.test and given.smoke:
            found = test_score(run, data)  # of synthetic text: not a look
        elif given.test:
            found = look(run, data, path)
        else:
            found = train(run, data, quiet=given.smoke)
    print(json.dumps({"model": given.model, **found}))


if __name__ == "__main__":
    main()
