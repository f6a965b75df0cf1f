"""flambeau's conformance checks on this domain; a failure names the cause and the fix."""

import pytest

from flambeau.testing import CHECKS, ConformanceCheck, DomainUnderTest, check_name


@pytest.fixture(scope="module")
def dna() -> DomainUnderTest:
    return DomainUnderTest("dna")


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_domain(dna: DomainUnderTest, check: ConformanceCheck) -> None:
    check(dna)
