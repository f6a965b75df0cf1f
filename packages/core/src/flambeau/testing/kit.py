"""``check_domain`` and the list of checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flambeau.domain import Domain
from flambeau.errors import ArgumentError, ConformanceError, nearest
from flambeau.testing.checks_artefact import (
    check_export_answers_the_same,
    check_predicting_equals_validating,
)
from flambeau.testing.checks_data import (
    check_batches_are_as_declared,
    check_batches_move,
    check_facts_repeat,
    check_preprocessor_sees_train_only,
)
from flambeau.testing.checks_doctor import check_doctor_is_silent
from flambeau.testing.checks_import import (
    check_import_is_light,
    check_record_is_found_from_its_data,
)
from flambeau.testing.checks_model import (
    check_every_parameter_gets_a_gradient,
    check_loss_is_finite,
)
from flambeau.testing.checks_order import check_loader_starts_anywhere, check_order
from flambeau.testing.report import Outcome, Report
from flambeau.testing.subject import Subject

Check = Callable[[Subject], None]

CHECKS: tuple[Check, ...] = (
    check_record_is_found_from_its_data,
    check_import_is_light,
    check_facts_repeat,
    check_preprocessor_sees_train_only,
    check_batches_are_as_declared,
    check_batches_move,
    check_order,
    check_loader_starts_anywhere,
    check_loss_is_finite,
    check_every_parameter_gets_a_gradient,
    check_doctor_is_silent,
    check_export_answers_the_same,
    check_predicting_equals_validating,
)
"""Every check. ``pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)``
makes a test of each; it calls ``check(Subject("name"))``."""


def check_domain(
    domain: Domain | str,
    *,
    models: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
    n_samples: int = 64,
) -> Report:
    """What all checks find in a domain; it does not stop at the first failure.

    Args:
        domain: A record, its name, or where it stands (``"package.module:DOMAIN"``).
        models: Architectures to build besides the plan's own; name those that build quickly.
        expected: Name of a check → why this domain cannot pass it. Such a check must fail: one
            that passes unexpectedly is a failure, so that no excuse outlives its reason.
        n_samples: Size of the data that ``domain.demo`` makes.

    Raises:
        ArgumentError: ``expected`` or ``models`` has an unknown name.

    Example:
        >>> check_domain("tensors").ok
        True
    """
    reasons = dict(expected or {})
    known = [name_of(check) for check in CHECKS]
    for name, reason in reasons.items():
        if name not in known:
            raise ArgumentError(f"There is no check {name!r}. {nearest(name, known)}")
        if not reason.strip():
            raise ArgumentError(f"expected[{name!r}] needs a reason, for whoever reads the report.")
    subject = Subject(domain, models=models, n_samples=n_samples)
    outcomes = tuple(_run(check, subject, reasons) for check in CHECKS)
    try:
        built = subject.models
    except Exception:  # noqa: BLE001 - the checks have reported what is wrong with the plan
        built = ()
    left_out = tuple(name for name in subject.domain.models if name not in built)
    return Report(subject.domain.name, outcomes, built, left_out)


def name_of(check: Check) -> str:
    """The check's name, as in a report."""
    return getattr(check, "__name__", repr(check))


def _run(check: Check, subject: Subject, reasons: Mapping[str, str]) -> Outcome:
    name = name_of(check)
    try:
        check(subject)
    except ConformanceError as error:
        message = str(error)
    except Exception as error:  # noqa: BLE001 - whatever the domain raises, the other checks go on
        message = f"{type(error).__name__}: {error}\nThe domain's own code raised this."
    else:
        if name in reasons:
            return Outcome(
                name,
                "failed",
                f"It passes, but a failure was announced: {reasons[name]}\n"
                "Fix: take it out of expected.",
            )
        return Outcome(name, "passed")
    return (
        Outcome(name, "expected", reasons[name])
        if name in reasons
        else Outcome(name, "failed", message)
    )
