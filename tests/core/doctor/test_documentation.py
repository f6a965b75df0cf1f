"""Every code has a section in docs/doctor.md, and the findings name it."""

import re
from pathlib import Path

import pytest

from flambeau.doctor import CORE_CHECKS, Check
from flambeau.errors import ArgumentError

PAGE = Path(__file__).parents[3] / "docs" / "doctor.md"
SECTIONS = re.findall(r"^### (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_check_has_a_section_and_a_page() -> None:
    codes = [check.code for check in CORE_CHECKS]
    assert len(codes) == len(set(codes)) >= 20
    assert [code for code in codes if code not in SECTIONS] == []
    assert all(check.page == f"docs/doctor.md#{check.code}" for check in CORE_CHECKS)
    assert len(SECTIONS) == len(set(SECTIONS))


def test_unknown_reads_and_runs_are_refused() -> None:
    with pytest.raises(ArgumentError, match="reads is 'model', but it must be one of facts, data"):
        Check("few", "few rows", lambda setup: None, reads="model")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="runs is 'always', but it must be one of first fit"):
        Check("few", "few rows", lambda setup: None, runs="always")  # type: ignore[arg-type]
