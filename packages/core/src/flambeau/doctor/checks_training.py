"""Checks of how the model is going to be trained: optimizers, modes, learning rate, steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from flambeau.doctor.finding import Finding
from flambeau.doctor.passes import left_as_it_was
from flambeau.doctor.readings import named_modules
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import listed, number
from flambeau.training.norm.freeze import apply_modes, keeps_statistics
from flambeau.training.optim.optimizer import no_decay_ids

# Adam's kin move a weight by about lr a step. Not lower: nets of one small layer were measured to
# train best at 0.1 to 0.3.
_LARGEST_ADAM_LR = 0.5
_LARGEST_SGD_LR = 10.0  # over 1 - momentum, which is what a steady gradient moves by
_ADAM_KIN = ("adam", "adamw", "rmsprop")
_UNMOVED = 1e-3  # of its weights' size that a run can move them at most
_FEWEST_STEPS = 20


def optimizer_misses_parameters(subject: Subject) -> Finding | None:
    """Parameters that could learn, but that no optimizer of the user's moves."""
    if not subject.course.own_optimizers:
        return None
    held = {id(parameter) for _, parameter in _held(subject)}
    names = [n for n, p in subject.model.named_parameters() if p.requires_grad]
    missing = [
        name
        for name, parameter in subject.model.named_parameters()
        if parameter.requires_grad and id(parameter) not in held
    ]
    if not missing or len(missing) == len(names):
        return None
    return Finding(
        "optimizer-misses-parameters",
        f"No optimizer holds {len(missing)} of the {len(names)} parameters that could learn "
        f"({listed(missing, most=3)}), so they stay as they are.",
        {"missing": len(missing), "of": len(names), "optimizers": list(subject.optimizers)},
        "Build the optimizer from model.parameters() of the model that the factory is called "
        "with, or set requires_grad_(False) on what should not learn.",
    )


def parameter_in_two_optimizers(subject: Subject) -> Finding | None:
    """Parameters that two optimizers move, each in its own way."""
    if not subject.course.own_optimizers:
        return None
    holders: dict[int, set[str]] = {}
    for name, parameter in _held(subject):
        holders.setdefault(id(parameter), set()).add(name)
    twice = [n for n, p in subject.model.named_parameters() if len(holders.get(id(p), ())) > 1]
    if not twice:
        return None
    return Finding(
        "parameter-in-two-optimizers",
        f"{len(twice)} parameters ({listed(twice, most=3)}) are in more than one of the optimizers "
        f"{', '.join(subject.optimizers)}, so every step moves them twice.",
        {"parameters": len(twice), "optimizers": list(subject.optimizers)},
        "Give each parameter to one optimizer.",
        severity="error",
    )


def frozen_in_optimizer(subject: Subject) -> Finding | None:
    """Parameters that were frozen, but are in an optimizer of the user's."""
    if not subject.course.own_optimizers:
        return None
    held = {id(parameter) for _, parameter in _held(subject)}
    frozen = [
        name
        for name, parameter in subject.model.named_parameters()
        if not parameter.requires_grad and id(parameter) in held
    ]
    if not frozen:
        return None
    return Finding(
        "frozen-in-optimizer",
        f"{len(frozen)} frozen parameters ({listed(frozen, most=3)}) are in the optimizer: they "
        "stay as they are, but whoever reads it expects them to learn.",
        {"parameters": len(frozen)},
        "Leave them out: [p for p in model.parameters() if p.requires_grad]; or set "
        "requires_grad_(True) if they should learn.",
    )


def weight_decay_on_norms(subject: Subject) -> Finding | None:
    """Weight decay on norm layers and biases, which makes them weaker rather than simpler."""
    if not subject.course.own_optimizers:
        return None
    plain = no_decay_ids(subject.model)
    names = {id(parameter): name for name, parameter in subject.model.named_parameters()}
    norms = {
        id(parameter)
        for module in subject.model.modules()
        if "Norm" in type(module).__name__
        for parameter in module.parameters(recurse=False)
    }
    decayed: dict[str, float] = {}
    for optimizer in subject.optimizers.values():
        for group in optimizer.param_groups:
            decay = group.get("weight_decay") or 0.0
            for parameter in group["params"] if decay > 0 else ():
                if id(parameter) in plain & norms and parameter.requires_grad:
                    decayed[names.get(id(parameter), "?")] = decay
    if not decayed:
        return None
    return Finding(
        "weight-decay-on-norms",
        f"The optimizer pulls {len(decayed)} parameters of norm layers to 0 "
        f"({listed(decayed, most=3)}), which makes the layers weaker, not simpler.",
        {"parameters": len(decayed), "weight_decay": max(decayed.values())},
        "Give them a param group with weight_decay=0, or let the plan build the optimizer: "
        'choices={"optimizer": "adamw"} leaves norms and biases out.',
    )


