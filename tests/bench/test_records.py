"""Records of results: their contents, appending, and which lines are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flambeau.errors import ArgumentError, ArtefactError, InputError, StorageError
from flambeau_bench import records, suites
from flambeau_bench.case import Case
from flambeau_bench.page import latest_records, report_text, write_report
from flambeau_bench.verdict_table import number, terminal_table


def measure(folder: Path, case: Case, **options: object) -> list[records.Record]:
    return suites.run([(case, case.sizes["quick"])], folder, **options)  # pyright: ignore


def test_sides_pairs_and_verdicts_have_a_line_each(tmp_path: Path, toy: Any) -> None:
    found = measure(tmp_path, toy())
    kinds = [record["kind"] for record in found]
    assert kinds == ["run"] * 44 + ["result"]
    assert records.read(tmp_path) == found
    run, result = found[-2], found[-1]
    assert run["phase"] == "pairs"
    assert run["figures"] == {"slope_us": 105.0} or run["side"] == "by hand"
    for key in ("schema", "run_id", "git_sha", "dirty", "case", "size", "host", "device", "torch"):
        assert key in run
    for key in ("side", "pair", "order", "settings", "init_hash", "order_hash", "steps", "gate"):
        assert key in run
    assert result["interval"]["median"] == 5.0
    assert result["noise_floor"]["median"] == 0.0


def test_times_are_not_written_if_the_gate_fails(tmp_path: Path, toy: Any) -> None:
    found = measure(tmp_path, toy(quality={"losses": "other"}))
    assert all(record.get("figures") is None for record in found)
    assert found[-1]["interval"] is None


def test_invalid_pairs_are_listed_without_times(tmp_path: Path, toy: Any) -> None:
    found = measure(tmp_path, toy(steps=9))
    invalid = [record for record in found if record["kind"] == "invalid"]
    assert len(invalid) == 22
    assert all("skipped steps" in record["reason"] for record in invalid)
    assert all(record["figures"] is None for record in found if "figures" in record)
    text = report_text(found)
    assert "the candidate skipped steps" in text


def test_results_are_only_added(tmp_path: Path) -> None:
    first = records.append(tmp_path, "run", [{"schema": 2, "kind": "skipped", "n": 1}])
    before = first.read_text()
    records.append(tmp_path, "run", [{"schema": 2, "kind": "skipped", "n": float("nan")}])
    assert first.read_text().startswith(before)
    assert [record["n"] for record in records.read(tmp_path)] == [1, None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            {"schema": 1, "kind": "run"},
            "Line 1 of .*a.jsonl has schema 1, but this release reads schema 2",
        ),
        ({"kind": "run"}, "has schema None"),
        ({"schema": 2, "kind": "guess"}, "unknown kind 'guess'"),
        ([1], "has schema None"),
    ],
)
def test_unknown_lines_are_refused(tmp_path: Path, line: object, reason: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ArtefactError, match=reason):
        records.read(tmp_path)


def test_damaged_and_missing_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="No results"):
        records.read(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"schema": 1')
    with pytest.raises(ArtefactError, match=r"Line 1 of .* is not valid JSON"):
        records.read(tmp_path)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path, toy: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Name another folder with --out"):
        measure(tmp_path / "file", toy())


def test_a_skipped_case_gives_its_reason(tmp_path: Path, toy: Any) -> None:
    class Absent(toy):
        def skip_reason(self, size: object) -> str:
            return "something is missing"

    found = measure(tmp_path, Absent())
    assert [record["kind"] for record in found] == ["skipped"]
    assert "skipped: something is missing" in terminal_table(found)


def test_the_report_uses_the_last_run_of_each_variant(tmp_path: Path, toy: Any) -> None:
    old = measure(tmp_path, toy(4.0))
    new = [{**record, "run_id": "later"} for record in measure(tmp_path, toy(6.0))]
    found = latest_records([*old, *new])
    assert {record["run_id"] for record in found} == {"later"}


def test_the_report_shows_the_numbers_of_the_records(tmp_path: Path, toy: Any) -> None:
    pytest.importorskip("matplotlib")
    measure(tmp_path, toy(6.25))
    path = write_report(tmp_path)
    text = path.read_text()
    assert "| toy | only | 6.25 | 6.25 to 6.25 | 0 to 0 | µs/step | ≤ 10 | met |" in text
    assert "![Median, 95% interval, noise floor and limit](verdicts.svg)" in text
    first = (tmp_path / "verdicts.svg").read_text()
    assert "6.25" in first
    assert (tmp_path / "verdicts.png").stat().st_size > 1_000
    write_report(tmp_path)
    assert (tmp_path / "verdicts.svg").read_text() == first


@pytest.mark.parametrize(
    ("value", "text"), [(3.0, "3"), (231.4, "231"), (0.12345, "0.123"), (12_345.6, "12,346")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_suites_and_cases_are_selected_by_name(tmp_path: Path, toy: Any) -> None:
    toy = toy()
    cases = {"toy": toy}
    assert suites.select_cases("toy", cases) == [(toy, toy.sizes["cpu"])]
    assert suites.select_cases("quick", cases) == [(toy, toy.sizes["quick"])]
    assert suites.select_cases("gpu", cases) == []
    with pytest.raises(ArgumentError, match="Did you mean 'toy'"):
        suites.select_cases("toi", cases)
    with pytest.raises(ArgumentError, match="has no size 'gpu'"):
        suites.select_cases("toy", cases, "gpu")
    with pytest.raises(ArgumentError, match="The suite 'quick'"):
        suites.select_cases("quick", cases, "cpu")
    with pytest.raises(ArgumentError, match="Unknown variant 'onl'"):
        measure(tmp_path, toy, variants=["onl"])
    with pytest.raises(InputError, match="at least 1, not 0"):
        measure(tmp_path, toy, pairs=0)


def test_the_number_of_pairs_can_be_chosen(tmp_path: Path, toy: Any) -> None:
    found = measure(tmp_path, toy(), pairs=2)
    assert found[-1]["pairs"] == 2
    assert found[-1]["interval"]["pairs"] == 2
