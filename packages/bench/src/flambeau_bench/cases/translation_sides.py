"""Both sides of a variant of ``translation``: the same pairs, tokens, model and steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, Learner, ProgressBar, TrainingOptions
from flambeau.data.loader import Dataset, LoaderOptions
from flambeau.data.preprocess import Preprocessor
from flambeau_bench import fingerprint
from flambeau_bench.case import Size
from flambeau_bench.cases import by_hand, padded_loop
from flambeau_bench.cases.padded_loop import TokenPair
from flambeau_bench.cases.plain_rnn import PlainRnn
from flambeau_bench.cases.stopwatch import Stopwatch
from flambeau_bench.cases.tiny_training import (
    PEAK_LR,
    WEIGHT_DECAY,
    FakeTerminal,
    KeepState,
    ReadyDataset,
    ReadyLoader,
)
from flambeau_bench.cases.translation_variant import TranslationVariant
from flambeau_bench.real_data import folder_of
from flambeau_text import TranslationData, TranslationOptions
from flambeau_text.models import RnnSeq2Seq
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.tokenization.tokenizer import PADDING_ID
from flambeau_text.translation.dataset import SOURCE, TARGET, EncodedPairs
from flambeau_text.translation.demo import date_pairs

EQUAL_STEPS = 8
"""Number of steps that both sides make on the same padded batches, to compare their losses."""

_VALID_BATCH = 64
_MAX_DATES = 3  # in a synthetic sentence, so that lengths differ as in natural text
_SMALL: Mapping[str, Mapping[str, int]] = {
    "rnn": {"embedding_dim": 16, "hidden_size": 16},
    "transformer": {"d_model": 16, "dim_feedforward": 32, "encoder_layers": 1, "decoder_layers": 1},
}
"""Model sizes for the suite "quick", which only checks that everything works."""


@dataclass(frozen=True)
class EpochCounts:
    """Sentences, target tokens and padding of the batches of an epoch.

    Attributes:
        sentences: Sentences in each batch.
        tokens: Predicted target tokens in each batch, without padding.
        positions: Target positions of all batches, with padding.
    """

    sentences: tuple[int, ...]
    tokens: tuple[int, ...]
    positions: int

    @classmethod
    def of(cls, targets: Iterable[Tensor]) -> EpochCounts:
        """Count the targets of each batch, ``(batch, longest)``, without their first token."""
        predicted = [target[:, 1:] for target in targets]
        return cls(
            tuple(map(len, predicted)),
            tuple(int((target != PADDING_ID).sum()) for target in predicted),
            sum(target.numel() for target in predicted),
        )

    @property
    def tokens_per_step(self) -> float:
        """Mean of ``tokens``."""
        return sum(self.tokens) / len(self.tokens)

    @property
    def padding(self) -> float:
        """Padding factor: positions per predicted token."""
        return self.positions / sum(self.tokens)


@dataclass(frozen=True)
class FitResult:
    """The result of one epoch.

    Attributes:
        model: The trained model.
        settings: Settings of optimizer, loss and learning rate.
        init_hash: Hash of the initial weights.
        losses: Loss of each step.
        counts: Sentences, tokens and padding of the batches.
        watch: The stopwatch with the time of the steps.
    """

    model: nn.Module
    settings: Mapping[str, Any]
    init_hash: str
    losses: Sequence[float]
    counts: EpochCounts
    watch: Stopwatch


class TranslationSides:
    """The padded loop and the learner on the same data, model and optimizer.

    Tokenizers are fitted and sentences encoded before anything is timed, and both sides read the
    same token ids. The initial weights equal the weights of a learner with the same seed.

    Args:
        variant: Model, precision, and the forward pass of the padded loop.
        size: Counts and device.
    """

    def __init__(self, variant: TranslationVariant, size: Size) -> None:
        self.variant, self.size = variant, size
        self.device = torch.device(size.device)
        self.is_synthetic = size.name == "quick"
        whole = synthetic_data(size) if self.is_synthetic else multi30k(size)
        # A fit ends with an evaluation. It is not timed, so one pair is enough.
        self.data = first_pairs(whole, len(whole.split.train), 1)
        first = self.learner(0, 1)
        prepared, values = first.built.preprocessor, first.plan.values
        encoded = self.data.dataset("train", prepared, values)
        valid = whole.dataset("valid", prepared, values)
        if not isinstance(encoded, EncodedPairs) or not isinstance(valid, EncodedPairs):
            raise TypeError("TranslationData no longer returns EncodedPairs; adapt this benchmark.")
        self.encoded = encoded
        self.pairs, self.valid = token_pairs(encoded), token_pairs(valid)

    # Equal steps

    @cached_property
    def speeds(self) -> dict[int, float]:
        """Target tokens per second of the padded loop, by sentences per batch."""
        pairs = self.pairs[: self.size["searched"]]
        found: dict[int, float] = {}
        batch_size = self.size["smallest"]
        while batch_size <= self.size["largest"]:
            # bf16 on a CPU prepares each new shape once, so the second epoch counts.
            for _ in range(2 if self.variant.precision == "bf16" else 1):
                fit = self._padded(0, pairs, batch_size)
                found[batch_size] = sum(fit.counts.tokens) / fit.watch.seconds
            batch_size *= 2
        return found

    @property
    def fastest(self) -> int:
        """The batch size with which the padded loop is fastest."""
        return max(self.speeds, key=self.speeds.__getitem__)

    @cached_property
    def batch_sizes(self) -> tuple[int, int]:
        """The batch sizes of both sides that give equally many steps per epoch.

        The first is in sentences (padded loop), the second in average pairs (flambeau). Target
        tokens per step are then equal on average. flambeau cuts batches at multiples of eight
        sentences, so not every number of steps is possible. The padded loop therefore uses the
        batch size closest to its fastest (at most an eighth away) for which flambeau can have the
        same number of steps.
        """
        fastest, n = self.fastest, len(self.pairs)
        reach = max(1, fastest // 8)
        near = range(fastest - reach, fastest + reach + 1)
        # flambeau's batch size includes padding, so equal steps need more pairs of average length.
        steps = {size: self._steps(size) for size in range(fastest, 2 * fastest + 8)}

        def mismatch(sizes: tuple[int, int]) -> tuple[float, int]:
            sentences, average_pairs = sizes
            relative = abs(-(-n // sentences) / steps[average_pairs] - 1.0)
            return relative, abs(sentences - fastest)

        return min(product(near, steps), key=mismatch)

    def _steps(self, batch_size: int) -> int:
        options = LoaderOptions(batch_size, shuffle=True)
        return self.encoded.loader(options).steps_per_epoch

    # One epoch of each side

    def padded_fit(self, seed: int) -> FitResult:
        """Train one epoch with the padded loop."""
        return self._padded(seed, self.pairs, self.batch_sizes[0])

    def _padded(self, seed: int, pairs: Sequence[TokenPair], batch_size: int) -> FitResult:
        model = self.learner(seed, 1).model
        init_hash = fingerprint.of_weights(model)
        optimizer = by_hand.optimizer_for("adamw", model)
        batches = padded_loop.shuffled(pairs, batch_size)
        watch = Stopwatch(self.device)
        torch.manual_seed(seed)  # dropout
        watch.start()
        losses = padded_loop.train(
            self._forward_of(model),
            optimizer,
            batches,
            len(batches),
            self.variant.precision,
            self.device,
        )
        watch.stop()
        again = padded_loop.shuffled(pairs, batch_size)
        counts = EpochCounts.of(target for _, target in again)
        settings = {
            **fingerprint.optimizer_settings(optimizer),
            "clip_norm": padded_loop.MAX_NORM,
            "label_smoothing": 0.0,
            "lr": PEAK_LR,
            "precision": self.variant.precision,
            "schedule": "one_cycle",
        }
        return FitResult(model, settings, init_hash, to_floats(losses), counts, watch)

    def _forward_of(self, model: nn.Module) -> nn.Module:
        """Return the module that the padded loop calls: ``model``, or its plain PyTorch form."""
        if self.variant.plain and isinstance(model, RnnSeq2Seq):
            return PlainRnn(model)
        return model

    def flambeau_fit(self, seed: int) -> FitResult:
        """Train one epoch with a learner."""
        keep, watch = KeepState(), Stopwatch(self.device)
        learner = self.learner(seed, self.batch_sizes[1], callbacks=[keep, watch])
        learner.built.components()  # sentences are encoded on first use
        init_hash = fingerprint.of_weights(learner.model)
        torch.manual_seed(seed)  # dropout
        watch.start()
        history = learner.fit()
        batches = learner.built.loader("train").batches(0)
        counts = EpochCounts.of(batch.targets[TARGET] for batch in batches)
        optimizers = keep.state.optimizers if keep.state is not None else {}
        planned = ("label_smoothing", "lr", "precision", "schedule")
        settings = {
            **fingerprint.optimizer_settings(optimizers["main"]),
            "clip_norm": learner.training.clip_norm,
            **{name: learner.plan.values[name] for name in planned},
        }
        return FitResult(learner.model, settings, init_hash, history.step_losses, counts, watch)

    # Equal batches

    @cached_property
    def padded_losses(self) -> list[float]:
        """Losses of the padded loop on its own first batches, in fp32."""
        model, batches = self.learner(0, 1).model, self._first_batches()
        optimizer = by_hand.optimizer_for("adamw", model)
        torch.manual_seed(0)
        losses = padded_loop.train(
            self._forward_of(model), optimizer, batches, len(batches), "fp32", self.device
        )
        return to_floats(losses)

    @cached_property
    def flambeau_losses(self) -> list[float]:
        """Losses of the learner on the first batches of the padded loop, in fp32."""
        batches = [
            Batch(
                {SOURCE: source},
                {TARGET: target},
                {SOURCE: source != PADDING_ID},
                weight=float((target[:, 1:] != PADDING_ID).sum()),
            )
            for source, target in self._first_batches()
        ]
        data = ReadyTranslationData(self.data, ReadyLoader(batches, len(batches)))
        learner = self.learner(0, 1, data=data, precision="fp32")
        torch.manual_seed(0)
        return list(learner.fit().step_losses)

    def _first_batches(self) -> list[TokenPair]:
        return list(islice(padded_loop.shuffled(self.pairs, self.batch_sizes[0]), EQUAL_STEPS))

    # Shared by both sides

    def valid_loss(self, model: nn.Module) -> float:
        """Return the loss of the validation part in nats per target token."""
        starts = range(0, len(self.valid), _VALID_BATCH)
        batches = (padded_loop.padded(self.valid[at : at + _VALID_BATCH]) for at in starts)
        return padded_loop.evaluate(model, batches, self.device)

    def learner(
        self,
        seed: int,
        batch_size: int,
        *,
        data: TranslationData | None = None,
        precision: str | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Learner:
        """Return a learner on the train part with the choices that both sides use."""
        return Learner(
            data or self.data,
            self.variant.architecture,
            choices={
                "batch_size": batch_size,
                "device": self.size.device,
                "epochs": 1,
                # F.cross_entropy would include the padding token, which flambeau never predicts.
                "label_smoothing": 0.0,
                # The plan's 3e-3 is too high for the small batches of the padded loop.
                "lr": PEAK_LR,
                "precision": precision or self.variant.precision,
                "probe": "off",
                "schedule": "one_cycle",
                "weight_decay": WEIGHT_DECAY,
                **(
                    {"model_config": _SMALL[self.variant.architecture]} if self.is_synthetic else {}
                ),
            },
            # The doctor runs before the first fit only and is not part of a step.
            training=TrainingOptions(clip_norm=padded_loop.MAX_NORM, doctor=False),
            callbacks=[ProgressBar(stream=FakeTerminal()), *callbacks],
            seed=seed,
        )


class ReadyTranslationData(TranslationData):
    """Translation data with the pairs of other data, but given train batches.

    Args:
        data: The pairs.
        loader: The train batches of an epoch.
    """

    def __init__(self, data: TranslationData, loader: ReadyLoader) -> None:
        super().__init__(data.samples, data.split, data.options)
        self._loader = loader

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        return (
            ReadyDataset(self._loader)
            if part == "train"
            else super().dataset(part, preprocessor, values)
        )


def multi30k(size: Size) -> TranslationData:
    """Return the first pairs of Multi30k for train and validation, in lower case.

    The tokenizer is the one that the plan chooses for the whole data set.
    """
    folder = folder_of("multi30k")
    train, valid = (
        (folder / f"{part}.en.gz", folder / f"{part}.de.gz") for part in ("train", "val")
    )
    options = TranslationOptions(
        lowercase=True, tokenizer="bpe", vocab_size=8_000, shared_vocab=True
    )
    data = TranslationData.from_files(*train, valid=valid, options=options)
    return first_pairs(data, size["train"], size["valid"])


def first_pairs(data: TranslationData, train: int, valid: int) -> TranslationData:
    """Return the first ``train`` train pairs and the first ``valid`` validation pairs."""
    split = data.split
    return data.subset(
        {"train": split.train[:train].tolist(), "valid": split.valid[:valid].tolist()}
    )


def synthetic_data(size: Size) -> TranslationData:
    """Return synthetic sentences of one to three dates, for the suite "quick"."""
    n = size["train"] + size["valid"]
    dates = iter(date_pairs(_MAX_DATES * n, 0))
    pairs: list[tuple[str, str]] = []
    for row in range(n):
        chosen = [next(dates) for _ in range(1 + row % _MAX_DATES)]
        sources, targets = zip(*chosen, strict=True)
        pairs.append((" ".join(sources), " ".join(targets)))
    options = TranslationOptions("en", "de", tokenizer="word")
    return TranslationData.from_pairs(
        pairs[: size["train"]], valid=pairs[size["train"] :], options=options
    )


def token_pairs(encoded: EncodedPairs) -> list[TokenPair]:
    """Return the token ids of each pair: the data set of the padded loop."""
    return list(zip(_rows(encoded.sources), _rows(encoded.targets), strict=True))


def to_floats(losses: Sequence[Tensor]) -> list[float]:
    """Return the losses as plain numbers."""
    return torch.stack(list(losses)).double().tolist()


def _rows(ragged: RaggedRows) -> list[Tensor]:
    return [ragged.padded(torch.tensor([row]))[0][0] for row in range(len(ragged))]
