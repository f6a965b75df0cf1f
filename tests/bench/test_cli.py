"""``flambeau bench`` on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError
from flambeau_bench.cases import CASES


def call(*words: object) -> Result:
    result = CliRunner().invoke(build_app(), ["bench", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_list_names_every_case() -> None:
    text = call("list").output
    assert all(name in text for name in CASES)


def test_the_pages_name_every_case() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs/benchmarks/README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([\w-]+)` \|", page.partition("## Method")[0], re.MULTILINE)
    assert sorted(table) == sorted(CASES)
    page = (root / "packages/bench/README.md").read_text(encoding="utf-8")
    assert [name for name in CASES if f"`{name}`" not in page] == []


def test_run_and_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = call("run", "sync-count", "--quick", "--variant", "guard off", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "met" in result.output
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    reported = call("report", tmp_path)
    assert "host reads/step" in reported.output
    assert "sync-count" in (tmp_path / "report.md").read_text()


def test_a_missed_limit_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: type
) -> None:
    monkeypatch.setitem(CASES, "toy", toy(11.0))
    result = call("run", "toy", "--pairs", 2, "--out", tmp_path)
    assert result.exit_code == 1
    assert "MISSED" in result.output
    # One pair has no interval.
    result = call("run", "toy", "--pairs", 1, "--out", tmp_path)
    assert result.exit_code == 0
    assert "one pair" in result.output


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'loaders'"):
        call("run", "loader", "--out", tmp_path)
