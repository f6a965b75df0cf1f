"""The sides of ``language``: programs that train the same language model on the same tokens.

A side is a function of a ``Job``. A peer is one more entry in ``SIDES``: it trains a network of the
same sizes on ``job.data`` and returns the same ``Trained``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from flambeau import Learner, TrainingOptions
from flambeau.data.loader import LoaderOptions
from flambeau_bench import fingerprint
from flambeau_bench.cases.stopwatch import Stopwatch
from flambeau_bench.cases.tiny_training import KeepState
from flambeau_text import LanguageModelData
from flambeau_text.language.stream import NEXT, TOKENS
from flambeau_text.models import LanguageModel

BY_HAND, FLAMBEAU = "plain loop", "flambeau"

BPTT = 70
MAX_NORM = 1.0
WEIGHT_DECAY = 0.01
RATES: Mapping[str, float] = {"awd_lstm": 1e-2, "decoder": 3e-3}
REGULARISATION: Mapping[str, tuple[float, float]] = {"awd_lstm": (2.0, 1.0), "decoder": (0.0, 0.0)}
"""Factors of the activations (AR) and of their differences (TAR) in the loss."""


@dataclass(frozen=True)
class Job:
    """What a side trains.

    Attributes:
        data: The documents.
        architecture: "awd_lstm" or "decoder".
        config: The sizes of the network.
        rows: Rows of a batch.
        precision: "fp32" or "bf16".
        seed: Seed of the initial weights, of the order of the documents and of dropout.
        device: Where model and batches are.
    """

    data: LanguageModelData
    architecture: str
    config: Mapping[str, Any]
    rows: int
    precision: str
    seed: int
    device: str = "cpu"


@dataclass
class Trained:
    """What a side did in a run.

    Attributes:
        seconds: Wall time of the steps.
        tokens: Predicted tokens of each step.
        losses: Loss of each step, with the regularisation of activations.
        valid_loss: Nats per token of the validation part with the final weights.
        init_hash: Hash of the weights before the first step.
        order_hash: Hash of the targets of the first batches.
        settings: Settings that must be equal on both sides.
    """

    seconds: float = 0.0
    tokens: Sequence[int] = ()
    losses: Sequence[float] = ()
    valid_loss: float = 0.0
    init_hash: str = ""
    order_hash: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


def learner_of(job: Job, *callbacks: Any) -> Learner:
    """Return flambeau's side before its fit."""
    alpha, beta = REGULARISATION[job.architecture]
    return Learner(
        job.data,
        job.architecture,
        choices={
            "batch_size": job.rows,
            "bptt": BPTT,
            "device": job.device,
            "keep_best": None,
            "model_config": dict(job.config),
            "precision": job.precision,
            "probe": "off",
            "regularisation": {"alpha": alpha, "beta": beta},
            "weight_decay": WEIGHT_DECAY,
        },
        training=TrainingOptions(clip_norm=MAX_NORM, doctor=False),
        callbacks=list(callbacks),
        seed=job.seed,
        quiet=True,
    )


def flambeau(job: Job) -> Trained:
    """Fit a learner for one epoch; the clock stops before the evaluation."""
    keep, watch = KeepState(), Stopwatch(torch.device(job.device))
    learner = learner_of(job, keep, watch)
    learner.built.components()  # tokens are encoded on first use; only the fit is timed
    init_hash = fingerprint.of_weights(learner.model)
    seed_dropout(job.seed)
    watch.start()
    history = learner.fit(1, lr=RATES[job.architecture], schedule="constant")
    steps = TimedBatches.of(learner)
    optimizer = cast("Any", keep.state).optimizers["main"]
    return Trained(
        watch.seconds,
        steps.counts,
        list(history.step_losses),
        valid_loss(learner.model, learner, job),
        init_hash,
        steps.order_hash,
        settings_of(job, optimizer),
    )


def by_hand(job: Job) -> Trained:
    """Train with a loop in plain PyTorch, which has the batches ready before it starts.

    It computes all logits, as ``F.cross_entropy`` needs them, and carries the state.
    """
    learner = learner_of(job)
    model = cast("LanguageModel", learner.model)  # the same network and initial weights
    init_hash = fingerprint.of_weights(model)
    optimizer = AdamW(param_groups(model), lr=RATES[job.architecture], fused=True)
    batches = TimedBatches.of(learner)
    watch = Stopwatch(torch.device(job.device))
    seed_dropout(job.seed)
    watch.start()
    losses = _loop(model, optimizer, batches, job)
    watch.stop()
    return Trained(
        watch.seconds,
        batches.counts,
        torch.stack(losses).double().tolist(),
        valid_loss(model, learner, job),
        init_hash,
        batches.order_hash,
        settings_of(job, optimizer),
    )


