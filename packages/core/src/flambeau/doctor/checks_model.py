"""Checks of the model's first answers, its layers and its gradients."""

from __future__ import annotations

import math
from typing import TypeGuard

from torch import Tensor

from flambeau.doctor.checks_batch import inputs_on_scale, non_finite_input
from flambeau.doctor.checks_targets import labels_fit, loss_of_guessing
from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import listed, number
from flambeau.task.classification import Classification
from flambeau.task.multi_label import MultiLabel
from flambeau.task.regression import Regression
from flambeau.task.task import Task
from flambeau.training.norm.bn_statistics import are_fresh, stored_layers

# Nats above guessing: on (geometric) average the right answer gets a third of a guess's
# probability. Our nets and torchvision's, from scratch, start at most 0.3 above. The mean of a few
# samples strays: with 4 of them a linear layer was seen 1.2 above.
_ABOVE_GUESSING, _ABOVE_FOR_FEW, _FEW = 1.0, 3.0, 16
_ENOUGH = 4
_SUM_TOLERANCE = 1e-3  # of a float16 softmax over some thousand classes
_UNSCALED, _FAR_FROM = 30.0, 0.1
_SILENT, _SILENT_SAMPLES = 0.9, 16
_FEWEST_IN_A_CHANNEL = 4

_SIGMOIDS = ("SigmoidBackward0", "HardsigmoidBackward0")
_SOFTMAXES = ("SoftmaxBackward0",)
_RANGES = {
    "SigmoidBackward0": (0.0, 1.0),
    "SoftmaxBackward0": (0.0, 1.0),
    "TanhBackward0": (-1.0, 1.0),
    "ReluBackward0": (0.0, math.inf),
}


def softmax_before_loss(subject: Subject) -> Finding | None:
    """Probabilities where cross entropy expects logits: it takes their softmax once more."""
    answer = _logits(subject)
    if answer is None or answer.shape[1] < 2 or not isinstance(subject.task, Classification):
        return None
    sums = answer.float().sum(1)
    probabilities = bool((answer >= 0).all()) and bool((sums - 1).abs().max() < _SUM_TOLERANCE)
    if not probabilities or subject.look.last in _SIGMOIDS:
        return None
    return Finding(
        "softmax-before-loss",
        f"{type(subject.model).__name__} answers with probabilities, but cross entropy expects "
        "logits and takes the softmax itself: gradients become small and the loss cannot fall "
        f"below {_floor(answer.shape[1]):.3f}.",
        {
            "smallest": float(answer.min()),
            "rows add up to": [float(sums.min()), float(sums.max())],
        },
        "Take the softmax out of the model's forward; predict applies it.",
        severity="error",
    )


def sigmoid_before_loss(subject: Subject) -> Finding | None:
    """A sigmoid (or, for several labels, a softmax) before a loss that expects logits."""
    answer, last = _logits(subject), subject.look.last
    several = isinstance(subject.task, MultiLabel)
    if answer is None or last not in (*_SIGMOIDS, *(_SOFTMAXES if several else ())):
        return None
    kind = "softmax" if last in _SOFTMAXES else "sigmoid"
    takes = "a sigmoid" if several else "a softmax"
    return Finding(
        "sigmoid-before-loss",
        f"{type(subject.model).__name__} ends in a {kind}, but {subject.task.loss_name} expects "
        f"logits and takes {takes} itself: no answer can be sure, and gradients become small.",
        {"smallest": float(answer.min()), "largest": float(answer.max()), "made by": last},
        f"Take the {kind} out of the model's forward; predict applies what is needed.",
        severity="error",
    )


