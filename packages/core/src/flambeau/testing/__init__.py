"""The conformance kit: checks that a domain satisfies its contract with core.

python -m flambeau.testing NAME          run all checks from the command line
check_domain("name").raise_if_failed()   run all checks in one call
CHECKS, DomainUnderTest                  one pytest test per check
"""

from flambeau.testing.conformance import CHECKS, ConformanceCheck, check_domain, check_name
from flambeau.testing.conformance_report import (
    CheckResult,
    ConformanceReport,
    conformance_error,
)
from flambeau.testing.domain_under_test import DomainUnderTest

__all__ = [
    "CHECKS",
    "CheckResult",
    "ConformanceCheck",
    "ConformanceReport",
    "DomainUnderTest",
    "check_domain",
    "check_name",
    "conformance_error",
]
