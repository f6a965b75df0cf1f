"""The doctor: checks that find likely mistakes in a training setup.

learner.doctor(full=False)   run all checks of core and of the domain
diagnose(setup, checks)      run given checks on a ``TrainingSetup``
Check, Finding               what a domain adds: ``Domain(checks=(Check(...),))``

``print(learner.doctor())`` lists the findings, each with its evidence, its fix and the section of
docs/doctor.md that explains it. The cost is one batch, two forward passes and one backward pass;
weights, buffers and random generators are unchanged afterwards. The fast checks without false
alarms also run automatically before a learner's first fit (``warn_before_fit``), unless
``TrainingOptions(doctor=False)`` is set.
"""

from flambeau.doctor.before_fit import check_before_fit, make_fit_settings, warn_before_fit
from flambeau.doctor.check import READS, Check
from flambeau.doctor.core_checks import CORE_CHECKS, checks_for
from flambeau.doctor.diagnosis import Diagnosis, combine_checks, diagnose
from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import FitSettings, TrainingSetup

__all__ = [
    "CORE_CHECKS",
    "READS",
    "Check",
    "Diagnosis",
    "Finding",
    "FitSettings",
    "TrainingSetup",
    "check_before_fit",
    "checks_for",
    "combine_checks",
    "diagnose",
    "make_fit_settings",
    "warn_before_fit",
]
