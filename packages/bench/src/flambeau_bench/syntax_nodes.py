"""Count the length of a program, whatever its names, comments and line breaks."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path


def count_nodes(path: Path) -> int:
    """Return the number of nodes in the syntax tree of a Python file."""
    return sum(1 for _ in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def count_lines(path: Path) -> int:
    """Return the number of lines of a Python file that are not blank, a comment or its docstring.

    The number depends on the formatter; `count_nodes` does not.
    """
    text = path.read_text(encoding="utf-8")
    first = ast.parse(text).body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    skipped = (first.end_lineno or 0) if is_docstring else 0
    lines = (line.strip() for line in text.splitlines()[skipped:])
    return sum(1 for line in lines if line and not line.startswith("#"))


def code_hash(path: Path) -> str:
    """Return 16 hex digits that depend on the code alone, not on docstring, comments or layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
