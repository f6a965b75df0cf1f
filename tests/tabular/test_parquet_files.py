"""Parquet files: columns are read when they are needed."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flambeau.errors import InputError
from flambeau_tabular import TabularData
from flambeau_tabular.columns import (
    TableSpec,
    infer_kinds,
    iter_parquet_tables,
    read_frame,
    read_parquet_table,
)
from flambeau_tabular.columns.parquet_files import ParquetTable


@pytest.fixture
def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "n": random.normal(size=500),
            "job": random.choice(["a", "b", "c"], 500),
            "a.b": random.integers(0, 100, 500),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 99, 500), "D"),
        },
        index=random.permutation(500),
    )


@pytest.fixture
def path(frame: pd.DataFrame, tmp_path: Path) -> Path:
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=64)
    return tmp_path / "t.parquet"


def test_a_file_gives_the_spec_of_its_frame(frame: pd.DataFrame, path: Path) -> None:
    table = read_parquet_table(path)
    assert (table.column_names, len(table), table.name) == ([*frame.columns], 500, "t.parquet")
    rows = np.arange(0, 500, 3)
    kinds = infer_kinds(table, rows)
    assert {name: each.kind for name, each in kinds.items()} == {
        name: each.kind for name, each in infer_kinds(read_frame(frame), rows).items()
    }
    spec = TableSpec.fit(table, rows, kinds)
    assert spec.hash() == TableSpec.fit(read_frame(frame), rows, kinds).hash()
    wanted = spec.encode(read_frame(frame))
    pieces = [spec.encode(each) for each in iter_parquet_tables(path, 100)]
    assert max(map(len, pieces)) <= 100
    for name, tensor in wanted.inputs().items():
        assert spec.encode(table).inputs()[name].equal(tensor)
        assert torch.cat([each.inputs()[name] for each in pieces]).equal(tensor)


def test_columns_are_read_when_they_are_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = pq.ParquetFile.read

    def recorded(self: pq.ParquetFile, columns: list[str], **options: object) -> pa.Table:
        read.extend(columns)
        return original(self, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read", recorded)
    table = read_parquet_table(path).drop(["day"])
    assert read == []
    TableSpec.fit(table, None, {"n": infer_kinds(table.drop(["job", "a.b"]))["n"]})
    assert set(read) == {"n"}


def test_no_column_stays_in_memory(tmp_path: Path) -> None:
    n = 200_000
    columns = {name: np.random.default_rng(0).random(n) for name in ("a", "b", "c")}
    pq.write_table(pa.table(columns), tmp_path / "large.parquet")
    table = read_parquet_table(tmp_path / "large.parquet")
    before = pa.total_allocated_bytes()
    for name in table.column_names * 20:
        assert table.column(name).nbytes >= 8 * n
        assert pa.total_allocated_bytes() - before < n


def test_rows_and_columns_of_a_file(frame: pd.DataFrame, path: Path) -> None:
    taken = read_parquet_table(path).drop(["n"]).take([499, 3])
    assert taken.column_names == ["job", "a.b", "day"]
    assert taken.column("a.b").to_pylist() == frame["a.b"].iloc[[499, 3]].tolist()
    assert pa.types.is_dictionary(read_parquet_table(path).column("job").type)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.parquet does not exist"):
        read_parquet_table(tmp_path / "none.parquet")
    (tmp_path / "t.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"t.parquet is not a Parquet file"):
        read_parquet_table(tmp_path / "t.parquet")
    pq.write_table(pa.table({"x": [[1], [2]], "y": [1, 2]}), tmp_path / "lists.parquet")
    table = read_parquet_table(tmp_path / "lists.parquet")
    with pytest.raises(InputError, match="'x' has the type list"):
        table.column("x")
    assert infer_kinds(table.drop(["x"]))["y"].kind == "number"


def test_take_reads_only_the_blocks_with_the_rows(tmp_path: Path) -> None:
    table = pa.table({"a": np.arange(1000), "b": [str(row % 7) for row in range(1000)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=130)
    found = read_parquet_table(tmp_path / "rows.parquet")
    for rows in ([5, 999, 130, 129, 131, 5], [], [*range(999, -1, -1)], [260]):
        expected = table.take(pa.array(rows, pa.int64()))
        assert found.take(rows).table.to_pydict() == expected.to_pydict()
    source = found.table
    assert isinstance(source, ParquetTable)
    assert source.block_starts.tolist() == [*range(0, 1000, 130)]
    read: list[list[int]] = []
    inner = source.file.read_row_groups
    source.file = SimpleNamespace(  # type: ignore[assignment]
        metadata=source.file.metadata,
        num_row_groups=source.file.num_row_groups,
        read_row_groups=lambda blocks, *more, **named: (
            read.append(list(blocks)) or inner(blocks, *more, **named)
        ),
    )
    source.take([260, 261, 999])
    assert read == [[2, 7], [2, 7]]


def test_data_of_a_file_can_be_sent_to_another_process(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": range(30), "y": [0, 1, 1] * 10})
    frame.to_parquet(tmp_path / "rows.parquet")
    data = TabularData.from_parquet(tmp_path / "rows.parquet", "y", valid=0.2)
    again = pickle.loads(pickle.dumps(data))
    assert again.facts() == data.facts()
    assert list(again.raw("valid")) == list(data.raw("valid"))
