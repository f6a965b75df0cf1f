"""Predictions for frames and table files: columns, label types, pieces, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flambeau import Learner, Predictor
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, FlambeauError, FlambeauWarning, InputError
from flambeau.task import Prediction
from flambeau_tabular import TabularData, TabularOptions
from flambeau_tabular.columns import Frame, parquet_files
from flambeau_tabular.frame_rows import TablePiece

N = 60


def table() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"{row:03}" for row in range(N)],
            "age": draws.integers(20, 70, N).astype(float),
            "job": [["clerk", "nurse", "pilot", None][row % 4] for row in range(N)],
            "level": [3, 7] * (N // 2),
        }
    )


@pytest.fixture(scope="module")
def learner() -> Learner:
    data = TabularData.from_df(table(), "level", kinds={"id": "id"}, calibration=20)
    learner = Learner(data, quiet=True, choices={"epochs": 1})
    learner.fit()
    learner.calibrate(intervals=True)
    return learner


@pytest.fixture(scope="module")
def model(learner: Learner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learner.export(tmp_path_factory.mktemp("export") / "model")


def call(*words: object) -> str:
    """Return what a command prints to standard output."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


# ---------------------------------------------------------------- frames


def test_frames_give_the_same_predictions_as_single_rows(learner: Learner) -> None:
    frame = table().set_index(pd.Index(range(100, 100 + N), name="key"))
    found = learner.predict(frame)
    assert found.index.equals(frame.index)
    assert list(found.columns) == ["label", "probability", "3", "7"]
    rows: list[Prediction] = learner.predict(frame.to_dict("records"))
    # The classes were whole numbers in train, and are again.
    assert found["label"].dtype == np.int64
    assert found["label"].tolist() == [int(row.label) for row in rows]
    np.testing.assert_allclose(found["7"], [row.probabilities["7"] for row in rows], atol=1e-6)
    sets = learner.predict(frame, interval=0.5)["classes"]
    one = learner.predict(frame.iloc[0].to_dict(), interval=0.5)
    assert sets.iloc[0] == one.classes


def test_frames_of_other_libraries(learner: Learner) -> None:
    wanted = learner.predict(table())
    arrow = learner.predict(pa.Table.from_pandas(table()))
    assert isinstance(arrow, pa.Table)
    assert arrow.schema.field("label").type == pa.int64()
    assert arrow.to_pydict() == {name: wanted[name].tolist() for name in wanted.columns}
    polars = pytest.importorskip("polars")
    assert learner.predict(polars.from_pandas(table())).to_dict(as_series=False) == (
        arrow.to_pydict()
    )
    mapping = learner.predict(table().to_dict("list"))
    assert [each.label for each in mapping] == [str(label) for label in wanted["label"]]


def test_a_series_of_rows_gives_a_frame_with_its_index(learner: Learner) -> None:
    rows = pd.Series(table().head(3).to_dict("records"), index=["a", "b", "c"])
    found = learner.predict(rows)
    assert list(found.index) == ["a", "b", "c"]
    assert found["label"].tolist() == learner.predict(table())["label"].head(3).tolist()
    with pytest.raises(InputError, match="single column, not a table"):
        learner.predict(pa.chunked_array([[1.0, 2.0]]))


def test_empty_frames_and_rows_with_errors(learner: Learner) -> None:
    full, empty = learner.predict(table()), learner.predict(table().head(0))
    assert (len(empty), list(empty.columns)) == (0, list(full.columns))
    arrow = learner.predict(pa.Table.from_pandas(table().head(0)))
    assert (arrow.num_rows, arrow.column_names) == (0, list(full.columns))
    wrong = table().astype({"age": object})
    wrong.loc[1, "age"] = "old"
    found = learner.predict(wrong, errors="return")
    assert found["label"].isna().tolist() == [row == 1 for row in range(N)]
    assert "'old'" in found["error"][1]
    with pytest.raises(InputError, match="row 1 has the text 'old'"):
        learner.predict(wrong)


