"""Test scores of frozen recipes: changed files are refused, and every look at test data is logged.

The examples with a test part use it (``tables_benchmark.py``, ``wikitext2.py``,
``imdb_ulmfit.py``).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flambeau_bench.machine import host


def frozen_commit(path: Path, others: tuple[Path, ...] = ()) -> str:
    """Return the commit of a recipe.

    Raises:
        SystemExit: The recipe, or a file that scores it, is not as it was committed.
    """
    for each in (path, *others):
        changed = git("status", "--porcelain", "--", each.name, folder=each.parent)
        commit = git("log", "-1", "--format=%h", "--", each.name, folder=each.parent)
        if changed or not commit:
            raise SystemExit(
                f"{each.name} is not as it was committed, so its test score is refused: a "
                "recipe is frozen before the first look at the test rows. Commit it, or use "
                "--valid."
            )
    return git("log", "-1", "--format=%h", "--", path.name, folder=path.parent)


def version_of(*paths: Path) -> str:
    """Return a name of the content of files, which differs if one of them differs."""
    return "+".join(git("hash-object", each.name, folder=each.parent)[:12] for each in paths)


def digest_of(content: Mapping[str, Any]) -> str:
    """Return ten hexadecimal digits for the name of a folder, which differ if the content does."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def git(*words: str, folder: Path) -> str:
    """Return the output of git in this folder."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of JSON lines; none if there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(log: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry to a file of JSON lines."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def logged_look(
    log: Path,
    key: Mapping[str, Any],
    commit: str,
    folder: Path,
    score: Callable[[], Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the entry of the log with this key; without one, score the test part and log it.

    Args:
        log: The log, of JSON lines.
        key: What was scored: recipe, run, version.
        commit: The commit of the recipe.
        folder: A folder of the repository, for the commit of the code.
        score: Returns scores and notes.
    """
    for entry in read_log(log):
        if all(entry.get(name) == value for name, value in key.items()):
            return entry
    found = score()
    entry = {
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        **key,
        "commit": commit,
        "flambeau": git("rev-parse", "--short", "HEAD", folder=folder),
        **{name: round(v, 5) if isinstance(v, float) else v for name, v in found.items()},
        "processor": host()["cpu"],
    }
    append(log, entry)
    return entry
