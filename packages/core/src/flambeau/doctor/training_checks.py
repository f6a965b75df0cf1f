"""Checks of the training settings: optimizers, layer modes, learning rate, number of steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from flambeau.doctor.finding import Finding
from flambeau.doctor.recorded_pass import preserved_with_seed
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.doctor.typed_torch import named_modules
from flambeau.training.freeze import has_running_statistics, set_train_modes
from flambeau.training.optim.optimizer import no_decay_ids
from flambeau.wording import format_number, name_some

# Adam and similar optimizers change a weight by about lr per step. The limit is no lower because
# networks with one small layer were measured to train best at 0.1 to 0.3.
_LARGEST_ADAM_LR = 0.5
_LARGEST_SGD_LR = 10.0  # of lr / (1 - momentum), the step size for a constant gradient
_ADAM_LIKE = ("adam", "adamw", "muon", "rmsprop")
_UNMOVED = 1e-3  # largest change that a run can make, relative to the size of the weights
_FEWEST_STEPS = 20


def optimizer_misses_parameters(setup: TrainingSetup) -> Finding | None:
    """Find trainable parameters that are in none of the user-defined optimizers."""
    if not setup.fit_settings.custom_optimizers:
        return None
    optimized = {id(parameter) for _, parameter in _optimized(setup)}
    names = [n for n, p in setup.model.named_parameters() if p.requires_grad]
    missing = [
        name
        for name, parameter in setup.model.named_parameters()
        if parameter.requires_grad and id(parameter) not in optimized
    ]
    if not missing or len(missing) == len(names):
        return None
    return Finding(
        "optimizer-misses-parameters",
        f"{len(missing)} of the {len(names)} trainable parameters ({name_some(missing, most=3)}) "
        "are in no optimizer, so they are never updated.",
        {"missing": len(missing), "of": len(names), "optimizers": list(setup.optimizers)},
        "Create the optimizer from model.parameters() of the model that the factory receives, or "
        "call requires_grad_(False) on parameters that should not be trained.",
    )


def parameter_in_two_optimizers(setup: TrainingSetup) -> Finding | None:
    """Find parameters that are in more than one optimizer."""
    if not setup.fit_settings.custom_optimizers:
        return None
    holders: dict[int, set[str]] = {}
    for name, parameter in _optimized(setup):
        holders.setdefault(id(parameter), set()).add(name)
    twice = [n for n, p in setup.model.named_parameters() if len(holders.get(id(p), ())) > 1]
    if not twice:
        return None
    return Finding(
        "parameter-in-two-optimizers",
        f"{len(twice)} parameters ({name_some(twice, most=3)}) are in more than one of the "
        f"optimizers {', '.join(setup.optimizers)}, so every step updates them more than once.",
        {"parameters": len(twice), "optimizers": list(setup.optimizers)},
        "Put each parameter into one optimizer only.",
        severity="error",
    )


def frozen_in_optimizer(setup: TrainingSetup) -> Finding | None:
    """Find frozen parameters in a user-defined optimizer."""
    if not setup.fit_settings.custom_optimizers:
        return None
    optimized = {id(parameter) for _, parameter in _optimized(setup)}
    frozen = [
        name
        for name, parameter in setup.model.named_parameters()
        if not parameter.requires_grad and id(parameter) in optimized
    ]
    if not frozen:
        return None
    return Finding(
        "frozen-in-optimizer",
        f"The optimizer contains {len(frozen)} frozen parameters, which it does not update: "
        f"{name_some(frozen, most=3)}.",
        {"parameters": len(frozen)},
        "Pass only trainable parameters, [p for p in model.parameters() if p.requires_grad], or "
        "call requires_grad_(True) on the frozen ones if they should be trained.",
    )


def weight_decay_on_norms(setup: TrainingSetup) -> Finding | None:
    """Find weight decay on the parameters of norm layers."""
    if not setup.fit_settings.custom_optimizers:
        return None
    no_decay = no_decay_ids(setup.model)
    names = {id(parameter): name for name, parameter in setup.model.named_parameters()}
    norms = {
        id(parameter)
        for module in setup.model.modules()
        if "Norm" in type(module).__name__
        for parameter in module.parameters(recurse=False)
    }
    decayed: dict[str, float] = {}
    for optimizer in setup.optimizers.values():
        for group in optimizer.param_groups:
            decay = group.get("weight_decay") or 0.0
            for parameter in group["params"] if decay > 0 else ():
                if id(parameter) in no_decay & norms and parameter.requires_grad:
                    decayed[names.get(id(parameter), "?")] = decay
    if not decayed:
        return None
    return Finding(
        "weight-decay-on-norms",
        f"The optimizer applies weight decay to {len(decayed)} parameters of norm layers "
        f"({name_some(decayed, most=3)}), which pulls them to 0 without regularising the model.",
        {"parameters": len(decayed), "weight_decay": max(decayed.values())},
        "Put them into a parameter group with weight_decay=0, or let the plan build the optimizer: "
        'choices={"optimizer": "adamw"} applies no weight decay to norm layers and biases.',
    )


def eval_mode_lost(setup: TrainingSetup) -> Finding | None:
    """Find layers that the user has set to eval mode and that fit would set to train mode."""
    model = setup.model
    if setup.steps_done or not model.training:
        return None  # many models are loaded in eval mode as a whole; fit is expected to change it
    left = {
        name: module
        for name, module in named_modules(model)
        if not module.training and (has_running_statistics(module) or _is_dropout(module))
    }
    settings = setup.fit_settings
    lost: set[str] = set()
    with preserved_with_seed(model, setup.seed):
        for bn, trainable in zip(settings.bn, settings.trainable, strict=True):
            set_train_modes(model, trainable, bn)
            lost |= {name for name, module in left.items() if module.training}
    if not lost:
        return None
    names = [name for name in left if name in lost]
    norms = [name for name in names if has_running_statistics(left[name])]
    fix = (
        'Choose it for the whole run: choices={"bn": "eval"} keeps all norm layers in eval mode, '
        "and learner.freeze_to(…) those of frozen groups."
        if norms
        else "Set the dropout probability to 0 instead."
    )
    return Finding(
        "eval-mode-lost",
        "These layers are in eval mode, but training would set them to train mode: "
        f"{name_some(names, most=3)}.",
        {"layers": len(names), "norm layers": len(norms), "bn": list(settings.bn)},
        f"{fix} Or override train() in the module; fit calls it.",
    )


def lr_for_optimizer(setup: TrainingSetup) -> list[Finding]:
    """Find a learning rate that is far too high for the optimizer, or too low to have an effect."""
    if setup.fit_settings.custom_optimizers or setup.fit_settings.lr_is_measured:
        return []  # custom groups may have other rates; a measured rate needs no check
    name = str(setup.values.get("optimizer", ""))
    lr = setup.values.get("lr") if setup.fit_settings.lr is None else setup.fit_settings.lr
    if not lr:
        return []
    found: list[Finding] = []
    momentum = setup.values.get("momentum") or 0.0
    reach = lr / max(1 - momentum, 1e-3) if name == "sgd" else lr
    limit = {"sgd": _LARGEST_SGD_LR, "adagrad": _LARGEST_SGD_LR}.get(name, _LARGEST_ADAM_LR)
    if reach > limit and (name in _ADAM_LIKE or name in ("sgd", "adagrad")):
        found.append(
            Finding(
                "lr-for-optimizer",
                f"The learning rate {lr:g} is far too high for {name}: a single step changes the "
                "weights by more than their own size.",
                {"lr": lr, "optimizer": name, "usual": "1e-4 to 1e-2" if limit < 1 else "below 1"},
                f"Let the plan choose it, or use learner.fit(lr={1e-3 if limit < 1 else 0.1:g}).",
            )
        )
    size = _size_of_weights(setup.model)
    moved = lr * setup.n_steps
    fit = setup.fit_settings
    if name in _ADAM_LIKE and (fit.epochs or fit.steps) and 0 < moved < _UNMOVED * size:
        found.append(
            Finding(
                "lr-for-optimizer",
                f"{name} changes a weight by at most about lr per step, so {setup.n_steps:,} "
                f"steps at lr {lr:g} change weights of size {format_number(size)} by at most "
                f"{format_number(moved)}: the model will not learn.",
                {"lr": lr, "steps": setup.n_steps, "size of the weights": size},
                "Let the plan choose it, or use learner.fit(lr=1e-3).",
            )
        )
    return found


def too_few_steps(setup: TrainingSetup) -> Finding | None:
    """Find a run that ends before a schedule has warmed up."""
    fit = setup.fit_settings
    steps = 0 if fit.epochs is None else setup.n_steps
    if not 0 < steps < _FEWEST_STEPS:
        return None
    longer = "more epochs (learner.fit(20))" if fit.epochs else "more steps (fit(steps=1_000))"
    size = setup.values.get("batch_size")
    return Finding(
        "too-few-steps",
        f"The run has only {steps} optimizer steps, which is too few for the model to learn.",
        {"steps": steps, "epochs": fit.epochs, "batch size": size},
        f'Train for {longer}, or use smaller batches: choices={{"batch_size": 16}}.',
    )


def _optimized(setup: TrainingSetup) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter in an optimizer with the name of that optimizer."""
    for name, optimizer in setup.optimizers.items():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield name, parameter


def _is_dropout(module: nn.Module) -> bool:
    return "Dropout" in type(module).__name__ and bool(getattr(module, "p", 0))


def _size_of_weights(model: nn.Module) -> float:
    """Return the median root mean square of the trainable weight matrices; 0 if there are none."""
    sizes = [
        p.detach().float().pow(2).mean().sqrt()
        for p in model.parameters()
        if p.requires_grad and p.ndim > 1 and p.is_floating_point()
    ]
    return float(torch.stack([size.cpu() for size in sizes]).median()) if sizes else 0.0
