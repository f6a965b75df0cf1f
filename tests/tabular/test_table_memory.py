"""Encoding a table needs little more memory than its result."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from flambeau_tabular.columns import TableSpec, infer_kinds

_ROWS = 200_000


def _table(*, text: bool) -> pa.Table:
    draws = np.random.default_rng(0)
    columns = {}
    for at in range(4):
        codes = pa.array(draws.integers(0, 500, _ROWS, dtype=np.int32))
        names = pa.array([f"value {code}" for code in range(500)])
        cells = pa.DictionaryArray.from_arrays(codes, names)
        columns[f"c{at}"] = cells.cast(pa.string()) if text else cells
        columns[f"n{at}"] = pa.array(draws.normal(size=_ROWS).astype(np.float32))
    return pa.table(columns)


@pytest.mark.parametrize("text", [False, True])
def test_encoding_needs_the_memory_of_its_result(
    monkeypatch: pytest.MonkeyPatch, text: bool
) -> None:
    # At most 2,048 rows at once, as 262,144 of ten million. Whole columns need 1.38 times the
    # memory of the result.
    monkeypatch.setattr("flambeau_tabular.columns.table_spec._CATEGORY_ROWS", 1 << 11)
    monkeypatch.setattr("flambeau_tabular.columns.table_spec.PIECE_ROWS", 1 << 11)
    table = _table(text=text)
    spec = TableSpec.fit(table, None, infer_kinds(table))
    rows = np.arange(0, _ROWS, 2)
    whole = spec.encode(table, rows)  # imports and caches
    tracemalloc.start()
    try:
        encoded = spec.encode(table, rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result = sum(each.nbytes for each in encoded.inputs().values())
    assert peak < 1.2 * result
    assert all(
        bool((each == whole.inputs()[name]).all()) for name, each in encoded.inputs().items()
    )


def test_pieces_of_categories_give_the_codes_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces have dictionaries of their own, with other values in another order."""
    draws = np.random.default_rng(1)
    words = draws.choice(["a", "b", "c", "d", None, "rare"], 1_000)
    words[:400] = draws.choice(["d", "c", None], 400)
    numbers = draws.choice([7.0, 1.0, np.nan, 30.0], 1_000)
    table = pa.table({"word": words, "number": numbers, "flag": numbers > 5})
    kinds = infer_kinds(table, overrides={"number": "category"})
    spec = TableSpec.fit(table, np.arange(700), kinds)
    rows = draws.permutation(1_000)
    whole = spec.encode(table, rows).categories
    monkeypatch.setattr("flambeau_tabular.columns.table_spec._CATEGORY_ROWS", 7)
    assert bool((spec.encode(table, rows).categories == whole).all())
    coded = table.set_column(0, "word", table.column("word").dictionary_encode())
    assert bool((spec.encode(coded, rows).categories == whole).all())
