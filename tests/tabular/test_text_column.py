"""Free text as hashed words, against a plain loop."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa

from flambeau_tabular.columns import ColumnKind, SpecOptions, TableSpec, infer_kinds, read_frame

TEXTS = [
    "A quick, quick brown Fox's den: 3.5 km!",
    "",
    None,
    "   ... ",
    "ÄRGER über die Donaudampfschifffahrt 日本語",
    "one two three four five six seven",
]


def words(text: str | None) -> list[str]:
    found = re.findall(r"[^\W_]+", (text or "").lower())
    return [
        piece
        for word in found
        for piece in (
            [word] if len(word) <= 12 else [word[i : i + 6] for i in range(0, len(word), 6)]
        )
    ]


def slow(texts: list[str | None], buckets: int, width: int) -> np.ndarray:
    encoded = np.zeros((len(texts), width), np.int32)
    for row, text in enumerate(texts):
        for position, word in enumerate(words(text)[:width]):
            encoded[row, position] = zlib.crc32(word.encode()) % (buckets - 1) + 1
    return encoded


def fitted(texts: list[str | None], **options: int) -> TableSpec:
    kinds = {"t": ColumnKind("text")}
    return TableSpec.fit(read_frame({"t": texts}), None, kinds, SpecOptions(**options))


def test_tokens_are_those_of_a_plain_loop() -> None:
    spec = fitted(TEXTS * 3, text_buckets=97)
    assert (spec.text_names, spec.text_buckets, spec.text_width) == (("t",), 97, 10)
    found = spec.encode(read_frame({"t": TEXTS})).tokens
    np.testing.assert_array_equal(found, slow(TEXTS, 97, 10))
    assert found.min() == 0
    assert found.max() < 97


def test_long_texts_are_cut() -> None:
    spec = fitted(TEXTS, max_text_width=4)
    assert spec.text_width == 4
    np.testing.assert_array_equal(
        spec.encode(read_frame({"t": TEXTS})).tokens, slow(TEXTS, 16_384, 4)
    )
    empty = spec.encode(read_frame({"t": [None, ""]})).tokens
    assert empty.tolist() == [[0] * 4] * 2


def test_every_type_of_text_gives_the_same_tokens() -> None:
    spec = fitted(TEXTS)
    wanted = spec.encode(read_frame({"t": TEXTS})).tokens.tolist()
    series = pd.Series(TEXTS, dtype=object)
    arrow = pa.array(TEXTS)
    for source in (
        series,
        series.astype("category"),
        series.astype("string"),
        arrow,
        arrow.dictionary_encode(),
        arrow.cast(pa.string_view()),
        pa.chunked_array([arrow[:2], arrow[2:]]),
    ):
        assert spec.encode(read_frame({"t": source})).tokens.tolist() == wanted
    assert spec.encode(read_frame({"t": [3.5, 7.0]})).tokens.tolist() == [
        *slow(["3.5", "7"], 16_384, spec.text_width).tolist()
    ]


def test_columns_of_text_have_one_width() -> None:
    table = read_frame({"a": ["x y z"] * 3, "b": ["x", "y", "z"], "n": [1, 2, 3]})
    kinds = {"a": ColumnKind("text"), "b": ColumnKind("text"), "n": ColumnKind("number")}
    spec = TableSpec.fit(table, None, kinds)
    tokens = spec.encode(table).tokens
    assert (spec.text_names, spec.text_width, tokens.shape) == (("a", "b"), 3, (3, 6))
    np.testing.assert_array_equal(tokens[:, 3:], slow(["x", "y", "z"], 16_384, 3))


def test_free_text_is_recognised() -> None:
    random = np.random.default_rng(0)
    vocabulary = ["the", "price", "was", "high", "low", "and", "fair", "today"]
    reviews = [" ".join(random.choice(vocabulary, 8)) for _ in range(200)]
    kind = infer_kinds(read_frame({"review": reviews}))["review"]
    assert kind.kind == "text"
    assert kind.evidence["words"] == 8.0
    titles = [" ".join(each.split()[:2]) for each in reviews]
    assert infer_kinds(read_frame({"title": titles}))["title"].kind == "category"
