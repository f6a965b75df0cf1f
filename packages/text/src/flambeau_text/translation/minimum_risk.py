"""``MinimumRisk``: training on whole sentences that the model writes, by how good they are."""

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
from flambeau_text.decoding.decoded import limits, score_forced
from flambeau_text.decoding.sampling import sample
from flambeau_text.decoding.strategy import Sampling
from flambeau_text.models.seq2seq import Seq2Seq, select
from flambeau_text.tokenization.tokenizer import PADDING_ID
from flambeau_text.translation.encoded import REFERENCE, SOURCE, TARGET, text_of
from flambeau_text.translation.scores import sentence_bleu
from flambeau_text.translation.task import TranslationTask

Quality = Callable[[str, str], float]


@dataclass(frozen=True)
class MinimumRisk:
    """A ``train_step`` that lowers the expected loss in quality of drawn translations.

    Of each source ``n`` sentences are drawn, and the true one stands beside them; their
    probabilities, sharpened by ``alpha`` and made to sum to 1, weigh how bad each is. The usual
    loss is mixed in, which keeps the model from forgetting what it knows. It is for the last epochs
    of a model that translates already:
    ``Learner(data, training=TrainingOptions(train_step=MinimumRisk()))`` after ``learner.load``.

    Attributes:
        n: Sentences drawn a source.
        alpha: Power of the probabilities; small ones look at all candidates alike.
        mix: Share of the usual loss.
        quality: Of an answer beside the reference, 0 to 100; smoothed BLEU of a sentence.

    Source:
        Shen et al., "Minimum Risk Training for Neural Machine Translation" (arXiv 1512.02433),
        equations 7 to 9.
    """

    n: int = 8
    alpha: float = 5e-3
    mix: float = 0.3
    quality: Quality = sentence_bleu

    def __post_init__(self) -> None:
        if type(self.n) is not int or self.n < 1:
            raise InputError(f"n is a number of sentences, at least 1, not {self.n!r}.")
        if not self.alpha > 0 or not 0 <= self.mix <= 1:
            raise InputError(
                f"alpha is above 0 and mix a share, 0 to 1, not {self.alpha!r} and {self.mix!r}."
            )

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        """One step; its loss is the mixture's.

        Raises:
            ArgumentError: The task is no translation.
        """
        if not isinstance(task, TranslationTask) or not isinstance(model, Seq2Seq):
            raise ArgumentError(
                f"MinimumRisk trains translation models, not {type(task).__name__} with "
                f"{type(model).__name__}."
            )
        words = sum(cast("float", batch.weight) for batch in micro_batches)
        sentences = sum(map(len, micro_batches))
        total: Tensor | None = None
        for batch in micro_batches:
            with step.autocast():
                forced = task.forward(model, batch, step.context)
                likelihood, _ = task.loss(forced, batch)
                risk = self.risk(model, batch, task, step.context.seed, step.context.step)
            part = self.mix * likelihood / words + (1.0 - self.mix) * risk / sentences
            step.backward(part)
            total = part.detach() if total is None else total + part.detach()
        if total is None:
            raise InputError("A training step got no batch.")
        step.update(total)
        return StepResult(total, words)

    def risk(
        self, model: Seq2Seq, batch: Batch, task: TranslationTask, seed: int, step: int
    ) -> Tensor:
        """The expected share of quality that is missing, 0 to 1 a sentence, summed.

        Args:
            model: In training mode; candidates are drawn as it would translate.
            batch: Sources with their references.
            task: Decodes the candidates.
            seed: The run's.
            step: Keys the draws.
        """
        source, mask = batch.inputs[SOURCE], batch.masks[SOURCE]
        candidates = self._candidates(model, batch, seed, step)
        count = candidates.shape[1]
        texts = [text_of(row) for row in batch.targets[REFERENCE].cpu()]
        if task.lowercase:
            texts = [text.lower() for text in texts]
        missing = [
            [1.0 - self.quality(task.target.decode(row), text) / 100.0 for row in rows]
            for rows, text in zip(candidates.tolist(), texts, strict=True)
        ]
        memory = model.encode(source, mask)
        each = torch.arange(len(source), device=source.device).repeat_interleave(count)
        flat = score_forced(model, select(memory, each), candidates.flatten(0, 1))
        scores = flat.view(len(source), count) * self.alpha
        # A sentence that was drawn twice counts once.
        scores = scores.masked_fill(_is_repeated(candidates), -torch.inf)
        return (scores.softmax(1) * scores.new_tensor(missing)).sum()

    @torch.no_grad()
    def _candidates(self, model: Seq2Seq, batch: Batch, seed: int, step: int) -> Tensor:
        """Drawn sentences and the true one, int64 ``(batch, n + 1, longest)``."""
        source, mask = batch.inputs[SOURCE], batch.masks[SOURCE]
        training = [module for module in model.modules() if module.training]
        model.eval()
        memory = model.encode(source, mask)
        each = torch.arange(len(source), device=source.device).repeat_interleave(self.n)
        numbers = torch.arange(len(source)) if batch.indices is None else batch.indices
        numbers = (numbers.unsqueeze(1) * self.n + torch.arange(self.n)).flatten()
        limit = limits(mask, 1.5, 10)[each]
        own = Sampling(seed=keyed.key(seed, "minimum risk", step) % 2**31)
        drawn = sample(model, select(memory, each), limit, own, numbers).tokens[:, 0]
        for module in training:
            module.training = True
        true = batch.targets[TARGET][:, 1:]
        longest = max(drawn.shape[1], true.shape[1])
        drawn, true = (
            nn.functional.pad(rows, (0, longest - rows.shape[1]), value=PADDING_ID)
            for rows in (drawn, true)
        )
        return torch.cat([true.unsqueeze(1), drawn.view(len(source), self.n, longest)], 1)


def _is_repeated(candidates: Tensor) -> Tensor:
    """Whether an equal sentence stands before, bool ``(batch, candidates)``."""
    same = (candidates.unsqueeze(2) == candidates.unsqueeze(1)).all(3)
    return same.tril(-1).any(2)
