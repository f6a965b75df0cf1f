"""The second run of the study of teacher forcing: controls, more seeds, and a gap that changes.

To the ways of ``teacher_forcing.py`` (``reference``, ``token``, ``adaptive``) it adds two controls:

- ``word dropout``: reference tokens are replaced by random ones, as often as ``token`` replaces
  them by predictions. A gain of ``token`` over it is a gain of predictions, not of any noise;
- ``longer``: plain teacher forcing for as many epochs as fit into the time of ``token``.

Two tasks:

- ``changing``: hidden states that rarely change, as in ``teacher_forcing.py``, observed correctly
  with probability 0.5 in the first third of the epochs, 0.95 in the second and 0.5 in the last. The
  gap between teacher-forced and free-running predictions therefore rises, falls and rises; a
  controller should follow it in both directions, and a schedule cannot. Scores: positions predicted
  correctly on test, at the end;
- ``multi30k``: the plan's model and number of epochs, English to German, five seeds. The floor of
  ``token`` and ``word dropout`` is chosen by BLEU on val, with a seed that is not scored; scores
  are BLEU on test 2017, which nothing was chosen on.

One job takes minutes (``changing``) to an hour (``multi30k``) on two CPU cores. Finished jobs are
lines of the results file and are not repeated; an interrupted one continues from its checkpoint
in the work folder. Repeat the first command until it says that all jobs are done:

    uv run python examples/teacher_forcing_controls.py run --out controls.jsonl --minutes 50
    uv run python examples/teacher_forcing_controls.py results --out controls.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

import torch
from scipy import stats
from teacher_forcing import (
    FALLS_OVER,
    N_STATES,
    TEST_SEED,
    VALID_SEED,
    curves,
    position_accuracy,
    sticky_states,
)
from torch import Tensor, nn

from flambeau import Batch, Learner, TrainingOptions
from flambeau import random as keyed
from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.task.task import StepContext
from flambeau_text import AdaptiveForcing, Greedy, TeacherForcing, TranslationData
from flambeau_text.forcing import Linear
from flambeau_text.tokenization.tokenizer import END_ID
from flambeau_text.translation.dataset import SOURCE, TARGET
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.task import TeacherForcedOutput, TranslationTask

WAYS = ("reference", "token", "word dropout", "adaptive", "longer")
SEEDS = {"changing": range(5), "multi30k": range(5)}
FLOORS = {"changing": (0.25,), "multi30k": (0.5, 0.7, 0.85)}
CHOICE_SEED = 100  # chooses the floor and is not scored
CHANGING_EPOCHS, MULTI30K_EPOCHS = 15, None  # None: as the plan says
FIRST_ID = END_ID + 1


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        task: "changing" or "multi30k".
        way: One of ``WAYS``.
        seed: Seed of weights, order and dropout.
        floor: Lowest probability of the reference token of ``token`` and ``word dropout``.
    """

    task: str
    way: str
    seed: int
    floor: float | None = None

    @property
    def chooses(self) -> bool:
        """Whether it chooses a floor on val and is not scored on test."""
        return self.seed == CHOICE_SEED


class ControlledTask(TranslationTask):
    """Translation with noise in the decoder's inputs, and in the sources.

    Attributes:
        kept: Maps the step to the probability that a reference token is read; others are random.
        stages: Error rate of the sources in each of equal parts of the run; empty for none.
        epochs: Number of epochs of the run.
    """

    kept: Linear | None = None
    stages: tuple[float, ...] = ()
    epochs: int = 1

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the output for noisy inputs; the targets of the loss are the reference."""
        batch = self._observed(batch, context)
        target = batch.targets[TARGET]
        if self.kept is not None and context.stage == "train":
            p = self.kept(context.step)
            is_word = (target >= FIRST_ID) | (target == 0)
            noisy = _with_random(target, is_word, 1 - p, self.n_outputs, batch, context, "inputs")
            batch = replace(batch, targets={**batch.targets, TARGET: noisy})
        found = cast(TeacherForcedOutput, super().forward(model, batch, context))
        return replace(found, targets=target[:, 1:])

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the sentences found for noisy sources."""
        return super().predict(model, self._observed(batch, context), context)

    def _observed(self, batch: Batch, context: StepContext) -> Batch:
        if not self.stages:
            return batch
        in_run = context.stage in ("train", "valid")
        part = context.epoch * len(self.stages) // self.epochs if in_run else -1
        rate = self.stages[min(part, len(self.stages) - 1)]
        source = batch.inputs[SOURCE]
        is_state, n_ids = source >= FIRST_ID, FIRST_ID + N_STATES
        noisy = _with_random(source, is_state, rate, n_ids, batch, context, "sources")
        return replace(batch, inputs={**batch.inputs, SOURCE: noisy})


