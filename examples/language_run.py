"""Train language models on a CPU within minutes: a sampled loss, and runs that continue.

``SampledWords`` is why an hour on two cores suffices for 33,000 words: with 256 features and all
words the output layer takes most of a step of an AWD-LSTM. One thread of a Xeon with AMX, beside
other work, trained 1,140 tokens per CPU-second with all words, 3,020 with 4,000 and a sample of
2,000, and 5,800 of these in bf16; a decoder of 4 blocks of that width 2,040, and 2,360 in bf16.
``wikitext2.py`` and ``imdb_ulmfit.py`` use it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flambeau import Batch, Learner
from flambeau import random as keyed
from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.task.task import StepContext
from flambeau_bench.machine import host
from flambeau_text import LanguageModelData
from flambeau_text.language.stream import NEXT, TOKENS
from flambeau_text.language.task import LanguageModelTask, LanguageOutput
from flambeau_text.token_loss import linear_token_loss

# ---------------------------------------------------------------- the sampled loss


@dataclass(frozen=True)
class SampledOutput(LanguageOutput):
    """The output of a training step, with the words that the loss compares the target with.

    Attributes:
        words: Ids of the compared words, int64 ``(words,)``, each once, with all targets.
        log_shares: Logarithm of the probability with which each was drawn, ``(words,)``.
    """

    words: Tensor
    log_shares: Tensor


class SampledWords(LanguageModelTask):
    """Language modelling whose training loss sums over some words and a sample of the others.

    The frequent words and all targets of the step are always compared, and each sampled word counts
    for all words that it stands for (its exponential is divided by the probability of the draw),
    so that the expected sum of exponentials is that over all words. Evaluation uses all words.

    Attributes:
        exact: Number of most frequent words that are always compared.
        sampled: Number of the other words that are drawn in each step, without replacement; 0
            compares with all words.

    Source:
        The estimator of Bengio and Senécal, "Adaptive Importance Sampling to Accelerate Training of
        a Neural Probabilistic Language Model" (2008), with one draw for all positions of a step.
    """

    exact = 0
    sampled = 0

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> LanguageOutput:
        """Return the features of each position, in training with the words of this step."""
        found = super().forward(model, batch, context)
        if context.stage != "train" or self.sampled == 0:
            return found
        targets = batch.targets[NEXT][batch.masks[TOKENS]]
        draws = keyed.generator(context.seed, "sampled words", context.step)
        words, log_shares = draw_words(targets, self.n_outputs, self.exact, self.sampled, draws)
        return SampledOutput(
            found.features,
            found.raw,
            found.output,
            in_training=True,
            words=words,
            log_shares=log_shares,
        )

    def likelihood(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed negative log-likelihood, and the number of tokens."""
        if not isinstance(outputs, SampledOutput):
            return super().likelihood(outputs, batch)
        mask = batch.masks[TOKENS].flatten()
        features, targets = outputs.features.flatten(0, 1), batch.targets[NEXT].flatten()
        sample = outputs.words, outputs.log_shares
        return sampled_loss(outputs.output, features, targets, mask, sample), mask.sum()


