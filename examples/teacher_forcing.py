"""Compare four ways of teacher forcing on a synthetic task and on Multi30k.

The four ways:

- ``reference``: plain teacher forcing;
- ``token``: scheduled sampling with a draw per token; the probability of the reference token falls
  from 1 to a floor (0.25 on the synthetic task, 0.85 on Multi30k) over the first 70% of the steps;
- ``batch``: the same schedule with one draw per batch, a common implementation: either all decoder
  inputs are reference tokens, or none;
- ``adaptive``: a controller sets the probability from the gap between teacher-forced and
  free-running scores on valid.

``states`` is a synthetic task: noisy observations of hidden states that rarely change. The previous
state is nearly always the next one, so a model that always reads the reference learns to repeat it
and to ignore the observations. ``multi30k`` reads the folder ``$FLAMBEAU_DATA/multi30k``. One run
takes minutes on one CPU thread.

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

WAYS = ("reference", "token", "batch", "adaptive")
N_STATES, STAYS, OBSERVED_CORRECTLY = 8, 0.9, 0.5
FALLS_OVER = 0.7  # fraction of the steps
VALID_SEED, TEST_SEED = 10_000, 20_000

States = NDArray[np.int64]


# The synthetic task


def sticky_states(n_samples: int, seed: int) -> list[tuple[States, States]]:
    """Draw sequences of 50 to 60 ``(observed, hidden)`` states.

    A hidden state equals the previous one with probability 0.9, else it is one of the 7 others. An
    observation is the hidden state with probability 0.5, else one of the 7 others.
    """
    draws = np.random.default_rng(seed)
    sequences = []
    for _ in range(n_samples):
        length = int(draws.integers(50, 61))
        jumps = draws.integers(1, N_STATES, length) * (draws.random(length) >= STAYS)
        hidden = (draws.integers(N_STATES) + np.cumsum(jumps)) % N_STATES
        errors = draws.integers(1, N_STATES, length) * (draws.random(length) >= OBSERVED_CORRECTLY)
        sequences.append(((hidden + errors) % N_STATES, hidden))
    return sequences


def most_probable_states(observed: States) -> States:
    """Return the most probable hidden state at each position, given all observations.

    It is the best possible prediction.

    Source:
        The forward-backward algorithm: Rabiner, "A tutorial on hidden Markov models" (1989).
    """
    transitions = np.full((N_STATES, N_STATES), (1 - STAYS) / (N_STATES - 1))
    np.fill_diagonal(transitions, STAYS)
    emissions = np.full((N_STATES, N_STATES), (1 - OBSERVED_CORRECTLY) / (N_STATES - 1))
    np.fill_diagonal(emissions, OBSERVED_CORRECTLY)
    likelihood = emissions[:, observed].T
    forward, backward = np.ones_like(likelihood), np.ones_like(likelihood)
    forward[0] = likelihood[0]
    for t in range(1, len(observed)):
        forward[t] = (forward[t - 1] @ transitions) * likelihood[t]
        forward[t] /= forward[t].sum()
    for t in range(len(observed) - 2, -1, -1):
        backward[t] = transitions @ (likelihood[t + 1] * backward[t + 1])
        backward[t] /= backward[t].sum()
    return (forward * backward).argmax(1)


def position_accuracy(predictions: list[str], references: list[str]) -> float:
    """Return the fraction of the references' words that are predicted at the same position."""
    correct = total = 0
    for prediction, reference in zip(predictions, references, strict=True):
        words = reference.split()
        correct += sum(map(operator.eq, words, prediction.split()))  # up to the shorter end
        total += len(words)
    return correct / total


