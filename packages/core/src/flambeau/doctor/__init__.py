"""The doctor: checks that read a set-up and say what very likely is not what was meant.

learner.doctor(full=False)   everything that core and the domain look for
diagnose(subject, checks)    the same, by hand
Check, Finding               what a domain contributes: ``Domain(checks=(Check(...),))``

``print(learner.doctor())`` lists the findings, each with its evidence, how to mend it, and where
docs/doctor.md tells more. It costs one batch, two forward passes and a backward pass; weights,
buffers and generators stay as they are. The checks that are quick and sure run by themselves
before a learner's first fit (``warn_before_fit``) unless ``TrainingOptions(doctor=False)``.
"""

from flambeau.doctor.before_fit import course_of, look_before_fit, warn_before_fit
from flambeau.doctor.check import READS, Check
from flambeau.doctor.checks import CORE_CHECKS, checks_for
from flambeau.doctor.diagnosis import Report, combine_checks, diagnose
from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Course, Subject

__all__ = [
    "CORE_CHECKS",
    "READS",
    "Check",
    "Course",
    "Finding",
    "Report",
    "Subject",
    "checks_for",
    "combine_checks",
    "course_of",
    "diagnose",
    "look_before_fit",
    "warn_before_fit",
]
