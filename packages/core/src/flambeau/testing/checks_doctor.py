"""Check of the doctor: it finds nothing in data that are as they should be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from flambeau import doctor
from flambeau.data.loader import Dataset, Loader
from flambeau.data.preprocess import Preprocessor
from flambeau.doctor.diagnosis import CRASHED
from flambeau.task.task import Task
from flambeau.testing.report import broken
from flambeau.testing.subject import Subject


@dataclass
class _BuiltPlan:
    """The objects that the doctor reads, built from a subject."""

    subject: Subject
    preprocessor: Preprocessor
    task: Task
    model: nn.Module
    device: torch.device

    def loader(self, part: str) -> Loader:
        return self.subject.loader(part, shuffle=part == "train")

    def dataset(self, part: str) -> Dataset:
        return self.subject.data.dataset(part, self.preprocessor, self.subject.values)


def check_doctor_is_silent(subject: Subject) -> None:
    """The checks of core and of the domain run on the demo data and find nothing there."""
    name = subject.models[0]
    setup = doctor.TrainingSetup(
        subject.data,
        subject.values,
        lambda: _BuiltPlan(
            subject,
            subject.preprocessor,
            subject.task,
            subject.build(name),
            torch.device("cpu"),
        ),
        seed=subject.seed,
    )
    report = doctor.diagnose(setup, doctor.checks_for(subject.domain.checks))
    for finding in report.findings:
        if finding.code == CRASHED:
            raise broken(
                f"On the demo data, {finding.what}",
                "users would read of a broken check instead of what is wrong with their data",
                "let the check return None where what it reads is not there",
            )
        raise broken(
            f"The doctor finds {finding.code} in the demo data: {finding.what}",
            "nobody believes a check that warns of what is as it should be",
            f"make the check more exact, or else fix the demo or the model: {finding.fix}",
        )
