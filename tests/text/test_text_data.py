"""``TextData``: texts and labels from every source; bad input is named with its row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flambeau import Learner
from flambeau.artefact.predictor import Predictor
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, FlambeauError, InputError, SplitError
from flambeau_text import TextData, TextOptions
from flambeau_text.classification.folders import text_files_of

N = 40
TEXTS = [f"the film number {row} is {'good' if row % 2 else 'bad'}" for row in range(N)]
LABELS = ["pos" if row % 2 else "neg" for row in range(N)]


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_a_csv_file_is_read_with_its_columns(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "r.csv", {"id": range(N), "review": TEXTS, "label": LABELS})
    data = TextData.from_csv(file)
    assert data.targets.names == ("neg", "pos")
    assert (len(data.split.train), len(data.split.valid)) == (32, 8)
    assert list(data.samples["text"]) == TEXTS
    assert data.samples["location"][3] == "r.csv, row 3"
    # Stratified: both classes in equal numbers.
    assert data.targets.select(data.split.valid).counts() == {"neg": 4, "pos": 4}
    assert "not used: id" in data.report()
    assert data.options.text == "review"


def test_every_source_gives_equal_data(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    csv = write_csv(tmp_path / "r.csv", {"text": TEXTS, "label": LABELS})
    tsv = tmp_path / "r.tsv"
    frame.to_csv(tsv, index=False, sep="\t")
    packed = tmp_path / "r.csv.gz"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    lines = tmp_path / "r.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    lines.write_text("\n".join(map(json.dumps, rows)))
    found = [
        TextData.from_arrays(TEXTS, LABELS),
        TextData.from_arrays(np.array(TEXTS), pd.Series(LABELS)),
        TextData.from_df(frame),
        TextData.from_df({"text": TEXTS, "label": LABELS}),
        *map(TextData.from_csv, (csv, tsv, packed)),
        TextData.from_jsonl(lines),
        TextData.from_datasets(rows),
        TextData.from_datasets(list(zip(TEXTS, LABELS, strict=True))),
    ]
    for data in found[1:]:
        assert data.raw("train") == found[0].raw("train")
        assert data.targets.values.tolist() == found[0].targets.values.tolist()
        assert data.fingerprint() == found[0].fingerprint()


def test_a_folder_of_class_folders_is_read(tmp_path: Path) -> None:
    for row, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        part = "test" if row < 4 else "train"
        folder = tmp_path / part / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row}.txt").write_bytes(f"{text}\r\nsecond\u2028line\r\n".encode())
    (tmp_path / "train" / "pos" / "notes.json").write_text("{}")
    (tmp_path / "train" / "unsup").mkdir()
    (tmp_path / "train" / "unsup" / "1.txt").write_text("no label")
    data = TextData.from_folder(tmp_path, options=TextOptions(classes=["neg", "pos"]))
    assert len(data.split.test) == 4
    assert data.targets.names == ("neg", "pos")
    assert data.raw("test")[0].split("\n") == [TEXTS[0], "second\u2028line"]
    assert "notes.json" in data.report()
    plain = TextData.from_folder(tmp_path / "train")
    assert plain.targets.names == ("neg", "pos", "unsup")
    assert "only in train" not in plain.report()
    parts = TextData.from_folder(tmp_path)
    assert "The folders unsup are only in train" in parts.report()


def test_listing_a_folder_looks_at_each_file_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{row}.{'txt' if row % 3 else 'json'}" for row in range(300)]
    for name in names:
        (tmp_path / name).touch()
    hashed = 0
    of_path = PurePath.__hash__

    def count(path: PurePath) -> int:
        nonlocal hashed
        hashed += 1
        return of_path(path)

    monkeypatch.setattr(PurePath, "__hash__", count)
    texts = text_files_of(tmp_path)
    assert sorted(each.name for each in texts) == sorted(n for n in names if n.endswith("txt"))
    assert hashed < 10 * len(names)


def test_a_hugging_face_data_set_is_read() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "ok"])}
    )
    columns = {"sentence": TEXTS, "label": [row % 2 for row in range(N)]}
    one = datasets.Dataset.from_dict(columns, features=features)
    data = TextData.from_datasets(one)
    assert data.targets.names == ("bad", "ok")
    assert data.targets.text(1) == "ok"
    both = TextData.from_datasets(datasets.DatasetDict({"train": one, "validation": one}))
    assert (len(both.split.train), len(both.split.valid)) == (N, N)
    other = one.cast_column("label", datasets.ClassLabel(names=["ok", "bad"]))
    with pytest.raises(InputError, match="two meanings"):
        TextData.from_datasets(one, valid=other)
    with pytest.raises(ArgumentError, match="streaming=False"):
        TextData.from_datasets(one.to_iterable_dataset())


def test_separate_parts_and_a_split_column() -> None:
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    data = TextData.from_df(frame.iloc[:30], valid=frame.iloc[30:36], test=frame.iloc[36:])
    assert data.raw("test") == TEXTS[36:]
    parts = ["train"] * 30 + ["dev"] * 10
    named = TextData.from_df(frame.assign(split=parts))
    assert named.raw("valid") == TEXTS[30:]
    assert "contains the part of each row" in str(Learner(named).plan["split"].reason)
    given = TextData.from_arrays(
        TEXTS, LABELS, split=Split.from_parts({"train": [0, 1], "valid": [2, 3]})
    )
    assert given.raw("valid") == TEXTS[2:4]
    pair = TextData.from_arrays(TEXTS[:30], LABELS[:30], valid=(TEXTS[30:], LABELS[30:]))
    assert pair.raw("valid") == TEXTS[30:]


def test_rows_of_separate_tables_are_named_by_their_part(tmp_path: Path) -> None:
    files = [write_csv(tmp_path / f"{part}.csv", {"text": TEXTS[:8], "label": LABELS[:8]})
             for part in ("train", "valid")]  # fmt: skip
    (tmp_path / "valid.csv").write_text("text,label\na text,pos\nanother text,\n")
    with pytest.raises(InputError, match=r"train\.csv and valid\.csv, valid row 1 has no label"):
        TextData.from_csv(files[0], valid=files[1])


def test_copies_of_a_text_are_in_one_part() -> None:
    texts = [TEXTS[row % 20] for row in range(80)]
    labels = [LABELS[row % 20] for row in range(80)]
    data = TextData.from_arrays(texts, labels, valid=0.25)
    assert not set(data.raw("train")) & set(data.raw("valid"))
    assert "60 texts repeat an earlier one" in data.report()
    counts = data.targets.select(data.split.valid).counts()
    assert set(counts.values()) <= {8, 12}  # 5 of 20 texts, four copies of each


def test_too_few_distinct_texts_are_named() -> None:
    with pytest.raises(SplitError, match="Of the 40 texts only 2 are distinct"):
        TextData.from_arrays(["yes", "no"] * 20, ["a", "b"] * 20, valid=2)


def test_groups_and_weights_of_columns() -> None:
    frame = pd.DataFrame({
        "text": TEXTS, "label": LABELS, "author": [row // 4 for row in range(N)],
        "count": [row % 3 for row in range(N)],
    })  # fmt: skip
    data = TextData.from_df(frame, options=TextOptions(group="author", weight="count"))
    train, valid = set(data.groups("train") or ()), set(data.groups("valid") or ())
    assert train
    assert valid
    assert not train & valid
    learner = Learner(data, choices={"batch_size": 8})
    batch = next(iter(learner.built.loader("train").batches(0)))
    assert batch.sample_weight is not None
    assert batch.indices is not None
    assert batch.sample_weight.tolist() == [row % 3 for row in batch.indices.tolist()]
    assert batch.weight == float(sum(row % 3 for row in batch.indices.tolist()))


def test_the_column_of_texts_is_found_by_its_words() -> None:
    columns = {"code": ["a1"] * N, "body text": TEXTS, "stars": [row % 5 for row in range(N)]}
    data = TextData.from_df(columns, label="stars")
    assert list(data.samples["text"]) == TEXTS
    reason = Learner(data).plan["targets"].reason
    assert "'body text'" in reason
    assert "6.0 words on average" in reason
    two = {**columns, "reply": [f"{text} indeed" for text in TEXTS]}
    with pytest.raises(InputError, match="not clear which column of frame has the texts"):
        TextData.from_df(two, label="stars")
    with pytest.raises(InputError, match="not clear which column of frame has the labels"):
        TextData.from_df(columns)
    doubt = TextData.from_df({"text": TEXTS, "label": LABELS, "category": LABELS})
    assert any("'category' could have them" in str(each) for each in doubt.readings)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "no texts"),
        (["a"] * 4, ["x"] * 3, "4 train texts, but 3 labels"),
        (TEXTS, ["pos"] * N, "All 40 labels are 'pos'"),
        (TEXTS, [*LABELS[:-1], None], "train text 39 has no label"),
        (TEXTS, [*LABELS[:-2], "", " "], "train text 38 has no label .*; 2 of 40"),
        ([*TEXTS[:-1], 7], LABELS, "train text 39: 7 is of type int"),
        ([*TEXTS[:-1], b"bytes"], LABELS, "type bytes"),
        ([*TEXTS[:-1], "a\0b"], LABELS, "NUL"),
        ([*TEXTS[:-1], "a\ud800b"], LABELS, "unpaired surrogate"),
        (["", None, " \n"], ["x", "y", "x"], "every cell is empty"),
        (TEXTS, [f"label {row}" for row in range(N)], "All 40 texts have different labels"),
    ],
)
def test_bad_texts_and_labels_are_named(texts: Any, labels: Any, message: str) -> None:
    with pytest.raises(FlambeauError, match=message):
        TextData.from_arrays(texts, labels)


def test_texts_without_words_are_left_out_and_reported() -> None:
    texts = [*TEXTS, "", "   ", None, float("nan")]
    labels = [*LABELS, "neg", "pos", "neg", None]
    data = TextData.from_arrays(texts, labels)
    assert len(data.samples) == N
    assert "left out: 4 texts, for example train text 40: no text" in data.report()
    # Row numbers of a given split are those of the input.
    split = Split.from_parts({"train": [*range(30), 41], "valid": [30, 39, 42]})
    given = TextData.from_arrays(texts, labels, split=split)
    assert given.raw("valid") == [TEXTS[30], TEXTS[39]]


def test_labels_that_look_like_numbers(tmp_path: Path) -> None:
    stars = [1 + row % 5 for row in range(N)]
    file = write_csv(tmp_path / "r.csv", {"text": TEXTS, "stars": stars})
    data = TextData.from_csv(file)
    assert data.targets.kind == "classification"
    assert data.targets.names == ("1", "2", "3", "4", "5")
    numbers = TextData.from_csv(file, options=TextOptions(task="regression"))
    assert numbers.targets.values.tolist() == stars
    codes = write_csv(
        tmp_path / "c.csv", {"text": TEXTS, "code": [f"0{row % 2}" for row in range(N)]}
    )
    assert TextData.from_csv(codes).targets.names == ("00", "01")
    halves = write_csv(tmp_path / "h.csv", {"text": TEXTS, "y": [row / 2 for row in range(N)]})
    assert TextData.from_csv(halves).targets.kind == "regression"


@pytest.mark.parametrize(
    ("train", "valid", "names"),
    [
        (("1", "x"), ("1", "1"), ("1", "x")),
        (("1", "2"), ("2", "2"), ("1", "2")),
        (("1.5", "0.25"), ("1", "2"), ("label",)),
        (("01", "02"), ("01", "02"), ("01", "02")),
    ],
)
def test_a_label_is_of_one_kind_in_all_files(
    tmp_path: Path, train: tuple[str, str], valid: tuple[str, str], names: tuple[str, ...]
) -> None:
    for part, labels in (("train", train), ("valid", valid)):
        rows = [f"{part} text number {row},{labels[row % 2]}\n" for row in range(8)]
        (tmp_path / f"{part}.csv").write_text("text,label\n" + "".join(rows))
    file = tmp_path / "valid.csv"
    for data in (
        TextData.from_csv(tmp_path / "train.csv", valid=file),
        TextData.from_path(tmp_path / "train.csv", {"valid": str(file)}),
    ):
        assert data.targets.kind == ("regression" if len(names) == 1 else "classification")
        assert len(names) == 1 or data.targets.names == names
        shown = [data.targets.text(row) for row in data.split.valid.tolist()]
        assert shown == [label.removesuffix(".0") for label in valid] * 4


def test_numbers_in_the_column_of_texts_stay_texts(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text("text,label\n" + "".join(f"{row % 7},{'ab'[row % 2]}\n" for row in range(28)))
    data = TextData.from_csv(file)
    assert set(data.samples["text"]) == set("0123456")
    with pytest.raises(InputError, match="frame, row 0: 5 is of type int"):
        TextData.from_df({"text": [5, 6], "label": ["a", "b"]}, text="text")


def test_a_file_without_header_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text("".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True)))
    with pytest.raises(InputError, match="'neg', which is also a label: its first row"):
        TextData.from_csv(file)
    # A column named as one of its labels is no doubt beside a named column of texts.
    named = {"text": TEXTS, "spam": ["spam" if row % 2 else "ham" for row in range(N)]}
    assert TextData.from_df(named).targets.names == ("ham", "spam")


def test_invalid_utf8_is_named_with_file_and_line(tmp_path: Path) -> None:
    csv = tmp_path / "r.csv"
    csv.write_bytes(b"text,label\ngood,a\nbad \xff,b\n")
    with pytest.raises(InputError, match=r"r\.csv, line 3: byte 5"):
        TextData.from_csv(csv)
    lines = tmp_path / "r.jsonl"
    lines.write_bytes(b'{"text": "a", "label": "x"}\n{"text": "\xff", "label": "y"}\n')
    with pytest.raises(InputError, match=r"r\.jsonl, line 2"):
        TextData.from_jsonl(lines)
    for name in ("a", "b"):
        (tmp_path / "f" / name).mkdir(parents=True)
    (tmp_path / "f" / "a" / "1.txt").write_bytes(b"fine\nLatin-1 \xe9t\xe9\n")
    with pytest.raises(InputError, match=r"1\.txt, line 2"):
        TextData.from_folder(tmp_path / "f")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{text: 1}", "line 1 is not JSON"),
        ("[1, 2]", "line 1 is .*, not an object"),
        ("", "has no rows"),
        ('{"text": "a"}', "not clear which column of r.jsonl has the labels"),
    ],
)
def test_bad_json_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "r.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        TextData.from_jsonl(tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "txet"}, "no column 'txet'. Did you mean 'text'"),
        ({"label": "lable"}, "no column 'lable'. Did you mean 'label'"),
        ({"text": "text", "label": "text"}, "text and label are both 'text'"),
        ({"options": TextOptions(weight="w")}, "no column 'w'"),
        ({"options": TextOptions(group="who")}, "no column 'who'"),
        ({"split": "parts"}, "no column 'parts'"),
        ({"valid": 0.99}, "valid"),
        ({"labels": "x"}, "TextData.from_df has no argument 'labels'"),
        ({"max_length": 5}, "Set it with options=TextOptions"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((FlambeauError, SplitError), match=message):
        TextData.from_df({"text": TEXTS, "label": LABELS}, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "classify"}, "Did you mean 'classification'"),
        ({"truncation": "tail"}, "truncation='tail'"),
        ({"max_length": 0}, "max_length"),
        ({"tokenizer": "wordpiece"}, "tokenizer='wordpiece'"),
        ({"vocab_size": 2}, "vocab_size"),
        ({"normalization": "nfd"}, "normalization='nfd'"),
        ({"unknown": "drop"}, "unknown='drop'"),
        ({"classes": {"a", "b"}}, "set"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FlambeauError, match=message):
        TextOptions(**options)


# ---------------------------------------------------------------- tokens


def tokens_of(data: TextData, part: str = "train", **choices: Any) -> list[list[str]]:
    learner = Learner(data, choices=choices)
    dataset: Any = learner.built.dataset(part)
    tokenizer: Any = learner.built.preprocessor.tokenizer  # type: ignore[attr-defined]
    found = []
    for row in range(len(dataset)):
        batch = dataset.batch(torch.tensor([row]))
        n = int(batch.inputs["lengths"][0])
        found.append(tokenizer.ids_to_tokens(batch.inputs["tokens"][0, :n].tolist()))
    return found


def test_special_strings_in_texts_stay_literal() -> None:
    texts = ["<unk> </s> <eos> <pad> [CLS] one", *[f"plain {row}" for row in range(19)]]
    labels = ["a", "b"] * 10
    for tokenizer in ("word", "character", "bpe"):
        options = TextOptions(tokenizer=tokenizer, vocab_size=60)
        data = TextData.from_arrays(texts, labels, valid=2, options=options)
        learner = Learner(data)
        batch = learner.built.preprocessor.encode([texts[0]])
        ids = batch.inputs["tokens"][0].tolist()
        # One end token on each side; nothing between them is a special token but "unknown".
        assert ids[0] == ids[-1] == 3
        assert not {1, 2, 3} & set(ids[1:-1])


def test_the_vocabulary_is_that_of_train_only() -> None:
    texts = [*[f"common {row}" for row in range(20)], *["held out words"] * 4]
    labels = ["a", "b"] * 12
    parts = {"train": list(range(20)), "valid": list(range(20, 24))}
    data = TextData.from_arrays(texts, labels, split=Split.from_parts(parts))
    vocabulary = Learner(data).built.preprocessor.tokenizer  # type: ignore[attr-defined]
    assert "common" in vocabulary.vocab
    assert "held" not in vocabulary.vocab


def test_lines_end_with_an_end_token() -> None:
    texts = ["one two\r\nthree\u2028four\n", "five", "six", "seven"]
    split = Split.from_parts({"train": [0, 1], "valid": [2, 3]})
    data = TextData.from_arrays(texts, ["a", "b", "a", "b"], split=split)
    found = {tuple(row) for row in tokens_of(data)}
    assert ("<eos>", "one", "two", "<eos>", "three", "four", "<eos>") in found
    assert ("<eos>", "five", "<eos>") in found


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [("head", ["0", "1", "2", "3", "4"]), ("head_tail", ["0", "1", "2", "8", "9"])],
)
def test_long_texts_are_cut_and_counted(truncation: str, expected: list[str]) -> None:
    long = " ".join(map(str, range(10)))
    texts = [long, "0 1 2 3 4", "8 9"] * 8
    options = TextOptions(max_length=5, truncation=truncation)  # type: ignore[arg-type]
    parts = Split.from_parts({"train": range(18), "valid": range(18, 24)})
    data = TextData.from_arrays(texts, ["a", "b", "b"] * 8, split=parts, options=options)
    learner = Learner(data)
    train: Any = learner.built.dataset("train")
    assert train.truncated == 6
    batch = learner.built.preprocessor.encode([long])
    tokenizer: Any = learner.built.preprocessor.tokenizer  # type: ignore[attr-defined]
    assert tokenizer.ids_to_tokens(batch.inputs["tokens"][0].tolist())[1:-1] == expected
    codes = [finding.code for finding in learner.doctor().findings]
    assert codes.count("truncated-texts") == 1
    planned = TextData.from_arrays(texts, ["a", "b", "b"] * 8, split=parts)
    plan = Learner(planned, choices={"max_length": 5}).plan
    assert "About 67% of the train texts have more than 5 tokens" in plan["truncation"].reason
    assert "99% at most 12, the longest 12" in Learner(planned).plan["max_length"].reason


# ---------------------------------------------------------------- end to end


def test_a_csv_file_end_to_end(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    filler = ["the", "film", "was", "seen", "by", "us", "on", "a", "day", "with", "rain"]
    rows = []
    for row in range(160):
        words = [*draws.choice(filler, 12), "lovely" if row % 2 else "dreadful"]
        rows.append((" ".join(draws.permutation(words)), "pos" if row % 2 else "neg"))
    texts, labels = zip(*rows, strict=True)
    file = write_csv(tmp_path / "r.csv", {"review": list(texts), "label": list(labels)})
    data = TextData.from_csv(file, test=0.1)
    learner = Learner(data, choices={"probe": "off"})
    learner.fit(12)
    assert learner.evaluate("test")["accuracy"] == 1.0
    folder = learner.export(tmp_path / "export")
    predictor = Predictor.load(folder)
    found = predictor.predict(["a lovely day", "a dreadful day"])
    assert [each.label for each in found] == ["pos", "neg"]
    # An empty text has a prediction; a missing one is named.
    assert predictor.predict("").label in ("neg", "pos")
    with pytest.raises(InputError, match="Item 1: None"):
        predictor.predict(["fine", None])
    assert predictor.predict([{"review": "lovely"}])[0].label == "pos"
    with pytest.raises(InputError, match="no field 'review'"):
        predictor.predict([{"text": "lovely"}])
    again = TextData.from_csv(file, options=TextOptions(like=folder))
    assert again.targets.names == ("neg", "pos")
    assert again.options.lowercase is True
    further = Learner(again, start=folder)
    assert further.predict("a lovely day").label == "pos"
    new = Learner(again, "awd_lstm")
    digests = {each.built.preprocessor.vocabulary_digest() for each in (learner, further, new)}  # type: ignore[attr-defined]
    assert len(digests) == 1


def test_inputs_may_be_mappings_and_files(tmp_path: Path) -> None:
    """Of a model whose texts had no names."""
    predictor = Learner(TextData.from_arrays(TEXTS, LABELS), seed=0).predictor()
    wanted = predictor.predict(["a good film", "a bad\nfilm"])
    (tmp_path / "a.txt").write_bytes(b"a good film\r\n")
    (tmp_path / "b.txt").write_text("a bad\nfilm")
    rows = [{"text": "a good film", "id": 1}, {"text": "a bad\nfilm", "id": 2}]
    for given in (
        rows,
        [{"review": each["text"]} for each in rows],
        [tmp_path / "a.txt", tmp_path / "b.txt"],
        TextData.inputs_from_path(tmp_path),
    ):
        assert predictor.predict(given) == wanted
    found = predictor.predict(pd.DataFrame(rows, index=[7, 9]))
    assert found["label"].to_dict() == {7: wanted[0].label, 9: wanted[1].label}
    with pytest.raises(InputError, match="no field 'text' with the text"):
        predictor.predict([{"review": "good", "id": 1}])
    pairs = [(text, text) for text in TEXTS]
    of_pairs = Learner(TextData.from_arrays(pairs, LABELS), seed=0).predictor()
    both = of_pairs.predict([("good", "bad")])
    assert of_pairs.predict([{"first": "good", "second": "bad", "id": 3}]) == both
    assert str(of_pairs.predict(("good", "bad"))) == str(both[0])
    two = of_pairs.predict((("good", "bad"), ("good", "bad")))
    assert list(map(str, two)) == [str(both[0])] * 2


def test_arrays_and_data_sets_are_several_inputs() -> None:
    datasets, polars = pytest.importorskip("datasets"), pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    predictor = Learner(TextData.from_arrays(TEXTS, LABELS), seed=0).predictor()
    predictor.batch_size = 2
    texts = ["a good film", "a bad film", "good"]
    wanted = predictor.predict(texts)
    columns = {"text": texts, "id": [1, 2, 3]}
    one = datasets.Dataset.from_dict(columns)
    for given in (
        np.array(texts),
        np.array(texts, object),
        one,
        one["text"],
        polars.DataFrame(columns),
        polars.Series(texts),
        arrow.table(columns),
        tuple(texts),
        iter(texts),
    ):
        assert predictor.predict(given) == wanted, type(given)
    assert predictor.predict(np.array([])) == predictor.predict([]) == []
    assert predictor.predict(np.str_("good")) == wanted[2]
    with pytest.raises(InputError, match=r"Item 0: .*3.* is of type int64"):
        predictor.predict(np.array([3, 4]))


def test_a_recurrent_classifier_learns_from_the_order_of_words() -> None:
    """Both classes have the same words: only their order differs."""
    draws = np.random.default_rng(1)
    texts, labels = [], []
    for row in range(300):
        first, second = ("a", "b") if row % 2 else ("b", "a")
        filler = draws.choice(list("uvwxyz"), 7).tolist()
        at = int(draws.integers(0, 3))
        texts.append(" ".join([*filler[:at], first, *filler[at:4], second, *filler[4:]]))
        labels.append("forward" if row % 2 else "backward")
    data = TextData.from_arrays(texts, labels)
    config = {"embedding_dim": 16, "hidden_size": 32, "num_layers": 1, "chunk": 3, "window": 30}
    dropout = {"input": 0.0, "weight": 0.0}
    choices = {"model_config": {**config, "dropout": dropout}, "lr": 1e-2, "probe": "off"}
    learner = Learner(data, "awd_lstm", choices=choices)
    learner.fit(12)
    assert learner.evaluate("valid")["accuracy"] > 0.95
