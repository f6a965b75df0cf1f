"""Baselines: scores of simple models, with which to compare the scores of a network.

The simple models are a constant prediction (majority class, label frequencies, or mean) and a
linear model of the flattened inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.metrics import Metric, score
from flambeau.task.numerics import per_sample
from flambeau.task.task import Task

_MAX_VALUES = 50_000_000  # train features: 200 MB in float32, fitted in some seconds
_MAX_OUTPUTS = 10_000_000  # of a model for many rows: 80 MB in float64
_MAX_WEIGHTS = 400_000  # L-BFGS keeps 200 vectors of this size: 320 MB in float32
_WIDE = 10  # features per row above which a basis of the rows is faster
_KINDS = ("classification", "multi_label", "regression")
_FEATURES = (torch.uint8, torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64)


class InMemorySamples(Protocol):
    """Samples in memory as tensors ``(n, ...)``, such as ``MemoryDataset``."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """Input tensors by name."""
        ...

    @property
    def targets(self) -> Mapping[str, Tensor]:
        """Target tensors by name; exactly one."""
        ...

    @property
    def sample_weight(self) -> Tensor | None:
        """Weight of each sample, ``(n,)``; None for equal weights."""
        ...


def majority_accuracy(train_targets: Tensor, test_targets: Tensor) -> float:
    """Return the accuracy on test of always predicting the most frequent class in train.

    Args:
        train_targets: Class indices, ``(n,)``.
        test_targets: Class indices, ``(m,)``.
    """
    most = train_targets.long().bincount().argmax()
    return float((test_targets == most).double().mean())


def logistic_regression_accuracy(
    train_inputs: Tensor,
    train_targets: Tensor,
    test_inputs: Tensor,
    test_targets: Tensor,
    *,
    l2: float = 1.0,
    max_iterations: int = 100,
) -> float:
    """Return the accuracy on test of a multinomial logistic regression of the flattened inputs.

    Args:
        train_inputs: ``(n, ...)``, any numeric dtype; standardised with the train mean and std.
        train_targets: Class indices, ``(n,)``.
        test_inputs: ``(m, ...)``.
        test_targets: Class indices, ``(m,)``.
        l2: The penalty ``l2 / 2 * sum(weight²)`` is added to the summed loss; equal to 1/C in
            scikit-learn.
        max_iterations: Maximum iterations of L-BFGS; 100 are enough for a baseline.
    """
    n_classes = int(max(train_targets.max(), test_targets.max())) + 1
    fit = _Linear.logistic(train_inputs, train_targets, n_classes, l2, max_iterations)
    return float((fit(test_inputs).argmax(dim=1) == test_targets).double().mean())


def ridge_predictions(
    train_inputs: Tensor, train_targets: Tensor, test_inputs: Tensor, *, l2: float = 1.0
) -> Tensor:
    """Return the predictions on test of a ridge regression of the flattened inputs.

    Args:
        train_inputs: ``(n, ...)``, any numeric dtype; standardised with the train mean and std.
        train_targets: ``(n,)`` or ``(n, values)``.
        test_inputs: ``(m, ...)``.
        l2: The penalty ``l2 * sum(weight²)`` is added to the summed squared error; equal to alpha
            in scikit-learn.

    Returns:
        float64 ``(m,)`` or ``(m, values)``, like the targets.
    """
    predictions = _Linear.ridge(train_inputs, train_targets, l2)(test_inputs)
    return predictions.squeeze(1) if train_targets.ndim == 1 else predictions


def baseline_scores(
    train: InMemorySamples,
    test: InMemorySamples,
    task: Task,
    *,
    l2: float = 1.0,
    max_iterations: int = 100,
) -> dict[str, dict[str, float]]:
    """Fit simple models on train and return their loss and metrics on test, by model name.

    The linear models use the numeric inputs (float, uint8, bool), flattened and concatenated.
    They are fitted on at most 50 million values: a random subset of the train rows, always the
    same one. They are omitted if they would have more than 400,000 weights, or more than
    10 million outputs for the train rows.

    Args:
        train: Samples to fit on.
        test: Samples to score.
        task: Defines loss and metrics.
        l2: See ``logistic_regression_accuracy`` and ``ridge_predictions``.
        max_iterations: Maximum iterations of L-BFGS.

    Returns:
        ``{"majority class": {"loss": …, "accuracy": …}, "logistic regression": {…}}``; "label
        frequencies" instead of "majority class" for multi-label tasks; "mean" and "ridge
        regression" for regression. Empty for other tasks.

    Raises:
        InputError: The samples do not have exactly one target.
    """
    if task.kind not in _KINDS:
        return {}
    train_y, test_y = _only_target(train), _only_target(test)
    if task.kind == "classification":
        train_y, test_y = _class_indices(train_y), _class_indices(test_y)
        if train_y.ndim > 1:
            return {}
    x, test_x = _features(train), _features(test)
    weights, test_weights = _weights(train), _weights(test)
    kept = _counted(task, train_y)
    if kept is not None:
        train_y, x = train_y[kept], None if x is None else x[kept]
        weights = None if weights is None else weights[kept]
    each = torch.ones(len(train_y)).double() if weights is None else weights
    constant = task.constant_outputs(train_y, each)
    if constant is not None:
        # The linear models minimise other losses than the task's.
        models, x = [("constant", _repeated(constant))], None
    else:
        models = [_constant(task, train_y, each)]
    rows = None if x is None else _rows(x)
    if x is not None and rows is not None and test_x is not None and _is_small(task, x, rows):
        each = None if weights is None else weights[rows]
        models.append(_linear(task, x[rows], train_y[rows], each, l2, max_iterations))
    found: dict[str, dict[str, float]] = {}
    for name, fit in models:
        metrics: dict[str, Metric] = {**task.loss_metrics(), **task.metrics()}
        inputs = test_x if test_x is not None else torch.zeros(len(test_y), 0)
        most = max(1, _MAX_OUTPUTS // (task.n_outputs or 1))
        for start in range(0, len(test_y), most):
            piece = slice(start, start + most)
            # With inputs, because a user-defined loss may read the size of the batch.
            each = None if test_weights is None else test_weights[piece]
            batch = Batch({"input": inputs[piece]}, {"target": test_y[piece]}, sample_weight=each)
            task.update(metrics, fit(inputs[piece]), batch)
        found[name] = {key: score(metric) for key, metric in metrics.items()}
    return found


# ---------------------------------------------------------------- models

Fit = Callable[[Tensor], Tensor]


def _constant(task: Task, targets: Tensor, each: Tensor) -> tuple[str, Fit]:
    """Return a model with the best constant prediction for train targets and their weights."""
    if task.kind == "classification":
        # Add-one smoothing keeps the loss finite for classes that are absent from train.
        counts = targets.long().bincount(each, minlength=task.n_outputs or 0) + 1
        outputs, name = (counts / counts.sum()).log(), "majority class"
    elif task.kind == "regression":
        values = task.standardise(targets).reshape(len(targets), -1).double()
        outputs, name = each @ values / each.sum(), "mean"
    else:
        share = (each @ targets.double() + 1) / (each.sum() + 2)
        outputs, name = (share / (1 - share)).log(), "label frequencies"
    return name, _repeated(outputs)


def _repeated(outputs: Tensor) -> Fit:
    return lambda x: outputs.expand(len(x), -1)


def _linear(
    task: Task, x: Tensor, y: Tensor, weights: Tensor | None, l2: float, max_iterations: int
) -> tuple[str, Fit]:
    if task.kind == "regression":
        return "ridge regression", _Linear.ridge(x, task.standardise(y), l2, weights)
    n_outputs = task.n_outputs or 1
    fitted = _Linear.logistic(x, y, n_outputs, l2, max_iterations, weights)
    return "logistic regression", fitted


@dataclass(frozen=True)
class _Linear:
    """The linear model ``standardised(x) @ weight + bias``."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        x = inputs.reshape(len(inputs), -1).to(self.mean.dtype)
        return torch.addmm(self.bias, (x - self.mean) / self.std, self.weight)

    @classmethod
    def logistic(
        cls,
        inputs: Tensor,
        targets: Tensor,
        n_outputs: int,
        l2: float,
        max_iterations: int,
        weights: Tensor | None = None,
    ) -> _Linear:
        """Fit with cross entropy for class indices ``(n,)``, else with one sigmoid per label."""
        x, mean, std = _standardised(inputs, torch.float32, weights)
        n, n_features = x.shape
        each = None if weights is None else weights.float()
        total = n if each is None else float(each.sum())
        reduction = "sum" if each is None else "none"
        basis: Tensor | None = None
        if n_features > _WIDE * n:
            # The optimal weights are linear combinations of the rows, so a basis of the rows is
            # enough: 244 images of 49,152 values take 6 s instead of 19 s (2-core Xeon).
            basis = _basis(x)
            x = x @ basis
        weight = torch.zeros(x.shape[1], n_outputs, requires_grad=True)
        bias = torch.zeros(n_outputs, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=max_iterations,
            max_eval=2 * max_iterations,
            tolerance_grad=1e-7,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = torch.addmm(bias, x, weight)
            if targets.ndim == 1:
                losses = F.cross_entropy(logits, targets.long(), reduction=reduction)
            else:
                losses = F.binary_cross_entropy_with_logits(
                    logits, targets.float(), reduction=reduction
                )
            if each is not None:
                losses = (per_sample(each, losses) * losses).sum()
            # A mean, because otherwise the first step of the line search is far too long.
            loss = (losses + l2 / 2 * weight.square().sum()) / total
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # pyright: ignore[reportUnknownMemberType]
        weight = weight.detach() if basis is None else basis @ weight.detach()
        return cls(mean, std, weight, bias.detach())

    @classmethod
    def ridge(
        cls, inputs: Tensor, targets: Tensor, l2: float, weights: Tensor | None = None
    ) -> _Linear:
        """Solve the normal equations, in the smaller of the two dimensions rows and features."""
        x, mean, std = _standardised(inputs, torch.float64, weights)
        y = targets.reshape(len(targets), -1).double()
        each = torch.ones(len(y)).double() if weights is None else weights
        bias = each @ y / each.sum()
        # Least squares with weights is least squares of rows times the roots of the weights.
        root = each.sqrt().unsqueeze(1)
        x, y = x * root, (y - bias) * root
        n, n_features = x.shape
        if n_features <= n:
            gram = x.T @ x + l2 * torch.eye(n_features, dtype=x.dtype)
            weight = _solved(gram, x.T @ y)
        else:
            gram = x @ x.T + l2 * torch.eye(n, dtype=x.dtype)
            weight = x.T @ _solved(gram, y)
        return cls(mean, std, weight, bias)


def _basis(x: Tensor) -> Tensor:
    """Return an orthonormal basis of the rows of ``(n, features)``, as ``(features, n)``."""
    return cast("Tensor", torch.linalg.qr(x.T)[0])  # pyright: ignore[reportUnknownMemberType]


def _solved(gram: Tensor, right: Tensor) -> Tensor:
    # l2 > 0 makes the matrix positive definite.
    factor = cast("Tensor", torch.linalg.cholesky(gram))  # pyright: ignore[reportUnknownMemberType]
    return torch.cholesky_solve(right, factor)


def _standardised(
    inputs: Tensor, dtype: torch.dtype, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    x = inputs.reshape(len(inputs), -1).to(dtype)
    share = None if weights is None else (weights / weights.sum()).to(dtype)
    mean = x.mean(dim=0) if share is None else share @ x
    squares = (x - mean).square()
    std = (squares.mean(dim=0) if share is None else share @ squares).sqrt()
    # The standard deviation of a constant feature may be rounding noise instead of 0.
    constant = std <= 1e-6 * mean.abs()
    std = torch.where(constant, torch.ones_like(std), std)
    return (x - mean) / std, mean, std


# ---------------------------------------------------------------- samples


def _only_target(samples: InMemorySamples) -> Tensor:
    if len(samples.targets) != 1:
        raise InputError(
            f"Baselines need exactly one target, but the samples have {len(samples.targets)} "
            f"({', '.join(samples.targets) or 'none'}). Pass a data set with one target."
        )
    return next(iter(samples.targets.values())).cpu()


def _counted(task: Task, targets: Tensor) -> Tensor | None:
    """Return which targets the task does not ignore; None if it ignores no targets."""
    if task.kind == "classification" and task.ignore_index is not None:
        return targets != task.ignore_index
    if getattr(task, "ignore_nan", False):
        return targets.isnan().reshape(len(targets), -1).any(dim=1).logical_not()
    return None


def _weights(samples: InMemorySamples) -> Tensor | None:
    weights = samples.sample_weight
    return None if weights is None else weights.double().cpu()


def _class_indices(targets: Tensor) -> Tensor:
    """Return targets as class indices; for probabilities ``(n, classes)`` the most likely class."""
    return targets.argmax(dim=1) if targets.is_floating_point() else targets.long()


def _features(samples: InMemorySamples) -> Tensor | None:
    """Return ``(n, features)`` of the numeric inputs; integer codes are not used."""
    parts = [
        value.cpu().reshape(len(value), -1)
        for value in samples.inputs.values()
        if value.dtype in _FEATURES
    ]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat([part.float() for part in parts], dim=1)


def _is_small(task: Task, x: Tensor, rows: Tensor) -> bool:
    """Return whether fitting a linear model with the task's outputs needs little memory."""
    n_outputs = task.n_outputs or 1
    n_inputs = min(math.prod(x.shape[1:]), len(rows))
    return n_outputs * n_inputs <= _MAX_WEIGHTS and n_outputs * len(rows) <= _MAX_OUTPUTS


def _rows(x: Tensor) -> Tensor:
    """Return the train rows on which the linear models are fitted."""
    most = max(1, _MAX_VALUES // max(1, math.prod(x.shape[1:])))
    if len(x) <= most:
        return torch.arange(len(x))
    return torch.randperm(len(x), generator=keyed.generator(0, "baseline rows"))[:most]
