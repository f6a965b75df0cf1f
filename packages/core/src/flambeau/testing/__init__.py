"""The conformance kit: whether a domain keeps core's contract, for every package that brings one.

python -m flambeau.testing NAME          all checks, from the command line
check_domain("name").raise_if_failed()   the same in one call
CHECKS, Subject                          one pytest test a check
"""

from flambeau.testing.kit import CHECKS, Check, check_domain, name_of
from flambeau.testing.report import Outcome, Report, broken
from flambeau.testing.subject import Subject

__all__ = [
    "CHECKS",
    "Check",
    "Outcome",
    "Report",
    "Subject",
    "broken",
    "check_domain",
    "name_of",
]
