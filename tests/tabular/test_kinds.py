"""The kind of each column, with its reason and the numbers that it is based on."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flambeau.errors import InputError
from flambeau_tabular.columns import ColumnKind, TableSpec, infer_kinds, read_frame

N = 200
RANDOM = np.random.default_rng(0)


def kind_of(values: Any, name: str = "x", **options: Any) -> ColumnKind:
    return infer_kinds(read_frame({name: values}), **options)[name]


def repeated(values: list[Any], n: int = N) -> list[Any]:
    return [values[index % len(values)] for index in range(n)]


WORDS = ["alpha", "beta", "gamma", "delta", "eps"]
SENTENCES = [f"this is review number {number} of many" for number in range(N)]
DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=day) for day in range(N)]

CASES: list[tuple[str, str, Any, str, str]] = [
    # column, kind, values, reason, what the trap is
    ("x", "number", RANDOM.normal(size=N), "numbers from -", "floats"),
    ("x", "number", [decimal.Decimal(f"{i}.5") for i in range(N)], "numbers from 0.5", "decimals"),
    ("stars", "number", repeated([1, 2, 3, 4, 5]), "5 distinct whole numbers from 1", "ratings"),
    ("year", "number", repeated([1999, 2005, 2024]), "years from 1999 to 2024", "years"),
    ("age", "number", [*range(20, 60)] * 5, "40 distinct whole numbers from 20 to 59", "integers"),
    (
        "age",
        "number",
        [None, *map(float, range(20, 60))] * 5,
        "40 distinct whole numbers from 20 to 59 in 200 rows (stored as double); 2.4% of the cells",
        "integers as floats",
    ),
    ("x", "number", RANDOM.integers(0, 10**9, N), "distinct whole numbers", "measured amounts"),
    ("price", "number", repeated(["1.5", " ", "20.25"]), "with decimals", "numbers as text"),
    ("time", "number", repeated([datetime.timedelta(1), datetime.timedelta(2)]), "in seconds", "d"),
    ("x", "boolean", repeated([True, False]), "True and False", "booleans"),
    ("x", "boolean", repeated([0, 1, 1]), "only 0 and 1", "0 and 1"),
    ("x", "boolean", repeated([0.0, np.nan, 1.0]), "only 0 and 1 (stored as double)", "0 and 1"),
    ("x", "boolean", repeated(["true", "False", None]), "the texts", "text"),
    ("job", "category", repeated(WORDS), "5 distinct texts in 200 rows", "text"),
    ("zip", "category", repeated([94110, 10001, 501]), "by its name they are codes", "zip codes"),
    ("zip", "category", repeated(["94110", "00501", "1"]), "digits only are codes", "digits"),
    ("paid", "number", repeated([15, 20, 35]), "3 distinct whole numbers", "a name in -id"),
    ("heat index", "number", repeated([15, 20, 35]), "3 distinct whole numbers", "an index"),
    ("userId", "category", repeated(list(range(50))), "by its name they are codes", "groups"),
    ("user_id", "category", repeated(list(range(50))), "by its name they are codes", "groups"),
    ("x", "category", repeated(["yes", None]), "the only value is 'yes'; 50.0%", "one value"),
    ("x", "category", pd.Series(repeated([3, 1, 2]), dtype="category"), "declared", "declared"),
    (
        "x",
        "ordered",
        pd.Series(repeated(["a", "b"]), dtype=pd.CategoricalDtype(["b", "a"], ordered=True)),
        "declared as ordered: 2 values",
        "declared",
    ),
    ("x", "date", DAYS, "dates from 2024-01-01 to 2024-07-18", "dates"),
    ("x", "date", [str(day) for day in DAYS], "dates from 2024-01-01 to 2024-07-18", "ISO text"),
    ("x", "date", [f"{day:%d.%m.%Y}" for day in DAYS], "read as %d.%m.%Y", "text"),
    ("x", "date", [f"{day:%m/%d/%Y}" for day in DAYS], "read as %m/%d/%Y", "text"),
    ("x", "category", repeated(["01/02/2024", "03/04/2024"]), "dates in several forms", "unclear"),
    ("x", "text", SENTENCES, "200 distinct texts in 200 rows of 7.0 words on average", "text"),
    ("x", "id", [f"A{number}" for number in range(N)], "each names one row", "text IDs"),
    ("x", "id", RANDOM.permutation(N) + 7, "they number the rows", "consecutive"),
    ("orderId", "id", RANDOM.choice(10**6, N, replace=False), "and the name", "integer IDs"),
    ("x", "id", [f"{number:04}" for number in range(N)], "each in one row", "digits"),
    ("x", "constant", [7] * N, "all 200 rows have the value 7", "constant"),
    ("x", "constant", ["a"] * N, "all 200 rows have the value 'a'", "constant"),
    ("x", "constant", [DAYS[0]] * N, "all 200 rows have the value 2024-01-01", "constant"),
    ("x", "empty", [None] * N, "all 200 rows are missing", "missing"),
    ("x", "empty", [np.nan] * N, "all 200 rows are missing", "missing"),
    ("x", "empty", pa.nulls(N), "all 200 rows are missing", "missing"),
]


@pytest.mark.parametrize(
    ("name", "kind", "values", "reason"),
    [case[:4] for case in CASES],
    ids=[f"{case[1]}: {case[4]}" for case in CASES],
)
def test_kinds_and_reasons(name: str, kind: str, values: Any, reason: str) -> None:
    found = kind_of(values, name)
    assert (found.kind, reason in found.reason) == (kind, True), found


def test_doubtful_kinds_say_how_to_change_them() -> None:
    zip_code = kind_of(repeated([94110, 10001]), "zip")
    assert zip_code.confidence < 0.5
    assert "kinds={'zip': 'number'}" in zip_code.reason
    unclear = kind_of(repeated(["01/02/2024", "03/04/2024"]), "day")
    assert unclear.confidence < 0.5
    assert "kinds={'day': 'date:%d/%m/%Y'}, kinds={'day': 'date:%m/%d/%Y'}" in unclear.reason
    assert kind_of(repeated(WORDS)).confidence == 1.0


def test_a_declared_order_is_part_of_the_kind() -> None:
    dtype = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    kind = kind_of(pd.Series(["mid", "low"], dtype=dtype))
    assert kind.levels == ("low", "mid", "high")
    spec = TableSpec.fit(read_frame({"x": ["mid", "low"]}), None, {"x": kind})  # text, later
    assert spec.columns[0].values == kind.levels


def test_dictionaries_with_null_and_repeated_values() -> None:
    cells = pa.DictionaryArray.from_arrays([0, 1, 2, 3, None], ["a", "a", None, "b"])
    kind = kind_of(cells)
    assert (kind.evidence["distinct"], kind.evidence["missing"]) == (2, 2)
    spec = TableSpec.fit(read_frame({"x": cells}), None, {"x": kind})
    codes = spec.encode(read_frame({"x": cells})).categories[:, 0]
    assert codes.tolist() == [2, 2, 0, 3, 0]


def test_evidence_has_the_measured_numbers() -> None:
    found = kind_of([*repeated([1, 2, 3, 4, 5]), None], "stars")
    assert found.evidence == {"rows": 201, "missing": 1, "distinct": 5, "low": 1, "high": 5}


def test_kinds_are_the_same_in_every_library() -> None:
    frame = pd.DataFrame(
        {
            "job": repeated(WORDS),
            "zip": repeated(["94110", "00501"]),
            "day": [str(day) for day in DAYS],
            "note": SENTENCES,
            "flag": repeated([True, False]),
            "n": repeated(list(range(30))),
        }
    )
    wanted = {name: kind.kind for name, kind in infer_kinds(read_frame(frame)).items()}
    texts = ["job", "zip", "day", "note"]
    for source in (
        frame.astype(dict.fromkeys(texts, object)),
        frame.astype(dict.fromkeys(texts, "category")),
        frame.convert_dtypes(dtype_backend="pyarrow"),
        pa.Table.from_pandas(frame),
        frame.sample(frac=1.0, random_state=0)[[*texts[::-1], "n", "flag"]],
    ):
        found = infer_kinds(read_frame(source))
        assert {name: kind.kind for name, kind in found.items()} == wanted


def test_only_train_rows_count() -> None:
    values = [*repeated([1, 2, 3, 4]), "text"]
    rows = np.arange(4, 20)
    found = kind_of([*[7] * 50, *range(50)], rows=np.arange(50))
    assert found.kind == "constant"
    kind = kind_of(values, rows=rows)
    assert (kind.kind, kind.evidence["rows"]) == ("category", 16)  # digits beside text are text


# ---------------------------------------------------------------- given kinds


def test_kinds_can_be_given() -> None:
    table = read_frame(
        {
            "zip": repeated([94110, 10001]),
            "size": repeated(["S", "L", "M"]),
            "level": repeated([3, 1, 2]),
            "day": repeated(["01/02/2024", "03/04/2024"]),
            "seconds": repeated([0, 86_400]),
            "eu": [f"{day:%d.%m.%Y}" for day in DAYS],
            "key": [f"A{number}" for number in range(N)],
        }
    )
    kinds = infer_kinds(
        table,
        overrides={
            "zip": "category",
            "size": ["S", "M", "L", "XL"],
            "level": [1, 2, 3],
            "day": "date:%d/%m/%Y",
            "seconds": "date:s",
            "eu": "date",
            "key": ColumnKind("category", "mine"),
        },
    )
    assert kinds["size"].levels == ("S", "M", "L", "XL")
    assert kinds["level"].levels == ("1", "2", "3")
    assert (kinds["day"].style, kinds["seconds"].style) == ("%d/%m/%Y", "s")
    assert kinds["eu"].style == "%d.%m.%Y"
    assert kinds["key"].reason == "mine"
    spec = TableSpec.fit(table, None, kinds)
    assert spec.category_names == ("key", "level", "size", "zip")
    assert spec.cardinalities == (N + 2, 5, 6, 4)
    numbers = dict(zip(spec.number_names, spec.encode(table).numbers.T, strict=True))
    assert "day day" in numbers
    assert "seconds elapsed days" in numbers


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"y": "number"}, r"kinds names the column 'y'\. Known names: x"),
        ({"x": "numeric"}, r"kinds\['x'\] is 'numeric', which is no kind"),
        ({"x": "number:s"}, r"kinds\['x'\] is 'number:s', which is no kind"),
        ({"x": ["a"]}, "needs at least two different values"),
        ({"x": ["a", "a", "b"]}, "needs at least two different values"),
        ({"x": ["a", None]}, "none of them missing"),
        ({"x": "date"}, r"several possible forms: %d/%m/%Y, %m/%d/%Y\. Choose one: kinds=\{'x'"),
    ],
)
def test_kinds_that_are_not_possible_are_refused(overrides: dict[str, Any], message: str) -> None:
    table = read_frame({"x": ["01/02/2024", "03/04/2024"]})
    with pytest.raises(InputError, match=message):
        infer_kinds(table, overrides=overrides)


def test_a_given_kind_that_the_cells_do_not_have_is_refused() -> None:
    table = read_frame({"x": ["1", "two"]})
    for kind, message in (("number", "row 1 has the text 'two'"), ("date", "row 0 has the text")):
        with pytest.raises(InputError, match=message):
            TableSpec.fit(table, None, infer_kinds(table, overrides={"x": kind}))


def test_a_table_without_rows_or_columns_is_refused() -> None:
    with pytest.raises(InputError, match="The table has no rows"):
        infer_kinds(read_frame({"x": []}))
    with pytest.raises(InputError, match="The table has no train rows"):
        infer_kinds(read_frame({"x": [1]}), np.zeros(0, np.int64))
    with pytest.raises(InputError, match="The table has no input columns"):
        infer_kinds(read_frame(pd.DataFrame(index=range(3))))


def test_a_single_row_has_constant_columns() -> None:
    kinds = infer_kinds(read_frame({"a": 1, "b": "x", "c": None, "d": True}))
    assert [kind.kind for kind in kinds.values()] == ["constant", "constant", "empty", "constant"]


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_that_pandas_wrote_is_no_input(name: str) -> None:
    rows = np.random.default_rng(0).permutation(300)[:240]  # train rows of a random split
    found = infer_kinds(pa.table({name: rows, "x": rows * 1.5}))
    assert found[name].kind == "id"
    assert "the index that pandas writes" in found[name].reason
    assert infer_kinds(pa.table({"size": rows}))["size"].kind == "number"
    repeated = np.repeat(rows[:120], 2)
    assert infer_kinds(pa.table({name: repeated}))[name].kind == "number"


def test_a_column_without_a_name_has_a_kind_on_the_command_line() -> None:
    from flambeau_tabular.domain import parse_kinds

    assert parse_kinds("=id,zip=category") == {"": "id", "zip": "category"}
