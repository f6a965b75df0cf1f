"""Recipes: how each model is trained, with the source of every number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flambeau.errors import ArgumentError, did_you_mean
from flambeau_tabular.models.tabm import CPU_MEMBERS, MEMBERS

# RealMLP's "flat_cos" falls over the second half of the run, to 0.
_FLAT_HALF: Mapping[str, Any] = {"shape": "flat_cos", "options": {"pct_start": 0.5}}

OF_CLASSES = ("classification", "multi_label")
"""Kinds of tasks (``Task.kind``) whose outputs are logits."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings with which a model trains well, before anything is known of the data.

    Factors on the learning rate of single parameters belong to the model (``lr_factors``).

    Attributes:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay, at its peak.
        epochs: Passes over the train rows; an upper limit if ``patience`` is set.
        batch_size: Rows in a batch.
        source: Where the numbers are from.
        schedule: Shape of the learning rate's schedule.
        schedules: Schedules of other values, in the form of the plan's key "schedules".
        optimizer: Name of the optimizer.
        betas: Decay rates of the optimizer's moments; None is torch's default.
        clip_norm: Largest norm of the gradients; None does not clip.
        patience: Evaluations without an improvement after which training stops; None never stops.
        label_smoothing: Label smoothing for a classification whose score is accuracy; it makes
            probabilities worse, so it is left out for the log-loss and for ranking scores.
        model: Arguments of the model's builder.
        inputs: Values for the builder's argument ``inputs``, beside the columns of the data.
    """

    lr: float
    weight_decay: float
    epochs: int
    batch_size: int
    source: str
    schedule: str = "constant"
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    optimizer: str = "adamw"
    betas: tuple[float, float] | None = None
    clip_norm: float | None = None
    patience: int | None = None
    label_smoothing: float = 0.0
    model: Mapping[str, Any] = field(default_factory=dict[str, Any])
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def choices(self) -> dict[str, Any]:
        """Return the values for the plan by key, as ``Learner(data, choices=…)`` takes them."""
        return {
            "optimizer": self.optimizer,
            "betas": None if self.betas is None else list(self.betas),
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "schedule": self.schedule,
            "schedules": {name: dict(entry) for name, entry in self.schedules.items()},
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "clip_norm": self.clip_norm,
            "patience": self.patience,
        }


def _mlp(kind: str, device: str) -> Recipe:
    # Of several targets, of which some may be classes: the rate that suits both.
    of_classes = kind in (*OF_CLASSES, "combined")
    return Recipe(
        lr=0.04 if of_classes else 0.2,
        weight_decay=0.02,
        epochs=256,
        batch_size=256,
        schedule="coslog",
        schedules={"weight_decay": _FLAT_HALF, "dropout_factor": _FLAT_HALF},
        betas=(0.9, 0.95),
        label_smoothing=0.1 if kind == "classification" else 0.0,
        model={"hidden": [256, 256, 256], "dropout": 0.15},
        # 15 epochs, one seed, valid part of a random split of the train rows, 1 thread (2-core
        # EPYC): PLE gave accuracy 0.863 on Adult in 13 CPU seconds and RMSE 0.453 on California in
        # 8, PBLD 0.861 and 0.490 in the same time.
        inputs={"number_embedding": "ple"},
        source="RealMLP-TD: Holzmüller et al., 2024 (arXiv 2407.04491), and the defaults of "
        "pytabkit 1.7, which multiplies weight decay by the factor of the input scale once more. "
        "Unlike there, numbers have piecewise linear embeddings, which were better on two sets.",
    )


def _tabm(kind: str, device: str) -> Recipe:
    on_cpu = device.startswith("cpu")
    width = 256 if on_cpu else 512
    return Recipe(
        lr=2e-3,
        weight_decay=3e-4,
        epochs=100,
        batch_size=256,
        clip_norm=1.0,
        patience=16,
        model={
            "k": CPU_MEMBERS if on_cpu else MEMBERS,
            "hidden": [width, width],
            "dropout": 0.1,
        },
        inputs={"number_embedding": "ple"},
        source="The starting point in the README of the authors (k 32, two layers of 512 with "
        "embedded numbers, dropout 0.1, lr 0.002, weight decay 0.0003) with the patience and the "
        "clipping of TabM, 2025 (arXiv 2410.24210). On a CPU half of k and width, so that the "
        "hidden layers take an eighth of the arithmetic.",
    )


def _collab(kind: str, device: str) -> Recipe:
    return Recipe(
        lr=5e-3,
        weight_decay=0.1,
        epochs=5,
        batch_size=64,
        schedule="one_cycle",
        source="Howard and Gugger, Deep Learning for Coders, 2020, chapter 8 (MovieLens 100k).",
    )


RECIPES: Mapping[str, Callable[[str, str], Recipe]] = {
    "mlp": _mlp,
    "tabm": _tabm,
    "collab_dot": _collab,
    "collab_net": _collab,
}
"""By the name of the model: a function of the task's kind and the device."""


def recipe(name: str, *, kind: str = "regression", device: str = "cpu") -> Recipe:
    """Return the recipe of a model.

    Args:
        name: A name in ``MODELS``.
        kind: Kind of the task (``Task.kind``).
        device: The device of the model, such as "cpu" or "cuda:0".

    Raises:
        ArgumentError: The name is unknown.

    Example:
        >>> recipe("mlp", kind="classification").lr
        0.04
    """
    if name not in RECIPES:
        raise ArgumentError(f"There is no recipe for {name!r}. {did_you_mean(name, RECIPES)}")
    return RECIPES[name](kind, device)


def planned_recipe(values: Mapping[str, Any]) -> Recipe | None:
    """Return the recipe of a planned architecture; None for a module of the user."""
    name = values["architecture"]
    if name not in ("mlp", "tabm"):
        return None
    return recipe(name, kind=str(values.get("task", "")), device=str(values.get("device", "cpu")))
