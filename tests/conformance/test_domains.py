"""The first-party domains pass the same checks as any other domain."""

import pytest

from flambeau.testing import CHECKS, ConformanceCheck, DomainUnderTest, check_name

# Domain → architectures to build in addition to that of the plan.
DOMAINS: dict[str, list[str]] = {
    "tensors": [],
    "language": ["decoder"],
    "tabular": ["tabm"],
    "tags": [],
    "text": ["awd_lstm", "transformer"],
    "translate": ["transformer"],
    "vision": [],
}


@pytest.fixture(scope="module", params=DOMAINS)
def tested(request: pytest.FixtureRequest) -> DomainUnderTest:
    return DomainUnderTest(request.param, models=DOMAINS[request.param])


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_domain(tested: DomainUnderTest, check: ConformanceCheck) -> None:
    check(tested)