def answers_out_of_reach(subject: Subject) -> Finding | None:
    """A last activation whose range does not hold the targets."""
    task = subject.task
    if not _is_regression(task) or subject.look.last not in _RANGES:
        return None
    low, high = _RANGES[subject.look.last]
    targets = task.learned(subject.batch.target).float()
    outside = (targets < low) | (targets > high)
    if not bool(outside.any()):
        return None
    name = subject.look.last.removesuffix("Backward0").lower()
    span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"from {low:g} on"
    scaled = " (standardised)" if task.mean is not None else ""
    return Finding(
        "answers-out-of-reach",
        f"The model ends in a {name}, which answers {span}, but {float(outside.float().mean()):.0%}"
        f" of the targets{scaled} of the first batch lie outside.",
        {"smallest target": float(targets.min()), "largest target": float(targets.max())},
        "Leave the last activation out, or scale the targets to its range.",
        severity="error",
    )


def loss_at_start(subject: Subject) -> Finding | None:
    """A first loss far above that of guessing: answers too large, or weights of other classes."""
    guessing, answer = loss_of_guessing(subject.task), _logits(subject)
    if answer is None or guessing is None or subject.steps_done or len(subject.batch) < _ENOUGH:
        return None
    if not inputs_on_scale(subject):
        return None  # what the first layers get is the root of it, and is told by its own check
    loss = subject.loss
    above = _ABOVE_GUESSING if len(subject.batch) >= _FEW else _ABOVE_FOR_FEW
    if not math.isfinite(loss) or loss <= guessing + above:
        return None
    among = f" among {answer.shape[1]} classes" if isinstance(subject.task, Classification) else ""
    return Finding(
        "loss-at-start",
        f"Before any training the loss is {loss:.3g}; guessing{among} gives {guessing:.3g}.",
        {"loss": loss, "guessing": guessing, "largest output": float(answer.abs().max())},
        "Start the last layer with smaller weights (model.head.weight.data.mul_(0.1)). Weights "
        "that were trained on other classes need a new last layer.",
    )


def loss_not_finite(subject: Subject) -> Finding | None:
    """A loss of the first batch that is NaN or infinite, though its inputs are not."""
    if not labels_fit(subject) or non_finite_input(subject) or math.isfinite(subject.loss):
        return None
    answer = subject.answer
    finite = isinstance(answer, Tensor) and bool(answer.isfinite().all())
    return Finding(
        "loss-not-finite",
        f"The loss of the first batch is {subject.loss:g}, though its inputs are finite.",
        {"loss": subject.loss, "answers are finite": finite},
        "Look for a logarithm, root or division of 0 in "
        f"{'the loss' if finite else 'forward'}; learner.fit() names the layer.",
        severity="error",
    )


def targets_unscaled(subject: Subject) -> Finding | None:
    """Amounts to predict that are far from the size of a model's first answers."""
    task, answer = subject.task, subject.answer
    if not _is_regression(task) or task.mean is not None or subject.steps_done:
        return None
    targets = subject.batch.target.float()
    if not isinstance(answer, Tensor) or not targets.numel():
        return None
    size, ours = float(targets.pow(2).mean().sqrt()), float(answer.float().pow(2).mean().sqrt())
    if size < _UNSCALED or not ours < _FAR_FROM * size:
        return None
    mean, std = float(targets.mean()), float(targets.std())
    return Finding(
        "targets-unscaled",
        f"The targets are of size {number(size)} (mean {number(mean)}, deviation {number(std)}), "
        f"the model's first answers of size {number(ours)}: most of the run will go into reaching "
        "their mean, and the first gradients are huge.",
        {"targets": size, "mean": mean, "deviation": std, "answers": ours},
        "Let the task standardise them: Learner(data, model, task=Regression(names, mean=…, "
        "std=…)) with the train rows' figures; answers and metrics stay in the targets' units.",
    )


def dead_units(subject: Subject) -> list[Finding]:
    """ReLU layers most of whose units are 0 for every sample: they learn nothing."""
    if len(subject.batch) < _SILENT_SAMPLES or not inputs_on_scale(subject):
        return []
    dead = {name: share for name, share in subject.look.silent.items() if share > _SILENT}
    if not dead:
        return []
    name, share = next(iter(dead.items()))
    return [
        Finding(
            "dead-units",
            f"{share:.0%} of the units of {name!r} are 0 for all {len(subject.batch)} samples of "
            "the first batch, so nothing before them can learn.",
            {"layers": len(dead), "share": share, "samples": len(subject.batch)},
            "Look at the biases and first weights before it (large negative biases, weights of "
            "one sign), or put a norm layer before it.",
            severity="error" if share == 1 else "warning",
        )
    ]