def states_data(seed: int, n_samples: int = 4_000) -> TranslationData:
    """Return the data of the synthetic task; valid and test are the same for every seed."""
    train, valid, test = (
        [
            (" ".join(f"o{x}" for x in observed), " ".join(f"s{x}" for x in hidden))
            for observed, hidden in rows
        ]
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
    """Train a small recurrent model; return its accuracy on test and the best possible one."""
    choices = {
        "model_config": {"embedding_dim": 32, "hidden_size": 64, "encoder_size": 32, "dropout": 0.0}
        | {"attention": "general"},  # additive would store 60 × 60 × 64 numbers per sentence
        "batch_size": 64, "lr": 4e-3, "label_smoothing": 0.0, "precision": "fp32", "probe": "off",
    }  # fmt: skip
    data = states_data(seed)
    run = trained(data, choices, way, seed, epochs, floor=0.25)
    pairs = sticky_states(300, TEST_SEED)
    best = mean(float((most_probable_states(seen) == hidden).mean()) for seen, hidden in pairs)
    found = translate(run.predictor(), data.raw("test"), strategy=Greedy())
    accuracy = position_accuracy([each.text for each in found], data.references("test"))
    return {"score": 100 * accuracy, "best": 100 * best, **curves(run)}


# Multi30k


def multi30k_study(way: str, seed: int, epochs: int = 4) -> dict[str, Any]:
    """Train the plan's recurrent model at half its size; return BLEU on test.

    Twelve runs take an hour. The weights at the end of the run are used: nothing is selected on
    valid or test.
    """
    folder = Path(os.environ.get("FLAMBEAU_DATA", ".")) / "multi30k"
    train, valid, test = (
        (folder / f"{name}.en.gz", folder / f"{name}.de.gz")
        for name in ("train", "val", "test_2016_flickr")
    )
    options = TranslationOptions(lowercase=True, vocab_size=4_000)
    data = TranslationData.from_files(*train, valid=valid, test=test, options=options)
    config = {"embedding_dim": 128, "hidden_size": 128, "dropout": 0.2}
    run = trained(data, {"model_config": config, "probe": "off"}, way, seed, epochs, floor=0.85)
    return {"score": run.evaluate("test")["bleu"], **curves(run)}


# Both


def trained(
    data: TranslationData, choices: dict[str, Any], way: str, seed: int, epochs: int, floor: float
) -> Learner:
    """Return a learner trained with one of the ``WAYS``."""
    torch.manual_seed(seed)  # dropout
    options = TrainingOptions(
        clip_norm=1.0, doctor=False, controllers=(AdaptiveForcing(),) if way == "adaptive" else ()
    )
    run = Learner(data, "rnn", choices=choices, training=options, seed=seed, quiet=True)
    steps = epochs * run.built.loader("train").steps_per_epoch
    cast(TranslationTask, run.task).teacher_forcing = teacher_forcing(way, steps, seed, floor)
    run.fit(epochs)
    return run


def teacher_forcing(way: str, steps: int, seed: int, floor: float) -> TeacherForcing:
    """Return the settings of a way for a run of ``steps`` optimizer steps."""
    falling = Linear(k=1.0, c=(1 - floor) / (FALLS_OVER * steps), floor=floor)
    if way == "token":
        return TeacherForcing(falling)
    if way == "batch":
        draws = torch.rand(steps, generator=generator(seed, "a coin a batch")).tolist()
        return TeacherForcing(lambda step: float(draws[step] < falling(step)))
    return TeacherForcing()  # "adaptive" starts with it too


def curves(run: Learner) -> dict[str, Any]:
    """Return the run's duration and its scores by epoch."""
    names = (
        "teacher_forcing",
        "valid_bleu",
        "valid_teacher_forced_overlap",
        "valid_free_running_overlap",
    )
    rows = run.history.rows
    return {"seconds": sum(float(row["seconds"]) for row in rows)} | {
        name: [row.get(name) for row in rows] for name in names
    }


# Results


def table(lines: list[dict[str, Any]]) -> str:
    """Return a Markdown table of each task and way: mean score, and gain over ``reference``.

    Gains are differences of runs with the same seed; the interval of their mean is Student's, 95%.
    """
    rows = ["| task | way | seeds | score | gain | 95% interval |", "|---" * 6 + "|"]
    for task, way in product(STUDIES, WAYS):
        scores, plain = (
            {line["seed"]: line["score"] for line in lines if (line["task"], line["way"]) == cell}
            for cell in ((task, way), (task, "reference"))
        )
        gains = [scores[seed] - plain[seed] for seed in sorted(scores.keys() & plain.keys())]
        if way == "reference" or len(gains) < 2:
            gain = interval = ""
        else:
            half = stats.t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
            gain = f"{mean(gains):+.1f}"
            interval = f"{mean(gains) - half:+.1f} to {mean(gains) + half:+.1f}"
        if scores:
            score = f"{mean(scores.values()):.1f}"
            rows.append(f"| {task} | {way} | {len(scores)} | {score} | {gain} | {interval} |")
    return "\n".join(rows)


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Plot the free-running overlap and the teacher-forcing probability by epoch."""
    columns = {
        "valid_free_running_overlap": "free-running overlap",
        "teacher_forcing": "probability of the reference token",
    }
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex="col", layout="constrained")
    for (row, (column, title)), (at, task) in product(
        enumerate(columns.items()), enumerate(STUDIES)
    ):
        for color, way in enumerate(WAYS):
            runs = [line[column] for line in lines if (line["task"], line["way"]) == (task, way)]
            if runs and not (way == "batch" and column == "teacher_forcing"):  # always 0 or 1
                means = np.mean(runs, axis=0)
                epochs = range(1, len(means) + 1)
                axes[row, at].plot(epochs, means, f"C{color}.-", label=way)
        axes[row, at].set(title=task if row == 0 else "", ylabel=title if at == 0 else "")
        axes[row, at].grid(alpha=0.3)
    axes[0, 0].legend()
    for below in axes[1]:
        below.set(xlabel="epoch", ylim=(0, 1.05))
        below.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path)


STUDIES = {"states": states_study, "multi30k": multi30k_study}


def main() -> None:
    """Run one task with one way and append the result, or print and plot all results."""
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
        plot(lines, given.out.with_suffix(".svg"))
        return
    if given.way is None:
        parser.error(f"give a way of teacher forcing: {', '.join(WAYS)}")
    more = {} if given.epochs is None else {"epochs": given.epochs}
    found = STUDIES[given.task](given.way, given.seed, **more)
    line = {"task": given.task, "way": given.way, "seed": given.seed, **found}
    with given.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{given.task} {given.way} seed {given.seed}: {line['score']:.2f}")


if __name__ == "__main__":
    main()