def eval_mode_lost(subject: Subject) -> Finding | None:
    """Layers that the user left in eval mode, which fit puts in train mode."""
    model = subject.model
    if subject.steps_done or not model.training:
        return None  # a model that is in eval mode as a whole was so for another reason
    left = {
        name: module
        for name, module in named_modules(model)
        if not module.training and (keeps_statistics(module) or _drops(module))
    }
    course = subject.course
    lost: set[str] = set()
    with left_as_it_was(model, subject.seed):
        for bn, trainable in zip(course.bn, course.trainable, strict=True):
            apply_modes(model, trainable, bn)
            lost |= {name for name, module in left.items() if module.training}
    if not lost:
        return None
    names = [name for name in left if name in lost]
    norms = [name for name in names if keeps_statistics(left[name])]
    mend = (
        'Say it for the whole run: choices={"bn": "eval"} keeps the statistics, '
        "learner.freeze_to(…) those of frozen groups."
        if norms
        else "Set their probability to 0 instead."
    )
    return Finding(
        "eval-mode-lost",
        f"{len(names)} layers were left in eval mode ({listed(names, most=3)}), but training puts "
        "them in train mode.",
        {"layers": len(names), "norm layers": len(norms), "bn": list(course.bn)},
        f"{mend} Or override train() in the module, which fit respects.",
    )


def lr_for_optimizer(subject: Subject) -> list[Finding]:
    """A learning rate that the optimizer cannot work with: far too high, or of no effect."""
    if subject.course.own_optimizers or subject.course.lr_is_measured:
        return []  # groups may have rates of their own; a rate that was tried is no guess
    name = str(subject.values.get("optimizer", ""))
    lr = subject.values.get("lr") if subject.course.lr is None else subject.course.lr
    if not lr:
        return []
    found: list[Finding] = []
    momentum = subject.values.get("momentum") or 0.0
    reach = lr / max(1 - momentum, 1e-3) if name == "sgd" else lr
    limit = {"sgd": _LARGEST_SGD_LR, "adagrad": _LARGEST_SGD_LR}.get(name, _LARGEST_ADAM_LR)
    if reach > limit and (name in _ADAM_KIN or name in ("sgd", "adagrad")):
        found.append(
            Finding(
                "lr-for-optimizer",
                f"The learning rate {lr:g} is far above what {name} works with: a single step "
                "moves the weights by more than they are large.",
                {"lr": lr, "optimizer": name, "usual": "1e-4 to 1e-2" if limit < 1 else "below 1"},
                f"Leave it to the plan, or take learner.fit(lr={1e-3 if limit < 1 else 0.1:g}).",
            )
        )
    size = _size_of_weights(subject.model)
    moved = lr * subject.n_steps
    if name in _ADAM_KIN and subject.course.epochs and 0 < moved < _UNMOVED * size:
        found.append(
            Finding(
                "lr-for-optimizer",
                f"{name} moves a weight by at most about lr a step, so {subject.n_steps:,} steps "
                f"at {lr:g} change weights of size {number(size)} by {number(moved)}: nothing "
                "will be learned.",
                {"lr": lr, "steps": subject.n_steps, "size of the weights": size},
                "Leave it to the plan, or take 1e-3: learner.fit(lr=1e-3).",
            )
        )
    return found


def too_few_steps(subject: Subject) -> Finding | None:
    """A run that is over before a schedule has warmed up."""
    steps = 0 if subject.course.epochs is None else subject.n_steps
    if not 0 < steps < _FEWEST_STEPS:
        return None
    size = subject.values.get("batch_size")
    return Finding(
        "too-few-steps",
        f"The run is {steps} optimizer steps long, which is too short to learn anything: each "
        "moves the weights once.",
        {"steps": steps, "epochs": subject.course.epochs, "batch size": size},
        'Train more epochs (learner.fit(20)) or with smaller batches (choices={"batch_size": 16}).',
    )


def _held(subject: Subject) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter with the name of the optimizer that holds it."""
    for name, optimizer in subject.optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield name, parameter


def _drops(module: nn.Module) -> bool:
    return "Dropout" in type(module).__name__ and bool(getattr(module, "p", 0))


def _size_of_weights(model: nn.Module) -> float:
    """Root mean square of the matrices that learn; 0 without any."""
    sizes = [
        p.detach().float().pow(2).mean().sqrt()
        for p in model.parameters()
        if p.requires_grad and p.ndim > 1 and p.is_floating_point()
    ]
    return float(torch.stack([size.cpu() for size in sizes]).median()) if sizes else 0.0
