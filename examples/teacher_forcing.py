"""What a decoder should read in training: true words, its own now and then, or as many as it needs.

Four ways on two tasks:

- ``true``: plain teacher forcing;
- ``token``: scheduled sampling, a coin a word; the probability of the true word goes from 1 to a
  floor (0.25 on the made task, 0.85 on Multi30k) over the first 70% of the steps;
- ``batch``: the same with one coin for a whole batch, as many programs have it: all true or none;
- ``adaptive``: a controller moves the probability by what forcing hides on valid.

``states`` is a made task: hidden states that change now and then, seen through noise. The true
state before is nearly always the answer, so a model that always reads it never learns to look at
the evidence. ``multi30k`` reads the folder ``$FLAMBEAU_DATA/multi30k``.

    uv run python examples/teacher_forcing.py states token --seed 0 --out results.jsonl
    uv run python examples/teacher_forcing.py multi30k adaptive --seed 2 --out results.jsonl
    uv run python examples/teacher_forcing.py results --out results.jsonl
"""

from __future__ import annotations

import argparse
import json
import operator
import os
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from flambeau import Learner, TrainingOptions
from flambeau.random import generator
from flambeau_text import AdaptiveForcing, TeacherForcing, TranslationData, TranslationOptions
from flambeau_text.decoding.strategy import Greedy
from flambeau_text.forcing import Linear
from flambeau_text.translation.task import TranslationTask
from flambeau_text.translation.translate import translate

WAYS = ("true", "token", "batch", "adaptive")
N_STATES, STAYS, SEEN_RIGHT = 8, 0.9, 0.5
FALLS_OVER = 0.7  # share of the steps
VALID_SEED, TEST_SEED = 10_000, 20_000

States = NDArray[np.int64]


# The made task


def sticky_states(n_samples: int, seed: int) -> list[tuple[States, States]]:
    """Sequences of 50 to 60 ``(observed, hidden)`` states.

    A hidden state stays with probability 0.9, else becomes any of the 7 others; what is observed is
    the hidden state with probability 0.5, else any of the 7 others.
    """
    draws = np.random.default_rng(seed)
    made = []
    for _ in range(n_samples):
        places = int(draws.integers(50, 61))
        jumps = draws.integers(1, N_STATES, places) * (draws.random(places) >= STAYS)
        hidden = (draws.integers(N_STATES) + np.cumsum(jumps)) % N_STATES
        errors = draws.integers(1, N_STATES, places) * (draws.random(places) >= SEEN_RIGHT)
        made.append(((hidden + errors) % N_STATES, hidden))
    return made


def likeliest(observed: States) -> States:
    """The likeliest hidden state at each place, all observations given: no answer is better.

    Source:
        The forward-backward algorithm: Rabiner, "A tutorial on hidden Markov models" (1989).
    """
    moves = np.full((N_STATES, N_STATES), (1 - STAYS) / (N_STATES - 1))
    np.fill_diagonal(moves, STAYS)
    seen = np.full((N_STATES, N_STATES), (1 - SEEN_RIGHT) / (N_STATES - 1))
    np.fill_diagonal(seen, SEEN_RIGHT)
    likelihood = seen[:, observed].T
    forward, backward = np.ones_like(likelihood), np.ones_like(likelihood)
    forward[0] = likelihood[0]
    for place in range(1, len(observed)):
        forward[place] = (forward[place - 1] @ moves) * likelihood[place]
        forward[place] /= forward[place].sum()
    for place in range(len(observed) - 2, -1, -1):
        backward[place] = moves @ (likelihood[place + 1] * backward[place + 1])
        backward[place] /= backward[place].sum()
    return (forward * backward).argmax(1)


def right_places(answers: list[str], references: list[str]) -> float:
    """Share of the references' words that stand in the answer at the same place."""
    right = total = 0
    for answer, reference in zip(answers, references, strict=True):
        words = reference.split()
        right += sum(map(operator.eq, words, answer.split()))  # up to the end of the shorter one
        total += len(words)
    return right / total


def states_data(seed: int, n_samples: int = 4_000) -> TranslationData:
    """The made task; valid, where the controller looks, and test are the same for every seed."""
    train, valid, test = (
        [(" ".join(f"o{x}" for x in seen), " ".join(f"s{x}" for x in true)) for seen, true in rows]
        for rows in (
            sticky_states(n_samples, seed),
            sticky_states(300, VALID_SEED),
            sticky_states(300, TEST_SEED),
        )
    )
    return TranslationData.from_pairs(
        train, valid=valid, test=test, options=TranslationOptions(tokenizer="word")
    )


def states_study(way: str, seed: int, epochs: int = 10) -> dict[str, Any]:
    """A small recurrent model, its share of right states on test, and the best that there is."""
    choices = {
        "size": {"embedding_dim": 32, "hidden_size": 64, "encoder_size": 32, "dropout": 0.0}
        | {"attention": "general"},  # additive ones would hold 60 × 60 × 64 numbers a sentence
        "batch_size": 64, "lr": 4e-3, "label_smoothing": 0.0, "precision": "fp32", "probe": "off",
    }  # fmt: skip
    data = states_data(seed)
    run = fitted(data, choices, way, seed, epochs, floor=0.25)
    pairs = sticky_states(300, TEST_SEED)
    best = mean(float((likeliest(seen) == true).mean()) for seen, true in pairs)
    found = translate(run.predictor(), data.raw("test"), strategy=Greedy())
    share = right_places([each.text for each in found], data.references("test"))
    return {"score": 100 * share, "best": 100 * best, **told(run)}


# Multi30k


