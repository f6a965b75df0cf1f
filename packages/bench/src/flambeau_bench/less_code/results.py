"""Records of runs, one line of JSON each, and the table that the page shows of them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flambeau_bench import machine
from flambeau_bench.less_code.programs import PEERS, ROOT, TASKS, program, versions
from flambeau_bench.peers.peer import BASELINES
from flambeau_bench.syntax_nodes import code_hash, count_lines, count_nodes

RESULTS = ROOT / "docs" / "benchmarks" / "results" / "less_code.jsonl"
PAGE = ROOT / "docs" / "findings" / "less_code.md"
SCHEMA = 1


def record_of(peer: str, task: str, score: float) -> dict[str, Any]:
    """Return the record of a run that just ended."""
    path = program(peer, task)
    return {
        "schema": SCHEMA,
        "peer": peer,
        "task": task,
        "metric": TASKS[task].metric,
        "score": round(score, 4),
        "required": TASKS[task].required,
        "nodes": count_nodes(path),
        "lines": count_lines(path),
        "code": code_hash(path),
        "versions": versions(peer),
        "date": datetime.now(UTC).date().isoformat(),
        **machine.commit(),
        "host": machine.host(),
    }


def append(record: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Add a record to a file, which is created if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path = RESULTS) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the last record of each program, by peer and task.

    Raises:
        ValueError: A record has another schema.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["schema"] != SCHEMA:
            raise ValueError(f"{path} has a record of schema {record['schema']}, not {SCHEMA}.")
        found[record["peer"], record["task"]] = record
    return found


def table(records: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return Markdown: the nodes and the score of each program, and what the records say of them.

    The shortest program of a task is bold if all of its programs have reached what is required: a
    program that was never run, or does not reach it, may lack what makes it longer.
    """
    names = ["task", "required score", *PEERS.values()]
    rows = [names, ["---"] * len(names)]
    for task, wanted in TASKS.items():
        nodes = {peer: count_nodes(program(peer, task)) for peer in PEERS}
        complete = all(reached(records.get((peer, task))) for peer in PEERS)
        cells: list[str] = []
        for peer in PEERS:
            path = program(peer, task).relative_to(ROOT).as_posix()
            cell = f"[{nodes[peer]}](../../{path})"
            if complete and nodes[peer] == min(nodes.values()):
                cell = f"**{cell}**"
            record = records.get((peer, task))
            cells.append(f"{cell} · {record['score']:.3g}" if record else f"{cell} · not run")
        rows.append([wanted.title, f"{wanted.metric} {wanted.required:g}", *cells])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*_provisional(records), *lines, "", _conditions(list(records.values()))])


def _provisional(records: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
    """Return what to say above the table as long as not all programs have reached their score."""
    count = sum(reached(records.get((peer, task))) for task in TASKS for peer in PEERS)
    every = len(TASKS) * len(PEERS)
    if count == every:
        return []
    return [
        f"**Provisional: {count} of the {every} programs have reached the required score.** The "
        "others have not been run, so their counts do not show yet that they do the same.",
        "",
    ]


def reached(record: Mapping[str, Any] | None) -> bool:
    """Return whether a program was run and its score is at least what is required."""
    return record is not None and record["score"] >= TASKS[record["task"]].required


def _conditions(records: Sequence[Mapping[str, Any]]) -> str:
    hosts = sorted({f"{each['host']['cpu']}, {each['host']['cores']} cores" for each in records})
    dates = sorted({each["date"] for each in records})
    found = {name: version for each in records for name, version in each["versions"].items()}
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        "Nodes of the syntax tree · score on the test part. One run of each program that has a "
        f"score, on one thread of {'; '.join(hosts)}, {when}: {versions}."
    )


def defaults() -> str:
    """Return Markdown: what each program takes from its library, as its docstring says."""
    lines: list[str] = []
    for task, wanted in TASKS.items():
        lines.append(f"**{wanted.title}**\n")
        for peer, name in PEERS.items():
            tree = ast.parse(program(peer, task).read_text(encoding="utf-8"))
            _, _, text = (ast.get_docstring(tree) or "").partition("Defaults: ")
            lines.append(f"- {name}: {' '.join(text.split())}")
        lines.append("")
    return "\n".join(lines).rstrip()


def variants() -> str:
    """Return Markdown: other ways to write the programs of the peers, with their nodes.

    They are counted, not run.
    """
    rows = [["peer", "task", "another way", "nodes", "program", "why not"], ["---"] * 6]
    for path in sorted(BASELINES.glob("*/variants/*.py")):
        peer = path.parent.parent.name
        [task] = [each for each in TASKS if path.stem.startswith(each)]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        way, _, reason = (ast.get_docstring(tree) or "").partition("\n\n")
        link = f"[{way.rstrip('.')}](../../{path.relative_to(ROOT).as_posix()})"
        counts = [str(count_nodes(each)) for each in (path, program(peer, task))]
        title = TASKS[task].title.lower()
        rows.append([PEERS[peer], title, link, *counts, " ".join(reason.split())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def written(page: str, records: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return a page with its generated parts written again.

    Raises:
        ValueError: The page has no markers.
    """
    for name, content in (
        ("programs", f"{table(records)}\n\n## Defaults\n\n{defaults()}"),
        ("variants", variants()),
    ):
        begin, end = f"<!-- {name} begin -->", f"<!-- {name} end -->"
        pattern = re.compile(f"{begin}.*{end}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"The page has no {begin} … {end}.")
        page = pattern.sub(f"{begin}\n\n{content}\n\n{end}".replace("\\", r"\\"), page)
    return page
