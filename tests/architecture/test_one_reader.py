"""CSV files, labels, split requests and mapped files have one file each, in core's `data`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = "packages/core/src/flambeau/data"
COLUMNS = "packages/tabular/src/flambeau_tabular/columns"

# What reads delimited text, labels or a split, and the files that may.
ALLOWED = {
    # Tables of millions of rows stay Arrow columns, where core's `Table` has lists of values.
    "a reader of delimited text": {f"{DATA}/tables.py", f"{COLUMNS}/csv_files.py"},
    "a reader of frames": {f"{DATA}/tables.py", f"{COLUMNS}/frames.py"},
    # A split numbers the classes, groups and times that it is given in row_codes.
    "a reader of labels": {
        *(f"{DATA}/{name}.py" for name in ("targets", "class_labels", "row_codes")),
        # `y` of scikit-learn has that library's rules: sorted classes that keep their type.
        "packages/tabular/src/flambeau_tabular/sklearn/read_targets.py",
        "packages/core/src/flambeau/task/numerics.py",  # counts pairs of class numbers
        "packages/text/src/flambeau_text/language/kneser_ney.py",  # counts n-grams
        # distinct values of an input and their ranks
        "packages/tabular/src/flambeau_tabular/leaks/one_column_tree.py",
    },
    "a split request": {f"{DATA}/split_request.py", f"{DATA}/part_columns.py"},
    "a memory-mapped file": {f"{DATA}/mapped_store.py"},
    # Demos split synthetic samples and take no request.
    "a random split": {
        f"{DATA}/split_request.py",
        "packages/text/src/flambeau_text/translation/demo.py",
    },
}
READERS = {
    *("csv.reader", "csv.DictReader", "numpy.genfromtxt", "numpy.loadtxt"),
    *("pandas.read_csv", "pandas.read_table", "polars.read_csv", "polars.scan_csv"),
    *("pyarrow.csv.read_csv", "pyarrow.csv.open_csv"),
}
LABELS = re.compile(r"_?(read|encode|number|parse|load)_(\w+_)?(labels|targets|classes)")
TARGETS = re.compile(r"\w*(Targets|Labels|LabelEncoder)")
# The name of a validation part that users write, and that only one file translates to "valid".
SYNONYM = "val"


def imported(tree: ast.AST) -> dict[str, str]:
    """Return the full name of each name that the module imports: `pd` → `pandas`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                names[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def full_name(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, names)}.{node.attr}"
    return ""


def findings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield what a module reads itself, as a key of `ALLOWED`, and the line."""
    names = imported(tree)
    for node in ast.walk(tree):
        name = full_name(node, names)
        if name in READERS:
            yield "a reader of delimited text", node.lineno
        if name in ("numpy.memmap", "torch.from_file", "torch.UntypedStorage.from_file"):
            yield "a memory-mapped file", node.lineno
        if name.endswith(".__arrow_c_stream__") or (
            isinstance(node, ast.Constant) and node.value == "__arrow_c_stream__"
        ):
            yield "a reader of frames", getattr(node, "lineno", 0)
        if isinstance(node, ast.Call):
            if any(keyword.arg == "return_inverse" for keyword in node.keywords):
                yield "a reader of labels", node.lineno
            called = full_name(node.func, names)
            if re.search(r"\bSplit\.(random|by_group|by_time)$", called):
                yield "a random split", node.lineno
        if isinstance(node, ast.FunctionDef) and LABELS.fullmatch(node.name):
            yield "a reader of labels", node.lineno
        if isinstance(node, ast.ClassDef):
            if TARGETS.fullmatch(node.name) and not node.name.startswith("_"):
                yield "a reader of labels", node.lineno
            if "SplitRequest" in node.name:
                yield "a split request", node.lineno
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if SYNONYM in keys:
                yield "a split request", node.lineno


def test_csv_labels_and_splits_are_read_once() -> None:
    found, used = [], set()
    for path in sorted((ROOT / "packages").glob("*/src/**/*.py")):
        name = path.relative_to(ROOT).as_posix()
        for kind, line in findings(ast.parse(path.read_text(encoding="utf-8"))):
            if name in ALLOWED[kind]:
                used.add((kind, name))
            else:
                found.append(f"{name}:{line} has {kind}. See {sorted(ALLOWED[kind])}.")
    assert not found, "\n".join(found)
    unused = {(kind, name) for kind, allowed in ALLOWED.items() for name in allowed} - used
    assert not unused, unused


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import csv\ntable = list(csv.DictReader(file))", "a reader of delimited text"),
        ("from csv import reader as rows\nrows(file)", "a reader of delimited text"),
        ("def f():\n    import pandas as pd\n    pd.read_csv(path)", "a reader of delimited text"),
        ("import pyarrow.csv as c\nc.read_csv(path)", "a reader of delimited text"),
        ("import numpy as np\nread = np.genfromtxt", "a reader of delimited text"),
        ("import numpy as np\npixels = np.memmap(path)", "a memory-mapped file"),
        ("stream = frame.__arrow_c_stream__()", "a reader of frames"),
        ("hasattr(frame, '__arrow_c_stream__')", "a reader of frames"),
        ("class ImageTargets:\n    pass", "a reader of labels"),
        ("def encode_string_labels(labels):\n    pass", "a reader of labels"),
        ("numbers = np.unique(labels, return_inverse=True)", "a reader of labels"),
        ("class PairSplitRequest:\n    pass", "a split request"),
        ("PARTS = {'train': 'train', 'val': 'valid'}", "a split request"),
        ("from flambeau.data.split import Split\nSplit.random(10)", "a random split"),
        ("from flambeau import data\ndata.Split.by_group(groups)", "a random split"),
    ],
)
def test_a_second_reader_is_found(source: str, kind: str) -> None:
    assert kind in {each for each, _ in findings(ast.parse(source))}


def test_other_code_is_not_taken_for_a_reader() -> None:
    source = """
import csv
from flambeau.data.tables import read_csv, read_table
from flambeau.data.targets import Targets, read_labels

def check_labels(labels):
    csv.writer(file).writerows(sources.read_table(table).column("label"))
    return read_csv(path), Split.from_indices([0], [1]), {"valid": 0.1}

class TargetStatistics:
    pass
"""
    assert list(findings(ast.parse(source))) == []