def multi30k_study(way: str, seed: int, epochs: int = 4) -> dict[str, Any]:
    """The plan's recurrent model at half its size, so that twelve runs take an hour; BLEU on test.

    The weights are those at the end of the run: nothing is chosen, on valid or on test.
    """
    folder = Path(os.environ.get("FLAMBEAU_DATA", ".")) / "multi30k"
    train, valid, test = (
        (folder / f"{name}.en.gz", folder / f"{name}.de.gz")
        for name in ("train", "val", "test_2016_flickr")
    )
    options = TranslationOptions(lowercase=True, vocab_size=4_000)
    data = TranslationData.from_files(*train, valid=valid, test=test, options=options)
    size = {"embedding_dim": 128, "hidden_size": 128, "dropout": 0.2}
    run = fitted(data, {"size": size, "probe": "off"}, way, seed, epochs, floor=0.85)
    return {"score": run.evaluate("test")["bleu"], **told(run)}


# Both


def fitted(
    data: TranslationData, choices: dict[str, Any], way: str, seed: int, epochs: int, floor: float
) -> Learner:
    """A learner after its run; the way says what the decoder read in training."""
    torch.manual_seed(seed)  # dropout
    options = TrainingOptions(
        clip_norm=1.0, doctor=False, controllers=(AdaptiveForcing(),) if way == "adaptive" else ()
    )
    run = Learner(data, "rnn", choices=choices, training=options, seed=seed, quiet=True)
    steps = epochs * run.built.loader("train").steps_per_epoch
    cast(TranslationTask, run.task).forcing = forcing(way, steps, seed, floor)
    run.fit(epochs)
    return run


def forcing(way: str, steps: int, seed: int, floor: float) -> TeacherForcing:
    """What the way means over so many optimizer steps."""
    falling = Linear(k=1.0, c=(1 - floor) / (FALLS_OVER * steps), floor=floor)
    if way == "token":
        return TeacherForcing(falling)
    if way == "batch":
        coins = torch.rand(steps, generator=generator(seed, "a coin a batch")).tolist()
        return TeacherForcing(lambda step: float(coins[step] < falling(step)))
    return TeacherForcing()  # "adaptive" begins there, too


def told(run: Learner) -> dict[str, Any]:
    """What the history says of each epoch."""
    names = ("teacher_forcing", "valid_bleu", "valid_forced_overlap", "valid_free_overlap")
    rows = run.history.rows
    return {"seconds": sum(float(row["seconds"]) for row in rows)} | {
        name: [row.get(name) for row in rows] for name in names
    }


# What came out


def table(lines: list[dict[str, Any]]) -> str:
    """A row a task and way: its mean score, and its gain over true words alone, seed by seed.

    The interval of the mean gain is Student's, 95%.
    """
    rows = ["| task | way | seeds | score | gain | 95% interval |", "|---" * 6 + "|"]
    for task, way in product(STUDIES, WAYS):
        scores, plain = (
            {line["seed"]: line["score"] for line in lines if (line["task"], line["way"]) == cell}
            for cell in ((task, way), (task, "true"))
        )
        gains = [scores[seed] - plain[seed] for seed in sorted(scores.keys() & plain.keys())]
        if way == "true" or len(gains) < 2:
            gain = interval = ""
        else:
            half = stats.t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
            gain = f"{mean(gains):+.1f}"
            interval = f"{mean(gains) - half:+.1f} to {mean(gains) + half:+.1f}"
        if scores:
            score = f"{mean(scores.values()):.1f}"
            rows.append(f"| {task} | {way} | {len(scores)} | {score} | {gain} | {interval} |")
    return "\n".join(rows)


def picture(lines: list[dict[str, Any]], path: Path) -> None:
    """Epoch by epoch: how much the model gets right by itself, and how many true words it read."""
    columns = {
        "valid_free_overlap": "share of the reference's words, free",
        "teacher_forcing": "probability of the true word",
    }
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex="col", layout="constrained")
    for (row, (column, title)), (place, task) in product(
        enumerate(columns.items()), enumerate(STUDIES)
    ):
        for color, way in enumerate(WAYS):
            runs = [line[column] for line in lines if (line["task"], line["way"]) == (task, way)]
            if runs and not (way == "batch" and column == "teacher_forcing"):  # 0 or 1 there
                means = np.mean(runs, axis=0)
                epochs = range(1, len(means) + 1)
                axes[row, place].plot(epochs, means, f"C{color}.-", label=way)
        axes[row, place].set(title=task if row == 0 else "", ylabel=title if place == 0 else "")
        axes[row, place].grid(alpha=0.3)
    axes[0, 0].legend()
    for below in axes[1]:
        below.set(xlabel="epoch", ylim=(0, 1.05))
        below.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path)


STUDIES = {"states": states_study, "multi30k": multi30k_study}


def main() -> None:
    """Runs one cell and adds a line to a file, or tells and draws what a file holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=[*STUDIES, "results"])
    parser.add_argument("way", nargs="?", choices=WAYS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, default=Path("teacher-forcing.jsonl"))
    given = parser.parse_args()
    if given.task == "results":
        lines = [json.loads(line) for line in given.out.read_text().splitlines()]
        print(table(lines))
        picture(lines, given.out.with_suffix(".svg"))
        return
    if given.way is None:
        parser.error(f"say how the decoder is trained: {', '.join(WAYS)}")
    more = {} if given.epochs is None else {"epochs": given.epochs}
    found = STUDIES[given.task](given.way, given.seed, **more)
    line = {"task": given.task, "way": given.way, "seed": given.seed, **found}
    with given.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{given.task} {given.way} seed {given.seed}: {line['score']:.2f}")


if __name__ == "__main__":
    main()
