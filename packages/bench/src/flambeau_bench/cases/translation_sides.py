"""Both sides of ``translation``: the same pairs, tokens, model and steps, in one setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, Learner, ProgressBar, TrainingOptions, TrainState
from flambeau.data.loader import Dataset, LoaderOptions
from flambeau.data.preprocess import Preprocessor
from flambeau_bench import fingerprint
from flambeau_bench.case import Size
from flambeau_bench.cases import by_hand, padded_loop
from flambeau_bench.cases.padded_loop import Pair
from flambeau_bench.cases.plain_rnn import PlainRnn
from flambeau_bench.cases.tiny import PEAK_LR, WEIGHT_DECAY, Keep, Ready, Tape, Terminal
from flambeau_bench.cases.translation import Setting
from flambeau_bench.real_data import folder_of
from flambeau_bench.timing import wall_clock_for
from flambeau_text import TranslationData, TranslationOptions
from flambeau_text.models import RnnSeq2Seq
from flambeau_text.tokenization.tokenizer import PADDING_ID
from flambeau_text.translation.dataset import SOURCE, TARGET, EncodedPairs, RaggedRows
from flambeau_text.translation.demo import date_pairs

EQUAL_STEPS = 8
"""Steps that both sides make on the same padded batches."""

_VALID_BATCH = 64
_MOST_DATES = 3  # in a made sentence, so that lengths are uneven, as those of running text are
_SMALL: Mapping[str, Mapping[str, int]] = {
    "rnn": {"embedding_dim": 16, "hidden_size": 16},
    "transformer": {"d_model": 16, "dim_feedforward": 32, "encoder_layers": 1, "decoder_layers": 1},
}
"""Of models that show whether all works, not how fast it is."""


@dataclass(frozen=True)
class Volume:
    """What the batches of a pass hold.

    Attributes:
        sentences: Of each batch.
        tokens: Target tokens that are learned in each batch, padding not counted.
        places: Target places of all batches, padding counted.
    """

    sentences: tuple[int, ...]
    tokens: tuple[int, ...]
    places: int

    @classmethod
    def of(cls, targets: Iterable[Tensor]) -> Volume:
        """Of the targets of each batch, ``(batch, longest)``; the first token is not learned."""
        learned = [target[:, 1:] for target in targets]
        return cls(
            tuple(map(len, learned)),
            tuple(int((target != PADDING_ID).sum()) for target in learned),
            sum(target.numel() for target in learned),
        )

    @property
    def tokens_a_step(self) -> float:
        """On average."""
        return sum(self.tokens) / len(self.tokens)

    @property
    def padding(self) -> float:
        """Places for each token that is learned."""
        return self.places / sum(self.tokens)


class Stopwatch(Callback):
    """What the steps of a pass take; a fit stops it before its evaluation, which is no step.

    Args:
        device: Where they are computed; work that is queued there is waited for.

    Attributes:
        seconds: Of wall time.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock = wall_clock_for(device)
        self._started = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        """From here on."""
        self._started = self._clock()

    def stop(self) -> None:
        """Up to here."""
        self.seconds = self._clock() - self._started

    def on_eval_start(self, state: TrainState) -> None:
        self.stop()


@dataclass(frozen=True)
class Fit:
    """What one pass over the pairs came to.

    Attributes:
        model: As trained.
        settings: Of the optimizer, the loss and the rate, as that side had them.
        init_hash: Of the weights before.
        losses: Of each step.
        volume: What its batches hold.
        watch: What its steps took.
    """

    model: nn.Module
    settings: Mapping[str, Any]
    init_hash: str
    losses: Sequence[float]
    volume: Volume
    watch: Stopwatch


