"""``CORE_CHECKS``: the list of the checks that run for every domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flambeau.doctor import batch_checks as batch
from flambeau.doctor import leak_checks as leaks
from flambeau.doctor import loader_checks as loaders
from flambeau.doctor import model_checks as model
from flambeau.doctor import target_checks as targets
from flambeau.doctor import training_checks as training
from flambeau.doctor.check import Check, Reads, Runs
from flambeau.doctor.diagnosis import combine_checks
from flambeau.doctor.finding import Finding
from flambeau.doctor.overfit_check import cannot_overfit
from flambeau.doctor.training_setup import TrainingSetup

PAGE = "docs/doctor.md"
"""The documentation page, which has a section for the code of each check."""


def _duplicates(setup: TrainingSetup) -> list[Finding]:
    return [*loaders.same_samples(setup), *leaks.duplicates_across_parts(setup)]


def _check(
    code: str,
    looks_for: str,
    run: Callable[[TrainingSetup], Finding | Sequence[Finding] | None],
    reads: Reads,
    runs: Runs = "first fit",
) -> Check:
    return Check(code, looks_for, run, reads, runs, f"{PAGE}#{code}")


CORE_CHECKS: tuple[Check, ...] = (
    # Classes, targets, metrics
    _check("class-not-in-train", "classes without a train row", targets.class_missing, "facts"),
    _check("class-not-in-valid", "classes without a valid row", targets.class_not_in_valid, "data"),
    _check(
        "class-imbalance",
        "a dominant class with accuracy as the only metric",
        targets.class_imbalance,
        "facts",
    ),
    _check(
        "doubtful-reading",
        "labels, folders or columns whose interpretation is doubtful",
        targets.doubtful_readings,
        "facts",
    ),
    _check("constant-target", "constant targets", targets.constant_target, "data"),
    _check("metric-for-task", "metrics for another task", targets.metric_for_task, "facts"),
    _check("label-range", "labels outside the range of the classes", targets.label_range, "batch"),
    _check("no-target", "samples without a target", targets.no_target, "outputs"),
    # Leaks between the parts
    _check("duplicates-across-parts", "train rows in validation or test", _duplicates, "data"),
    _check(
        "groups-across-parts",
        "patients or other groups in both train and valid",
        leaks.groups_across_parts,
        "data",
    ),
    _check("leaking-column", "an input that contains the target", leaks.leaking_column, "data"),
    # User-defined data loaders and data sets
    _check("sorted-labels", "train batches sorted by class", loaders.sorted_labels, "data"),
    _check(
        "train-not-shuffled",
        "a train loader without shuffling",
        loaders.train_not_shuffled,
        "data",
        "on request",
    ),
    _check(
        "valid-shuffled",
        "a validation loader that shuffles",
        loaders.valid_shuffled,
        "data",
        "on request",
    ),
    _check(
        "valid-drops-samples",
        "validation samples dropped by the loader",
        loaders.valid_drops_samples,
        "data",
    ),
    _check("augmented-valid", "augmented validation samples", loaders.augmented_valid, "data"),
    # Optimizers, modes, learning rate, number of steps
    _check(
        "optimizer-misses-parameters",
        "parameters in no optimizer",
        training.optimizer_misses_parameters,
        "optimizers",
    ),
    _check(
        "parameter-in-two-optimizers",
        "parameters in two optimizers",
        training.parameter_in_two_optimizers,
        "optimizers",
    ),
    _check(
        "frozen-in-optimizer",
        "frozen parameters in the optimizer",
        training.frozen_in_optimizer,
        "optimizers",
        "on request",
    ),
    _check(
        "weight-decay-on-norms",
        "weight decay on norm layers",
        training.weight_decay_on_norms,
        "optimizers",
        "on request",
    ),
    _check(
        "eval-mode-lost",
        "layers in eval mode that training sets to train mode",
        training.eval_mode_lost,
        "optimizers",
    ),
    _check(
        "lr-for-optimizer",
        "a learning rate that is too high or too low",
        training.lr_for_optimizer,
        "optimizers",
    ),
    _check(
        "too-few-steps",
        "a run of very few steps",
        training.too_few_steps,
        "optimizers",
        "on request",
    ),
    # The first batch
    _check(
        "constant-input", "inputs with the same value in all samples", batch.constant_input, "batch"
    ),
    _check("non-finite-input", "NaN or infinity in the inputs", batch.non_finite_input, "batch"),
    # The outputs of the model before training
    _check(
        "input-scale", "inputs not normalised, or normalised twice", batch.input_scale, "outputs"
    ),
    _check(
        "softmax-before-loss",
        "a softmax before cross entropy",
        model.softmax_before_loss,
        "outputs",
    ),
    _check(
        "sigmoid-before-loss", "a sigmoid before the loss", model.sigmoid_before_loss, "outputs"
    ),
    _check(
        "outputs-out-of-range",
        "targets outside the range of the last activation",
        model.outputs_out_of_range,
        "outputs",
    ),
    _check("targets-unscaled", "targets that are not scaled", model.targets_unscaled, "outputs"),
    _check(
        "high-initial-loss",
        "an initial loss above that of a uniform prediction",
        model.high_initial_loss,
        "outputs",
    ),
    # Only on request: a fit reports it too, with its step and layer.
    _check(
        "loss-not-finite",
        "an initial loss that is not finite",
        model.loss_not_finite,
        "outputs",
        "on request",
    ),
    _check("dead-units", "units that are 0 for all samples", model.dead_units, "outputs"),
    _check(
        "batch-norm-few-values",
        "batch norm statistics from very few values",
        model.batch_norm_few_values,
        "outputs",
    ),
    # The gradients
    _check(
        "unused-parameters",
        "parameters that the loss does not depend on",
        model.unused_parameters,
        "gradients",
    ),
    _check("no-gradient", "a loss without gradients", model.no_gradient, "gradients"),
    # Slow checks
    _check(
        "near-duplicates",
        "validation rows similar to a train row",
        leaks.near_duplicates,
        "data",
        "full",
    ),
    _check(
        "cannot-overfit",
        "a model that cannot overfit a few samples",
        cannot_overfit,
        "gradients",
        "full",
    ),
)
"""The checks for every domain; a domain's check with the same code replaces one of these."""


def checks_for(domain_checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return core's checks and a domain's checks, which replace core's with the same code."""
    return combine_checks(CORE_CHECKS, domain_checks)
