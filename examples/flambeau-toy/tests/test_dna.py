"""flambeau's own checks, run on this domain; a failure says what, why and how to fix it."""

import pytest

from flambeau.testing import CHECKS, Check, Subject, name_of


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject("dna")


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_domain(subject: Subject, check: Check) -> None:
    check(subject)
