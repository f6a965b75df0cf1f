"""``TranslationTask``: forced in training, free in evaluation and prediction."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.task import StepContext, Task
from flambeau_text.decoding.search import search
from flambeau_text.decoding.strategy import Beam, Greedy, Strategy, strategy_from_json
from flambeau_text.forcing.feeds import Draws
from flambeau_text.forcing.rollout import forced_features
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.models.seq2seq import Seq2Seq
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.tokenizer import PADDING_ID, spoken
from flambeau_text.translation.answers import Translation
from flambeau_text.translation.encoded import REFERENCE, SOURCE, TARGET, text_of
from flambeau_text.translation.loss import token_loss
from flambeau_text.translation.scores import corpus_scores

FORCING = "teacher_forcing"
"""Name of the value that schedules and controllers set, and of its column in the history."""

_ALWAYS = TeacherForcing()
_BEAM = Beam()
_GREEDY = Greedy()


@dataclass(frozen=True)
class Forced:
    """What a forced pass gives: enough for the loss, without all logits at once.

    Attributes:
        features: Before the output layer, ``(batch, target, size)``.
        targets: The true words, int64 ``(batch, target)``.
        output: The output layer.
    """

    features: Tensor
    targets: Tensor
    output: nn.Module

    def counted(self) -> tuple[Tensor, Tensor]:
        """Features ``(words, size)`` and targets ``(words,)``, without padding on the CPU.

        On an accelerator padding stays: leaving it out would wait for the device, and batches of
        like lengths have little of it.
        """
        features, targets = self.features.flatten(0, 1), self.targets.flatten()
        if targets.device.type != "cpu":
            return features, targets
        kept = (targets != PADDING_ID).nonzero().squeeze(1)
        return features[kept], targets[kept]


class TranslationTask(Task):
    """Learns to write the target, word by word.

    The loss is a sum over target words (the end included, padding not), so the step's mean is over
    the words of all its micro-batches and processes. Evaluation computes it with the true words,
    and everything else (BLEU) from sentences that the model wrote freely.

    Args:
        target: The target tokenizer, or its JSON values.
        label_smoothing: Share of the wanted probability that is spread over all words.
        teacher_forcing: Which words are read in training; None the true ones throughout.
        decoding: How answers are looked for; None takes a beam of 5. Within a run, where it is done
            after each evaluation, the search is greedy.
        lowercase: Whether the target side was lower-cased: references then are, too.
        decode_every: Evaluations of a run from one free search to the next.
        decode_most: Sentences that are searched for within a run: the first so many.

    Attributes:
        forcing: As ``teacher_forcing``; may be set between fits, also to a schedule of your own.
        decoding: As given.
        signatures: sacrebleu's signature of each score of the last evaluation.
    """

    builder = "translation"
    loss_name = "cross-entropy of target words"

    def __init__(
        self,
        *,
        target: Tokenizer | Mapping[str, Any],
        label_smoothing: float = 0.1,
        teacher_forcing: TeacherForcing | Mapping[str, Any] | None = None,
        decoding: Strategy | Mapping[str, Any] | None = None,
        lowercase: bool = False,
        decode_every: int = 1,
        decode_most: int = 1_000,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is a share, 0 to below 1, not {label_smoothing!r}.")
        if decode_every < 1 or decode_most < 1:
            raise InputError(
                f"decode_every and decode_most are at least 1, not {decode_every} and "
                f"{decode_most}."
            )
        self.target = tokenizer_from_json(target) if isinstance(target, Mapping) else target
        self.label_smoothing = label_smoothing
        self.forcing = (
            TeacherForcing.from_json(teacher_forcing)
            if isinstance(teacher_forcing, Mapping)
            else teacher_forcing or _ALWAYS
        )
        self.decoding = (
            strategy_from_json(decoding) if isinstance(decoding, Mapping) else decoding or _BEAM
        )
        self.lowercase = lowercase
        self.decode_every = decode_every
        self.decode_most = decode_most
        self.signatures: dict[str, str] = {}

    # Training

    @property
    def values(self) -> Mapping[str, float]:
        return {FORCING: self.forcing.probability(0)}

    @property
    def step_values(self) -> Mapping[str, Callable[[int], float]]:
        return {FORCING: self.forcing.probability}

    @property
    def n_outputs(self) -> int:
        return len(self.target)

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """`Forced` in training; else the sentences that a free search has found.

        Those are tensors by name: "tokens" int64 ``(batch, longest)``, "scores" ``(batch,)`` and,
        where the model attends, "attention" ``(batch, longest, source)``.
        """
        network = _as_seq2seq(model)
        if not context.training:
            found = search(
                network, batch.inputs[SOURCE], batch.masks[SOURCE], self.decoding, batch.indices
            )
            answers = {"tokens": found.tokens[:, 0], "scores": found.scores[:, 0]}
            if found.attention is not None:
                answers["attention"] = found.attention[:, 0]
            return answers
        return self._forced(network, batch, context, context.values.get(FORCING, 1.0))

    def _forced(
        self, model: Seq2Seq, batch: Batch, context: StepContext, probability: float
    ) -> Forced:
        source, target = batch.inputs[SOURCE], batch.targets[TARGET]
        memory = model.encode(source, batch.masks[SOURCE])
        samples = torch.arange(len(source)) if batch.indices is None else batch.indices
        draws = Draws(context.seed, context.epoch, samples.to(source.device))
        features = forced_features(model, memory, target[:, :-1], probability, self.forcing, draws)
        return Forced(features, target[:, 1:], model.output)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """The smoothed sum over target words, and how many they are.

        Raises:
            InputError: The outputs are those of a free search, which has no loss.
        """
        total, _, count = self._losses(outputs)
        return total, count

    def _losses(self, outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        if not isinstance(outputs, Forced):
            raise InputError(
                "A free search has no loss: its words are compared with the reference as a whole. "
                "Ask for forward with StepContext(training=True), or for evaluate."
            )
        features, targets = outputs.counted()
        total, plain = token_loss(outputs.output, features, targets, self.label_smoothing)
        return total, plain, (targets != PADDING_ID).sum()

    # Evaluation

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch], context: StepContext
    ) -> dict[str, float]:
        """Loss and perplexity with the true words, and BLEU of what the model writes by itself.

        Within a run (``context.step`` above 0) the search is greedy, and done only every
        ``decode_every`` evaluations; it also tells how many of the reference's words are among the
        answer's, once with the true words before each word ("forced_overlap") and once without
        ("free_overlap"): their difference is what forcing hides. Outside of a run the search is
        that of ``decoding``, over all sentences, and chrF is told too.
        """
        network = _as_seq2seq(model)
        in_run = context.step > 0
        searches = not in_run or (context.epoch + 1) % self.decode_every == 0
        strategy: Strategy = _GREEDY if in_run else self.decoding
        sums = [torch.zeros(()) for _ in range(3)]
        hypotheses: list[str] = []
        references: list[str] = []
        overlaps: list[tuple[float, float]] = []
        for batch in batches:
            forced = self._forced(network, batch, context, 1.0)
            for place, value in enumerate(self._losses(forced)):
                sums[place] = sums[place].to(value.device) + value
            if not searches or (in_run and len(hypotheses) >= self.decode_most):
                continue
            found = search(
                network, batch.inputs[SOURCE], batch.masks[SOURCE], strategy, batch.indices
            )
            rows = found.tokens[:, 0].tolist()
            hypotheses += [self.target.decode(row) for row in rows]
            references += [text_of(row) for row in batch.targets[REFERENCE].cpu()]
            overlaps += self._overlaps(forced, rows) if in_run else []
        total, plain, count = (float(value) for value in sums)
        scores = {"loss": total / count}
        if hypotheses:
            scores |= self._scored(hypotheses, references, in_run)
            if overlaps:
                scores["forced_overlap"] = sum(f for f, _ in overlaps) / len(overlaps)
                scores["free_overlap"] = sum(f for _, f in overlaps) / len(overlaps)
        return {**scores, "perplexity": math.exp(min(plain / count, 700.0))}

    def _scored(
        self, hypotheses: Sequence[str], references: Sequence[str], in_run: bool
    ) -> dict[str, float]:
        if self.lowercase:
            references = [text.lower() for text in references]
        names = ("bleu",) if in_run else ("bleu", "bleu_lower", "chrf")
        found = corpus_scores(hypotheses, references, names)
        self.signatures = {name: score.signature for name, score in found.items()}
        return {name: score.value for name, score in found.items()}

    def _overlaps(self, forced: Forced, free: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
        """F1 of the reference's words and the answer's, of each sentence: forced and free."""
        likeliest = forced.output(forced.features).argmax(-1)
        likeliest = likeliest.masked_fill(forced.targets == PADDING_ID, PADDING_ID).tolist()
        pairs = zip(forced.targets.tolist(), likeliest, free, strict=True)
        return [(overlap(truth, mine), overlap(truth, own)) for truth, mine, own in pairs]

    # Answers

    def decode(self, outputs: Any) -> list[Translation]:
        """A sentence a source."""
        rows, scores = outputs["tokens"].tolist(), outputs["scores"].tolist()
        pairs = zip(rows, scores, strict=True)
        return [Translation(self.target.decode(row), float(score)) for row, score in pairs]

    def arguments(self) -> Mapping[str, Any]:
        """JSON values that rebuild it; a schedule of one's own is left out, as it only trains."""
        named = hasattr(self.forcing.schedule, "kind")
        return {
            "target": self.target.as_json(),
            "label_smoothing": self.label_smoothing,
            "teacher_forcing": self.forcing.as_json() if named else None,
            "decoding": self.decoding.as_json(),
            "lowercase": self.lowercase,
            "decode_every": self.decode_every,
            "decode_most": self.decode_most,
        }


def overlap(truth: Sequence[int], answer: Sequence[int]) -> float:
    """F1 of two sentences as bags of words: 1 where they have the same ones, in any order."""
    one, other = Counter(spoken(truth)), Counter(spoken(answer))
    together = (one & other).total()
    if not together:
        return float(not one and not other)
    return 2.0 * together / (one.total() + other.total())


def _as_seq2seq(model: nn.Module) -> Seq2Seq:
    if not isinstance(model, Seq2Seq):
        raise InputError(
            f"Translation needs a model with encode, init_state and advance, but "
            f"{type(model).__name__} is no Seq2Seq. Derive it from flambeau_text.models.Seq2Seq."
        )
    return cast("Seq2Seq", model)
