"""Bad input of tables: for each a clear error, or a defined result."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from flambeau import Learner, Predictor, Split
from flambeau.errors import FlambeauError, FlambeauWarning, InputError
from flambeau_tabular import CollabData, TabularData, TabularOptions

N = 60
CHOICES = {"batch_size": 32, "hidden": [8], "number_embedding": "none", "probe": "off"}


def frame(**more: Any) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    columns = {"age": draws.normal(size=N), "job": draws.choice(["a", "b", "c"], N)}
    return pd.DataFrame({**columns, **more, "y": draws.choice(["no", "yes"], N)})


# ---------------------------------------------------------------- what cannot be trained on

DAYS = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(N), unit="D")
LISTS: Any = [[1, 2]] * N
REFUSED: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "target unknown": (frame, "z", "no column 'z'"),
    "target a series": (frame, pd.Series(["a"] * N), "a Series, but it must be the name"),
    "target a number": (frame, 3, "target is a int"),
    "target twice": (lambda: frame(v=1.5), ["v", "v"], "names a column twice"),
    "target constant": (lambda: frame().assign(y="a"), "y", "All 60 labels are 'a'"),
    "target missing": (lambda: frame().assign(y=np.nan), "y", "missing in all 60 rows"),
    "target infinite": (
        lambda: frame().assign(y=[np.inf, 2.5] * 30),
        "y",
        "infinite in 30 rows, the first is row 0",
    ),
    "target huge": (lambda: frame().assign(y=[2.0, 1e300] * 30), "y", "beyond ±1e.150 in 30 rows"),
    "target dates": (lambda: frame().assign(y=DAYS), "y", "'y' consists of dates"),
    "target durations": (lambda: frame().assign(y=DAYS - DAYS[0]), "y", "consists of durations"),
    "target time of day": (
        lambda: frame().assign(y=[datetime.time(row % 24) for row in range(N)]),
        "y",
        r"consists of durations \(time64",
    ),
    "target beyond floats": (
        lambda: frame().assign(y=np.arange(N) + 2**60),
        "y",
        "differ in digits that floats do not have",
    ),
    "target lists": (lambda: frame().assign(y=LISTS), "y", "Column 'y' has a list in row 0"),
    "target alone": (lambda: frame()[["y"]], "y", "no input columns"),
    "only an ID": (
        lambda: pd.DataFrame({"u": [f"C{row}" for row in range(N)], "y": ["a", "b"] * 30}),
        "y",
        "No column is left as an input: u .id: 48 distinct texts in 48 rows",
    ),
    "no columns": (pd.DataFrame, "y", "no column 'y'. Known names: none"),
    "no rows": (lambda: frame().iloc[:0], "y", "missing in a table without rows"),
    "single row": (lambda: frame().iloc[:1], "y", "All 1 labels are"),
    "single number": (lambda: frame(v=1.5).iloc[:1], "v", "1 rows are too few for 2 parts"),
    "lists": (lambda: frame(z=LISTS), "y", r"'z' has a list in row 0: \[1, 2\]"),
    "dicts": (lambda: frame(z=[{"a": 1}] * N), "y", "'z' has a dict in row 0"),
    "structs": (
        lambda: pa.table({"z": pa.array([{"a": 1}] * N), "y": ["a", "b"] * 30}),
        "y",
        "'z' has the type struct<a: int64>",
    ),
    "mixed": (
        lambda: frame(z=pd.Series([True, "a"] * 30, dtype=object)),
        "y",
        "mixes types: a bool in row 0",
    ),
    "complex": (lambda: frame(z=1j), "y", "'z' has the type complex128"),
    "bytes": (
        lambda: pa.table({"z": pa.array([b"\xff"] * N), "y": ["a", "b"] * 30}),
        "y",
        "'z' contains bytes that are not UTF-8",
    ),
    "duplicate names": (
        lambda: pd.concat([frame(), frame()[["age"]]], axis=1),
        "y",
        "has 2 columns named 'age'",
    ),
    "duplicate target": (
        lambda: pd.concat([frame(), frame()[["y"]]], axis=1),
        "y",
        "has 2 columns named 'y'",
    ),
    "zoned and not": (
        lambda: frame(z=pd.Series([pd.Timestamp("2020", tz="UTC"), DAYS[0]] * 30, dtype=object)),
        "y",
        "mixes times with a time zone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_refused_with_its_cause(case: str) -> None:
    source, target, message = REFUSED[case]
    with pytest.raises(FlambeauError, match=message):
        data = TabularData.from_df(source(), target)
        Learner(data, quiet=True, choices=CHOICES).fit(1)


# ---------------------------------------------------------------- what is read

READ: dict[str, tuple[Any, str, float]] = {
    "NaN, None, NA, NaT": (pd.Series([np.nan, None, pd.NA, pd.NaT, 1.5, 2] * 10), "number", 1.0),
    "nullable integers": (pd.array([1, None, 30] * 20, dtype="Int64"), "number", 0.6),
    "nullable booleans": (pd.array([True, None, False] * 20, dtype="boolean"), "boolean", 1.0),
    "infinite": ([np.inf, -np.inf, 1.5, 2.5] * 15, "number", 1.0),
    "all infinite": ([np.inf, -np.inf] * 30, "empty", 1.0),
    "huge": ([1e300, -1e300, 1.5, 2.5] * 15, "number", 1.0),
    "Decimal": ([Decimal("1.10"), Decimal("NaN"), Decimal("Infinity"), Decimal(3)] * 15,
                "number", 1.0),
    "durations": (DAYS - DAYS[0], "number", 1.0),
    "times of day": ([datetime.time(row % 24) for row in range(N)], "number", 1.0),
    "unused levels": (pd.Categorical(["a", "b"] * 30, categories=list("zab")), "category", 1.0),
    "no level used": (pd.Categorical([None] * N, categories=["a"]), "empty", 1.0),
    "before 1970": (pd.date_range("1890-01-01", periods=N, freq="400D"), "date", 1.0),
    "time zone": (pd.date_range("1960", periods=N, freq="17h", tz="Europe/Berlin"), "date", 1.0),
    "year 9999": ([datetime.date(9999, 12, 31), None, datetime.date(1, 1, 1)] * 20, "date", 1.0),
    # Equal up to rounding in a cyclic part, so that a number has a single quantile.
    "two days": ([None, datetime.date(2020, 1, 1), datetime.date(2020, 1, 4)] * 20, "date", 1.0),
    "all missing dates": ([pd.NaT] * N, "empty", 1.0),
    "numbers beside text": ([1, "a"] * 30, "category", 1.0),
    "beyond floats": (np.arange(N) + 2**60, "id", 0.4),
    "beyond floats, few": ([2**60, 2**60 + 1] * 30, "category", 0.4),
    "unsigned": (np.arange(N, dtype=np.uint64) + np.uint64(2**63 + 5), "id", 0.4),
    "more than 64 bits": ([10**30 + row for row in range(N)], "id", 0.4),
    "percent": ([f"{row / 7:.1f}%" for row in range(N)], "id", 0.3),
    "currency": ([f"$ {row % 9}.50" for row in range(N)], "category", 0.3),
    "currency behind": ([f"{row % 9},50 EUR" for row in range(N)], "category", 0.3),
    "accountants' minus": ([f"({row % 9}.50)" for row in range(N)], "category", 0.3),
    "decimal commas": ([f"{row},5" for row in range(N)], "id", 0.3),
    "thousands": ([f"{row + 1},234" for row in range(N)], "id", 0.3),
    "clock": ([f"{row % 24:02}:30" for row in range(N)], "category", 0.3),
    "one text": ([*map(str, range(N - 1)), "unknown"], "id", 0.3),
    "Excel's exponent": (["1.23E+05", "4.56E+05"] * 30, "number", 0.4),
    "codes of airports": (["JFK", "LAX"] * 30, "category", 1.0),
    "addresses": ([f"10.0.0.{row}" for row in range(N)], "id", 0.8),
    "yes and no": (["yes", "no"] * 30, "category", 1.0),
    "US dates": ([f"{row % 12 + 1}/{row % 28 + 1}/2020 10:30 PM" for row in range(N)],
                 "date", 1.0),
    "month names": ([f"{row % 28 + 1} Jan 2020" for row in range(N)], "date", 1.0),
    "long texts": (["x" * 100_000 + str(row % 3) for row in range(N)], "category", 1.0),
    "other scripts": (["\U0001f469\u200d\U0001f467", "e\u0301\x00"] * 30, "category", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
@pytest.mark.filterwarnings("ignore::flambeau.errors.FlambeauWarning")
def test_what_is_read_has_a_kind_and_trains(case: str) -> None:
    cells, kind, confidence = READ[case]
    table = frame(z=cells)
    before = table.copy(deep=True)
    # Enough rows of each value in train, whatever the seed.
    data = TabularData.from_df(table, "y", valid=0)
    found = data.columns["z"]
    readings = [reading.confidence for reading in data.readings if "'z'" in reading.what]
    assert (found.kind, min([found.confidence, *readings])) == (
        kind,
        confidence if case != "numbers beside text" else 0.4,
    )
    values = {"task": "classification", "scaling": "robust", "min_count": 1}
    preprocessor: Any = data.preprocessor(values)
    for tensor in preprocessor.spec.encode(data.frame).inputs().values():
        assert bool(tensor.isfinite().all())
    for edges in preprocessor.spec.quantile_edges(48):
        assert len(edges) >= 2
        assert bool((np.diff(np.float32(edges)) > 0).all())
    pd.testing.assert_frame_equal(table, before)


def test_a_doubtful_text_says_what_to_do() -> None:
    prices = [f"${row % 9}.50" for row in range(N)]
    table = frame(price=prices, n=[*map(str, range(N - 1)), "?"])
    columns = TabularData.from_df(table, "y", valid=0).columns
    assert "numbers with a unit, a sign or separators of their own" in columns["price"].reason
    assert "convert the column to numbers" in columns["price"].reason
    assert "all but '?' are numbers: leave these cells empty" in columns["n"].reason


def test_names_of_columns_that_are_not_text() -> None:
    numbered = pd.DataFrame({0: np.arange(N) * 0.7, 1: [5, 6, 7] * 20, 2: ["a", "b"] * 30, 3: 1.5})
    data = TabularData.from_df(
        numbered,
        2,  # type: ignore[arg-type]
        group=1,  # type: ignore[arg-type]
        kinds={0: "number"},  # type: ignore[dict-item]
        options=TabularOptions(drop=[3]),  # type: ignore[list-item]
    )
    assert list(data.columns) == ["0"]
    assert data.targets.names == ("a", "b")
    several = numbered[[0, 2]]
    several.columns = pd.MultiIndex.from_tuples([("x", ""), ("y", "")])
    assert TabularData.from_df(several, ("y", "")).targets.names == ("a", "b")


def test_names_of_columns_of_ratings_that_are_not_text() -> None:
    rows = pd.DataFrame({0: ["ann", "bob", "cat"] * 9, 1: range(27), 2: [1.0, 4.0, 5.0] * 9})
    data = CollabData.from_df(rows, user=0, item=1, rating=2)  # type: ignore[arg-type]
    assert len(data.split.train) == 22


def test_columns_that_cannot_be_read_may_be_left_out(tmp_path: Path) -> None:
    table = frame(z=LISTS).assign(y=["a", "b", None] * 20)
    table.to_parquet(tmp_path / "rows.parquet")
    options = TabularOptions(drop=("z",))
    for data in (
        TabularData.from_df(table, "y", options=options),
        TabularData.from_df(pa.Table.from_pandas(table), "y", options=options),
        TabularData.from_parquet(tmp_path / "rows.parquet", "y", options=options),
    ):
        assert list(data.columns) == ["age", "job"]
        assert "z" not in data.raw("train")[0]
        assert len(data.frame) == 40
    with pytest.raises(InputError, match="'z' has the type list"):
        TabularData.from_parquet(tmp_path / "rows.parquet", "y").columns  # noqa: B018


def test_frames_of_the_parts_may_have_other_types_of_text() -> None:
    train, valid = frame(), frame(z=LISTS)
    valid["job"] = valid["job"].astype("category")
    data = TabularData.from_df(train, "y", valid=valid)
    assert (len(data.split.train), len(data.split.valid)) == (60, 60)
    with pytest.raises(InputError, match="columns of other types than the train frame"):
        TabularData.from_df(train, "y", valid=valid.assign(age="old"))


def test_arrays_with_bad_cells_are_refused() -> None:
    y = np.array(["a", "b"] * 30)
    for numbers, message in (
        (np.array([["1", "x"]] * N), "'number_1' is a number, but row 0 has the text 'x'"),
        (np.zeros((N, 2, 2)), r"the shape \(60, 2, 2\)"),
        (np.zeros((N - 1, 2)), "different lengths"),
        (np.array([[1j]] * N), "'number_0' has the type complex128"),
    ):
        with pytest.raises(InputError, match=message):
            data = TabularData.from_arrays(numbers, y)
            data.preprocessor({"task": "classification", "scaling": "robust", "min_count": 1})


# ---------------------------------------------------------------- prediction


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    table = frame(count=np.arange(N) % 23 + 40, day=DAYS, flag=[True, False] * 30)
    learner = Learner(TabularData.from_df(table, "y"), quiet=True, choices=CHOICES)
    learner.fit(1)
    return Predictor.load(learner.export(tmp_path_factory.mktemp("bad") / "model"))


def rows() -> pd.DataFrame:
    return frame(count=np.arange(N) % 23 + 40, day=DAYS, flag=[True, False] * 30).drop(columns="y")


SAME: dict[str, Callable[[pd.DataFrame], Any]] = {
    "columns reordered": lambda x: x[x.columns[::-1]],
    "floats": lambda x: x.assign(count=x["count"].astype(float)),
    "nullable": lambda x: x.convert_dtypes(),
    "text": lambda x: x.assign(count=x["count"].astype(str), flag=x["flag"].astype(str)),
    "dates as text": lambda x: x.assign(day=x["day"].astype(str)),
    "seconds": lambda x: x.assign(day=x["day"].astype("datetime64[s]")),
    "other levels": lambda x: x.assign(job=pd.Categorical(x["job"], categories=list("zcba"))),
    "extra lists": lambda x: x.assign(z=LISTS),
    "extra objects": lambda x: x.assign(z=object()),
    "extra mixture": lambda x: x.assign(z=pd.Series([True, "a"] * 30, dtype=object)),
    "extra names twice": lambda x: pd.concat([x.assign(z=1), x.assign(z=2)[["z"]]], axis=1),
    "target of lists": lambda x: x.assign(y=LISTS),
    "arrow with lists": lambda x: pa.Table.from_pandas(x.assign(z=LISTS)),
    "index repeated": lambda x: x.set_index(pd.Index([7] * N)),
    "index of two levels": lambda x: x.set_index(pd.MultiIndex.from_product([range(30), [*"ab"]])),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_the_same_cells_in_another_form_give_the_same_predictions(
    case: str, predictor: Predictor
) -> None:
    given = SAME[case](rows())
    found = predictor.predict(given)
    wanted = predictor.predict(rows())["probability"]
    np.testing.assert_allclose(found["probability"], wanted, atol=1e-6)
    if isinstance(given, pd.DataFrame):
        assert found.index.equals(given.index)


UNUSABLE: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "missing column": (lambda x: x.drop(columns="job"), "no column 'job'"),
    "name twice": (lambda x: pd.concat([x, x[["job"]]], axis=1), "has 2 columns named 'job'"),
    "text for numbers": (
        lambda x: x.assign(count="many"),
        "'count' is a number, but row 0 has the text 'many'",
    ),
    "dates for numbers": (lambda x: x.assign(age=x["day"]), "but its cells are dates"),
    "numbers for dates": (lambda x: x.assign(day=7), "'day' is a date, but its cells"),
    "zone": (
        lambda x: x.assign(day=x["day"].dt.tz_localize("UTC")),
        "'day' had times with no time zone in train",
    ),
    "lists": (lambda x: x.assign(age=LISTS), "'age' has a list in row 0"),
    "a row of a frame": (lambda x: x.iloc[0], "is no row"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_rows_that_cannot_be_used_are_refused_by_name(case: str, predictor: Predictor) -> None:
    change, message = UNUSABLE[case]
    with pytest.raises(InputError, match=message):
        predictor.predict(change(rows()))


GUESSES: dict[str, tuple[dict[str, Any], str]] = {
    "unseen": ({"job": "pilot"}, "categories that train does not have .'job' 100.0%"),
    "missing": ({"age": [None, 1.0] * 30}, "had no missing cells in train: 'age'"),
    "infinite": ({"age": [np.inf, 1.0] * 30}, "had no missing cells in train: 'age'"),
    "far": ({"age": 1e6}, "outside of the range in train .'age' 100.0%"),
    "no dates": ({"day": pd.NaT}, "had no missing cells in train: 'day'"),
    "year 9999": ({"day": datetime.date(9999, 12, 31)}, "outside of the range .* .'day' 100.0%"),
}


@pytest.mark.parametrize("case", GUESSES)
def test_guesses_are_made_with_a_warning(case: str, predictor: Predictor) -> None:
    change, message = GUESSES[case]
    predictor.preprocessor.spec._warned.clear()  # type: ignore[attr-defined]
    with pytest.warns(FlambeauWarning, match=message):
        found = predictor.predict(rows().assign(**change))
    assert bool(np.isfinite(found["probability"]).all())


def test_empty_frames_single_rows_and_missing_categories(predictor: Predictor) -> None:
    assert len(predictor.predict(rows().iloc[:0])) == 0
    one = predictor.predict(rows().iloc[[5]])["probability"]
    np.testing.assert_allclose(one, predictor.predict(rows())["probability"].iloc[[5]], atol=1e-6)
    with pytest.warns(FlambeauWarning, match="missing cells, far more than in train .'job' 100.0%"):
        assert len(predictor.predict(rows().assign(job=None))) == N


def test_a_hundred_thousand_categories() -> None:
    table = {"c": [f"v{row}" for row in range(100_000)] * 2, "y": ["a", "b"] * 100_000}
    data = TabularData.from_df(table, "y", valid=0)
    assert data.columns["c"].kind == "category"
    spec: Any = data.preprocessor({"task": "classification", "scaling": "robust", "min_count": 1})
    assert spec.spec.cardinalities == (2**15,)  # the most frequent ones; codes of 16 bits


# ---------------------------------------------------------------- order and types


def test_data_in_another_order_and_other_types_are_fitted_alike() -> None:
    table = frame(count=np.arange(N) % 23, day=DAYS, size=["S", "M", None] * 20)
    order = np.random.default_rng(1).permutation(N)
    train = np.arange(0, N, 2)
    moved = table.iloc[order][table.columns[::-1]].astype(
        {"job": "category", "size": object, "count": "int8", "day": "datetime64[s]"}
    )
    moved["job"] = moved["job"].cat.set_categories(list("zcba"))
    values = {"task": "classification", "scaling": "robust", "min_count": 1}
    one = TabularData.from_df(table, "y", split=Split.from_indices(train, train + 1))
    in_train = np.isin(order, train)
    split = Split.from_indices(np.flatnonzero(in_train), np.flatnonzero(~in_train))
    other = TabularData.from_df(moved, "y", split=split)
    assert {name: kind.kind for name, kind in one.columns.items()} == {
        name: kind.kind for name, kind in other.columns.items()
    }
    fitted, again = one.preprocessor(values), other.preprocessor(values)
    assert fitted.vocabulary_digest() == again.vocabulary_digest()
    assert one.task_arguments(fitted, values) == other.task_arguments(again, values)
    whole: Any = fitted
    wanted = whole.spec.encode(one.frame).inputs()
    for name, tensor in whole.spec.encode(other.frame).inputs().items():
        assert bool((tensor == wanted[name][order]).all()), name


# ---------------------------------------------------------------- targets that lack cells


@pytest.mark.parametrize("classes", [[0, 1], [1, 2, 3]])
def test_class_numbers_with_missing_cells_are_classes_as_in_a_file(
    classes: list[int], tmp_path: Path
) -> None:
    # pandas makes floats of integers beside missing cells; a file and Int64 keep them.
    numbers = np.random.default_rng(0).choice(classes, N).astype(float)
    numbers[::7] = np.nan
    table = pd.DataFrame({"a": np.arange(N) % 11, "y": numbers})
    table.astype({"y": "Int64"}).to_csv(tmp_path / "t.csv", index=False)
    found = TabularData.from_df(table, "y")
    for other in (
        TabularData.from_csv(tmp_path / "t.csv", "y"),
        TabularData.from_df(table.astype({"y": "Int64"}), "y"),
    ):
        assert other.targets.names == found.targets.names == tuple(map(str, classes))
        assert torch.equal(other.targets.values, found.targets.values)
        assert other.split.train.tolist() == found.split.train.tolist()
    assert "pandas stores as floats" in found.report()


def test_numbers_with_missing_cells_stay_numbers() -> None:
    half = [1.5, 2.0, np.nan] * (N // 3)
    many = [float(row) if row % 7 else np.nan for row in range(N)]
    given = TabularOptions(task="regression")
    for cells, options in ((half, None), (many, None), ([1.0, 2.0, np.nan] * (N // 3), given)):
        table = pd.DataFrame({"a": np.arange(N) % 11, "y": cells})
        data = TabularData.from_df(table, "y", options=options or TabularOptions())
        assert data.targets.kind == "regression"
        assert "pandas stores as floats" not in data.report()


def test_a_lazy_frame_is_to_be_collected() -> None:
    polars = pytest.importorskip("polars")
    lazy = polars.LazyFrame({"a": [1, 2], "y": ["p", "q"]})
    with pytest.raises(InputError, match=r"LazyFrame is not computed yet.*frame.collect\(\)"):
        TabularData.from_df(lazy, "y")
