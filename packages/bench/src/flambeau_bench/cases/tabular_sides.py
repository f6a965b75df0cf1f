"""The sides of ``tabular``: programs that train on the same encoded table.

A side is a function of a ``Job``. A peer is one more entry in ``SIDES``: it trains its own network
on ``adult_sized(job.rows)`` with the batch size of the job, and returns the same ``Trained``; the
gate compares its accuracy, because its losses are those of another network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from flambeau import Learner
from flambeau import random as keyed
from flambeau.data.memory_loader import MemoryDataset
from flambeau_bench import fingerprint
from flambeau_bench.cases.adult_sized import adult_sized
from flambeau_bench.cases.tiny_training import KeepState
from flambeau_bench.timing import clock_for
from flambeau_tabular import TabularData

BY_HAND, FLAMBEAU = "tensor loop", "flambeau"

# RealMLP's recipe for classes, which is flambeau's default.
PEAK_LR, WEIGHT_DECAY, BETAS = 0.04, 0.02, (0.9, 0.95)
INPUT_SCALE_RATE, SMALL_RATE = 6.0, 0.1


@dataclass(frozen=True)
class Job:
    """What a side trains.

    Attributes:
        rows: Rows of the table; a fifth of them validate.
        batch_size: Rows per step.
        seed: Seed of the initial weights, of the order of the rows and of dropout.
        device: Where model and batches are.
    """

    rows: int
    batch_size: int
    seed: int
    device: str = "cpu"


@dataclass
class Trained:
    """What a side did in its last, longest run.

    Attributes:
        seconds: Seconds of the run: training and an evaluation after each epoch.
        losses: Loss of each step.
        valid_losses: Validation loss after each epoch.
        accuracy: Share of correct validation rows with the final weights.
        rows: Numbers of the train rows in the order of their use.
        init_hash: Hash of the weights before the first step.
        weights_hash: Hash of the final weights.
        settings: Settings that must be equal on both sides.
    """

    seconds: float = 0.0
    losses: Sequence[float] = ()
    valid_losses: Sequence[float] = ()
    accuracy: float = 0.0
    rows: Sequence[Tensor] = ()
    init_hash: str = ""
    weights_hash: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


def learner_of(job: Job, data: TabularData, *callbacks: Any) -> Learner:
    """Return flambeau's side before its fit: the default network, scored by its loss alone."""
    return Learner(
        data,
        "mlp",
        choices={
            "batch_size": job.batch_size,
            "device": job.device,
            "metrics": [],
            "precision": "fp32",
            "probe": "off",  # a long run would first measure other settings
        },
        callbacks=list(callbacks),
        seed=job.seed,
        quiet=True,
    )


def table_of(rows: int) -> TabularData:
    """Return a table with so many rows, a fifth of which validate."""
    return TabularData.from_df(adult_sized(rows), "target", valid=0.2)


def flambeau(job: Job, data: TabularData, epochs: int) -> Trained:
    """Fit a learner."""
    keep = KeepState()
    learner = learner_of(job, data, keep)
    learner.built.components()  # built on first use; only the fit is timed
    init_hash = fingerprint.of_weights(learner.model)
    clock = clock_for(torch.device(job.device))
    torch.manual_seed(job.seed)  # pyright: ignore[reportUnknownMemberType]
    started = clock()
    history = learner.fit(epochs)
    seconds = clock() - started
    optimizer = cast("Any", keep.state).optimizers["main"]
    return Trained(
        seconds,
        list(history.step_losses),
        [float(row["valid_loss"]) for row in history.rows],
        accuracy_of(learner.model, learner),
        [batch.indices for epoch in range(epochs) for batch in _batches(learner, job, epoch)],
        init_hash,
        fingerprint.of_weights(learner.model),
        settings_of(job, optimizer),
    )


def by_hand(job: Job, data: TabularData, epochs: int) -> Trained:
    """Train with a loop over tensors: a permutation per epoch, an indexing operation per batch."""
    learner = learner_of(job, data)
    model = learner.model  # the same network with the same initial weights
    train, valid = (_tensors(learner, part, job.device) for part in ("train", "valid"))
    init_hash = fingerprint.of_weights(model)
    clock = clock_for(torch.device(job.device))
    torch.manual_seed(job.seed)  # pyright: ignore[reportUnknownMemberType]
    started = clock()
    optimizer = AdamW(param_groups(model), betas=BETAS, fused=True)
    run = _loop(model, optimizer, train, valid, job, epochs)
    seconds = clock() - started
    ids = cast("Tensor", _dataset(learner, "train").ids)
    return Trained(
        seconds,
        run.losses,
        run.valid_losses,
        accuracy_of(model, learner),
        [ids[rows] for rows in run.rows],
        init_hash,
        fingerprint.of_weights(model),
        settings_of(job, optimizer),
    )


def param_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters by rate and weight decay, as the recipe of RealMLP groups them."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        small = name.startswith("inputs.numbers.") or name.endswith(".alpha")
        small = small or (name.endswith(".bias") and not name.startswith("inputs."))
        rate = INPUT_SCALE_RATE if name == "scale.weight" else SMALL_RATE if small else 1.0
        decays = parameter.ndim > 1 and "bias" not in name
        groups.setdefault((rate, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * PEAK_LR,
            "rate": rate,
            "weight_decay": WEIGHT_DECAY if decays else 0.0,
        }
        for (rate, decays), parameters in groups.items()
    ]