@pytest.mark.parametrize(
    ("target", "dtype", "labels"),
    [
        ([True, False], "bool", {True, False}),
        ([1.0, 2.5], "float64", {1.0, 2.5}),
        (["1", "2"], "str", {"1", "2"}),
        (pd.Categorical([4, 5]), "int64", {4, 5}),
    ],
)
def test_labels_have_the_type_of_the_target(
    target: Any, dtype: str, labels: set[Any], tmp_path: Path
) -> None:
    frame = table().assign(level=pd.Series(target).sample(N, replace=True, random_state=0).array)
    data = TabularData.from_df(
        frame, "level", kinds={"id": "id"}, options=TabularOptions(task="classification")
    )
    folder = Learner(data, quiet=True).export(tmp_path / "model")
    found = Predictor.load(folder).predict(frame)["label"]
    assert pd.api.types.is_string_dtype(found) if dtype == "str" else found.dtype == dtype
    assert set(found.tolist()) <= labels


def test_cells_that_train_does_not_have_are_named(learner: Learner) -> None:
    frame = table()
    frame.loc[: N // 2 - 1, "age"] = 500.0
    frame.loc[:9, "job"] = "astronaut"
    message = r"train does not have \('job' 16.7%\) and values outside .* \('age' 50.0%\)"
    with pytest.warns(FlambeauWarning, match=message):
        learner.predict(frame)
    check = learner.predictor().preprocessor.input_check()
    for half in (frame[: N // 2], frame[N // 2 :]):  # in pieces as in one
        check.add(half)
    assert check.unseen == pytest.approx({"job": 10 / N})
    assert check.outside["age"] == pytest.approx(0.5)
    frame = table()
    frame.loc[:3, "age"] = 500.0  # four of 60 rows
    learner.predict(frame)


def test_cells_that_are_missing_far_more_often_than_in_train_are_named(learner: Learner) -> None:
    frame = table()
    frame["job"] = None
    with pytest.warns(FlambeauWarning, match=r"far more than in train \('job' 100.0%\)"):
        learner.predict(frame)
    check = learner.predictor().preprocessor.input_check()
    for half in (frame[: N // 2], frame[N // 2 :]):
        check.add(half)
    assert check.missing == {"job": 1.0}
    assert "far more missing cells than in train: 'job' 100.0%" in check.summary()
    few = table()
    few.loc[few["job"].notna().to_numpy().nonzero()[0][:10], "job"] = None  # 17% more
    learner.predict(few)


# ---------------------------------------------------------------- files


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in pieces of 7 rows."""
    original = parquet_files.iter_parquet_tables

    def pieces(path: Path) -> Iterator[Frame]:
        return original(path, 7)

    monkeypatch.setattr("flambeau_tabular.assemble.iter_parquet_tables", pieces)
    monkeypatch.setattr("flambeau_tabular.columns.csv_files._BLOCK_BYTES", 256)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("source", ["rows.csv", "rows.parquet"])
@pytest.mark.parametrize("out", ["p.csv", "p.parquet", "p.jsonl"])
def test_files_are_predicted_in_pieces(
    learner: Learner, model: Path, tmp_path: Path, source: str, out: str
) -> None:
    table().to_csv(tmp_path / "rows.csv", index=False)
    table().to_parquet(tmp_path / "rows.parquet")
    assert sum(1 for _ in TabularData.tables_from_path(tmp_path / source) or ()) > 3
    said = call("predict", model, tmp_path / source, "--out", tmp_path / out, "--keep", "id,age")
    assert f"Wrote {N} predictions" in said
    if out == "p.csv":
        found = pd.read_csv(tmp_path / out, dtype={"id": str})
    elif out == "p.parquet":
        found = pq.read_table(tmp_path / out).to_pandas()
        assert found["label"].dtype == np.int64
    else:
        lines = (tmp_path / out).read_text().splitlines()
        found = pd.DataFrame([json.loads(line) for line in lines])
    wanted = learner.predict(table())
    assert list(found.columns) == ["id", "age", *wanted.columns]
    assert found["label"].tolist() == wanted["label"].tolist()
    np.testing.assert_allclose(found["7"], wanted["7"], atol=1e-6)
    assert found["id"].astype(str).tolist() == table()["id"].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["rows.csv", "rows.parquet", out]
    )


@pytest.mark.usefixtures("small_pieces")
def test_rows_are_numbered_and_intervals_are_columns(model: Path, tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "a.parquet")
    table().head(9).to_csv(tmp_path / "b.csv", index=False)
    words = ["predict", model, tmp_path / "a.parquet", tmp_path / "b.csv", "--interval", "0.5"]
    call(*words, "--out", tmp_path / "p.parquet")
    found = pq.read_table(tmp_path / "p.parquet")
    assert found.column_names == ["file", "row", "label", "probability", "3", "7", "classes"]
    assert found.column("row").to_pylist() == [*range(N), *range(9)]
    assert found.column("file").to_pylist()[N - 1 : N + 1] == [
        str(tmp_path / "a.parquet"),
        str(tmp_path / "b.csv"),
    ]
    shown = json.loads(call(*words, "--format", "json"))
    assert shown[N + 3]["row"] == 3
    assert shown[N + 3]["classes"] == found.column("classes")[N + 3].as_py()


def test_a_kept_column_does_not_replace_a_prediction(model: Path, tmp_path: Path) -> None:
    table().assign(label="mine").to_csv(tmp_path / "rows.csv", index=False)
    call("predict", model, tmp_path / "rows.csv", "--out", tmp_path / "p.csv", "--keep", "label")
    with open(tmp_path / "p.csv", encoding="utf-8") as file:
        header, first = file.readline(), file.readline()
    assert header.replace('"', "").strip().split(",")[:2] == ["input.label", "label"]
    assert first.startswith('"mine",')


REFUSED: dict[str, tuple[pd.DataFrame, list[str], type[FlambeauError], str]] = {
    "missing input": (table().drop(columns="job"), [], InputError, "no column 'job'"),
    "missing kept column": (table(), ["--keep", "name"], InputError, "no column 'name'"),
    "wrong kind": (table().assign(age="old"), [], InputError, "row 0 has the text 'old'"),
    "batch size": (table(), ["--batch-size", "0"], ArgumentError, "at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_predicted_is_refused_once(case: str, model: Path, tmp_path: Path) -> None:
    frame, words, kind, message = REFUSED[case]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "p.csv").write_text("before")
    with pytest.raises(kind, match=message):
        call("predict", model, tmp_path / "rows.csv", "--out", tmp_path / "p.csv", *words)
    assert (tmp_path / "p.csv").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("small_pieces")
def test_an_error_in_a_later_piece_says_where(model: Path, tmp_path: Path) -> None:
    frame = table().astype({"age": str})
    frame.loc[30, "age"] = "old"
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"^rows.parquet: .*row 30 has the text 'old'"):
        call("predict", model, tmp_path / "rows.parquet", "--out", tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()


def test_input_files_are_not_overwritten(model: Path, tmp_path: Path) -> None:
    table().to_csv(tmp_path / "rows.csv", index=False)
    before = (tmp_path / "rows.csv").read_bytes()
    with pytest.raises(ArgumentError, match="is an input file"):
        call("predict", model, tmp_path / "rows.csv", "--out", tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_bytes() == before
    with pytest.raises(InputError, match="does not exist"):
        call("predict", model, tmp_path / "rows.csv", tmp_path / "none.csv")


@pytest.mark.usefixtures("small_pieces")
def test_a_column_with_several_types_is_refused_only_by_parquet(
    model: Path, tmp_path: Path
) -> None:
    frame = table().assign(code=["1"] * 30 + ["007"] * 30)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    words = ["predict", model, tmp_path / "rows.csv", "--keep", "code", "--out"]
    with pytest.raises(InputError, match=r"'code' has cells of int64 up to row .* and cells of"):
        call(*words, tmp_path / "p.parquet")
    call(*words, tmp_path / "p.csv")
    assert "007" in (tmp_path / "p.csv").read_text()


def test_pieces_are_rows_with_columns() -> None:
    piece = TablePiece(Frame(pa.table({"a": [1, 2]})))
    assert (len(piece), piece.column("a").to_pylist()) == (2, [1, 2])
