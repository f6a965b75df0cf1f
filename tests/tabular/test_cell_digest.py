"""``cell_digest``: equal for equal cells, whatever holds them, and different for others."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flambeau_tabular.columns import cell_digest as module
from flambeau_tabular.columns.cell_digest import cell_digest
from flambeau_tabular.columns.frames import read_frame
from flambeau_tabular.columns.parquet_files import ParquetTable

CELLS: dict[str, Any] = {
    "count": [1, 2, None, 4],
    "size": [0.5, None, 1e300, -2.25],
    "job": ["clerk", "", None, "Zo\u00eb"],
    "day": [dt.datetime(2024, 1, 1), None, dt.datetime(1969, 5, 1), dt.datetime(2024, 1, 2)],
    "yes": [True, False, None, True],
}


def digest(source: Any) -> str | None:
    frame = read_frame(source)
    return cell_digest(frame, frame.column_names)


def test_the_container_does_not_count() -> None:
    table = pa.table(CELLS)
    expected = digest(table)
    assert digest(pl.DataFrame(CELLS)) == expected
    assert digest(table.to_pandas(types_mapper=pd.ArrowDtype)) == expected
    index = table.schema.get_field_index("job")
    encoded = table.column("job").dictionary_encode()
    assert digest(table.set_column(index, "job", encoded)) == expected
    assert digest(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == expected
    assert digest(table.slice(1)) == digest(pa.table({k: v[1:] for k, v in CELLS.items()}))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("change", ["order", "missing", "name"])
def test_other_cells_have_another_hash(name: str, change: str) -> None:
    cells = dict(CELLS)
    if change == "order":
        cells[name] = [*CELLS[name][:2][::-1], *CELLS[name][2:]]
    elif change == "missing":
        cells[name] = [*CELLS[name][:3], None]
    else:
        cells["other"] = cells.pop(name)
    assert digest(pa.table(cells)) != digest(pa.table(CELLS))


def test_of_a_large_table_spread_rows_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(100)
    whole = digest({"a": values})
    monkeypatch.setattr(module, "MOST_CELLS", 10)
    assert digest({"a": values}) != whole
    assert digest({"a": np.where(values == 50, -1, values)}) != digest({"a": values})
    assert digest({"a": np.where(values == 51, -1, values)}) == digest({"a": values})
    assert digest({"a": values[:99]}) != digest({"a": values})


def test_a_file_that_is_read_by_column_has_none(tmp_path: Path) -> None:
    pq.write_table(pa.table(CELLS), tmp_path / "cells.parquet")
    frame = read_frame(CELLS)
    object.__setattr__(frame, "table", ParquetTable(tmp_path / "cells.parquet"))
    assert cell_digest(frame, ["job"]) is None
