"""Recompute the statistics of norm layers for evaluations at the beginning of a phase.

Consecutive phases that train the same layers count as one.

Running statistics are averages over the last steps. In the first steps of a phase a large part of
them comes from initial values or from earlier weights, and does not fit the current weights. For an
evaluation during these steps they are therefore recomputed from train batches.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flambeau.data.loader import not_resumable_reason
from flambeau.errors import FlambeauWarning
from flambeau.training.freeze import set_train_modes
from flambeau.training.norm.bn_statistics import MEASURED_BATCHES, layers_with_statistics
from flambeau.training.norm.first_batches import first_batches
from flambeau.training.run_state.preserve import preserve
from flambeau.training.step import train_step

if TYPE_CHECKING:
    from flambeau.training.run import Run

KEY = "bn_statistics"
"""Key of the plan: "fresh" recomputes the statistics while they lag, "running" never does.

"off", which measurements set, also disables the warning of ``bn_gap``: the statistics after a
measurement are not used.
"""

LAG_STEPS = 50
"""Steps that train the same layers after which running statistics fit: with torch's momentum of
0.1, 99.5% of them then come from these steps."""

_NormLayer = (
    nn.BatchNorm1d
    | nn.BatchNorm2d
    | nn.BatchNorm3d
    | nn.SyncBatchNorm
    | nn.InstanceNorm1d
    | nn.InstanceNorm2d
    | nn.InstanceNorm3d
)
_Statistics = dict[str, dict[str, Tensor]]


def statistics_to_refresh(run: Run) -> bool:
    """Return whether an evaluation at this point recomputes the statistics.

    Warns:
        FlambeauWarning: The statistics lag, but the loader cannot repeat its batches, so that the
            evaluation uses the running ones.
    """
    state, average = run.state, run.average
    if run.components.values.get(KEY, "fresh") != "fresh":
        return False
    if state.steps_in_same_modes >= LAG_STEPS:
        return False
    if average is not None and average.updates and average.averages_statistics:
        return False
    if not _trained_layers(run):
        return False
    why_not = not_resumable_reason(run.components.train)
    if why_not and run.is_main and run.components.valid is not None:
        warnings.warn(
            f"[lagging-statistics] An evaluation in the first {LAG_STEPS} steps of a phase uses "
            "running statistics of norm layers that still come from their initial values, so its "
            "scores may be wrong. They cannot be computed anew, because the train batches cannot "
            f"be read twice: {why_not} Evaluate later, or train on a loader that repeats its "
            "batches.",
            FlambeauWarning,
            stacklevel=2,
        )
    return not why_not


def refresh_statistics(run: Run) -> None:
    """Compute the statistics of the norm layers in train mode from the first train batches.

    Each layer gets the mean over the batches, as ``torch.optim.swa_utils.update_bn`` computes it;
    all other layers are in eval mode. At most 20 batches are read, prepared as for evaluation.
    Batches whose statistics are not finite are left out. Training does not use the statistics, so
    it does not change. With several processes, each
    process gets the mean over all of them.
    """
    # A custom step may train without the task's forward.
    is_default = run.options.train_step is train_step
    with nullcontext() if is_default else suppress(Exception):
        found = run.gather(_measured(run))
        layers = _trained_layers(run)
        with torch.no_grad():
            for name, layer in layers.items():
                seen = [of[name] for of in found if name in of]
                for buffer, stored in _statistics(layer).items():
                    if seen:
                        stored.copy_(torch.stack([of[buffer].to(stored) for of in seen]).mean(0))
        run.update.save_statistics()


def _measured(run: Run) -> _Statistics:
    """Return the statistics of each layer over the batches; empty if there is no usable batch."""
    components, state = run.components, run.state
    model, context = components.model, replace(state.context, carry=None)
    layers = _trained_layers(run)
    momenta = {name: layer.momentum for name, layer in layers.items()}
    buffers = [buffer for layer in layers.values() for buffer in layer.buffers(recurse=False)]
    used = False
    with preserve(model, components.task), torch.no_grad(), run.step.autocast():
        try:
            model.eval()
            for layer in layers.values():
                layer.train()
                layer.reset_running_stats()
                layer.momentum = None  # a mean over the batches
            for batch in first_batches(components, run.data_epoch, MEASURED_BATCHES):
                if len(batch) > 1:  # torch refuses batch statistics of a single value per channel
                    before = [buffer.clone() for buffer in buffers]
                    components.task.forward(model, components.on_device(batch), context)
                    if torch.stack([buffer.double().sum() for buffer in buffers]).isfinite().all():
                        used = True
                    else:  # a step with this batch is skipped, or ends the run
                        for buffer, old in zip(buffers, before, strict=True):
                            buffer.copy_(old)
            if not used:
                return {}
            return {
                name: {key: value.clone() for key, value in _statistics(layer).items()}
                for name, layer in layers.items()
            }
        finally:
            for name, layer in layers.items():
                layer.momentum = momenta[name]


def _trained_layers(run: Run) -> dict[str, _NormLayer]:
    """Return torch's norm layers that this phase trains and whose statistics follow the data."""
    model = run.components.model
    found: dict[str, _NormLayer] = {
        name: layer
        for name, layer in layers_with_statistics(model).items()
        if isinstance(layer, _NormLayer) and layer.momentum != 0  # 0 keeps them on purpose
    }
    if not found:
        return {}
    modes = {module: module.training for module in model.modules()}
    try:
        set_train_modes(model, run.trainable, run.state.phase.bn)
        return {name: layer for name, layer in found.items() if layer.training}
    finally:
        for module, training in modes.items():
            module.training = training


def _statistics(layer: _NormLayer) -> dict[str, Tensor]:
    """Return the running mean and variance by name."""
    return {name: getattr(layer, name) for name in ("running_mean", "running_var")}
