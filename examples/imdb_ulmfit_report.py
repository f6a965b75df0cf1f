"""Write the table, the plot and the page of ``imdb_ulmfit.py`` from its results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
from frozen_recipe import read_log
from scipy import stats

NETS = {"ulmfit": "with a language model", "scratch": "from scratch"}
BASELINES = {"tfidf": "TF-IDF + logistic regression", "nb_svm": "NB-SVM"}
Entries = Sequence[Mapping[str, Any]]


def write_report(results: Path, page: Path) -> None:
    """Write the page, and its plot beside it.

    Args:
        results: Folder with the results of the stages.
        page: The Markdown file.

    ``remarks.md`` in ``results``, which is written by hand, becomes a part of the page.
    """
    every_look = read_log(results / "looks.jsonl")
    looks = last_version(every_look)
    text = [INTRODUCTION]
    prepared = results / "prepare.json"
    if prepared.exists():
        text += [_about_texts(json.loads(prepared.read_text()))]
    stages = [read_log(results / f"{stage}.jsonl") for stage in ("pretrain", "finetune")]
    if runs := [lines[0] for lines in stages if lines]:
        text += ["## Language model\n", _language_models(runs)]
    if looks:
        plot(looks, page.with_suffix(".svg"))
        text += ["## Classifiers\n", table(looks) + "\n", CLASSIFIERS]
        text += [f"![Accuracy by the number of labelled reviews]({page.stem}.svg)\n"]
    remarks = results / "remarks.md"
    if remarks.exists():
        text += [remarks.read_text().rstrip() + "\n"]
    if every_look:
        text += ["## Every look at the test reviews\n", _all_looks(every_look, looks)]
    page.write_text("\n".join(text).rstrip() + "\n")


def last_version(looks: Entries) -> list[Mapping[str, Any]]:
    """Return the looks of the last version of recipe and code for each number of labels."""
    last = {entry["labels"]: entry["version"] for entry in looks}
    return [entry for entry in looks if entry["version"] == last[entry["labels"]]]


def table(looks: Entries) -> str:
    """Return a Markdown table of accuracies, with the gain of the language model."""
    head = ["labels", *NETS.values(), "gain", "95% interval", *BASELINES.values(), "time"]
    rows = [head, ["---"] * len(head)]
    for labels in dict.fromkeys(entry["labels"] for entry in looks):
        of_net = {
            net: {e["seed"]: e for e in looks if (e["labels"], e["net"]) == (labels, net)}
            for net in NETS
        }
        pretrained, scratch = of_net["ulmfit"], of_net["scratch"]
        gains = [
            pretrained[seed]["accuracy"] - scratch[seed]["accuracy"]
            for seed in sorted(pretrained.keys() & scratch.keys())
        ]
        shown, interval = gain_of(gains)
        row = [labels, *(_accuracy(each.values(), "accuracy") for each in of_net.values())]
        row += [shown, interval]
        row += [_accuracy(pretrained.values(), name) for name in BASELINES]
        seconds = [entry["seconds"] for entry in pretrained.values()]
        rows.append([*row, f"{mean(seconds) / 60:.1f} min" if seconds else ""])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def gain_of(gains: Sequence[float]) -> tuple[str, str]:
    """Return the mean of differences, and Student's 95% interval of it, as text."""
    if len(gains) < 2:
        return "", ""
    middle = mean(gains)
    half = stats.t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
    return f"{middle:+.3f}", f"{middle - half:+.3f} to {middle + half:+.3f}"


def _accuracy(entries: Any, name: str) -> str:
    values = [entry[name] for entry in entries if name in entry]
    if not values:
        return ""
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def plot(looks: Entries, path: Path) -> None:
    """Plot the accuracy by the number of labelled reviews."""
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    shown = [("accuracy", net, name) for net, name in NETS.items()]
    shown += [(column, "ulmfit", name) for column, name in BASELINES.items()]
    for color, (column, net, name) in enumerate(shown):
        points = sorted((e["train_reviews"], e[column]) for e in looks
                        if e["net"] == net and column in e)  # fmt: skip
        if points:
            sizes = sorted({size for size, _ in points})
            means = [mean(value for size, value in points if size == each) for each in sizes]
            style = "-" if column == "accuracy" else "--"
            axis.plot(sizes, means, f"C{color}{style}", label=name)
            axis.plot(*zip(*points, strict=True), f"C{color}.")
    axis.set(xlabel="labelled reviews", ylabel="accuracy", xscale="log")
    numbers = sorted({entry["train_reviews"] for entry in looks})
    axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path)
    plt.close(figure)


def _about_texts(found: Mapping[str, Any]) -> str:
    return (
        f"The language model read {found['language_reviews']:,} train reviews "
        f"({found['language_words']:,} words; vocabulary {found['vocabulary']:,}). "
        f"{found['near_duplicates_of_scored_reviews_in_train']:,} of the "
        f"{found['train_reviews']:,} train reviews are near duplicates of one of the "
        f"{found['scored_reviews']:,} scored reviews (half of the word 8-grams of the shorter "
        "one); neither the language model nor a classifier is trained on them.\n"
    )


def _language_models(runs: Entries) -> str:
    rows = [["stage", "minutes", "words/s", "perplexity before", "after", "processor", "precision"]]
    rows.append(["---"] * len(rows[0]))
    for run in runs:
        speed = f"{run['tokens_per_second']:,}"
        scores = [run["valid_word_perplexity_before"], run["valid_word_perplexity"]]
        machine = f"{run['cpu']}, {run['threads']} threads"
        row = [run["stage"], run["minutes"], speed, *scores, machine, run["precision"]]
        rows.append([str(each) for each in row])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _all_looks(every_look: Entries, looks: Entries) -> str:
    head = [
        "when (UTC)",
        "labels",
        "net",
        "seed",
        "commit of the recipe",
        "accuracy",
        "in the table",
    ]
    rows = [head, ["---"] * len(head)]
    for entry in every_look:
        net, score = NETS[entry["net"]], f"{entry['accuracy']:.4f}"
        row = [entry["when"], entry["labels"], net, entry["seed"], entry["commit"], score]
        row.append("yes" if entry in looks else "no, an earlier recipe")
        rows.append([str(each) for each in row])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


INTRODUCTION = """\
# ULMFiT: what a language model adds to a classifier with few labels

Written by `python examples/imdb_ulmfit.py report`. An AWD-LSTM is trained on WikiText-2, then on
train reviews of IMDb without their labels, and becomes a classifier with concat pooling, trained by
gradual unfreezing. It is compared with the same network from random weights, which trains for the
same time with its own learning rate, and with linear models of words. The settings are in
[`imdb_ulmfit.json`](../../examples/text_recipes/imdb_ulmfit.json), chosen on 1,000 train reviews
([`trials.jsonl`](ulmfit/trials.jsonl)) that no model is trained on.
"""

CLASSIFIERS = """
Accuracy on the scored reviews, mean and standard deviation over the seeds, each of which draws
other labelled reviews and weights. The gain is the difference from the network from scratch with
the same seed, with Student's interval over the seeds. "all" has the labels of all train reviews
but near duplicates and the 1,000 held-out reviews, one seed, and ends with its best weights on the
latter.
"""
