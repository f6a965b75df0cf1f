"""Conformance check of the doctor: it reports no findings for the demo data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from flambeau import doctor
from flambeau.data.loader import Dataset, Loader
from flambeau.data.preprocess import Preprocessor
from flambeau.doctor.diagnosis import CRASHED
from flambeau.task.task import Task
from flambeau.testing.conformance_report import conformance_error
from flambeau.testing.domain_under_test import DomainUnderTest


@dataclass
class _Components:
    """The objects that the doctor reads, built for a domain under test."""

    tested: DomainUnderTest
    preprocessor: Preprocessor
    task: Task
    model: nn.Module
    device: torch.device

    def loader(self, part: str) -> Loader:
        return self.tested.loader(part, shuffle=part == "train")

    def dataset(self, part: str) -> Dataset:
        return self.tested.data.dataset(part, self.preprocessor, self.tested.values)


def check_doctor_finds_nothing(tested: DomainUnderTest) -> None:
    """Check that the doctor, with the domain's checks, has no findings for the demo data."""
    name = tested.models[0]
    subject = doctor.TrainingSetup(
        tested.data,
        tested.values,
        lambda: _Components(
            tested,
            tested.preprocessor,
            tested.task,
            tested.build(name),
            torch.device("cpu"),
        ),
        seed=tested.seed,
    )
    report = doctor.diagnose(subject, doctor.checks_for(tested.domain.checks))
    for finding in report.findings:
        if finding.code == CRASHED:
            raise conformance_error(
                f"A check of the doctor raises an error for the demo data: {finding.what}",
                "users would see an error of the check instead of a fault in their data",
                "let the check return None if an object that it reads does not exist",
            )
        raise conformance_error(
            f"The doctor reports {finding.code} for the demo data: {finding.what}",
            "users ignore a check with false alarms",
            f"make the check more precise, or fix the demo or the model: {finding.fix}",
        )
