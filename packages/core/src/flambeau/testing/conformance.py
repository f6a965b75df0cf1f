"""``check_domain`` and the list of conformance checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flambeau.domain import Domain
from flambeau.errors import ArgumentError, ConformanceError, did_you_mean
from flambeau.testing.conformance_collect import check_collect_keeps_the_index
from flambeau.testing.conformance_data import (
    check_batches_are_valid,
    check_batches_move_to_a_device,
    check_facts_are_deterministic,
    check_preprocessor_is_fitted_on_train_only,
)
from flambeau.testing.conformance_doctor import check_doctor_finds_nothing
from flambeau.testing.conformance_export import (
    check_export_gives_equal_outputs,
    check_predictor_equals_valid_loader,
)
from flambeau.testing.conformance_import import (
    check_data_classes_refer_to_the_record,
    check_import_is_light,
)
from flambeau.testing.conformance_model import (
    check_every_parameter_gets_a_gradient,
    check_loss_is_finite,
)
from flambeau.testing.conformance_order import (
    check_loader_resumes_inside_an_epoch,
    check_order_of_batches,
)
from flambeau.testing.conformance_report import CheckResult, ConformanceReport
from flambeau.testing.domain_under_test import DomainUnderTest

ConformanceCheck = Callable[[DomainUnderTest], None]

CHECKS: tuple[ConformanceCheck, ...] = (
    check_data_classes_refer_to_the_record,
    check_import_is_light,
    check_facts_are_deterministic,
    check_preprocessor_is_fitted_on_train_only,
    check_batches_are_valid,
    check_batches_move_to_a_device,
    check_order_of_batches,
    check_loader_resumes_inside_an_epoch,
    check_loss_is_finite,
    check_every_parameter_gets_a_gradient,
    check_doctor_finds_nothing,
    check_export_gives_equal_outputs,
    check_predictor_equals_valid_loader,
    check_collect_keeps_the_index,
)
"""All checks. ``pytest.mark.parametrize("check", CHECKS, ids=check_name)`` makes one test per
check, which calls ``check(DomainUnderTest("name"))``."""


def check_domain(
    domain: Domain | str,
    *,
    models: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
    n_samples: int = 64,
) -> ConformanceReport:
    """Run all checks on a domain and return the report; after a failure the next checks still run.

    Args:
        domain: A record, its name, or its reference (``"package.module:DOMAIN"``).
        models: Architectures to build in addition to the one in the plan; choose fast ones.
        expected: Name of a check → why this domain cannot pass it. Such a check must fail: if it
            passes, that counts as a failure, so that outdated exceptions are removed.
        n_samples: Size of the data that ``domain.demo`` creates.

    Raises:
        ArgumentError: ``expected`` or ``models`` has an unknown name, or a reason is empty.

    Example:
        >>> check_domain("tensors").ok
        True
    """
    reasons = dict(expected or {})
    known = [check_name(check) for check in CHECKS]
    for name, reason in reasons.items():
        if name not in known:
            raise ArgumentError(f"Unknown check {name!r} in expected. {did_you_mean(name, known)}")
        if not reason.strip():
            raise ArgumentError(f"expected[{name!r}] is empty. Give the reason for the failure.")
    tested = DomainUnderTest(domain, models=models, n_samples=n_samples)
    results = tuple(_run(check, tested, reasons) for check in CHECKS)
    try:
        built = tested.models
    except Exception:  # noqa: BLE001 - a fault of the plan, which the checks have reported
        built = ()
    not_built = tuple(name for name in tested.domain.models if name not in built)
    return ConformanceReport(tested.domain.name, results, built, not_built)


def check_name(check: ConformanceCheck) -> str:
    """Return the name of a check, as in a report."""
    return getattr(check, "__name__", repr(check))


def _run(
    check: ConformanceCheck, tested: DomainUnderTest, reasons: Mapping[str, str]
) -> CheckResult:
    name = check_name(check)
    try:
        check(tested)
    except ConformanceError as error:
        message = str(error)
    except Exception as error:  # noqa: BLE001 - an error of the domain must not stop other checks
        message = f"{type(error).__name__}: {error}\nThe code of the domain raised this error."
    else:
        if name in reasons:
            return CheckResult(
                name,
                "failed",
                f"The check passes, but expected declares a failure: {reasons[name]}\n"
                "Fix: remove it from expected.",
            )
        return CheckResult(name, "passed")
    return (
        CheckResult(name, "expected", reasons[name])
        if name in reasons
        else CheckResult(name, "failed", message)
    )
