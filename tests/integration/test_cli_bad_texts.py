"""Bad and odd texts on the command line: a clear error, or a defined behaviour that is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flambeau.cli.app import build_app
from flambeau.errors import InputError

SMALL = ("--set", "num_threads=1", "--set", "device=cpu")
ROWS = [
    f"the film number {row} was {'lovely' if row % 2 else 'dreadful'},{'pos' if row % 2 else 'neg'}"
    for row in range(60)
]


def call(*words: object) -> str:
    """Return what a command prints, in one line; its exception is raised unchanged."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def table(folder: Path, rows: list[str]) -> Path:
    path = folder / "reviews.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


def plan(path: Path, *words: object) -> str:
    target = ("--target", "label") if path.suffix == ".csv" else ()
    domain = "text" if path.suffix == ".csv" else "language"
    return call("plan", path, "--domain", domain, *target, *words, *SMALL)


def test_empty_documents_are_left_out_and_named(tmp_path: Path) -> None:
    text = plan(table(tmp_path, [*ROWS, " ,pos", ",neg"]))
    assert "TextData(60 texts" in text
    assert "left out: 2 texts, for example reviews.csv, row 60: no text" in text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row.replace("neg", "pos") for row in ROWS], "All 60 labels are 'pos'"),
        ([*ROWS, "no label here,"], "reviews.csv, row 60 has no label"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(
    rows: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        plan(table(tmp_path, rows))


def test_the_reading_of_numbers_is_said_with_its_override(tmp_path: Path) -> None:
    whole = [row.replace(",neg", ",1").replace(",pos", ",2") for row in ROWS]
    text = plan(table(tmp_path, whole))
    assert "2 distinct labels (int) in 60 rows" in text
    assert "on the command line --task regression" in text
    real = [f"{row.rpartition(',')[0]},{at % 2}.{at}" for at, row in enumerate(ROWS)]
    text = plan(table(tmp_path, real))
    assert "the labels are numbers from" in text
    assert "on the command line --task classification" in text


def test_texts_that_are_cut_are_counted(tmp_path: Path) -> None:
    long = [("word " * 50) + row for row in ROWS]
    text = plan(table(tmp_path, long), "--max-length", "20")
    assert "max_length 20 user" in text
    assert "About 100% of the train texts have more than 20 tokens" in text
    assert "or --truncation head_tail" in text


@pytest.mark.parametrize("name", ["reviews.csv", "book.txt"])
def test_bytes_that_are_not_utf8_are_named_with_file_and_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"text,label\n" * 3 + b"caf\xe9 noir,pos\n" + b"more text,neg\n" * 20)
    with pytest.raises(InputError, match=rf"{name}, line 4: byte 4 of the line is not UTF-8"):
        plan(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n\t\n", "There is no text in .*book.txt"),
        ("a very short text\n", "one document, from which no validation part can be drawn"),
    ],
)
def test_a_corpus_without_documents_to_train_on_is_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "book.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        plan(path)


def test_a_folder_that_lacks_files_of_a_pretrained_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"bert lacks model.safetensors, tokenizer.json"):
        plan(table(tmp_path, ROWS), "--language-model", folder)


def test_special_tokens_and_line_ends_in_texts_train_and_are_predicted(tmp_path: Path) -> None:
    odd = ["<unk> </s> <pad>", "one\u2028two", "a\x85b", "[CLS] xxmaj"]
    rows = [f"{odd[at % 4]} {row}" for at, row in enumerate(ROWS)]
    path = table(tmp_path, rows)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    out = tmp_path / "run"
    words = ("--domain", "text", "--target", "label", "--epochs", 1, "--out", out, *SMALL)
    assert "TextData(60 texts" in call("fit", path, *words)
    found = tmp_path / "predictions.csv"
    call("predict", out / "model", path, "--out", found)
    assert len(found.read_text(encoding="utf-8").splitlines()) == 61


def test_a_corpus_shorter_than_a_batch_trains(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("a very short text\nof two lines\n")
    words = ("--domain", "language", "--document", "line", "--epochs", 1, "--out", tmp_path / "run")
    assert "valid_loss" in call("fit", path, *words, "--set", "tokenizer=word", *SMALL)
