"""The first-party domains run the same kit as everyone's, without privileges."""

import pytest

from flambeau.testing import CHECKS, Check, Subject, name_of

# Domain → architectures that build in a second or two, besides the plan's own.
DOMAINS: dict[str, list[str]] = {"tensors": [], "translate": ["transformer"], "vision": []}


@pytest.fixture(scope="module", params=DOMAINS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param, models=DOMAINS[request.param])


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_domain(subject: Subject, check: Check) -> None:
    check(subject)
