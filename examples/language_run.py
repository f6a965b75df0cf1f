"""Train language models on a CPU within minutes: a sampled loss, and runs that continue.

``SampledWords`` is why an hour on two cores may suffice for 33,000 words: with 256 features and all
words the output layer takes more than half of a step of an AWD-LSTM. One thread of a shared EPYC
trained 966 tokens per CPU-second with all words, 2,151 with 4,000 and a sample of 2,000 (3,001 in
bf16), and 1,479 with a decoder of 4 blocks of that width. ``wikitext2.py`` and ``imdb_ulmfit.py``
use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flambeau import Batch, Learner
from flambeau import random as keyed
from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.task.task import StepContext
from flambeau_bench.machine import host
from flambeau_text import LanguageModelData
from flambeau_text.language.stream import NEXT, TOKENS
from flambeau_text.language.task import LanguageModelTask, LanguageOutput

# ---------------------------------------------------------------- the sampled loss


@dataclass(frozen=True)
class SampledOutput(LanguageOutput):
    """The output of a training step, with the words that the loss compares the target with.

    Attributes:
        rows: Ids of the compared words, int64 ``(words,)``.
        log_shares: Logarithm of the probability with which each was drawn, ``(words,)``.
    """

    rows: Tensor
    log_shares: Tensor


class SampledWords(LanguageModelTask):
    """Language modelling whose training loss sums over frequent words and a sample of the others.

    The target's own logit is always exact, and each sampled word counts for all words that it
    stands for (the sum of exponentials is divided by the probability of the draw), so that the
    expected sum is that over all words. Evaluation uses all words.

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
        others = self.n_outputs - self.exact
        if context.stage != "train" or not 0 < self.sampled < others:
            return found
        draws = keyed.generator(context.seed, "sampled words", context.step)
        drawn = torch.randperm(others, generator=draws)[: self.sampled] + self.exact
        rows = torch.cat([torch.arange(self.exact), drawn])
        shares = torch.ones(len(rows))
        shares[self.exact :] = self.sampled / others
        device = found.features.device
        return SampledOutput(
            found.features,
            found.raw,
            found.output,
            in_training=True,
            rows=rows.to(device),
            log_shares=shares.log().to(device),
        )

    def likelihood(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed negative log-likelihood, and the number of tokens."""
        if not isinstance(outputs, SampledOutput):
            return super().likelihood(outputs, batch)
        mask = batch.masks[TOKENS].flatten()
        losses = sampled_losses(
            outputs.output,
            outputs.features.flatten(0, 1),
            batch.targets[NEXT].flatten(),
            (outputs.rows, outputs.log_shares),
        )
        return (losses * mask).sum(), mask.sum()


def sampled_losses(
    output: nn.Module, features: Tensor, targets: Tensor, sample: tuple[Tensor, Tensor]
) -> Tensor:
    """Return the loss of each token, float32 ``(tokens,)``; exact if all words are in the sample.

    Args:
        output: A linear output layer.
        features: ``(tokens, size)``.
        targets: int64 ``(tokens,)``.
        sample: Ids of the compared words, each once, and the logarithms of their shares.
    """
    assert isinstance(output, nn.Linear), output
    rows, log_shares = sample
    # One read of the weights for both, so that their gradient is added up once.
    words = torch.cat([rows, targets])
    weights = F.embedding(words, output.weight)
    shift, own_shift = -log_shares, None
    if output.bias is not None:
        bias = F.embedding(words, output.bias.unsqueeze(1)).squeeze(1)
        shift, own_shift = bias[: len(rows)] - log_shares, bias[len(rows) :]
    scores = F.linear(features, weights[: len(rows)], shift.to(features.dtype)).float()
    own = (features * weights[len(rows) :].to(features.dtype)).float().sum(-1)
    own = own if own_shift is None else own + own_shift.float()
    # The target counts once, with its exact logit.
    column = torch.full((output.out_features,), -1, device=rows.device)
    column[rows] = torch.arange(len(rows), device=rows.device)
    at = column[targets]
    found = (at >= 0).nonzero().squeeze(1)
    scores.index_put_((found, at[found]), scores.new_tensor(-torch.inf))
    return torch.logaddexp(scores.logsumexp(-1), own) - own


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
