"""The doctor: checks that read a set-up and say what very likely is not what was meant.

learner.doctor()             everything that core and the domain look for
diagnose(subject, checks)    the same, by hand
Check, Finding               what a domain contributes: ``Domain(checks=(Check(...),))``

``print(learner.doctor())`` lists the findings, each with its evidence and how to mend it. It costs
one batch; weights, buffers and generators stay as they are. It runs when it is asked for, never by
itself.
"""

from flambeau.doctor.check import Check
from flambeau.doctor.checks import CORE_CHECKS
from flambeau.doctor.diagnosis import Report, combine_checks, diagnose
from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Subject

__all__ = [
    "CORE_CHECKS",
    "Check",
    "Finding",
    "Report",
    "Subject",
    "combine_checks",
    "diagnose",
]
