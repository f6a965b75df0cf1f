"""Which text is the source: by name, by language, or refused; never by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flambeau.errors import InputError
from flambeau_text import TranslationData, TranslationOptions

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
