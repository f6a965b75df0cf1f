"""Checks of the untrained model: its outputs, its layers and its gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from flambeau.doctor.batch_checks import inputs_on_scale, non_finite_input
from flambeau.doctor.finding import Finding
from flambeau.doctor.target_checks import labels_fit, uniform_prediction_loss
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.task.task import Task
from flambeau.training.norm.bn_statistics import have_initial_statistics, layers_with_statistics
from flambeau.wording import format_number, name_some

# Nats above a uniform prediction: 1 means that the target's probability is, as a geometric mean,
# a third of the uniform one. Our networks and torchvision's, from scratch, start at most 0.3 above.
# The mean over few samples varies more: a linear layer with 4 samples was 1.2 above.
_ABOVE_UNIFORM, _ABOVE_FOR_FEW, _FEW = 1.0, 3.0, 16
_ENOUGH = 4
_SUM_TOLERANCE = 1e-3  # of a float16 softmax over some thousand classes
_UNSCALED, _FAR_FROM = 30.0, 0.1
_DEAD, _DEAD_SAMPLES = 0.9, 16
_FEWEST_PER_CHANNEL = 4

_LOSSES_OF_LOGITS = ("cross_entropy", "binary_cross_entropy")
_SIGMOIDS = ("SigmoidBackward0", "HardsigmoidBackward0")
_SOFTMAXES = ("SoftmaxBackward0",)
_RANGES = {
    "SigmoidBackward0": (0.0, 1.0),
    "SoftmaxBackward0": (0.0, 1.0),
    "TanhBackward0": (-1.0, 1.0),
    "ReluBackward0": (0.0, math.inf),
}


def softmax_before_loss(setup: TrainingSetup) -> Finding | None:
    """Find a model that outputs probabilities, although cross entropy expects logits."""
    outputs = _logits(setup)
    if outputs is None or outputs.shape[1] < 2 or setup.task.kind != "classification":
        return None
    sums = outputs.float().sum(1)
    probabilities = bool((outputs >= 0).all()) and bool((sums - 1).abs().max() < _SUM_TOLERANCE)
    if not probabilities or setup.forward_pass.last_operation in _SIGMOIDS:
        return None
    return Finding(
        "softmax-before-loss",
        f"{type(setup.model).__name__} outputs probabilities, but cross entropy expects logits "
        "and applies the softmax itself. Gradients become small and the loss cannot fall below "
        f"{_lowest_loss(outputs.shape[1]):.3f}.",
        {
            "smallest": float(outputs.min()),
            "rows sum to": [float(sums.min()), float(sums.max())],
        },
        "Remove the softmax from the model's forward; predict applies it.",
        severity="error",
    )


def sigmoid_before_loss(setup: TrainingSetup) -> Finding | None:
    """Find a sigmoid (or, for multi-label tasks, a softmax) before a loss on logits."""
    outputs, last = _logits(setup), setup.forward_pass.last_operation
    multi_label = setup.task.kind == "multi_label"
    if outputs is None or last not in (*_SIGMOIDS, *(_SOFTMAXES if multi_label else ())):
        return None
    kind = "softmax" if last in _SOFTMAXES else "sigmoid"
    applied = "a sigmoid" if multi_label else "a softmax"
    return Finding(
        "sigmoid-before-loss",
        f"{type(setup.model).__name__} ends with a {kind}, but {setup.task.loss_name} expects "
        f"logits and applies {applied} itself. No probability can come close to 0 or 1, and "
        "gradients become small.",
        {"smallest": float(outputs.min()), "largest": float(outputs.max()), "computed by": last},
        f"Remove the {kind} from the model's forward; predict applies what is needed.",
        severity="error",
    )


def outputs_out_of_range(setup: TrainingSetup) -> Finding | None:
    """Find targets outside the range of the model's last activation."""
    task = setup.task
    if not _is_plain_regression(task) or setup.forward_pass.last_operation not in _RANGES:
        return None
    low, high = _RANGES[setup.forward_pass.last_operation]
    targets = task.standardise(setup.batch.target).float()
    outside = (targets < low) | (targets > high)
    if not bool(outside.any()):
        return None
    name = setup.forward_pass.last_operation.removesuffix("Backward0").lower()
    span = f"between {low:g} and {high:g}" if math.isfinite(high) else f"of at least {low:g}"
    scaled = " (standardised)" if task.standardises else ""
    return Finding(
        "outputs-out-of-range",
        f"The model ends with a {name}, whose outputs are values {span}, but "
        f"{float(outside.float().mean()):.0%} of the targets{scaled} of the first batch are "
        "outside this range.",
        {"smallest target": float(targets.min()), "largest target": float(targets.max())},
        "Remove the last activation, or scale the targets to its range.",
        severity="error",
    )


