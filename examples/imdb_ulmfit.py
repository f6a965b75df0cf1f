"""ULMFiT on IMDb: classifiers that start from a language model, beside the same net from scratch.

Stages, each a command of at most 60 minutes on two cores. The same command continues an interrupted
stage; finished ones are not repeated:

    uv run python examples/imdb_ulmfit.py prepare                # tokenizer; near duplicates
    uv run python examples/imdb_ulmfit.py pretrain               # language model on WikiText-2
    uv run python examples/imdb_ulmfit.py finetune               # and on reviews of IMDb
    uv run python examples/imdb_ulmfit.py classify --labels 200  # three seeds, two nets
    uv run python examples/imdb_ulmfit.py classify --labels 1000
    uv run python examples/imdb_ulmfit.py classify --labels all
    uv run python examples/imdb_ulmfit.py report                 # table, plot, page
    uv run python examples/imdb_ulmfit.py pretrain --smoke       # any stage on synthetic texts

``examples/text_recipes/imdb_ulmfit.json`` has all settings. They were chosen on 1,000 train reviews
that no model is trained on (``try --labels 200 --net scratch --set lr=0.01``). ``classify`` scores
5,000 reviews of the test file: it refuses if the recipe or the code is not as it was committed, and
logs each score before it is printed. Data are read from ``$FLAMBEAU_DATA``; weights stay in folders
of the work folder that are named after the settings, so that changed settings are another run.
Results are written to ``docs/findings/ulmfit``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import frozen_recipe
import imdb_reviews
import language_run
import pandas as pd
import wikitext2
from imdb_reviews import Reviews

from flambeau import Learner
from flambeau_text import LanguageModelData, LanguageOptions, TextData, TextOptions, WordTokenizer
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json

EXAMPLES = Path(__file__).resolve().parent
RECIPE = EXAMPLES / "text_recipes" / "imdb_ulmfit.json"
RESULTS = EXAMPLES.parent / "docs" / "findings" / "ulmfit"
CODE = ("imdb_ulmfit.py", "imdb_reviews.py", "language_run.py")
FILES = (RECIPE, *(EXAMPLES / name for name in CODE))
NETS = ("ulmfit", "scratch")
LOOKS, TRIALS = "looks.jsonl", "trials.jsonl"
_LEFT_BY = {
    "prepare": "tokenizer.json",
    "pretrain": "model.safetensors",
    "finetune": "language_model",
}
_LATER = {  # settings on which the result of a stage does not depend
    "prepare": ("network", "sample", "pretrain", "finetune", "classifier"),
    "pretrain": ("finetune", "classifier"),
    "finetune": ("classifier",),
}
_CHOICE_SEED = 100  # of trials on the held-out train reviews; it is not scored
_BASELINES = {"tfidf": "TF-IDF + linear", "nb_svm": "NB-SVM"}


@dataclass(frozen=True)
class Study:
    """The settings and folders of the stages.

    Attributes:
        recipe: All settings.
        data: Folder with the folders "imdb" and "wikitext2".
        work: Folder for weights.
        results: Folder for results.
        frozen: Whether recipe and code must be as they were committed; False for synthetic texts.
    """

    recipe: Mapping[str, Any]
    data: Path
    work: Path
    results: Path
    frozen: bool = True

    @property
    def quiet(self) -> bool:
        """Whether to show no progress."""
        return not self.frozen

    @cached_property
    def version(self) -> str:
        """Name of the content of recipe and code; empty for synthetic texts."""
        return frozen_recipe.version_of(*FILES) if self.frozen else ""

    @cached_property
    def reviews(self) -> Reviews:
        """The reviews."""
        return Reviews.read(self.data / "imdb", self.recipe)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that ``prepare`` has fitted."""
        return tokenizer_from_json(json.loads(self.made_by("prepare").read_text()))

    def folder(self, stage: str) -> Path:
        """Return the work folder of a stage, named after the settings on which it depends."""
        return self.work / f"{stage}-{frozen_recipe.digest_of(self.settings_until(stage))}"

    def settings_until(self, stage: str) -> dict[str, Any]:
        """Return the settings of the recipe on which the result of a stage depends."""
        return {key: each for key, each in self.recipe.items() if key not in _LATER[stage]}

    def made_by(self, stage: str) -> Path:
        """Return what a stage leaves for the next one.

        Raises:
            SystemExit: The stage has not ended with these settings.
        """
        path = self.folder(stage) / _LEFT_BY[stage]
        if not path.exists():
            raise SystemExit(
                f"{path} does not exist: the stage {stage!r} makes it with these settings. Run "
                f"python examples/imdb_ulmfit.py {stage} first."
            )
        return path