def _loop(
    model: LanguageModel, optimizer: Optimizer, batches: TimedBatches, job: Job
) -> list[Tensor]:
    alpha, beta = REGULARISATION[job.architecture]
    lr, state = RATES[job.architecture], None
    losses: list[Tensor] = []
    parameters = list(model.parameters())
    model.train()
    for tokens, targets, scale in batches.steps:
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        with autocast(job):
            found = model.features(tokens, state)
            logits = model.output(found.features)
        # The positions without a target, at most one per row in the last chunk, are ignored.
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        if found.raw is not None:
            loss = loss + alpha * found.features.float().square().mean()
            loss = loss + beta * (found.raw[:, 1:] - found.raw[:, :-1]).float().square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        state = detached(found.state)
        losses.append(loss.detach())
    return losses


def detached(state: Any) -> Any:
    """Return the carried state without its graph."""
    if isinstance(state, Tensor):
        return state.detach()
    return tuple(detached(each) for each in state)


def autocast(job: Job) -> Any:
    """Return the context in which the forward pass runs."""
    if job.precision == "fp32":
        return nullcontext()
    return torch.autocast(job.device, torch.bfloat16)


def param_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters with weight decay, and those without."""
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and "bias" not in name]
    ids = {id(parameter) for parameter in decayed}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


# ---------------------------------------------------------------- shared by both sides


@dataclass(frozen=True)
class TimedBatches:
    """The batches of the first epoch, on the device.

    Attributes:
        steps: Tokens, targets (-100 without one), and the factor on the learning rate.
        counts: Predicted tokens of each batch.
    """

    steps: Sequence[tuple[Tensor, Tensor, float]]
    counts: Sequence[int]

    @classmethod
    def of(cls, learner: Learner) -> TimedBatches:
        """Read the train batches of a learner."""
        steps: list[tuple[Tensor, Tensor, float]] = []
        counts: list[int] = []
        device = learner.plan.values["device"]
        for batch in learner.built.loader("train").batches(0):
            mask = batch.masks[TOKENS]
            targets = batch.targets[NEXT].masked_fill(~mask, -100)
            steps.append((batch.inputs[TOKENS].to(device), targets.to(device), batch.lr_scale))
            counts.append(int(mask.sum()))
        return cls(steps, counts)

    @property
    def order_hash(self) -> str:
        """Hash of the targets of the first batches."""
        return fingerprint.of_tensors([targets for _, targets, _ in islice(self.steps, 8)])


@torch.no_grad()
def valid_loss(model: nn.Module, learner: Learner, job: Job) -> float:
    """Return the nats per token of the validation part, with the state carried."""
    network = cast("LanguageModel", model).eval()
    dataset = learner.data.dataset(
        "valid", learner.data.preprocessor(learner.plan.values), learner.plan.values
    )
    total, n, state = 0.0, 0, None
    for batch in dataset.loader(LoaderOptions(batch_size=job.rows)).batches(0):
        logits, state = network(batch.inputs[TOKENS].to(job.device), state)
        mask = batch.masks[TOKENS].to(job.device)
        targets = batch.targets[NEXT].to(job.device)
        total += float(F.cross_entropy(logits[mask].float(), targets[mask], reduction="sum"))
        n += int(mask.sum())
    return total / n


def seed_dropout(seed: int) -> None:
    """Seed the generators that dropout draws from."""
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]


def settings_of(job: Job, optimizer: Optimizer) -> dict[str, Any]:
    """Return what has to be equal on both sides, with the param groups in order of their shapes."""
    found = fingerprint.optimizer_settings(optimizer)
    return {
        **fingerprint.machine_settings(),
        **found,
        "groups": sorted(found["groups"], key=str),
        "clip_norm": MAX_NORM,
        "precision": job.precision,
        "rows": job.rows,
    }


SIDES: Mapping[str, Callable[[Job], Trained]] = {BY_HAND: by_hand, FLAMBEAU: flambeau}
"""The programs by name."""