class Sides:
    """The padded loop and the learner, on equal terms.

    Tokenizers are fitted and sentences encoded before anything is timed, and both sides read the
    same token numbers. The first weights are those of a learner with the same seed.

    Args:
        setting: Model, precision, and what the loop calls.
        size: Counts and device.
    """

    def __init__(self, setting: Setting, size: Size) -> None:
        self.setting, self.size = setting, size
        self.device = torch.device(size.device)
        self.is_made = size.name == "quick"
        whole = made_data(size) if self.is_made else multi30k(size)
        # A fit ends with an evaluation: one pair is enough, and is not timed.
        self.data = first_pairs(whole, len(whole.split.train), 1)
        first = self.learner(0, 1)
        prepared, values = first.built.preprocessor, first.plan.values
        encoded = self.data.dataset("train", prepared, values)
        valid = whole.dataset("valid", prepared, values)
        if not isinstance(encoded, EncodedPairs) or not isinstance(valid, EncodedPairs):
            raise TypeError("TranslationData encodes its pairs as something else by now.")
        self.encoded = encoded
        self.pairs, self.valid = pairs_of(encoded), pairs_of(valid)

    # What makes the steps equal

    @cached_property
    def searched(self) -> dict[int, float]:
        """Target tokens a second of the padded loop, by sentences in a batch."""
        pairs = self.pairs[: self.size["searched"]]
        found: dict[int, float] = {}
        batch_size = self.size["smallest"]
        while batch_size <= self.size["largest"]:
            # bf16 on a CPU prepares every new shape once: the second pass counts.
            for _ in range(2 if self.setting.precision == "bf16" else 1):
                fit = self._padded(0, pairs, batch_size)
                found[batch_size] = sum(fit.volume.tokens) / fit.watch.seconds
            batch_size *= 2
        return found

    @property
    def fastest(self) -> int:
        """The batch size with which the padded loop was fastest."""
        return max(self.searched, key=self.searched.__getitem__)

    @cached_property
    def batch_sizes(self) -> tuple[int, int]:
        """Theirs in sentences and ours in average pairs, with which a pass has equal steps.

        Target tokens a step are then equal on average. Ours cuts batches at whole eights of
        sentences, so that not every number of steps can be had: theirs is the number nearest to
        its fastest, at most an eighth away, for which ours has a counterpart.
        """
        fastest, n = self.fastest, len(self.pairs)
        reach = max(1, fastest // 8)
        near = range(fastest - reach, fastest + reach + 1)
        # Padding counts in ours, so that it takes more pairs of average length for as many steps.
        ours = {size: self._steps(size) for size in range(fastest, 2 * fastest + 8)}

        def miss(sizes: tuple[int, int]) -> tuple[float, int]:
            theirs, size = sizes
            return abs(-(-n // theirs) / ours[size] - 1.0), abs(theirs - fastest)

        return min(product(near, ours), key=miss)

    def _steps(self, batch_size: int) -> int:
        options = LoaderOptions(batch_size, shuffle=True)
        return self.encoded.loader(options).steps_per_epoch

    # A pass of each side

    def padded_fit(self, seed: int) -> Fit:
        """The padded loop's pass."""
        return self._padded(seed, self.pairs, self.batch_sizes[0])

    def _padded(self, seed: int, pairs: Sequence[Pair], batch_size: int) -> Fit:
        model = self.learner(seed, 1).model
        init_hash = fingerprint.of_weights(model)
        optimizer = by_hand.optimizer_for("adamw", model)
        batches = padded_loop.shuffled(pairs, batch_size)
        watch = Stopwatch(self.device)
        torch.manual_seed(seed)  # dropout
        watch.start()
        losses = padded_loop.train(
            self._called(model),
            optimizer,
            batches,
            len(batches),
            self.setting.precision,
            self.device,
        )
        watch.stop()
        again = padded_loop.shuffled(pairs, batch_size)
        volume = Volume.of(target for _, target in again)
        settings = {
            **fingerprint.optimizer_settings(optimizer),
            "clip_norm": padded_loop.MAX_NORM,
            "label_smoothing": 0.0,
            "lr": PEAK_LR,
            "precision": self.setting.precision,
            "schedule": "one_cycle",
        }
        return Fit(model, settings, init_hash, floats(losses), volume, watch)

    def _called(self, model: nn.Module) -> nn.Module:
        """What the padded loop calls: ``model``, or its layers in plain PyTorch."""
        if self.setting.plain and isinstance(model, RnnSeq2Seq):
            return PlainRnn(model)
        return model

    def flambeau_fit(self, seed: int) -> Fit:
        """The learner's pass."""
        keep, watch = Keep(), Stopwatch(self.device)
        learner = self.learner(seed, self.batch_sizes[1], callbacks=[keep, watch])
        learner.built.components()  # sentences are encoded on first use
        init_hash = fingerprint.of_weights(learner.model)
        torch.manual_seed(seed)  # dropout
        watch.start()
        history = learner.fit()
        batches = learner.built.loader("train").batches(0)
        volume = Volume.of(batch.targets[TARGET] for batch in batches)
        optimizers = keep.state.optimizers if keep.state is not None else {}
        planned = ("label_smoothing", "lr", "precision", "schedule")
        settings = {
            **fingerprint.optimizer_settings(optimizers["main"]),
            "clip_norm": learner.training.clip_norm,
            **{name: learner.plan.values[name] for name in planned},
        }
        return Fit(learner.model, settings, init_hash, history.step_losses, volume, watch)

    # Equal batches

    @cached_property
    def padded_losses(self) -> list[float]:
        """The padded loop's losses on its own first batches, in fp32."""
        model, batches = self.learner(0, 1).model, self._first_batches()
        optimizer = by_hand.optimizer_for("adamw", model)
        torch.manual_seed(0)
        losses = padded_loop.train(
            self._called(model), optimizer, batches, len(batches), "fp32", self.device
        )
        return floats(losses)

    @cached_property
    def flambeau_losses(self) -> list[float]:
        """The learner's losses on the padded loop's first batches, in fp32."""
        tape = [
            Batch(
                {SOURCE: source},
                {TARGET: target},
                {SOURCE: source != PADDING_ID},
                weight=float((target[:, 1:] != PADDING_ID).sum()),
            )
            for source, target in self._first_batches()
        ]
        data = OnTape(self.data, Tape(tape, len(tape)))
        learner = self.learner(0, 1, data=data, precision="fp32")
        torch.manual_seed(0)
        return list(learner.fit().step_losses)

    def _first_batches(self) -> list[Pair]:
        return list(islice(padded_loop.shuffled(self.pairs, self.batch_sizes[0]), EQUAL_STEPS))

    # What is common

    def valid_loss(self, model: nn.Module) -> float:
        """Nats a target token of the valid part."""
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
        """A learner over the train part, with what both sides have in common fixed."""
        return Learner(
            data or self.data,
            self.setting.architecture,
            choices={
                "batch_size": batch_size,
                "device": self.size.device,
                "epochs": 1,
                # F.cross_entropy smooths over padding too, which is never an answer here.
                "label_smoothing": 0.0,
                # The plan's 3e-3 is too much for batches as small as are fastest by hand.
                "lr": PEAK_LR,
                "precision": precision or self.setting.precision,
                "probe": "off",
                "schedule": "one_cycle",
                "weight_decay": WEIGHT_DECAY,
                **({"model_config": _SMALL[self.setting.architecture]} if self.is_made else {}),
            },
            # The doctor looks before a first fit alone, which is no part of a step.
            training=TrainingOptions(clip_norm=padded_loop.MAX_NORM, doctor=False),
            callbacks=[ProgressBar(stream=Terminal()), *callbacks],
            seed=seed,
        )


class OnTape(TranslationData):
    """The same pairs, trained on in batches that are given.

    Args:
        data: The pairs.
        tape: The batches of an epoch.
    """

    def __init__(self, data: TranslationData, tape: Tape) -> None:
        super().__init__(data.samples, data.split, data.options)
        self._tape = tape

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        return Ready(self._tape) if part == "train" else super().dataset(part, preprocessor, values)


def multi30k(size: Size) -> TranslationData:
    """The first pairs of train and val, in lower case.

    The tokenizer is fixed to what the plan takes for the whole of it.
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
    """So many pairs of each part."""
    split = data.split
    return data.subset(
        {"train": split.train[:train].tolist(), "valid": split.valid[:valid].tolist()}
    )


def made_data(size: Size) -> TranslationData:
    """Sentences of one to three dates, for a size that needs no files."""
    n = size["train"] + size["valid"]
    dates = iter(date_pairs(_MOST_DATES * n, 0))
    pairs: list[tuple[str, str]] = []
    for row in range(n):
        some = [next(dates) for _ in range(1 + row % _MOST_DATES)]
        sources, targets = zip(*some, strict=True)
        pairs.append((" ".join(sources), " ".join(targets)))
    options = TranslationOptions("en", "de", tokenizer="word")
    return TranslationData.from_pairs(
        pairs[: size["train"]], valid=pairs[size["train"] :], options=options
    )


def pairs_of(encoded: EncodedPairs) -> list[Pair]:
    """The token numbers of each pair, as the padded loop's data set."""
    return list(zip(_rows(encoded.sources), _rows(encoded.targets), strict=True))


def floats(losses: Sequence[Tensor]) -> list[float]:
    """The losses on the host."""
    return torch.stack(list(losses)).double().tolist()


def _rows(ragged: RaggedRows) -> list[Tensor]:
    return [ragged.padded(torch.tensor([row]))[0][0] for row in range(len(ragged))]