def high_initial_loss(setup: TrainingSetup) -> Finding | None:
    """Find an initial loss far above that of a uniform prediction."""
    uniform, outputs = uniform_prediction_loss(setup.task), _logits(setup)
    if outputs is None or uniform is None or setup.steps_done or len(setup.batch) < _ENOUGH:
        return None
    if not inputs_on_scale(setup):
        return None  # the inputs are the cause, and input-scale reports them
    loss = setup.loss
    above = _ABOVE_UNIFORM if len(setup.batch) >= _FEW else _ABOVE_FOR_FEW
    if not math.isfinite(loss) or loss <= uniform + above:
        return None
    over = f" over {outputs.shape[1]} classes" if setup.task.kind == "classification" else ""
    return Finding(
        "high-initial-loss",
        f"The loss before any training is {loss:.3g}; a uniform prediction{over} gives "
        f"{uniform:.3g}.",
        {"loss": loss, "uniform": uniform, "largest output": float(outputs.abs().max())},
        _fix_of_high_loss(setup.values.get("start")),
    )


def _fix_of_high_loss(start: Mapping[str, Any] | None) -> str:
    if start is not None and start["head"] == "kept":
        return (
            f"The export {start['export']} predicts these data worse than chance: check that the "
            "classes mean the same and that the inputs have the same scale, or train a new head: "
            "start=Start(path, new_head=True)."
        )
    return (
        "Initialise the last layer with smaller weights (model.head.weight.data.mul_(0.1)). "
        "Weights that were trained for other classes need a new last layer."
    )


def loss_not_finite(setup: TrainingSetup) -> Finding | None:
    """Find a loss of NaN or infinity in the first batch although its inputs are finite."""
    if not labels_fit(setup) or non_finite_input(setup) or math.isfinite(setup.loss):
        return None
    outputs = setup.outputs
    finite = isinstance(outputs, Tensor) and bool(outputs.isfinite().all())
    return Finding(
        "loss-not-finite",
        f"The loss of the first batch is {setup.loss:g}, although its inputs are finite.",
        {"loss": setup.loss, "outputs are finite": finite},
        "Look for a logarithm or root of values ≤ 0, or a division by 0, in "
        f"{'the loss' if finite else 'forward'}; learner.fit() names the layer.",
        severity="error",
    )


def targets_unscaled(setup: TrainingSetup) -> Finding | None:
    """Find regression targets that are far larger than the model's initial outputs."""
    task, outputs = setup.task, setup.outputs
    if not _is_plain_regression(task) or task.standardises or setup.steps_done:
        return None
    targets = setup.batch.target.float()
    if not isinstance(outputs, Tensor) or not targets.numel():
        return None
    target_rms = float(targets.pow(2).mean().sqrt())
    output_rms = float(outputs.float().pow(2).mean().sqrt())
    if target_rms < _UNSCALED or not output_rms < _FAR_FROM * target_rms:
        return None
    mean, std = float(targets.mean()), float(targets.std())
    return Finding(
        "targets-unscaled",
        f"The targets have a root mean square of {format_number(target_rms)} (mean "
        f"{format_number(mean)}, standard deviation {format_number(std)}), but the model's initial "
        f"outputs have one of {format_number(output_rms)}. Most of the run would be spent on "
        "learning the mean, and the first gradients are very large.",
        {"targets": target_rms, "mean": mean, "std": std, "outputs": output_rms},
        "Let the task standardise the targets: Learner(data, model, task=Regression(names, "
        "mean=…, std=…)) with the mean and standard deviation of train. Predictions and metrics "
        "stay in the units of the targets.",
    )


