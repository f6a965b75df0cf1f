"""``CORE_CHECKS``: what every set-up is looked at for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from flambeau.doctor import checks_batch as batch
from flambeau.doctor import checks_leaks as leaks
from flambeau.doctor import checks_loaders as loaders
from flambeau.doctor import checks_model as model
from flambeau.doctor import checks_targets as targets
from flambeau.doctor import checks_training as training
from flambeau.doctor.check import Check, Reads, Runs
from flambeau.doctor.diagnosis import combine_checks
from flambeau.doctor.finding import Finding
from flambeau.doctor.overfit import cannot_overfit
from flambeau.doctor.subject import Subject

PAGE = "docs/doctor.md"
"""Where each code has a section of its own."""


def _duplicates(subject: Subject) -> list[Finding]:
    return [*loaders.same_samples(subject), *leaks.duplicates_across_parts(subject)]


def _check(
    code: str,
    looks_for: str,
    run: Callable[[Subject], Finding | Sequence[Finding] | None],
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
        "one class with nearly all rows and accuracy alone",
        targets.class_imbalance,
        "facts",
    ),
    _check("constant-target", "targets that never change", targets.constant_target, "data"),
    _check("metric-for-task", "metrics of another task", targets.metric_for_task, "facts"),
    _check("label-range", "labels outside the classes", targets.label_range, "batch"),
    # What valid should not know
    _check("duplicates-across-parts", "train rows in valid or test", _duplicates, "data"),
    _check(
        "groups-across-parts",
        "patients or the like in train and valid",
        leaks.groups_across_parts,
        "data",
    ),
    _check("leaking-column", "an input that is the target", leaks.leaking_column, "data"),
    # Loaders of the user's own
    _check("sorted-labels", "train batches class by class", loaders.sorted_labels, "data"),
    _check(
        "train-not-shuffled",
        "a train loader with one order",
        loaders.train_not_shuffled,
        "data",
        "asked",
    ),
    _check("valid-shuffled", "a valid loader that draws", loaders.valid_shuffled, "data", "asked"),
    _check(
        "valid-drops-samples",
        "valid samples that are left out",
        loaders.valid_drops_samples,
        "data",
    ),
    _check("augmented-valid", "augmentation in valid", loaders.augmented_valid, "data"),
    # How it is trained
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
        "asked",
    ),
    _check(
        "weight-decay-on-norms",
        "weight decay on norm layers",
        training.weight_decay_on_norms,
        "optimizers",
        "asked",
    ),
    _check("eval-mode-lost", "layers left in eval mode", training.eval_mode_lost, "optimizers"),
    _check(
        "lr-for-optimizer",
        "a learning rate that cannot work",
        training.lr_for_optimizer,
        "optimizers",
    ),
    _check("too-few-steps", "a run of a few steps", training.too_few_steps, "optimizers", "asked"),
    # The first batch
    _check(
        "constant-input", "inputs that are the same for all samples", batch.constant_input, "batch"
    ),
    _check("non-finite-input", "NaN or infinity in the inputs", batch.non_finite_input, "batch"),
    # The model's first answers
    _check("input-scale", "inputs not normalised, or twice", batch.input_scale, "answer"),
    _check(
        "softmax-before-loss",
        "a softmax before cross entropy",
        model.softmax_before_loss,
        "answer",
    ),
    _check("sigmoid-before-loss", "a sigmoid before the loss", model.sigmoid_before_loss, "answer"),
    _check(
        "answers-out-of-reach",
        "targets that the last activation cannot give",
        model.answers_out_of_reach,
        "answer",
    ),
    _check("targets-unscaled", "targets far from 0", model.targets_unscaled, "answer"),
    _check("loss-at-start", "a first loss above that of guessing", model.loss_at_start, "answer"),
    # Asked only: a run says it too, with its step and layer.
    _check("loss-not-finite", "a first loss of NaN", model.loss_not_finite, "answer", "asked"),
    _check("dead-units", "units that are 0 for all samples", model.dead_units, "answer"),
    _check("tiny-batch-norm", "batch norm of tiny batches", model.tiny_batch_norm, "answer"),
    # Its gradients
    _check(
        "unused-parameters",
        "parameters that the loss does not depend on",
        model.unused_parameters,
        "gradients",
    ),
    _check("no-gradient", "a loss that teaches nothing", model.no_gradient, "gradients"),
    # What takes longer
    _check("near-duplicates", "valid rows near a train row", leaks.near_duplicates, "data", "full"),
    _check(
        "cannot-overfit",
        "a model that cannot learn a few samples",
        cannot_overfit,
        "gradients",
        "full",
    ),
)
"""The checks that every domain shares; one that a domain contributes under a code replaces it."""


def checks_for(own: Iterable[Check]) -> tuple[Check, ...]:
    """Core's checks and a domain's own, which take the place of core's of the same code."""
    return combine_checks(CORE_CHECKS, own)
