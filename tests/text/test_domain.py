"""Recognition of sentence pairs, the paths of the command line, and the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from flambeau.domain import Recognition
from flambeau.errors import ArgumentError, InputError
from flambeau_text import TranslationData
from flambeau_text.translation.demo import date_pair, date_pairs, dates_data, english, german
from flambeau_text.translation.domain import recognise


def test_recognise_folders_and_files(tmp_path: Path) -> None:
    for name in ("train.en", "train.de.gz", "a.txt"):
        (tmp_path / name).write_text("x\n")
    found = recognise(tmp_path, {})
    assert found == Recognition("sure", "It has the files train.de and train.en.")
    found = recognise(tmp_path / "train.en", {})
    assert found == Recognition("possible", "Its name ends in 'en'.")
    found = recognise(tmp_path / "train.en", {"target": "train.de"})
    assert found is not None
    assert found.certainty == "sure"
    assert recognise(tmp_path / "a.txt", {}) is None
    assert recognise(tmp_path / "gone.en", {}) is None
    (tmp_path / "train.fr").write_text("x\n")
    assert recognise(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("name", "content", "options", "certainty"),
    [
        ("t.csv", "source,target,split\na,b,train\n", {}, "sure"),
        ("t.csv", "en,de\n1,2\n", {}, "sure"),
        ("t.csv", '"en","de"\n1,2\n', {}, "sure"),
        ("t.csv", "age,income\n1,2\n", {}, None),
        ("t.csv", "id,en,de\n1,2,3\n", {}, None),
        ("t.csv", "id,en,de\n1,2,3\n", {"source-column": "en"}, "sure"),
        ("t.csv", "first,second\nthis is one,das ist eins\n", {}, "possible"),
        ("t.csv", "text,label\nthis is one,good\n", {}, None),
        ("t.csv", "", {}, None),
        ("t.tsv", "en\tde\n1\t2\n", {}, "sure"),
        ("t.tsv", "a dog\tein hund\n", {}, "possible"),
        ("t.tsv", "Go.\tLos.\n", {}, "possible"),
        ("t.tsv", "review\tlabel\n", {}, None),
    ],
)
def test_recognise_tables(
    tmp_path: Path, name: str, content: str, options: dict[str, str], certainty: str | None
) -> None:
    (tmp_path / name).write_text(content)
    found = recognise(tmp_path / name, options)
    assert (found and found.certainty) == certainty


def test_folders_files_and_tables(tmp_path: Path) -> None:
    lines = [f"line {n}" for n in range(20)]
    for name in ("train.en", "train.de", "val.en", "val.de", "test_2016.en", "test_2016.de"):
        (tmp_path / name).write_text("\n".join(lines[: 20 if "train" in name else 3]))
    data = TranslationData.from_path(tmp_path, {})
    assert [len(data.split.part(part)) for part in ("train", "valid", "test")] == [20, 3, 3]
    # In alphabetical order of the languages: German to English.
    assert (data.options.source_language, data.options.target_language) == ("de", "en")
    for languages in ({"source_language": "en"}, {"target_language": "de"}):
        data = TranslationData.from_path(tmp_path, languages)
        assert data.options.source_language == "en"
        assert data.options.target_language == "de"
    with pytest.raises(InputError, match=r"source_language is 'fr', but .*train\.de and train\.en"):
        TranslationData.from_path(tmp_path, {"source_language": "fr"})
    given = {"target": str(tmp_path / "train.de"), "valid": 0.25, "tokenizer": "word"}
    data = TranslationData.from_path(tmp_path / "train.en", given)
    assert len(data.split.valid) == 5
    assert data.choices == {"tokenizer": "word"}
    (tmp_path / "t.csv").write_text("en,de\n" + "a,b\n" * 12)
    from_table = TranslationData.from_path(tmp_path / "t.csv", {})
    assert from_table.raw("train")[0] == "a"
    assert (from_table.options.source_language, from_table.options.target_language) == ("en", "de")
    # With more columns the two sides are found by their names.
    (tmp_path / "n.csv").write_text("id,target,source\n" + "1,b,a\n" * 12)
    assert TranslationData.from_path(tmp_path / "n.csv", {}).raw("train")[0] == "a"
    (tmp_path / "n.csv").write_text("id,english,german\n" + "1,a,b\n" * 12)
    with pytest.raises(
        InputError, match=r"first line is 'id', 'english', 'german'.*--source-column"
    ):
        TranslationData.from_path(tmp_path / "n.csv", {})
    named = {"source_column": "english", "target": "german"}
    assert TranslationData.from_path(tmp_path / "n.csv", named).raw("train")[0] == "a"
    assert TranslationData.inputs_from_path(tmp_path / "val.en") == lines[:3]
    with pytest.raises(ArgumentError, match=r"Unknown option 'valdi'.*'valid'"):
        TranslationData.from_path(tmp_path, {"valdi": 0.1})
    with pytest.raises(InputError, match="has 0 files named train"):
        TranslationData.from_path(tmp_path.parent, {})


def test_separate_files_for_valid(tmp_path: Path) -> None:
    for name in ("a.en", "a.de", "b.en", "b.de"):
        (tmp_path / name).write_text(f"{name} one\n{name} two\n{name} three\n")
    target, other = str(tmp_path / "a.de"), f"{tmp_path / 'b.en'},{tmp_path / 'b.de'}"
    data = TranslationData.from_path(tmp_path / "a.en", {"target": target, "valid": other})
    assert [len(data.split.part(part)) for part in ("train", "valid")] == [3, 3]
    assert data.raw("valid")[0] == "b.en one"
    data = TranslationData.from_path(tmp_path / "a.en", {"target": target, "valid": "0.4"})
    assert len(data.split.valid) == 1
    for wrong in ("b.en", "b.en,", "b.en,b.de,c.de"):
        with pytest.raises(ArgumentError, match="two files separated by a comma"):
            TranslationData.from_path(tmp_path / "a.en", {"target": target, "valid": wrong})
    (tmp_path / "t.csv").write_text("en,de\n" + "a,b\n" * 12)
    with pytest.raises(ArgumentError, match="is a table, so valid and test must be fractions"):
        TranslationData.from_path(tmp_path / "t.csv", {"test": other})


@pytest.mark.parametrize("first", ["a dog\tein hund", "Go.\tLos."])
def test_a_table_without_a_header_raises(tmp_path: Path, first: str) -> None:
    (tmp_path / "t.tsv").write_text(f"{first}\n" + "one\teins\n" * 12)
    with pytest.raises(InputError, match="looks like a sentence pair, not like column names"):
        TranslationData.from_path(tmp_path / "t.tsv", {})
    source, target = first.split("\t")
    named = {"source_column": source, "target": target}
    assert TranslationData.from_path(tmp_path / "t.tsv", named).raw("train")[0] == "one"


def test_equal_sides_are_reported() -> None:
    pairs = [("one", "eins"), ("two", "two"), ("three", "drei"), ("four", "vier")]
    report = TranslationData.from_pairs(pairs, valid=pairs[:1]).report()
    assert "source equals target in 1 train pairs, such as pair 1" in report
    assert (
        "source equals target"
        not in TranslationData.from_pairs(pairs[:1], valid=pairs[2:]).report()
    )


def test_the_demo_pairs_are_correct() -> None:
    assert [english(n) for n in (7, 13, 40, 86)] == [
        ["seven"], ["thirteen"], ["forty"], ["eighty", "six"]
    ]  # fmt: skip
    assert [german(n) for n in (7, 13, 40, 86)] == [
        ["sieben"], ["dreizehn"], ["vierzig"], ["sechs", "und", "achtzig"]
    ]  # fmt: skip
    assert date_pair(2, 3, 1, 1907, 2) == (
        "it closes on january three nineteen seven at night",
        "am drei januar neunzehn hundert sieben es schließt in der nacht",
    )
    assert date_pairs(5, 1) == date_pairs(5, 1) != date_pairs(5, 2)
    data = dates_data(50, 0)
    assert [len(data.split.part(part)) for part in ("train", "valid", "test")] == [40, 5, 5]