def _with_random(
    tokens: Tensor,
    changeable: Tensor,
    rate: float,
    n_ids: int,
    batch: Batch,
    context: StepContext,
    purpose: str,
) -> Tensor:
    """Return the tokens with a fraction of them replaced by random words, keyed by sample."""
    samples = torch.arange(len(tokens)) if batch.indices is None else batch.indices
    # Evaluations see the same noise in every epoch.
    epoch = context.epoch if context.stage == "train" else 0
    draws = keyed.uniform(
        context.seed, purpose, epoch, samples.to(tokens.device), 2 * tokens.shape[1]
    )
    chosen, which = draws.chunk(2, 1)
    random = FIRST_ID + (which * (n_ids - FIRST_ID)).long()
    return torch.where(changeable & (chosen < rate), random, tokens)


# The two tasks


@cache
def changing_data() -> TranslationData:
    """Return hidden states as both sides; the observations are drawn in training."""
    sizes = {"train": (4_000, 0), "valid": (300, VALID_SEED), "test": (300, TEST_SEED)}
    parts = {
        part: [
            (" ".join(f"o{x}" for x in hidden), " ".join(f"s{x}" for x in hidden))
            for _, hidden in sticky_states(*size)
        ]
        for part, size in sizes.items()
    }
    options = TranslationOptions(tokenizer="word")
    return TranslationData.from_pairs(
        parts["train"], valid=parts["valid"], test=parts["test"], options=options
    )


@cache
def multi30k_data() -> TranslationData:
    """Return Multi30k with val for choices and test 2017 for scores."""
    folder = Path(os.environ.get("FLAMBEAU_DATA", ".")) / "multi30k"
    train, valid, test = (
        (folder / f"{name}.en.gz", folder / f"{name}.de.gz")
        for name in ("train", "val", "test_2017_flickr")
    )
    options = TranslationOptions(lowercase=True)
    return TranslationData.from_files(*train, valid=valid, test=test, options=options)


def settings(task: str) -> tuple[TranslationData, dict[str, Any], int | None, tuple[float, ...]]:
    """Return data, choices, number of epochs and error rates of the sources of a task."""
    if task == "multi30k":
        return multi30k_data(), {"probe": "off"}, MULTI30K_EPOCHS, ()
    config = {"embedding_dim": 32, "hidden_size": 64, "encoder_size": 32, "dropout": 0.0}
    choices = {
        "model_config": config | {"attention": "general"}, "batch_size": 64, "lr": 4e-3,
        "label_smoothing": 0.0, "precision": "fp32", "probe": "off", "decoding": Greedy(),
    }  # fmt: skip
    # The rate of random observations; one of eight is right by chance.
    return changing_data(), choices, CHANGING_EPOCHS, (0.57, 0.057, 0.57)


# Jobs


def jobs() -> list[Job]:
    """Return all jobs, those that choose first; floors that are not chosen yet are None."""
    found: list[Job] = []
    for task, floors in FLOORS.items():
        if len(floors) > 1:
            ways = ("token", "word dropout")
            found += [Job(task, way, CHOICE_SEED, floor) for way in ways for floor in floors]
        # All ways of a seed one after the other, so that differences exist early.
        found += [Job(task, way, seed) for seed in SEEDS[task] for way in WAYS]
    return found


def with_floor(job: Job, lines: Sequence[Mapping[str, Any]]) -> Job:
    """Return the job with the floor of its way: the only one, or the best on val."""
    if job.floor is not None or job.way not in ("token", "word dropout"):
        return job
    floors = FLOORS[job.task]
    if len(floors) == 1:
        return replace(job, floor=floors[0])
    tried = [
        line
        for line in lines
        if (line["task"], line["way"], line["seed"]) == (job.task, job.way, CHOICE_SEED)
    ]
    return replace(job, floor=max(tried, key=lambda line: line["valid"])["floor"])


