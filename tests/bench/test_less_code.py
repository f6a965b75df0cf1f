"""The programs that are compared by length: counts, scores, and the page that shows both."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flambeau_bench.less_code import programs, results
from flambeau_bench.less_code.__main__ import app
from flambeau_bench.less_code.programs import PEERS, TASKS, AbsentError, program, run_program
from flambeau_bench.peers import environment
from flambeau_bench.peers.peer import Peer
from flambeau_bench.syntax_nodes import code_hash, count_lines, count_nodes

NAMES = [(peer, task) for peer in PEERS for task in TASKS]


@pytest.fixture(scope="module")
def records() -> dict[tuple[str, str], dict[str, Any]]:
    return results.read()


def test_the_known_records_are_there(records: dict[tuple[str, str], Any]) -> None:
    assert {("flambeau", "tabular"), ("plain", "tabular")} <= records.keys()


def test_a_record_is_of_the_program_as_it_is_now(records: dict[tuple[str, str], Any]) -> None:
    for (peer, task), record in records.items():
        path = program(peer, task)
        assert record["code"] == code_hash(path), f"run {peer} {task} again"
        assert record["nodes"] == count_nodes(path)
        assert record["host"]["cpu"]


def test_a_program_that_was_run_reached_the_required_score(
    records: dict[tuple[str, str], Any],
) -> None:
    for (_, task), record in records.items():
        assert record["metric"] == TASKS[task].metric
        assert record["score"] >= TASKS[task].required


@pytest.mark.parametrize("task", TASKS)
def test_flambeau_has_no_more_nodes_than_keras(task: str) -> None:
    """Of the texts alone: most of the programs have no score yet."""
    assert count_nodes(program("flambeau", task)) <= count_nodes(program("keras", task))


def test_only_rows_whose_programs_all_reached_the_score_have_a_bold_one() -> None:
    def bold(scores: dict[str, float]) -> list[str]:
        records: dict[tuple[str, str], Any] = {
            (peer, "tabular"): {
                **results.record_of("flambeau", "tabular", score),
                "peer": peer,
            }
            for peer, score in scores.items()
        }
        first, *lines = results.table(records).splitlines()
        assert first.startswith(
            f"**Provisional: {sum(v >= 0.84 for v in scores.values())} of the 25"
        )
        return [line.split(" | ")[0] for line in lines if "**" in line]

    assert bold(dict.fromkeys(PEERS, 0.9)) == ["| Table with mixed columns"]
    assert bold({**dict.fromkeys(PEERS, 0.9), "keras": 0.5}) == []
    assert bold({peer: 0.9 for peer in PEERS if peer != "keras"}) == []


def test_the_page_is_made_of_the_records(records: dict[tuple[str, str], Any]) -> None:
    page = results.PAGE.read_text(encoding="utf-8")
    assert results.written(page, records) == page
    other = {key: {**record, "score": record["score"] / 2} for key, record in records.items()}
    assert results.written(page, other) != page


@pytest.mark.parametrize(("peer", "task"), NAMES)
def test_a_program_names_its_defaults(peer: str, task: str) -> None:
    text = ast.get_docstring(ast.parse(program(peer, task).read_text(encoding="utf-8")))
    assert text is not None
    assert "\n\nDefaults: " in text


def test_layout_and_comments_do_not_count(tmp_path: Path) -> None:
    plain, spread = tmp_path / "plain.py", tmp_path / "spread.py"
    plain.write_text('"""A."""\n\nprint(max(1, 2))\n')
    spread.write_text('"""Another."""\n# why\nprint(\n    max(1, 2),\n)\n')
    assert count_nodes(plain) == count_nodes(spread) == 12
    assert code_hash(plain) == code_hash(spread)
    assert (count_lines(plain), count_lines(spread)) == (1, 3)
    plain.write_text('"""A."""\n\nprint(max(1, 3))\n')
    assert code_hash(plain) != code_hash(spread)


def fake(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> Path:
    """Put a program for flambeau in place of those of the checkout; return an empty data folder."""
    path = folder / "baselines" / "flambeau" / "programs" / "tabular.py"
    path.parent.mkdir(parents=True)
    path.write_text(code)
    monkeypatch.setattr(programs, "BASELINES", folder / "baselines")
    (folder / "data").mkdir()
    return folder / "data"


def test_a_run_returns_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fake(monkeypatch, tmp_path, "print(open('rows.txt').read()); print(0.875)")
    (data / "rows.txt").write_text("rows")
    assert run_program("flambeau", "tabular", data) == 0.875


@pytest.mark.parametrize(
    ("code", "message"),
    [("print('done')", "no score"), ("1 / 0", "ZeroDivisionError"), ("print('nan')", "no score")],
)
def test_a_program_without_a_score_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    data = fake(monkeypatch, tmp_path, code)
    with pytest.raises(RuntimeError, match=message):
        run_program("flambeau", "tabular", data)


def test_a_library_that_is_not_installed_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, tmp_path, "print(1.0)")
    with pytest.raises(AbsentError, match="uv sync --frozen --inexact --group programs"):
        programs.interpreter("keras")


def test_a_score_that_is_too_low_is_recorded_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fake(monkeypatch, tmp_path, "print(0.5)")
    out = tmp_path / "results.jsonl"
    found = CliRunner().invoke(app, ["run", str(data), "flambeau", "tabular", "--out", str(out)])
    assert found.exit_code == 1, found.output
    assert json.loads(out.read_text())["score"] == 0.5


def test_a_program_that_fails_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fake(monkeypatch, tmp_path, "print(0.9)")
    for task in TASKS:
        code = "print(0.9)" if task == "tabular" else "1 / 0"
        program("flambeau", task).write_text(code)
    out = tmp_path / "results.jsonl"
    found = CliRunner().invoke(app, ["run", str(data), "flambeau", "--out", str(out)])
    assert found.exit_code == 1
    [record] = [json.loads(line) for line in out.read_text().splitlines()]
    assert record["task"] == "tabular"


@pytest.mark.parametrize(("score", "runs"), [(0.9, 1), (0.5, 2)])
def test_only_a_program_that_reached_the_score_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, runs: int
) -> None:
    data = fake(monkeypatch, tmp_path, f"print({score})")
    monkeypatch.setattr("flambeau_bench.less_code.__main__.TASKS", {"tabular": TASKS["tabular"]})
    out = tmp_path / "results.jsonl"
    for _ in range(2):
        CliRunner().invoke(app, ["run", str(data), "flambeau", "--out", str(out)])
    assert len(out.read_text().splitlines()) == runs


@pytest.mark.parametrize("group", [[], ["no-such-package==1.0"]])
def test_the_packages_of_the_programs_must_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: list[str]
) -> None:
    fake(monkeypatch, tmp_path, "print(1.0)")
    folder = tmp_path / "baselines" / "keras"
    folder.mkdir()
    text = f"[project]\nname = 'keras'\n[dependency-groups]\nprograms = {group}\n"
    (folder / "pyproject.toml").write_text(text)
    python = Path(environment.python_of(Peer("keras", folder)))
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    if not group:
        assert programs.interpreter("keras") == python
        return
    with pytest.raises(AbsentError, match="Not installed: no-such-package"):
        programs.interpreter("keras")


def test_an_environment_that_does_not_work_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, tmp_path, "print(1.0)")
    folder = tmp_path / "baselines" / "keras"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[dependency-groups]\nprograms = ['keras']\n")
    python = Path(environment.python_of(Peer("keras", folder)))
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho no such module: encodings >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(AbsentError, match="does not work: no such module: encodings"):
        programs.interpreter("keras")


@pytest.mark.slow
@pytest.mark.baselines
@pytest.mark.parametrize(("peer", "task"), NAMES)
def test_a_program_runs(peer: str, task: str, prepared: Path) -> None:
    try:
        programs.interpreter(peer)
    except AbsentError as error:
        pytest.skip(str(error))
    assert run_program(peer, task, prepared) >= TASKS[task].required


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import os

    from flambeau_bench.less_code.prepare import prepare

    if not os.environ.get("FLAMBEAU_DATA"):
        pytest.skip("FLAMBEAU_DATA is not set")
    folder = tmp_path_factory.mktemp("data")
    prepare(folder)
    return folder
