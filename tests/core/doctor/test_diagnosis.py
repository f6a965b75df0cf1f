"""``diagnose``: results and errors of checks become findings; a domain's checks join core's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from flambeau import Learner, TensorData
from flambeau.doctor import CORE_CHECKS, Check, Finding, TrainingSetup, combine_checks, diagnose
from flambeau.tensors.domain import DOMAIN

FINDING = Finding("few", "Train has 3 rows.", {"rows": 3, "share": 0.25}, "Collect more.")
DATA = TensorData.from_tensors(torch.randn(40, 3), torch.arange(40) % 2)


def setup() -> TrainingSetup:
    def build() -> Any:
        raise OSError("disk not available")

    return TrainingSetup(DATA, {}, build)


def check(result: Any, code: str = "few") -> Check:
    def run(_: TrainingSetup) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    return Check(code, "few rows", run)


@pytest.mark.parametrize(
    ("result", "count"),
    [(None, 0), (FINDING, 1), ([], 0), ([FINDING, FINDING], 2), ((FINDING,), 1)],
)
def test_a_check_returns_none_one_or_several(result: Any, count: int) -> None:
    report = diagnose(setup(), [check(result)])
    assert report.findings == (FINDING,) * count
    assert report.ok == (count == 0)


def test_an_error_in_a_check_names_it_and_others_run() -> None:
    report = diagnose(setup(), [check(KeyError("missing"), "broken"), check(FINDING)])
    assert report.codes == ("few", "check-crashed")
    crash = report.findings[1]
    assert crash.what == "broken could not run: KeyError: 'missing'"
    assert crash.evidence == {"checks": ["broken"]}


def test_checks_with_the_same_error_share_a_finding() -> None:
    report = diagnose(setup(), CORE_CHECKS)
    assert report.codes == ("check-crashed",)
    assert "OSError: disk not available" in report.findings[0].what
    crashed = report.findings[0].evidence["checks"]
    assert "class-not-in-train" not in crashed  # it reads only facts
    assert {"label-range", "constant-input", "high-initial-loss", "no-gradient"} <= set(crashed)


@pytest.mark.parametrize("result", ["few rows", [FINDING, "few"], True])
def test_another_return_value_is_an_error(result: Any) -> None:
    report = diagnose(setup(), [check(result, "odd")])
    assert report.codes == ("check-crashed",)
    assert "odd returned" in report.findings[0].what
    assert "a list of findings, or None" in report.findings[0].what


def test_errors_come_first_and_others_keep_their_order() -> None:
    worse = replace(FINDING, code="worse", severity="error")
    later = replace(FINDING, code="later")
    report = diagnose(setup(), [check([FINDING, worse, later])])
    assert report.codes == ("worse", "few", "later")


def test_a_diagnosis_prints_problem_evidence_and_fix() -> None:
    text = str(diagnose(setup(), [check(replace(FINDING, page="docs/few.md"))]))
    assert text.splitlines() == [
        "1 checks, 1 finding:",
        "",
        "  warning  few",
        "           Train has 3 rows.",
        "           Measured: rows 3, share 0.25",
        "           Fix: Collect more.",
        "           See: docs/few.md",
    ]
    clean = str(diagnose(setup(), [check(None), check(None)]))
    assert clean == "2 checks, no findings.\nChecked for: few rows; few rows."


def test_a_domains_check_replaces_cores() -> None:
    added = [check(None, "high-initial-loss"), check(None, "new")]
    combined = combine_checks(CORE_CHECKS, added)
    assert [each.code for each in combined] == [*(each.code for each in CORE_CHECKS), "new"]
    assert added[0] in combined
    assert combined.index(added[0]) == [check.code for check in CORE_CHECKS].index(
        "high-initial-loss"
    )


def test_the_learner_runs_the_domains_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(DATA, quiet=True)
    monkeypatch.setattr(learner, "domain", replace(DOMAIN, checks=(check(FINDING),)))
    assert learner.doctor().codes == ("few",)


def test_the_plan_is_built_once_and_only_when_needed() -> None:
    calls: list[int] = []
    learner = Learner(DATA, quiet=True)

    def build() -> Any:
        calls.append(1)
        return learner.built

    setup = TrainingSetup(DATA, learner.plan.values, build)
    assert setup.facts["n_train"] == 32
    assert calls == []
    assert setup.model is learner.model
    assert len(setup.batch) == 8 or len(setup.batch) == 4
    assert setup.loss > 0
    assert calls == [1]