def run_job(job: Job, work: Path, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Train, or continue an interrupted training, and return the scores."""
    data, choices, epochs, stages = settings(job.task)
    plain = Learner(data, "rnn", choices=choices, seed=job.seed, quiet=True)
    epochs = epochs or int(plain.plan["epochs"].value)
    task = ControlledTask(**cast("dict[str, Any]", plain.task.arguments()))
    task.stages, task.epochs = stages, epochs
    if job.way == "longer":
        epochs = equal_time_epochs(job, lines, epochs)
        task.epochs = epochs
    floor = 1.0 if job.floor is None else job.floor
    steps = epochs * plain.built.loader("train").steps_per_epoch
    falling = Linear(k=1.0, c=(1 - floor) / (FALLS_OVER * steps), floor=floor)
    if job.way == "token":
        task.teacher_forcing = TeacherForcing(falling)
    elif job.way == "word dropout":
        task.kept = falling
    controllers = (AdaptiveForcing(),) if job.way == "adaptive" else ()
    name = "-".join(str(value) for value in asdict(job).values()).replace(" ", "-")
    given = {k: v for k, v in choices.items() if k not in ("label_smoothing", "decoding")}
    run = Learner(
        data, "rnn", task=task, choices=given, seed=job.seed, quiet=True, folder=work / name,
        training=TrainingOptions(clip_norm=1.0, doctor=False, controllers=controllers),
    )  # fmt: skip
    if latest_checkpoint(work / name) is None:
        torch.manual_seed(job.seed)  # dropout
        run.fit(epochs)
    else:
        run.resume()
    return {**asdict(job), "epochs": epochs, **scores(run, job), **curves(run), **gaps(run)}


def equal_time_epochs(job: Job, lines: Sequence[Mapping[str, Any]], epochs: int) -> int:
    """Return the number of epochs of plain teacher forcing that take the time of ``token``."""
    seconds = {
        line["way"]: line["seconds"]
        for line in lines
        if (line["task"], line["seed"]) == (job.task, job.seed)
    }
    return max(epochs, round(epochs * seconds["token"] / seconds["reference"]))


def scores(run: Learner, job: Job) -> dict[str, float]:
    """Return the score on valid, and on test unless the job chooses."""
    found: dict[str, float] = {}
    for part in ("valid",) if job.chooses else ("valid", "test"):
        if job.task == "multi30k":
            found[part] = run.evaluate(part)["bleu"]
            continue
        # The task adds the noise of the last stage, which a prediction of raw texts has not.
        context = StepContext("evaluate", values=dict(run.task.values), seed=job.seed)
        texts: list[str] = []
        for batch in run.built.batches(part):
            found_sentences = run.task.predict(run.model.eval(), batch, context)
            texts += [each.text for each in run.task.decode(found_sentences)]
        references = cast(TranslationData, run.data).references(part)
        found[part] = 100 * position_accuracy(texts, references)
    return found


def gaps(run: Learner) -> dict[str, list[Any]]:
    """Return the measured gap and its standard error by epoch."""
    names = ("valid_free_running_gap", "valid_free_running_gap_error")
    return {name: [row.get(name) for row in run.history.rows] for name in names}


def is_done(job: Job, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the results have the job."""
    same = [
        line
        for line in lines
        if (line["task"], line["way"], line["seed"]) == (job.task, job.way, job.seed)
    ]
    return any(not job.chooses or line["floor"] == job.floor for line in same)


def run_all(out: Path, work: Path, minutes: float) -> bool:
    """Run the jobs that are missing in ``out``; return whether all are done."""
    began = time.monotonic()
    for job in jobs():
        lines = read_lines(out)
        if is_done(job, lines):
            continue
        if time.monotonic() - began > 60 * minutes:
            return False
        line = run_job(with_floor(job, lines), work, lines)
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{job.task}, {job.way}, seed {job.seed}: valid {line['valid']:.2f}")
    return True


def read_lines(out: Path) -> list[dict[str, Any]]:
    """Return the finished jobs."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of scores and of gains over ``reference`` with the same seeds."""
    rows = ["| task | way | seeds | score | gain | 95% interval | time |", "|---" * 7 + "|"]
    for task in FLOORS:
        scored = [line for line in lines if line["task"] == task and "test" in line]
        plain = {line["seed"]: line for line in scored if line["way"] == "reference"}
        for way in WAYS:
            own = {line["seed"]: line for line in scored if line["way"] == way}
            if not own:
                continue
            both = sorted(own.keys() & plain.keys())
            gains = [own[seed]["test"] - plain[seed]["test"] for seed in both]
            shown = ["", ""]
            if way != "reference" and len(gains) > 1:
                half = stats.t.ppf(0.975, len(gains) - 1) * stdev(gains) / len(gains) ** 0.5
                middle = mean(gains)
                shown = [f"{middle:+.1f}", f"{middle - half:+.1f} to {middle + half:+.1f}"]
            times = [own[seed]["seconds"] / plain[seed]["seconds"] for seed in both]
            ratio = f"{mean(times):.1f}×" if times else ""
            score = f"{mean(line['test'] for line in own.values()):.1f}"
            rows.append("| " + " | ".join([task, way, str(len(own)), score, *shown, ratio]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run the jobs that are missing, or print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "results"))
    parser.add_argument("--out", type=Path, default=Path("teacher-forcing-controls.jsonl"))
    parser.add_argument("--work", type=Path, default=Path("runs/teacher-forcing-controls"))
    parser.add_argument("--minutes", type=float, default=60.0, help="start no job after this time")
    given = parser.parse_args()
    if given.command == "results":
        print(table(read_lines(given.out)))
    elif run_all(given.out, given.work, given.minutes):
        print("All jobs are done.")
    else:
        print("Not all jobs are done: repeat the command.")


if __name__ == "__main__":
    main()