def dead_units(setup: TrainingSetup) -> list[Finding]:
    """Find ReLU layers whose units are mostly 0 for every sample, so that they get no gradient."""
    if len(setup.batch) < _DEAD_SAMPLES or not inputs_on_scale(setup):
        return []
    dead = {name: share for name, share in setup.forward_pass.zero_shares.items() if share > _DEAD}
    if not dead:
        return []
    name, share = next(iter(dead.items()))
    return [
        Finding(
            "dead-units",
            f"{share:.0%} of the units of {name!r} are 0 for all {len(setup.batch)} samples of "
            "the first batch, so the layers before them get no gradient from these units.",
            {"layers": len(dead), "share": share, "samples": len(setup.batch)},
            "Check the biases and the initial weights of the layer before it (large negative "
            "biases, weights of one sign), or insert a norm layer before it.",
            severity="error" if share == 1 else "warning",
        )
    ]


def batch_norm_few_values(setup: TrainingSetup) -> Finding | None:
    """Find batch norm layers that compute their statistics from fewer than four values."""
    if len(setup.batch) < len(setup.full_batch):
        return None  # the samples used here are already enough, so the full batch is too
    settings = setup.fit_settings
    layers = layers_with_statistics(setup.model)
    # With existing statistics, "auto" measures whether batches are large enough.
    auto_trains = have_initial_statistics(layers)
    training = {
        name
        for name in layers
        for bn in settings.bn
        if bn == "train" or (bn == "auto" and auto_trains)
    }
    few = {
        name: count
        for name, count in setup.forward_pass.values_per_channel.items()
        if name in training and count < _FEWEST_PER_CHANNEL
    }
    if not few:
        return None
    name, count = next(iter(few.items()))
    return Finding(
        "batch-norm-few-values",
        f"With {len(setup.batch)} samples in a batch, the norm layer {name!r} computes mean and "
        f"variance from {count} values per channel, which is too few: the model in training "
        "differs from the model that is evaluated.",
        {"layers": len(few), "values per channel": count, "batch size": len(setup.batch)},
        'Use larger batches (choices={"batch_size": 16}), the running statistics '
        '(choices={"bn": "adapt"}), or GroupNorm.',
    )


def unused_parameters(setup: TrainingSetup) -> Finding | None:
    """Find trainable parameters that the loss does not depend on."""
    if setup.fit_settings.custom_step or not labels_fit(setup):
        return None
    unused = [name for name, size in setup.max_gradients.items() if size is None]
    if not unused or len(unused) == len(setup.max_gradients):
        return None
    return Finding(
        "unused-parameters",
        f"The loss does not depend on {len(unused)} of {len(setup.max_gradients)} parameters "
        f"({name_some(unused, most=3)}), so they are never updated.",
        {"parameters": len(unused), "of": len(setup.max_gradients)},
        "Check whether forward uses these layers. If not, delete them or freeze them with "
        "requires_grad_(False).",
    )


def no_gradient(setup: TrainingSetup) -> Finding | None:
    """Find a loss that gives no parameter a gradient other than 0."""
    if setup.fit_settings.custom_step or not labels_fit(setup) or not inputs_on_scale(setup):
        return None
    sizes = setup.max_gradients
    if not sizes or any(sizes.values()) or len(setup.batch) < _ENOUGH:
        return None
    detached = all(size is None for size in sizes.values())
    what = (
        "The loss does not depend on any parameter: the outputs are detached from the graph."
        if detached
        else "All gradients of the first batch are exactly 0."
    )
    return Finding(
        "no-gradient",
        what,
        {"parameters": len(sizes), "with a gradient": 0 if detached else len(sizes)},
        "Look for detach(), torch.no_grad(), argmax or rounding in forward, or for units that are "
        "all 0.",
        severity="error",
    )


def _logits(setup: TrainingSetup) -> Tensor | None:
    """Return the outputs if core's loss reads them as logits and the labels fit, else None."""
    # A user-defined loss may expect probabilities.
    if setup.task.standard_loss not in _LOSSES_OF_LOGITS or not labels_fit(setup):
        return None
    outputs = setup.outputs
    return outputs if isinstance(outputs, Tensor) and outputs.ndim >= 2 else None


def _is_plain_regression(task: Task) -> bool:
    """Return whether the task is a regression with core's own loss."""
    return task.kind == "regression" and bool(task.standard_loss)


def _lowest_loss(n_classes: int) -> float:
    """Return the lowest cross entropy of a softmax over inputs between 0 and 1."""
    return math.log(math.e + n_classes - 1) - 1