def tiny_batch_norm(subject: Subject) -> Finding | None:
    """Batch norm that takes its statistics from a handful of numbers."""
    if len(subject.batch) < len(subject.whole_batch):
        return None  # as many as are looked at are enough
    course = subject.course
    layers = stored_layers(subject.model)
    # Where there are statistics already, "auto" measures whether batches are too rough.
    auto_trains = are_fresh(layers)
    takes = {
        name
        for name in layers
        for bn in course.bn
        if bn == "train" or (bn == "auto" and auto_trains)
    }
    few = {
        name: count
        for name, count in subject.look.in_a_channel.items()
        if name in takes and count < _FEWEST_IN_A_CHANNEL
    }
    if not few:
        return None
    name, count = next(iter(few.items()))
    return Finding(
        "tiny-batch-norm",
        f"Batches of {len(subject.batch)} give the norm layer {name!r} {count} numbers a channel, "
        "too few for a mean and a deviation: what is trained is not what is evaluated.",
        {"layers": len(few), "numbers a channel": count, "batch size": len(subject.batch)},
        'Take larger batches (choices={"batch_size": 16}), take '
        'statistics that stay (choices={"bn": "adapt"}), or use GroupNorm.',
    )


def unused_parameters(subject: Subject) -> Finding | None:
    """Parameters that the loss does not depend on: parts of the model that forward leaves out."""
    if subject.course.own_step or not labels_fit(subject):
        return None
    unused = [name for name, size in subject.gradients.items() if size is None]
    if not unused or len(unused) == len(subject.gradients):
        return None
    return Finding(
        "unused-parameters",
        f"The loss does not depend on {len(unused)} of {len(subject.gradients)} parameters "
        f"({listed(unused, most=3)}), so they never learn.",
        {"parameters": len(unused), "of": len(subject.gradients)},
        "Look whether forward uses these layers; delete them if not, or freeze them with "
        "requires_grad_(False).",
    )


def no_gradient(subject: Subject) -> Finding | None:
    """A loss from which no parameter learns anything."""
    if subject.course.own_step or not labels_fit(subject) or not inputs_on_scale(subject):
        return None
    sizes = subject.gradients
    if not sizes or any(sizes.values()) or len(subject.batch) < _ENOUGH:
        return None
    cut = all(size is None for size in sizes.values())
    what = (
        "The loss does not depend on any parameter: the answer was cut from the graph."
        if cut
        else "Every gradient of the first batch is exactly 0."
    )
    return Finding(
        "no-gradient",
        what,
        {"parameters": len(sizes), "with a gradient": 0 if cut else len(sizes)},
        "Look for detach(), torch.no_grad(), argmax or rounding in forward, or for units that are "
        "all 0.",
        severity="error",
    )


def _logits(subject: Subject) -> Tensor | None:
    """The model's answer where the task is core's with logits and labels it can read, else None."""
    task = subject.task
    if not isinstance(task, Classification | MultiLabel) or not labels_fit(subject):
        return None
    if type(task).loss not in (Classification.loss, MultiLabel.loss):
        return None  # a loss of the user's own may well take probabilities
    answer = subject.answer
    return answer if isinstance(answer, Tensor) and answer.ndim >= 2 else None


def _is_regression(task: Task) -> TypeGuard[Regression]:
    """Whether the loss is core's distance from amounts."""
    return isinstance(task, Regression) and type(task).loss is Regression.loss


def _floor(n_classes: int) -> float:
    """Least cross entropy of a softmax over numbers from 0 to 1."""
    return math.log(math.e + n_classes - 1) - 1
