"""Which text is the source: by name, by language, or refused; never by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flambeau import Learner
from flambeau.domain.discovery import recognise_domain
from flambeau.errors import ArgumentError, InputError
from flambeau_text import (
    Beam,
    Greedy,
    Sampling,
    TranslationData,
    TranslationOptions,
    WordTokenizer,
)
from flambeau_text.decoding.search import search
from flambeau_text.models import rnn
from flambeau_text.translation.domain import recognise
from flambeau_text.translation.from_plan import fit_preprocessor

ENGLISH = [f"sentence number {n}" for n in range(12)]
GERMAN = [f"satz nummer {n}" for n in range(12)]
TO_GERMAN = TranslationOptions("en", "de")
TO_ENGLISH = TranslationOptions("de", "en")


def rows(*names: str) -> list[dict[str, Any]]:
    texts = {"en": ENGLISH, "de": GERMAN, "id": [str(n) for n in range(12)]}
    return [{name: texts[name][n] for name in names} for n in range(12)]


# ---------------------------------------------------------------- mappings


@pytest.mark.parametrize("wrap", [dict, lambda row: {"id": "7", "translation": row}])
def test_mappings_are_read_by_the_languages_of_the_options(wrap: Any) -> None:
    pairs = [wrap(row) for row in rows("id", "en", "de")]
    data = TranslationData.from_pairs(pairs, options=TO_ENGLISH)
    assert list(data.samples["source"]) == GERMAN
    assert list(data.samples["target"]) == ENGLISH
    data = TranslationData.from_pairs(pairs, "en", "de")
    assert list(data.samples["source"]) == ENGLISH
    assert (data.options.source_language, data.options.target_language) == ("en", "de")


def test_the_order_of_entries_may_differ_between_items_and_parts() -> None:
    pairs = rows("en", "de")[:6] + rows("de", "en")[6:]
    data = TranslationData.from_pairs(pairs, valid=iter(rows("de", "en")[:3]))
    assert data.raw("train") == ENGLISH
    assert data.raw("valid") == ENGLISH[:3]
    assert "the source is 'en' and the target 'de', in the order" in data.report()


def test_mappings_with_unclear_or_missing_entries_are_refused() -> None:
    with pytest.raises(InputError, match=r"entries 'id', 'en', 'de'; it is unclear"):
        TranslationData.from_pairs(rows("id", "en", "de"))
    with pytest.raises(InputError, match=r"entries 'en', 'de', without 'fr'"):
        TranslationData.from_pairs(rows("en", "de"), options=TranslationOptions("fr", "en"))
    with pytest.raises(InputError, match=r"Item 5 has the entries 'en', without 'de'"):
        TranslationData.from_pairs([*rows("en", "de")[:5], {"en": "x"}])
    with pytest.raises(InputError, match="not a pair of texts"):
        TranslationData.from_pairs([{"en": "x", "de": None}] * 4)


# ---------------------------------------------------------------- tables and files


def test_columns_are_chosen_by_the_languages_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{en},{de}" for en, de in zip(ENGLISH, GERMAN, strict=True)]
    path.write_text("\n".join(["en,de", *lines]), encoding="utf-8")
    for options in ({"source_language": "de"}, {"target_language": "eng"}):
        data = TranslationData.from_path(path, options)
        assert list(data.samples["source"]) == GERMAN
    with pytest.raises(InputError, match="Exchange the two sides"):
        TranslationData.from_csv(path, "en", "de", options=TO_ENGLISH)
    frame = {"en": ENGLISH, "de": GERMAN}
    with pytest.raises(InputError, match="Exchange the two sides"):
        TranslationData.from_df(frame, "de", "en", options=TO_GERMAN)


def test_files_in_other_languages_than_asked_for_are_refused(tmp_path: Path) -> None:
    for name, lines in (("a.en", ENGLISH), ("a.de", GERMAN)):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="the source is in 'de' and the target in 'en', but"):
        TranslationData.from_files(tmp_path / "a.de", tmp_path / "a.en", options=TO_GERMAN)
    # Other names for the same languages, and names without a language, are accepted.
    options = TranslationOptions("eng", "german")
    data = TranslationData.from_files(tmp_path / "a.en", tmp_path / "a.de", options=options)
    assert data.options.source_language == "eng"


# ---------------------------------------------------------------- headers, sizes and endings


@pytest.mark.parametrize("first", [("dog", "Hund"), ("Go.", "Los."), ("Hi", "Hi"), ("a dog", "x")])
def test_a_table_without_a_header_keeps_its_first_pair(
    tmp_path: Path, first: tuple[str, str]
) -> None:
    path = tmp_path / "anki.tsv"
    lines = ["\t".join(first), *(f"{en}\t{de}" for en, de in zip(ENGLISH, GERMAN, strict=True))]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"--columns 0,1, or TranslationData\.from_csv\(path, 0, 1"
    ):
        TranslationData.from_path(path, {})
    for data in (
        TranslationData.from_path(path, {"columns": "0,1"}),
        TranslationData.from_csv(path, 0, 1),
    ):
        assert list(data.samples["source"]) == [first[0], *ENGLISH]
    swapped = TranslationData.from_path(path, {"columns": "1, 0"})
    assert list(swapped.samples["source"]) == [first[1], *GERMAN]
    assert "columns 1 and 0 of a table without a header" in swapped.report()


def test_a_third_column_and_a_known_header(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    body = "".join(f"{e}\t{g}\tby {e}\n" for e, g in zip(ENGLISH, GERMAN, strict=True))
    path.write_text(body, encoding="utf-8")
    with pytest.raises(InputError, match="If the table has no header"):
        TranslationData.from_path(path, {})
    assert len(TranslationData.from_path(path, {"columns": "0,1"}).samples) == 12
    path.write_text("English\tGerman\n" + body.replace("\tby ", " "), encoding="utf-8")
    data = TranslationData.from_path(path, {})
    assert data.options.target_language == "de"
    assert "the header has the columns 'English' and 'German'" in data.report()
    with pytest.raises(ArgumentError, match="--columns 0 must be the positions"):
        TranslationData.from_path(path, {"columns": "0"})
    with pytest.raises(InputError, match="no column '5'"):
        TranslationData.from_path(path, {"columns": "0,5"})
    with pytest.raises(ArgumentError, match="Give two column names or, for a file"):
        TranslationData.from_csv(path, 0, "German")


def test_sides_without_a_language_and_whole_numbers(tmp_path: Path) -> None:
    for name, lines in (("train.src", ENGLISH), ("train.tgt", GERMAN)):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    target = str(tmp_path / "train.tgt")
    assert recognise(tmp_path / "train.src", {"target": target}).certainty == "sure"  # type: ignore[union-attr]
    assert recognise(tmp_path, {}).certainty == "sure"  # type: ignore[union-attr]
    for path, options in ((tmp_path, {}), (tmp_path / "train.src", {"target": target})):
        data = TranslationData.from_path(path, {**options, "valid": "5", "tokenizer": "word"})
        assert len(data.split.valid) == 5
        assert data.options.source_language is None
        assert list(data.samples["source"]) == ENGLISH
        tokenizer = fit_preprocessor(
            ENGLISH, GERMAN, Learner(data, quiet=True).plan.values, data.options
        ).source
        assert tokenizer.decode(tokenizer.encode(ENGLISH[3])) == ENGLISH[3]
    with pytest.raises(InputError, match=r"'qq' into words.*--source-language xx.*--tokenizer bpe"):
        WordTokenizer.fit(ENGLISH, language="qq")


def test_a_minimum_length_above_the_limit_is_refused() -> None:
    model = rnn(source_vocab=9, target_vocab=9, config={"embedding_dim": 4, "hidden_size": 4})
    source, mask = torch.tensor([[4, 5, 3]]), torch.ones(1, 3, dtype=torch.bool)
    for strategy in (Greedy, Beam, Sampling):
        with pytest.raises(InputError, match=r"min_length is 20.*source of 3 tokens.*at most 14"):
            search(model.eval(), source, mask, strategy(min_length=20))
        found = search(model, source, mask, strategy(min_length=14))
        assert int(found.lengths[0, 0]) == 15


def test_frames_and_files_are_read_by_the_languages_asked_for(tmp_path: Path) -> None:
    table = {"id": [*map(str, range(12))], "en": ENGLISH, "de": GERMAN}
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    for data in (
        TranslationData.from_df(table, options=TO_ENGLISH),
        TranslationData.from_csv(tmp_path / "t.csv", options=TO_ENGLISH),
        TranslationData.from_df(pd.DataFrame([GERMAN, ENGLISH]).T, 0, 1),  # columns 0 and 1
    ):
        assert list(data.samples["source"]) == GERMAN
        assert list(data.samples["target"]) == ENGLISH
    with pytest.raises(InputError, match=r"frame has the columns 'id', 'en', 'de'; it is unclear"):
        TranslationData.from_df(table)


def test_anki_exports_and_the_task_choose_translation(tmp_path: Path) -> None:
    path = tmp_path / "deu.txt"
    pairs = [(f'he said, "no {n}', f"er sagt, nein {n}") for n in range(12)]
    path.write_text("".join(f"{en}\t{de}\tCC-BY\n" for en, de in pairs), encoding="utf-8")
    options = {"task": "translation", "columns": "0,1"}
    assert recognise_domain(path, options).name == "translate"
    data = TranslationData.from_path(path, options)
    assert list(zip(data.samples["source"], data.samples["target"], strict=True)) == pairs
    with pytest.raises(InputError, match=r"no header, give the positions .*from_csv\(path, 0, 1"):
        TranslationData.from_csv(path)
    (tmp_path / "two.tsv").write_text("wait a moment\twarte kurz\n" * 12, encoding="utf-8")
    assert recognise_domain(tmp_path / "two.tsv", {"task": "translation"}).name == "translate"


def test_positions_are_refused_for_a_table_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    for header in ("en\tde", "German\tEnglish", "Source\tTarget"):
        path.write_text(header + "\n" + "go\tgeh\n" * 5, encoding="utf-8")
        first, second = header.split("\t")
        with pytest.raises(InputError, match=f"--source-column {first} --target {second}"):
            TranslationData.from_csv(path, 0, 1)
    path.write_text("go\tgeh\n" * 5 + "go\tgeh\tx\n", encoding="utf-8")
    with pytest.raises(InputError, match="as many tabs as those of the header"):
        TranslationData.from_csv(path, 0, 1)
    (tmp_path / "t.jsonl").write_text('{"en": "go", "de": "geh"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"JSON file.*pandas\.read_json"):
        TranslationData.from_csv(tmp_path / "t.jsonl")
    with pytest.raises(InputError, match=r"valid is '5'\. Give a fraction"):
        TranslationData.from_pairs([("a", "b")] * 9, valid="5")


@pytest.mark.parametrize("flag", ["lowercase", "group_sources"])
def test_flags_of_options_are_true_or_false(flag: str) -> None:
    with pytest.raises(ArgumentError, match=f"{flag} must be True or False, not 'no'"):
        TranslationOptions(**{flag: "no"})  # type: ignore[arg-type]
    assert getattr(TranslationOptions(**{flag: np.bool_(True)}), flag) is True  # type: ignore[arg-type]
