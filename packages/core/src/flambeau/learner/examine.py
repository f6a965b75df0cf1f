"""Collect what the doctor, the reports and the model summary need from a learner."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from flambeau.doctor import TrainingSetup, make_fit_settings
from flambeau.learner.build import BuiltPlan
from flambeau.learner.setup import Setup
from flambeau.phases import recipes
from flambeau.plan import Plan
from flambeau.task.task import StepContext
from flambeau.training.optim.groups import trainable_groups
from flambeau.training.run import Run

if TYPE_CHECKING:
    from flambeau.inspect import Inspection, Summary
    from flambeau.report.interpretation import ReportDetails


def training_setup(setup: Setup, plan: Plan, run: Run | None = None) -> TrainingSetup:
    """Return the training setup for the doctor's checks; the model is built if a check needs it.

    Args:
        setup: The learner's setup.
        plan: The current plan.
        run: The run that is about to start; None before any.
    """
    phases = ()
    if run is None:
        model = setup.built(plan).model
        trainable = trainable_groups(plan["trainable"].value, model)
        phases = recipes.single_phase(plan.values, trainable=trainable)
    settings = make_fit_settings(setup.training, phases, run)
    return TrainingSetup(
        setup.data,
        plan.values,
        lambda: setup.built(plan),
        steps_done=setup.position.step,
        seed=setup.seed,
        fit_settings=replace(settings, lr_is_measured="lr_find" in plan["lr"].evidence),
        task_is_given=plan["task"].source == "user",
    )


def check_task_loss(checked: TrainingSetup) -> None:
    """Check the sum and the weight that ``task.loss`` returns for a few train samples.

    If the batch cannot be read or the model fails, nothing is checked: the first step of the run
    then raises the error.

    Raises:
        InputError: ``task.loss`` does not return a sum and its weight, or ``task.host_weight``
            returns another weight.
    """
    from flambeau.doctor.recorded_pass import preserved_with_seed
    from flambeau.torch_internals import is_compiled
    from flambeau.training.loss_check import check_loss, small_batch

    model, task = checked.model, copy(checked.task)
    if any(map(is_compiled, model.modules())):  # another batch size would compile it again
        return
    with preserved_with_seed(model, checked.seed, checked.task), torch.no_grad():
        try:
            batch = small_batch(task, checked.full_batch)
            batch = checked.built.preprocessor.on_device(batch.to(checked.built.device))
            outputs = task.forward(model.train(), batch, checked.step_context())
            result = task.loss(outputs, batch)
        except Exception:  # noqa: BLE001 the first step reports it, with step and samples
            return
        check_loss(task, outputs, batch, result)


def report_details(
    setup: Setup, built: BuiltPlan, inspection: Inspection | None = None
) -> ReportDetails:
    """Return the content of a report besides the predictions: data, plan, history and device."""
    from flambeau.report.interpretation import ReportDetails

    return ReportDetails(
        title=f"{setup.plan.values['architecture']} on {setup.domain.name} data",
        data=setup.data,
        plan=setup.plan,
        history=setup.history,
        dataset=built.dataset,
        notes={"device": str(built.device), "seed": str(setup.seed)},
        preprocessor=built.preprocessor,
        inspection=inspection,
    )


def summarise_model(
    setup: Setup, built: BuiltPlan, context: StepContext, trainable: Sequence[str] | None
) -> Summary:
    """Return the layers of the model for a batch, with the parameters that the next fit trains.

    Args:
        setup: State of the learner.
        built: The objects that the plan specifies.
        context: Context of the forward pass.
        trainable: Names of the parameter groups that train; None for all.
    """
    from flambeau.inspect import summary
    from flambeau.training.freeze import frozen_parameters, trainable_norm_parameters

    part = "valid" if len(setup.data.split.valid) else "train"
    batch = next(built.batches(part))
    bn = setup.plan["bn"].value
    # "auto" becomes "train" or "adapt" in the fit; both train the norm layers of frozen groups.
    also = trainable_norm_parameters(built.model, "train" if bn == "auto" else bn)
    return summary(
        built.model,
        batch.inputs,
        forward=lambda: built.task.predict(built.model, batch, context),
        bn=setup.plan["bn"],
        frozen=frozen_parameters(built.model, trainable, also),
    )
