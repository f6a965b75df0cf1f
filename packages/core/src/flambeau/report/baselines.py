"""What little effort reaches on the same data: the figure to put beside a network's score.

The majority class (or the mean), and a linear model on the flattened inputs.
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
from flambeau.task.classification import Classification
from flambeau.task.metrics import MeanLoss, Metric, score
from flambeau.task.multi_label import MultiLabel
from flambeau.task.regression import Regression
from flambeau.task.task import Task

_MAX_NUMBERS = 50_000_000  # of train features: 200 MB in float32, some seconds of fitting
_WIDE = 10  # features a row from which a basis of the rows pays for itself
_FEATURES = (torch.uint8, torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64)


class InMemory(Protocol):
    """Samples as tensors, ``(n, ...)`` each; ``MemoryDataset`` is one."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """Inputs by name."""
        ...

    @property
    def targets(self) -> Mapping[str, Tensor]:
        """Targets by name; exactly one."""
        ...


def majority(train_targets: Tensor, test_targets: Tensor) -> float:
    """Accuracy on test of always answering the class that is most frequent in train.

    Args:
        train_targets: Class numbers, ``(n,)``.
        test_targets: Class numbers, ``(m,)``.
    """
    most = train_targets.long().bincount().argmax()
    return float((test_targets == most).double().mean())


def logistic_regression(
    train_inputs: Tensor,
    train_targets: Tensor,
    test_inputs: Tensor,
    test_targets: Tensor,
    *,
    l2: float = 1.0,
    max_iterations: int = 100,
) -> float:
    """Accuracy on test of a multinomial logistic regression on the flattened inputs.

    Args:
        train_inputs: ``(n, ...)``, any number type; standardised by the train rows.
        train_targets: Class numbers, ``(n,)``.
        test_inputs: ``(m, ...)``.
        test_targets: Class numbers, ``(m,)``.
        l2: Half of it times the squared weights is added to the summed loss: scikit-learn's 1/C.
        max_iterations: Of L-BFGS; 100 suffice for a baseline.
    """
    n_classes = int(max(train_targets.max(), test_targets.max())) + 1
    fit = _Linear.logistic(train_inputs, train_targets, n_classes, l2, max_iterations)
    return float((fit(test_inputs).argmax(dim=1) == test_targets).double().mean())


def ridge(
    train_inputs: Tensor, train_targets: Tensor, test_inputs: Tensor, *, l2: float = 1.0
) -> Tensor:
    """Answers on test of a linear regression on the flattened, standardised inputs.

    Args:
        train_inputs: ``(n, ...)``, any number type.
        train_targets: ``(n,)`` or ``(n, values)``.
        test_inputs: ``(m, ...)``.
        l2: Times the squared weights is added to the summed squared error: scikit-learn's alpha.

    Returns:
        float64 ``(m,)`` or ``(m, values)``, as the targets are.
    """
    answers = _Linear.ridge(train_inputs, train_targets, l2)(test_inputs)
    return answers.squeeze(1) if train_targets.ndim == 1 else answers


def baseline_scores(
    train: InMemory,
    test: InMemory,
    task: Task,
    *,
    l2: float = 1.0,
    max_iterations: int = 100,
) -> dict[str, dict[str, float]]:
    """Loss and the task's metrics on test of simple models fitted on train, by the model's name.

    The linear models see the inputs that are measurements (floats, bytes, booleans), flattened and
    joined, and at most as many train rows as make 50 million numbers, drawn with a fixed key.

    Args:
        train: Samples to fit on.
        test: Samples to score.
        task: Says what is scored.
        l2: See ``logistic_regression`` and ``ridge``.
        max_iterations: Of L-BFGS.

    Returns:
        ``{"majority class": {"loss": …, "accuracy": …}, "logistic regression": {…}}``; "label
        frequencies" for several labels, "mean" and "ridge regression" for numbers. Empty for a
        task that no simple model serves.
    """
    if not isinstance(task, Classification | MultiLabel | Regression):
        return {}
    train_y, test_y = _only_target(train), _only_target(test)
    if isinstance(task, Classification):
        train_y, test_y = _class_numbers(train_y), _class_numbers(test_y)
        if train_y.ndim > 1:
            return {}
    x, test_x = _features(train), _features(test)
    if isinstance(task, Classification) and task.ignore_index is not None:
        kept = train_y != task.ignore_index
        train_y, x = train_y[kept], None if x is None else x[kept]
    models = [_constant(task, train_y)]
    if x is not None and test_x is not None:
        rows = _rows(x)
        models.append(_linear(task, x[rows], train_y[rows], l2, max_iterations))
    found: dict[str, dict[str, float]] = {}
    for name, fit in models:
        outputs = fit(test_x if test_x is not None else torch.zeros(len(test_y), 0))
        metrics: dict[str, Metric] = {"loss": MeanLoss(), **task.metrics()}
        task.update(metrics, outputs, Batch({}, {"target": test_y}))
        found[name] = {key: score(metric) for key, metric in metrics.items()}
    return found


# ---------------------------------------------------------------- the models

Fit = Callable[[Tensor], Tensor]


def _constant(task: Task, targets: Tensor) -> tuple[str, Fit]:
    """The same answer for everything: what the train targets alone tell."""
    if isinstance(task, Classification):
        # One more of each class, so that a class absent from train keeps the loss finite.
        counts = targets.long().bincount(minlength=task.n_outputs).double() + 1
        outputs, name = (counts / counts.sum()).log(), "majority class"
    elif isinstance(task, Regression):
        outputs = task.learned(targets).reshape(len(targets), -1).double().mean(dim=0)
        name = "mean"
    else:
        share = (targets.double().sum(dim=0) + 1) / (len(targets) + 2)
        outputs, name = (share / (1 - share)).log(), "label frequencies"
    return name, lambda x: outputs.expand(len(x), -1)


def _linear(task: Task, x: Tensor, y: Tensor, l2: float, max_iterations: int) -> tuple[str, Fit]:
    if isinstance(task, Regression):
        return "ridge regression", _Linear.ridge(x, task.learned(y), l2)
    n_outputs = task.n_outputs or 1
    return "logistic regression", _Linear.logistic(x, y, n_outputs, l2, max_iterations)


@dataclass(frozen=True)
class _Linear:
    """``standardised(x) @ weight + bias``."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        x = inputs.reshape(len(inputs), -1).to(self.mean.dtype)
        return torch.addmm(self.bias, (x - self.mean) / self.std, self.weight)

    @classmethod
    def logistic(
        cls, inputs: Tensor, targets: Tensor, n_outputs: int, l2: float, max_iterations: int
    ) -> _Linear:
        """Cross entropy for class numbers ``(n,)``, one sigmoid a column for ``(n, labels)``."""
        x, mean, std = _standardised(inputs, torch.float32)
        n, n_features = x.shape
        basis: Tensor | None = None
        if n_features > _WIDE * n:
            # The best weights are sums of rows, so a basis of the rows serves as well: 244
            # pictures of 49,152 numbers take 6 s of CPU instead of 19.
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
                loss = F.cross_entropy(logits, targets.long(), reduction="sum")
            else:
                loss = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum")
            # Divided by n, or the first step of the line search would be far too long.
            loss = (loss + l2 / 2 * weight.square().sum()) / n
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # pyright: ignore[reportUnknownMemberType]
        weight = weight.detach() if basis is None else basis @ weight.detach()
        return cls(mean, std, weight, bias.detach())

    @classmethod
    def ridge(cls, inputs: Tensor, targets: Tensor, l2: float) -> _Linear:
        """The normal equations, in the smaller of rows and features."""
        x, mean, std = _standardised(inputs, torch.float64)
        y = targets.reshape(len(targets), -1).double()
        bias = y.mean(dim=0)
        n, n_features = x.shape
        if n_features <= n:
            gram = x.T @ x + l2 * torch.eye(n_features, dtype=x.dtype)
            weight = _solved(gram, x.T @ (y - bias))
        else:
            gram = x @ x.T + l2 * torch.eye(n, dtype=x.dtype)
            weight = x.T @ _solved(gram, y - bias)
        return cls(mean, std, weight, bias)


