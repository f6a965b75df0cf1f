"""The seam: any check's answer or crash becomes a report, and a domain's checks join core's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from flambeau import Learner, TensorData
from flambeau.doctor import CORE_CHECKS, Check, Finding, Subject, combine_checks, diagnose
from flambeau.tensors.domain import DOMAIN

FINDING = Finding("few", "Train has 3 rows.", {"rows": 3, "share": 0.25}, "Collect more.")
DATA = TensorData.from_tensors(torch.randn(40, 3), torch.arange(40) % 2)


def subject() -> Subject:
    def make() -> Any:
        raise OSError("the disk is gone")

    return Subject(DATA, {}, make)


def check(answer: Any, code: str = "few") -> Check:
    def run(_: Subject) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Check(code, "few rows", run)


@pytest.mark.parametrize(
    ("answer", "count"),
    [(None, 0), (FINDING, 1), ([], 0), ([FINDING, FINDING], 2), ((FINDING,), 1)],
)
def test_a_check_gives_none_one_or_several(answer: Any, count: int) -> None:
    report = diagnose(subject(), [check(answer)])
    assert report.findings == (FINDING,) * count
    assert report.ok == (count == 0)


def test_a_crash_names_the_check_and_ends_nothing() -> None:
    report = diagnose(subject(), [check(KeyError("gone"), "broken"), check(FINDING)])
    assert report.codes == ("few", "check-crashed")
    crash = report.findings[1]
    assert crash.what == "broken could not be checked: KeyError: 'gone'"
    assert crash.evidence == {"checks": ["broken"]}


def test_one_reason_is_told_once() -> None:
    report = diagnose(subject(), CORE_CHECKS)
    assert report.codes == ("check-crashed",)
    assert "OSError: the disk is gone" in report.findings[0].what
    crashed = report.findings[0].evidence["checks"]
    assert "class-not-in-train" not in crashed  # it reads facts alone
    assert {"label-range", "constant-input", "loss-at-start", "no-gradient"} <= set(crashed)


@pytest.mark.parametrize("answer", ["few rows", [FINDING, "few"], True])
def test_another_answer_is_a_broken_check(answer: Any) -> None:
    report = diagnose(subject(), [check(answer, "odd")])
    assert report.codes == ("check-crashed",)
    assert "odd returned" in report.findings[0].what
    assert "a list of them, or None" in report.findings[0].what


def test_errors_stand_first_and_the_others_in_order() -> None:
    worse = replace(FINDING, code="worse", severity="error")
    later = replace(FINDING, code="later")
    report = diagnose(subject(), [check([FINDING, worse, later])])
    assert report.codes == ("worse", "few", "later")


def test_the_report_tells_what_why_and_how() -> None:
    text = str(diagnose(subject(), [check(replace(FINDING, page="docs/few.md"))]))
    assert text.splitlines() == [
        "1 checks, 1 finding:",
        "",
        "  warning  few",
        "           Train has 3 rows.",
        "           Measured: rows 3, share 0.25",
        "           To mend: Collect more.",
        "           More: docs/few.md",
    ]
    clean = str(diagnose(subject(), [check(None), check(None)]))
    assert clean == "2 checks, nothing found.\nLooked for: few rows; few rows."


def test_a_domains_check_takes_the_place_of_cores() -> None:
    own = [check(None, "loss-at-start"), check(None, "new")]
    combined = combine_checks(CORE_CHECKS, own)
    assert [each.code for each in combined] == [*(each.code for each in CORE_CHECKS), "new"]
    assert own[0] in combined
    assert combined.index(own[0]) == [check.code for check in CORE_CHECKS].index("loss-at-start")


def test_the_learner_asks_the_domains_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(DATA, quiet=True)
    monkeypatch.setattr(learner, "domain", replace(DOMAIN, checks=(check(FINDING),)))
    assert learner.doctor().codes == ("few",)


def test_parts_are_made_once_and_only_when_they_are_read() -> None:
    made: list[int] = []
    learner = Learner(DATA, quiet=True)

    def make() -> Any:
        made.append(1)
        return learner.built

    patient = Subject(DATA, learner.plan.values, make)
    assert patient.facts["n_train"] == 32
    assert made == []
    assert patient.model is learner.model
    assert len(patient.batch) == 8 or len(patient.batch) == 4
    assert patient.loss > 0
    assert made == [1]
