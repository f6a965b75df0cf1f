"""``MinimumRisk``: a training step that minimises the expected error of sampled translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task.task import Task
from flambeau.training.state import StepResult
from flambeau.training.step import Step
from flambeau_text.decoding.sampling import sample
from flambeau_text.decoding.strategy import Sampling
from flambeau_text.decoding.token_scores import max_lengths, sequence_log_probabilities
from flambeau_text.models.seq2seq import Seq2Seq, select
from flambeau_text.tokenization.tokenizer import PADDING_ID
from flambeau_text.translation.dataset import REFERENCE, SOURCE, TARGET
from flambeau_text.translation.scores import sentence_bleu
from flambeau_text.translation.task import TranslationTask

Quality = Callable[[str, str], float]


@dataclass(frozen=True)
class MinimumRisk:
    """A ``train_step`` for minimum-risk training.

    For each source ``n_samples`` translations are sampled and the reference is added. The risk is
    the mean of their errors, ``1 - quality / 100``, weighted by their probabilities, which are
    raised to the power ``alpha`` and normalised. The usual cross-entropy is added with the weight
    ``likelihood_weight``, which keeps the model close to what it has learned. Use it for the last
    epochs of a trained model:
    ``Learner(data, training=TrainingOptions(train_step=MinimumRisk()))`` after ``learner.load``.

    Attributes:
        n_samples: Number of sampled translations per source.
        alpha: Exponent of the probabilities; a small value weighs the candidates almost equally.
        likelihood_weight: Weight of the cross-entropy, 0 to 1; the risk has the weight
            ``1 - likelihood_weight``.
        quality: Function of a translation and its reference that returns a quality from 0 to 100;
            the default is the smoothed BLEU of the sentence.

    Source:
        Shen et al., "Minimum Risk Training for Neural Machine Translation" (arXiv 1512.02433),
        equations 7 to 9.
    """

    n_samples: int = 8
    alpha: float = 5e-3
    likelihood_weight: float = 0.3
    quality: Quality = sentence_bleu

    def __post_init__(self) -> None:
        if type(self.n_samples) is not int or self.n_samples < 1:
            raise InputError(
                f"n_samples must be a whole number of at least 1, not {self.n_samples!r}."
            )
        if not self.alpha > 0 or not 0 <= self.likelihood_weight <= 1:
            raise InputError(
                f"alpha must be above 0 and likelihood_weight between 0 and 1, not {self.alpha!r} "
                f"and {self.likelihood_weight!r}."
            )

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        """Run one step; the returned loss is the weighted sum of cross-entropy and risk.

        Raises:
            ArgumentError: The task is not a ``TranslationTask``, or the model is not a ``Seq2Seq``.
        """
        if not isinstance(task, TranslationTask) or not isinstance(model, Seq2Seq):
            raise ArgumentError(
                f"MinimumRisk trains a Seq2Seq with a TranslationTask, not {type(model).__name__} "
                f"with {type(task).__name__}."
            )
        tokens = sum(cast("float", batch.weight) for batch in micro_batches)
        sentences = sum(map(len, micro_batches))
        weight = self.likelihood_weight
        total: Tensor | None = None
        for batch in micro_batches:
            with step.autocast():
                forced = step.forward(model, batch, task)
                likelihood, _ = task.loss(forced, batch)
                risk = self.risk(model, batch, task, step.context.seed, step.context.step)
            part = weight * likelihood / tokens + (1.0 - weight) * risk / sentences
            step.backward(part)
            total = part.detach() if total is None else total + part.detach()
        if total is None:
            raise InputError("A training step needs at least one batch.")
        step.update(total)
        return StepResult(total, tokens)

    def risk(
        self, model: Seq2Seq, batch: Batch, task: TranslationTask, seed: int, step: int
    ) -> Tensor:
        """Return the expected error, 0 to 1 per sentence, summed over the batch.

        Args:
            model: The model, in training mode; candidates are sampled in eval mode.
            batch: Sources and references.
            task: The task, whose target tokenizer decodes the candidates.
            seed: The run's seed.
            step: The optimizer step; it is a part of the keys of the random draws.
        """
        source, mask = batch.inputs[SOURCE], batch.masks[SOURCE]
        candidates = self._candidates(model, batch, seed, step)
        count = candidates.shape[1]
        texts = [task.target.normalize(text) for text in batch.extras[REFERENCE]]
        errors = [
            [1.0 - self.quality(task.target.decode(row), text) / 100.0 for row in rows]
            for rows, text in zip(candidates.tolist(), texts, strict=True)
        ]
        memory = model.encode(source, mask)
        each = torch.arange(len(source), device=source.device).repeat_interleave(count)
        flat = sequence_log_probabilities(model, select(memory, each), candidates.flatten(0, 1))
        scores = flat.view(len(source), count) * self.alpha
        # A sentence that was sampled more than once counts once.
        scores = scores.masked_fill(_is_repeated(candidates), -torch.inf)
        return (scores.softmax(1) * scores.new_tensor(errors)).sum()

    @torch.no_grad()
    def _candidates(self, model: Seq2Seq, batch: Batch, seed: int, step: int) -> Tensor:
        """Return references and sampled sentences, int64 ``(batch, n_samples + 1, longest)``."""
        source, mask = batch.inputs[SOURCE], batch.masks[SOURCE]
        n = self.n_samples
        training = [module for module in model.modules() if module.training]
        model.eval()
        memory = model.encode(source, mask)
        each = torch.arange(len(source), device=source.device).repeat_interleave(n)
        keys = torch.arange(len(source)) if batch.indices is None else batch.indices
        keys = (keys.unsqueeze(1) * n + torch.arange(n)).flatten()
        limit = max_lengths(mask, 1.5, 10)[each]
        sampling = Sampling(seed=keyed.key(seed, "minimum risk", step) % 2**31)
        sampled = sample(model, select(memory, each), limit, sampling, keys).tokens[:, 0]
        for module in training:
            module.training = True
        reference = batch.targets[TARGET][:, 1:]
        longest = max(sampled.shape[1], reference.shape[1])
        sampled, reference = (
            nn.functional.pad(rows, (0, longest - rows.shape[1]), value=PADDING_ID)
            for rows in (sampled, reference)
        )
        return torch.cat([reference.unsqueeze(1), sampled.view(len(source), n, longest)], 1)


def _is_repeated(candidates: Tensor) -> Tensor:
    """Return whether a candidate equals an earlier one of the same source, bool ``(batch, n)``."""
    same = (candidates.unsqueeze(2) == candidates.unsqueeze(1)).all(3)
    return same.tril(-1).any(2)