def _basis(x: Tensor) -> Tensor:
    """An orthonormal basis of the rows of ``(n, features)``, as ``(features, n)``."""
    return cast("Tensor", torch.linalg.qr(x.T)[0])  # pyright: ignore[reportUnknownMemberType]


def _solved(gram: Tensor, right: Tensor) -> Tensor:
    # l2 > 0 makes the matrix positive definite.
    factor = cast("Tensor", torch.linalg.cholesky(gram))  # pyright: ignore[reportUnknownMemberType]
    return torch.cholesky_solve(right, factor)


def _standardised(inputs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    x = inputs.reshape(len(inputs), -1).to(dtype)
    mean = x.mean(dim=0)
    std = (x - mean).square().mean(dim=0).sqrt()
    # A constant feature says nothing; its standard deviation may be rounding noise, not 0.
    constant = std <= 1e-6 * mean.abs()
    std = torch.where(constant, torch.ones_like(std), std)
    return (x - mean) / std, mean, std


# ---------------------------------------------------------------- the samples


def _only_target(samples: InMemory) -> Tensor:
    if len(samples.targets) != 1:
        raise InputError(
            f"Baselines need exactly one target, and the samples have {len(samples.targets)} "
            f"({', '.join(samples.targets) or 'none'}). Pass a data set with one of them."
        )
    return next(iter(samples.targets.values())).cpu()


def _class_numbers(targets: Tensor) -> Tensor:
    """Class numbers of hard targets and of probabilities ``(n, classes)``."""
    return targets.argmax(dim=1) if targets.is_floating_point() else targets.long()


def _features(samples: InMemory) -> Tensor | None:
    """``(n, features)`` of the inputs that are measurements; codes are no measurements."""
    parts = [
        value.cpu().reshape(len(value), -1)
        for value in samples.inputs.values()
        if value.dtype in _FEATURES
    ]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat([part.float() for part in parts], dim=1)


def _rows(x: Tensor) -> Tensor:
    """Which train rows the linear models see."""
    most = max(1, _MAX_NUMBERS // max(1, math.prod(x.shape[1:])))
    if len(x) <= most:
        return torch.arange(len(x))
    return torch.randperm(len(x), generator=keyed.generator(0, "baseline rows"))[:most]