def draw_words(
    targets: Tensor, vocab_size: int, exact: int, sampled: int, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the ids of the compared words, and the logarithms of their probabilities.

    Args:
        targets: int64, the targets of a step, which are always compared.
        vocab_size: Number of words.
        exact: Number of the first words that are always compared.
        sampled: Number of words that are drawn from the others; all of them if they are fewer.
        draws: Generator of the draw.
    """
    compared = torch.zeros(vocab_size, dtype=torch.bool, device=targets.device)
    compared[:exact] = True
    compared[targets] = True
    always, others = compared.nonzero().squeeze(1), (~compared).nonzero().squeeze(1)
    drawn = others[torch.randperm(len(others), generator=draws)[:sampled].to(targets.device)]
    log_shares = torch.zeros(len(always) + len(drawn), device=targets.device)
    log_shares[len(always) :] = math.log(max(1, len(drawn)) / max(1, len(others)))
    return torch.cat([always, drawn]), log_shares


def sampled_loss(
    output: nn.Module,
    features: Tensor,
    targets: Tensor,
    mask: Tensor,
    sample: tuple[Tensor, Tensor],
) -> Tensor:
    """Return the summed loss of the tokens, a scalar; exact if all words are in the sample.

    Args:
        output: A linear output layer.
        features: ``(tokens, size)``.
        targets: int64 ``(tokens,)``, each in the sample where the mask is True.
        mask: bool ``(tokens,)``, False at targets that are ignored.
        sample: The two tensors of `draw_words`.
    """
    assert isinstance(output, nn.Linear), output
    words, log_shares = sample
    weight, bias = output.weight[words], -log_shares.to(output.weight.dtype)
    if output.bias is not None:
        bias = bias + output.bias[words]
    columns = torch.zeros(output.out_features, dtype=torch.int64, device=words.device)
    columns[words] = torch.arange(len(words), device=words.device)
    return linear_token_loss((weight, bias), features, columns[targets], mask)[0]


# ---------------------------------------------------------------- runs


def make_learner(
    data: LanguageModelData, recipe: Mapping[str, Any], folder: Path, *, quiet: bool = False
) -> Learner:
    """Return the learner of a recipe.

    Args:
        data: The documents.
        recipe: "model"; "choices" of the plan; "sample" with "exact" and "sampled" words; "seed".
        folder: Where checkpoints are written.
        quiet: Whether to show no progress.
    """
    choices, seed = dict(recipe["choices"]), recipe.get("seed", 0)
    plain = Learner(data, recipe["model"], choices=choices, quiet=True)
    task = SampledWords(**plain.task.arguments())
    for name, value in recipe.get("sample", {}).items():
        setattr(task, name, value)
    choices.pop("regularisation", None)  # it is an argument of the task
    return Learner(
        data, recipe["model"], task=task, choices=choices, seed=seed, folder=folder, quiet=quiet
    )


def train_or_continue(learner: Learner, minutes: float | None, folder: Path) -> Learner:
    """Train, or continue a run that was interrupted.

    Args:
        learner: The learner.
        minutes: Time budget, of which an interrupted run uses the rest; None trains for the plan's
            epochs.
        folder: The learner's folder.
    """
    if latest_checkpoint(folder) is not None:
        learner.resume()
    elif minutes is None:
        learner.fit()
    else:
        learner.fit_auto(minutes)
    return learner


def curve(learner: Learner) -> list[dict[str, Any]]:
    """Return minutes, step and scores of each evaluation."""
    names = ("train_loss", "valid_loss", "valid_word_perplexity", "lr")
    lines: list[dict[str, Any]] = []
    seconds = 0.0
    for row in learner.history.rows:
        seconds += float(row["seconds"])
        scores = {name: round(float(row[name]), 6) for name in names if name in row}
        lines.append(
            {
                "kind": "evaluation",
                "minutes": round(seconds / 60, 2),
                "step": row["step"],
                "phase": row["phase"],
                **scores,
            }
        )
    return lines


def summary(learner: Learner) -> dict[str, Any]:
    """Return what the run took, and where it ran."""
    rows, plan = learner.history.rows, learner.plan
    steps, seconds = int(rows[-1]["step"]), sum(float(row["seconds"]) for row in rows)
    per_step = plan["batch_size"].value * plan["bptt"].value
    auto = plan["auto"].evidence  # empty without a time budget
    return {
        "seed": learner.seed,
        "parameters": sum(each.numel() for each in learner.model.parameters()),
        "minutes": round(seconds / 60, 1),
        "budget_minutes": round(auto["budget_s"] / 60, 1) if auto.get("budget_s") else None,
        "steps": steps,
        "epochs": auto.get("epochs"),
        "tokens_per_second": round(steps * per_step / max(seconds, 1e-9)),
        "precision": plan["precision"].value,
        "threads": plan["num_threads"].value,
        "torch": torch.__version__,
        **host(),
    }


def write_run(path: Path, record: Mapping[str, Any], lines: list[dict[str, Any]]) -> None:
    """Write the result of a run: a line for the run, then one for each evaluation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"kind": "run", **record}, *lines]
    path.write_text("".join(json.dumps(each) + "\n" for each in entries))