def coslog(progress: float) -> float:
    """Return RealMLP's factor of the learning rate: four cosines, each twice as long."""
    position = math.log2(1.0 + 15.0 * progress)
    lowest = 0.04 if position < 0.5 else 0.0
    weight = 0.5 * (1.0 + math.cos(math.pi * (2.0 * position)))
    return 1.0 + (lowest - 1.0) * weight


def flat_cosine(progress: float) -> float:
    """Return RealMLP's factor of weight decay and dropout: 1, and half a cosine from half on."""
    if progress < 0.5:
        return 1.0
    weight = 0.5 * (1.0 + math.cos(math.pi * ((progress - 0.5) / 0.5)))
    return 1e-5 + (1.0 - 1e-5) * weight


@dataclass
class _Run:
    losses: list[float] = field(default_factory=list[float])
    valid_losses: list[float] = field(default_factory=list[float])
    rows: list[Tensor] = field(default_factory=list[Tensor])


_Tensors = tuple[dict[str, Tensor], Tensor]
"""The columns by their name in the network, and the classes."""


def _loop(
    model: nn.Module,
    optimizer: Optimizer,
    train: _Tensors,
    valid: _Tensors,
    job: Job,
    epochs: int,
) -> _Run:
    """Train, evaluate after each epoch, and end with the best weights."""
    columns, classes = train
    dropouts = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    probabilities = [layer.p for layer in dropouts]
    steps_per_epoch = -(-len(classes) // job.batch_size)
    last = max(1, epochs * steps_per_epoch - 1)
    run, losses, step = _Run(), cast("list[Tensor]", []), 0
    best: dict[str, Tensor] = {}
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(classes), generator=keyed.generator(job.seed, "shuffle", epoch))
        for rows in order.split(job.batch_size):
            at = rows.to(classes.device)
            rate, factor = coslog(step / last), flat_cosine(step / last)
            for group in optimizer.param_groups:
                group["lr"] = PEAK_LR * rate * group["rate"]
                if group["weight_decay"]:
                    group["weight_decay"] = WEIGHT_DECAY * factor
            for layer, probability in zip(dropouts, probabilities, strict=True):
                layer.p = probability * factor
            outputs = model(**{name: c.index_select(0, at) for name, c in columns.items()})
            loss = F.cross_entropy(outputs, classes.index_select(0, at))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            run.rows.append(rows)
            step += 1
        run.valid_losses.append(valid_loss(model, valid, job.batch_size))
        if run.valid_losses[-1] <= min(run.valid_losses):
            best = {name: value.clone() for name, value in model.state_dict().items()}
    run.losses = torch.stack(losses).double().tolist()
    model.load_state_dict(best)
    for layer, probability in zip(dropouts, probabilities, strict=True):
        layer.p = probability
    return run


@torch.no_grad()
def valid_loss(model: nn.Module, valid: _Tensors, batch_size: int) -> float:
    """Return the mean loss over the validation rows, read from the device once."""
    model.eval()
    columns, classes = valid
    total = torch.zeros((), dtype=torch.float64, device=classes.device)
    for start in range(0, len(classes), batch_size):
        end = start + batch_size
        outputs = model(**{name: column[start:end] for name, column in columns.items()})
        total += F.cross_entropy(outputs, classes[start:end], reduction="sum")
    return float(total) / len(classes)


@torch.no_grad()
def accuracy_of(model: nn.Module, learner: Learner) -> float:
    """Return the share of validation rows whose most likely class is right."""
    model.eval()
    device = next(model.parameters()).device
    columns, classes = _tensors(learner, "valid", str(device))
    return float((model(**columns).argmax(dim=1) == classes).double().mean())


def settings_of(job: Job, optimizer: Optimizer) -> dict[str, Any]:
    """Return what has to be equal on both sides; groups in the order of their shapes."""
    found = fingerprint.optimizer_settings(optimizer)
    for group in found["groups"]:
        # Scheduled: after the run it is the value of the last step.
        group["weight_decay"] = bool(group["weight_decay"])
    groups = sorted(found["groups"], key=str)
    return {
        **fingerprint.machine_settings(),
        **found,
        "groups": groups,
        "batch_size": job.batch_size,
        "precision": "fp32",
    }


def _dataset(learner: Learner, part: str) -> MemoryDataset:
    values = learner.plan.values
    built = learner.data.dataset(part, learner.data.preprocessor(values), values)
    return cast("MemoryDataset", built)


def _tensors(learner: Learner, part: str, device: str) -> _Tensors:
    dataset = _dataset(learner, part)
    columns = {name: column.to(device) for name, column in dataset.inputs.items()}
    # Classes are kept in the smallest integer.
    return columns, dataset.targets["target"].to(device, torch.int64)


def _batches(learner: Learner, job: Job, epoch: int) -> Any:
    from flambeau.data.loader import LoaderOptions

    options = LoaderOptions(batch_size=job.batch_size, shuffle=True, seed=job.seed)
    return _dataset(learner, "train").loader(options).batches(epoch)


SIDES: Mapping[str, Callable[[Job, TabularData, int], Trained]] = {
    BY_HAND: by_hand,
    FLAMBEAU: flambeau,
}
"""The programs by name; the arguments are the job, its table and the number of epochs."""