# ---------------------------------------------------------------- language models


def prepare(study: Study) -> dict[str, Any]:
    """Fit the tokenizer on the reviews for the language model; count near duplicates."""
    reviews, recipe = study.reviews, study.recipe
    texts = reviews.language
    tokenizer = WordTokenizer.fit(
        texts, language="en", lowercase=True, min_freq=2, max_tokens=recipe["vocab_size"]
    )
    folder = study.folder("prepare")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _LEFT_BY["prepare"]).write_text(json.dumps(tokenizer.as_json()))
    record = {
        "train_reviews": len(reviews.train),
        "scored_reviews": len(reviews.scored),
        "near_duplicates_of_scored_reviews_in_train": int(reviews.near_duplicates.sum()),
        "language_reviews": len(texts),
        "language_words": sum(len(text.split()) for text in texts),
        "vocabulary": len(tokenizer),
    }
    study.results.mkdir(parents=True, exist_ok=True)
    (study.results / "prepare.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def pretrain(study: Study) -> dict[str, Any]:
    """Train the language model on the articles of WikiText-2, with the words of the reviews."""
    parts = (
        imdb_reviews.articles(study.data / "wikitext2" / f"{part}.txt.gz")
        for part in ("train", "valid")
    )
    data = _language_data(study, *parts)
    return _train_language_model(study, "pretrain", data)


def finetune(study: Study) -> dict[str, Any]:
    """Train the pretrained language model on reviews; export it."""
    start = study.made_by("pretrain")
    data = _language_data(study, study.reviews.language, study.reviews.language_valid)
    return _train_language_model(study, "finetune", data, start)


def _language_data(study: Study, train: list[str], valid: list[str]) -> LanguageModelData:
    options = LanguageOptions(tokenizer=study.tokenizer)
    return LanguageModelData.from_texts(train, valid=valid, options=options)


def _train_language_model(
    study: Study, stage: str, data: LanguageModelData, start: Path | None = None
) -> dict[str, Any]:
    """Train, or continue; write weights, export and result.

    Args:
        study: The study.
        stage: "pretrain" or "finetune".
        data: The documents.
        start: Weights to start from.
    """
    folder, choices = study.folder(stage), dict(study.recipe[stage])
    minutes = choices.pop("minutes")
    recipe = {
        "model": "awd_lstm",
        "choices": {**choices, "model_config": study.recipe["network"]},
        "sample": study.recipe["sample"],
    }
    learner = language_run.make_learner(data, recipe, folder / "run", quiet=study.quiet)
    if start is not None:
        learner.load(start)  # a run that continues replaces them
    before = learner.evaluate("valid")["word_perplexity"]
    language_run.train_or_continue(learner, minutes, folder / "run")
    if start is None:
        learner.save(folder / _LEFT_BY[stage])
    else:
        learner.export(folder / _LEFT_BY[stage])
    record = {
        "stage": stage,
        "content": folder.name,
        "valid_word_perplexity_before": round(before, 1),
        "valid_word_perplexity": round(learner.evaluate("valid")["word_perplexity"], 2),
        **language_run.summary(learner),
    }
    language_run.write_run(study.results / f"{stage}.jsonl", record, language_run.curve(learner))
    return record


# ---------------------------------------------------------------- classifiers


@dataclass(frozen=True)
class Cell:
    """A classifier: the number of labels, the net and the seed of its labels and weights."""

    labels: str
    net: str
    seed: int

    def settings(self, study: Study) -> dict[str, Any]:
        """Return the settings of the recipe."""
        return dict(study.recipe["classifier"][self.labels][self.net])

    def folder(self, study: Study, settings: Mapping[str, Any]) -> Path:
        """Return the folder of the run, named after its settings and those of its language model.

        Args:
            study: The study.
            settings: Those of the recipe, or others that are tried.
        """
        read = {"max_length": study.recipe["classifier"]["max_length"], "settings": settings}
        digest = frozen_recipe.digest_of(study.settings_until("finetune") | read)
        return study.work / "classify" / f"{self.labels}-{self.net}-{self.seed}-{digest}"


def train_classifier(
    study: Study, cell: Cell, settings: Mapping[str, Any], scored: pd.DataFrame
) -> dict[str, Any]:
    """Return the scores of a classifier and of linear models, and what the training took."""
    data = _labelled_data(study, cell, scored)
    if "minutes" in settings:
        folder = cell.folder(study, settings)
        learner = _classifier(study, data, cell, settings, folder)
        language_run.train_or_continue(learner, settings["minutes"], folder)
    else:
        learner = _classifier(study, data, cell, settings)
        if cell.net == "ulmfit":
            learner.gradual_unfreeze(epochs_per_group=settings["epochs_per_group"])
        else:
            learner.fit_one_cycle(_equal_time_epochs(study, data, cell, settings))
    rows = learner.history.rows
    seconds = sum(float(row["seconds"]) for row in rows)
    found = learner.interpret("test")
    baselines = found.baselines if cell.net == "ulmfit" else {}
    return {
        "accuracy": float(found.scores["accuracy"]),
        "loss": float(found.scores["loss"]),
        **{
            short: float(baselines[name]["accuracy"])
            for short, name in _BASELINES.items()
            if name in baselines
        },
        "train_reviews": len(data.split.train),
        "scored_reviews": len(scored),
        "seconds": round(seconds, 1),
        "epochs": len(rows),
        "precision": learner.plan["precision"].value,
        "threads": learner.plan["num_threads"].value,
    }


def _labelled_data(study: Study, cell: Cell, scored: pd.DataFrame) -> TextData:
    reviews = study.reviews
    valid: Any = 0.0
    if cell.labels == "all":
        rows, valid = reviews.labelled, (list(reviews.held["text"]), list(reviews.held["label"]))
    else:
        rows = reviews.draw(int(cell.labels), cell.seed)
    options = TextOptions(
        language_model=study.made_by("finetune"),
        max_length=study.recipe["classifier"]["max_length"],
        truncation="head_tail",
    )
    test = (list(scored["text"]), list(scored["label"]))
    return TextData.from_arrays(
        list(rows["text"]), list(rows["label"]), valid=valid, test=test, options=options
    )


def _classifier(
    study: Study,
    data: TextData,
    cell: Cell,
    settings: Mapping[str, Any],
    folder: Path | None = None,
) -> Learner:
    choices = {k: settings[k] for k in ("batch_size", "lr", "epochs", "precision") if k in settings}
    if cell.net == "scratch":
        choices["weights"] = None
    return Learner(
        data, "awd_lstm", choices=choices, seed=cell.seed, folder=folder, quiet=study.quiet
    )


def _equal_time_epochs(
    study: Study, data: TextData, cell: Cell, settings: Mapping[str, Any]
) -> int:
    """Return how many epochs from scratch take the time of the net that was pretrained.

    It is the one with the same labels, seed and version, and with the settings of the recipe.
    """
    pretrained = Cell(cell.labels, "ulmfit", cell.seed)
    wanted = {**asdict(pretrained), "version": study.version}
    log = study.results / (TRIALS if cell.seed == _CHOICE_SEED else LOOKS)
    own = pretrained.settings(study)
    seconds = [
        entry["seconds"]
        for entry in frozen_recipe.read_log(log)
        if {name: entry.get(name) for name in wanted} == wanted
        and entry.get("settings", own) == own
    ]
    if not seconds:
        stage = "try" if cell.seed == _CHOICE_SEED else "classify"
        raise SystemExit(
            f"The net from scratch trains for the time of the pretrained one, which has no result "
            f"of this recipe with {cell.labels} labels and seed {cell.seed} in {log}. Run "
            f"python examples/imdb_ulmfit.py {stage} --labels {cell.labels} first."
        )
    timed = _classifier(study, data, cell, settings).fit(1)
    return max(1, math.ceil(seconds[-1] / float(timed.rows[-1]["seconds"])))


def classify(study: Study, labels: str, minutes: float) -> list[dict[str, Any]]:
    """Train and score the classifiers that are missing in the log; start none after the time."""
    began, found = time.monotonic(), list[dict[str, Any]]()
    commit = frozen_recipe.frozen_commit(FILES[0], FILES[1:]) if study.frozen else ""
    for net in study.recipe["classifier"][labels]:
        for seed in study.recipe["classifier"]["seeds"] if labels != "all" else [0]:
            if time.monotonic() - began > 60 * minutes:
                print("Not all classifiers are trained: repeat the command.")
                return found
            cell = Cell(labels, net, seed)
            settings, scored = cell.settings(study), study.reviews.scored
            entry = frozen_recipe.logged_look(
                study.results / LOOKS,
                {"labels": labels, "net": net, "seed": seed, "version": study.version},
                commit,
                EXAMPLES,
                partial(train_classifier, study, cell, settings, scored),
            )
            print(json.dumps(entry), flush=True)
            found.append(entry)
    return found


def try_settings(study: Study, labels: str, net: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Score settings on the train reviews that are held out; log the result."""
    cell = Cell(labels, net, _CHOICE_SEED)
    settings = {**cell.settings(study), **changes}
    found = train_classifier(study, cell, settings, study.reviews.held)
    key = {"labels": labels, "net": net, "seed": cell.seed, "version": study.version}
    entry = {**key, "settings": settings, **found}
    frozen_recipe.append(study.results / TRIALS, entry)
    return entry


# ---------------------------------------------------------------- command line


def smoke_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe with few reviews, tiny networks and seconds of training."""
    short = {"minutes": None, "batch_size": 4, "bptt": 20, "epochs": 2, "probe": "off"}
    tuned = {"ulmfit": {"batch_size": 8, "lr": 0.01, "epochs": 2, "epochs_per_group": 1}}
    tuned["scratch"] = {"batch_size": 8, "lr": 0.01}
    every = {"ulmfit": {"batch_size": 16, "lr": 0.01, "minutes": None, "epochs": 2}}
    classifier = {"max_length": 50, "seeds": [0, 1], "20": tuned, "40": tuned, "all": every}
    return {
        **recipe,
        **{"held_reviews": 40, "language_reviews": 150, "language_valid": 20, "test_reviews": 40},
        "network": {**recipe["network"], "embedding_dim": 16, "hidden_size": 24},
        "sample": {"exact": 20, "sampled": 10},
        "pretrain": recipe["pretrain"] | short,
        "finetune": recipe["finetune"] | short,
        "classifier": classifier,
    }


def make_study(folder: Path, work: Path, *, smoke: bool) -> Study:
    """Return the study of the committed recipe, or one of seconds on synthetic texts."""
    recipe = json.loads(RECIPE.read_text())
    if not smoke:
        return Study(recipe, folder, work, RESULTS)
    data = work / "data"
    if not data.exists():
        wikitext2.write_smoke_data(data / "wikitext2")
        imdb_reviews.write_smoke_data(data / "imdb")
    return Study(smoke_recipe(recipe), data, work, work / "results", frozen=False)


def main(arguments: list[str] | None = None) -> None:
    """Run one stage."""
    stages = {"prepare": prepare, "pretrain": pretrain, "finetune": finetune}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("stage", choices=[*stages, "classify", "try", "report"])
    parser.add_argument("--labels", help="number of labelled reviews, or all")
    parser.add_argument("--net", choices=NETS, default="ulmfit", help="of try")
    parser.add_argument("--set", nargs="*", default=[], help="of try: settings, such as lr=0.01")
    parser.add_argument("--minutes", type=float, default=50.0, help="start nothing after this time")
    parser.add_argument("--work", type=Path, default=Path("runs/imdb_ulmfit"))
    parser.add_argument("--smoke", action="store_true", help="seconds, on synthetic texts")
    given = parser.parse_args(arguments)
    work = given.work / "smoke" if given.smoke else given.work
    folder = Path(os.environ.get("FLAMBEAU_DATA", "."))
    study = make_study(folder, work, smoke=given.smoke)
    known = [name for name in study.recipe["classifier"] if name not in ("max_length", "seeds")]
    if given.stage in ("classify", "try") and given.labels not in known:
        parser.error(f"--labels is {given.labels}; the recipe has {', '.join(known)}.")
    if given.stage in stages:
        print(json.dumps(stages[given.stage](study)))
    elif given.stage == "classify":
        classify(study, given.labels, given.minutes)
    elif given.stage == "try":
        pairs = (each.partition("=") for each in given.set)
        changes = {name: json.loads(value) for name, _, value in pairs}
        print(json.dumps(try_settings(study, given.labels, given.net, changes)))
    else:
        from imdb_ulmfit_report import write_report

        page = RESULTS.parent / "ulmfit.md" if study.frozen else study.results / "ulmfit.md"
        write_report(study.results, page)


if __name__ == "__main__":
    main()
