"""Tags from tables, JSON lines and data sets of Hugging Face; and data like an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from flambeau import Learner, Predictor
from flambeau.cli.app import build_app
from flambeau.errors import FlambeauError, InputError, SplitError
from flambeau_text import LanguageModelData, TagData, TagOptions, TextData

WORDS = [["Ann", "saw", "New", "York"], ["Rome", "was", "great"], ["We", "saw", "Ann"]] * 4
TAGS = [["B-PER", "O", "B-LOC", "I-LOC"], ["B-LOC", "O", "O"], ["O", "O", "B-PER"]] * 4
SMALL: dict[str, Any] = {
    "model_config": {"embedding_dim": 8, "hidden_size": 8}, "probe": "off", "device": "cpu",
    "epochs": 1, "num_threads": 1,
}  # fmt: skip


def content(data: TagData) -> list[tuple[list[str], list[str]]]:
    return list(zip(data.samples["sentence"], data.samples["tags"], strict=True))


EXPECTED = list(zip(WORDS, TAGS, strict=True))


def test_columns_of_lists_and_of_texts_are_sentences() -> None:
    lists = {"id": range(12), "tokens": WORDS, "ner_tags": TAGS}
    texts = {"tokens": [" ".join(each) for each in WORDS], "tags": [" ".join(t) for t in TAGS]}
    for frame in (lists, pd.DataFrame(lists), texts, pd.DataFrame(texts)):
        data = TagData.from_df(frame)
        assert content(data) == EXPECTED
        assert data.reading_options["words"] == "tokens"
    named = TagData.from_df({"a": WORDS, "b": TAGS, "tags": TAGS}, "a", "b", valid=4)
    assert len(named.split.valid) == 4
    assert content(named) == EXPECTED


def test_rows_of_words_are_grouped_by_sentence(tmp_path: Path) -> None:
    lines = [
        f"{f'Sentence: {at}' if position == 0 else ''},{word},{tag}"
        for at, (words, tags) in enumerate(EXPECTED)
        for position, (word, tag) in enumerate(zip(words, tags, strict=True))
    ]
    file = tmp_path / "ner.csv"
    file.write_text("\n".join(["Sentence #,Word,Tag", *lines, ""]))
    assert content(TagData.from_csv(file)) == EXPECTED
    full = pd.DataFrame(
        [
            {"sentence_id": at, "word": word, "tag": tag, "part": "valid" if at > 8 else "train"}
            for at, (words, tags) in enumerate(EXPECTED)
            for word, tag in zip(words, tags, strict=True)
        ]
    )
    data = TagData.from_df(full, split="part")
    assert content(data) == EXPECTED
    assert data.split.valid.tolist() == [9, 10, 11]
    full.loc[0, "part"] = "valid"
    with pytest.raises(InputError, match="words of the sentence in frame, row 0 are in several"):
        TagData.from_df(full, split="part")
    with pytest.raises(SplitError):
        TagData.from_df(full.assign(part="somewhere"), split="part")


def test_a_csv_file_may_have_written_lists(tmp_path: Path) -> None:
    file = tmp_path / "lists.csv"
    frame = {"tokens": list(map(json.dumps, WORDS)), "tags": list(map(str, TAGS))}
    pd.DataFrame(frame).to_csv(file, index=False)
    other = tmp_path / "valid.csv"
    pd.DataFrame(frame).iloc[:3].to_csv(other, index=False)
    data = TagData.from_csv(file, valid=other)
    assert content(data) == EXPECTED + EXPECTED[:3]
    assert data.split.valid.tolist() == [12, 13, 14]


def test_a_csv_file_may_have_lists_of_numbers_but_not_arrays(tmp_path: Path) -> None:
    file = tmp_path / "ner.csv"
    pd.DataFrame(
        {"tokens": map(str, WORDS), "tags": [str([0] * (len(w) - 1) + [1]) for w in WORDS]}
    ).to_csv(file)
    assert content(TagData.from_csv(file))[0] == (WORDS[0], ["0", "0", "0", "1"])
    # As NumPy writes arrays: Python would join the words.
    arrays = [{"tokens": "['New' 'York']", "tags": "['B-LOC' 'I-LOC']"}] * 4
    for cells in (arrays, [{"tokens": "['New', York]", "tags": "[1, 2]"}] * 4):
        pd.DataFrame(cells).to_csv(file)
        with pytest.raises(InputError, match=r"row 0 has lists that cannot be read: .*as JSON"):
            TagData.from_csv(file)
    brackets = {"tokens": ["[ x ]", "a b"] * 4, "tags": ["O X O", "O X"] * 4}
    assert content(TagData.from_df(brackets))[0][0] == ["[", "x", "]"]


def test_a_column_with_the_parts_is_found(tmp_path: Path) -> None:
    file = tmp_path / "ner.csv"
    texts = {"tokens": [" ".join(w) for w in WORDS], "tags": [" ".join(t) for t in TAGS]}
    names = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
    pd.DataFrame({**texts, "split": names}).to_csv(file, index=False)
    for data in (TagData.from_csv(file), TagData.from_path(file, {})):
        assert [len(data.split.part(part)) for part in ("train", "valid", "test")] == [6, 3, 3]
        assert data.split.test.tolist() == [9, 10, 11]
        assert "split" in str(data.readings[0])
        assert str(data.readings[0]) in data.report()
    for data in (TagData.from_csv(file, split=False), TagData.from_path(file, {"split": "none"})):
        assert len(data.split.test) == 0
        assert data.readings == ()


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (TagData, {"words": "tokens"}),
        (TextData, {"text": "tokens", "label": "tags"}),
        (LanguageModelData, {"text": "tokens"}),
    ],
)
def test_a_frame_for_valid_is_refused_beside_a_split(cls: Any, names: dict[str, str]) -> None:
    frame = {"tokens": [" ".join(w) for w in WORDS], "tags": [" ".join(t) for t in TAGS]}
    parts = {**frame, "part": ["train", "valid"] * 6}
    with pytest.raises(SplitError, match="cannot be combined with split"):
        cls.from_df(parts, **names, split="part", valid=frame)
    assert len(cls.from_df(parts, **names, split=False, valid=parts).split.valid) == 12


def test_class_labels_of_hugging_face_are_names() -> None:
    datasets = pytest.importorskip("datasets")
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    numbers = [[names.index(tag) for tag in tags] for tags in TAGS]
    columns = {"tokens": WORDS, "ner_tags": numbers}
    found = datasets.Dataset.from_dict(columns, features=features)
    data = TagData.from_datasets(found)
    assert content(data) == EXPECTED
    parts = datasets.DatasetDict({"train": found, "validation": found.select(range(3))})
    both = TagData.from_datasets(parts)
    assert both.split.valid.tolist() == [12, 13, 14]
    pairs = TagData.from_datasets(list(zip(WORDS, TAGS, strict=True)), valid=2)
    assert content(pairs) == EXPECTED
    swapped = datasets.Features(
        {**features, "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names[::-1]))}
    )
    other = datasets.Dataset.from_dict(columns, features=swapped)
    with pytest.raises(InputError, match="same number has two meanings"):
        TagData.from_datasets(found, valid=other)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        ({"tokens": [["a"]], "tags": [["O"]], "ner_tags": [["O"]]}, {},
         "not clear which column of frame has the tags: 'tags', 'ner_tags'"),
        ({"x": [["a"]], "tags": [["O"]]}, {}, "not clear which column of frame has the words"),
        ({"tokens": [["a"]], "tags": [["O"]]}, {"words": "token"}, "no column 'token'"),
        ({"word": ["a", "b"], "tag": ["O", "O"]}, {}, "no column tells the sentences apart"),
        ({"word": ["a", "b", "c"], "tag": ["O"] * 3, "sentence_id": [1, 2, 1]}, {},
         "frame, row 2: the sentence 1 continues after another one"),
        ({"word": ["a", None], "tag": ["O"] * 2, "sentence_id": [1, 1]}, {},
         "frame, row 1 has no word .* keep_default_na"),
        ({"word": ["a", "b"], "tag": ["O"] * 2, "sentence_id": [None, 1]}, {},
         "frame, row 0 names no sentence"),
        ({"tokens": [["a", "b"]], "tags": [["O"]]}, {}, "frame, row 0 has 2 words, but 1 tags"),
        ({"tokens": [["a", "b"]], "tags": [["O", None]]}, {}, "row 0, word 1: 'b' has no tag"),
        ({"tokens": [["a", "b"]], "tags": [None]}, {}, "frame, row 0 has no tags"),
    ],
)  # fmt: skip
def test_bad_tables_are_explained(frame: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TagData.from_df(frame, **options)


# ---------------------------------------------------------------- like an export


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = TagData.from_df({"tokens": WORDS, "ner_tags": TAGS}, valid=3)
    learner = Learner(data, choices=SMALL, quiet=True)
    learner.fit()
    return learner.export(tmp_path_factory.mktemp("like") / "export")


def test_data_like_an_export_have_its_classes_and_tokens(export: Path) -> None:
    frame = {"tokens": [*WORDS, ["Ann", "was", "late"]], "ner_tags": [*TAGS, ["B-PER", "O", "O"]]}
    few = {name: column[-1:] * 4 for name, column in frame.items()}
    assert len(TagData.from_df(few, options=TagOptions(like=export)).facts()["class_names"]) == 4
    data = TagData.from_df(frame, options=TagOptions(like=export))
    assert data.facts()["class_names"] == ["B-LOC", "B-PER", "I-LOC", "O"]
    assert data.like == export
    learner = Learner(data, start=export, choices={"device": "cpu"}, quiet=True)
    stored = Predictor.load(export)
    assert learner.built.preprocessor.arguments() == stored.preprocessor.arguments()
    for name, value in stored.model.state_dict().items():
        assert torch.equal(learner.model.state_dict()[name], value)
    learner.fit(1)
    with pytest.raises(InputError, match="tokenizer is 'bpe', but in the export"):
        TagOptions(like=export, tokenizer="bpe")
    unknown = {"tokens": [["Ann"], ["a"]], "ner_tags": [["B-ORG"], ["O"]]}
    with pytest.raises(InputError, match="frame, row 0 has the tag 'B-ORG', which is not one of"):
        TagData.from_df(unknown, options=TagOptions(like=export))


def test_a_table_is_evaluated_on_the_command_line(export: Path, tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    rows = [{"tokens": words, "ner_tags": tags} for words, tags in EXPECTED[1:2] * 3]
    file.write_text("\n".join(map(json.dumps, rows)))
    command = ["evaluate", str(export), str(file), "--json"]
    found = CliRunner().invoke(build_app(), command)
    assert found.exit_code == 0, found.output
    scores = json.loads(found.output[found.output.index("{") :])
    data = TagData.from_df({"tokens": WORDS[1:2] * 6, "ner_tags": TAGS[1:2] * 6}, valid=3,
                           options=TagOptions(like=export))  # fmt: skip
    predictor = Predictor.load(export)
    tags = predictor.predict([WORDS[1]])[0].tags
    right = sum(one == other for one, other in zip(tags, TAGS[1], strict=True))
    assert scores["accuracy"] == pytest.approx(right / 3)
    assert scores["samples"] == 3
    assert data.facts()["entities"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "# sent 1\nAnn B-PER\nsaw O\nRome B-LOC\n\nWe O\nsaw O\n"),
        ("a.bio", "Ann\nsaw\nRome\n\nWe\nsaw\n"),
        ("a.conllu", "1\tAnn\t_\tX\t_\t_\t_\t_\t_\t_\n2\tsaw\t_\tX\t_\t_\t_\t_\t_\t_\n"
         "3\tRome\t_\tX\t_\t_\t_\t_\t_\t_\n\n1\tWe\t_\tX\t_\t_\t_\t_\t_\t_\n"
         "2\tsaw\t_\tX\t_\t_\t_\t_\t_\t_\n"),
        ("a.jsonl", '{"tokens": ["Ann", "saw", "Rome"], "id": 1}\n'
         '{"tokens": ["We", "saw"], "id": 2}\n'),
        ("a.csv", "text\nAnn saw Rome\nWe saw\n"),
        ("b.csv", "sentence_id,word\n1,Ann\n1,saw\n1,Rome\n2,We\n2,saw\n"),
        ("a.txt", "Ann saw Rome\nWe saw\n"),
    ],
)  # fmt: skip
def test_sentences_to_predict_are_read(
    name: str, content: str, export: Path, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(content)
    found = CliRunner().invoke(build_app(), ["predict", str(export), str(file), "--format", "json"])
    assert found.exit_code == 0, found.output
    records = json.loads(found.output)
    predictor = Predictor.load(export)
    expected = predictor.predict([["Ann", "saw", "Rome"], ["We", "saw"]])
    assert [each["tags"] for each in records] == [list(each.tags) for each in expected]


def test_one_word_per_text_is_refused(export: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(export)
    message = r"2 texts are single words \('Ann', 'saw', …\), which may be one sentence or several"
    with pytest.raises(InputError, match=message):
        predictor.predict(["Ann", "saw"])
    assert len(predictor.predict([["Ann"], ["saw"]])) == 2
    assert len(predictor.predict(["Ann"])) == len(predictor.predict(["Ann saw", "Rome"])) - 1 == 1
    file = tmp_path / "words.txt"
    file.write_text("Ann\nsaw\n\nRome\n")
    found = CliRunner().invoke(build_app(), ["predict", str(export), str(file)])
    assert "3 texts are single words" in str(found.exception)
    file = tmp_path / "unclear.csv"
    file.write_text("first,second\nAnn saw,Rome\n")
    found = CliRunner().invoke(build_app(), ["predict", str(export), str(file)])
    assert "It is not clear which column of unclear.csv has the words" in str(found.exception)


def test_unknown_options_are_explained(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("a O\nb B-A\n\na O\n\n" * 4)
    with pytest.raises(FlambeauError, match="Unknown option 'word' for tags"):
        TagData.from_path(file, {"word": "x"})
    with pytest.raises(FlambeauError, match="is no table"):
        TagData.from_path(file, {"split": "part"})
