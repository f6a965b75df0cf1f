"""Text classification on the command line: fit, plan, doctor, evaluate, predict and the demo."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flambeau.cli.app import build_app
from flambeau.errors import FlambeauError

SMALL = ("--set", "num_threads=1", "--set", "device=cpu")
FILLER = ["the", "film", "was", "seen", "by", "us", "on", "a", "day", "with", "rain"]


def call(*words: object, code: int = 0) -> str:
    """Return what a command prints; its exception is raised unchanged."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def reviews(n: int, seed: int) -> list[tuple[str, str, int]]:
    draws = np.random.default_rng(seed)
    rows = []
    for row in range(n):
        words = [*draws.choice(FILLER, 12), "lovely" if row % 2 else "dreadful"]
        rows.append((" ".join(draws.permutation(words)), "pos" if row % 2 else "neg", row))
    return rows


def write(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("review", "label", "id"), *rows])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "reviews.csv", reviews(200, 0))


@pytest.fixture(scope="module")
def model(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "mine"
    text = call(
        *("fit", table, "--domain", "text", "--target", "label", "--epochs", "8"),
        *("--out", out, *SMALL),
    )
    assert "valid_accuracy" in text
    return out / "model"


def test_fit_writes_a_model_of_the_domain(model: Path) -> None:
    record = json.loads((model / "flambeau.json").read_text())
    assert record["domain"] == "text"
    assert record["preprocessor"]["arguments"]["fields"] == ["review"]


def test_predict_reads_tables_and_lines(model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "new.csv", reviews(6, 1))
    out = tmp_path / "predictions.csv"
    call("predict", model, file, "--out", out)
    with out.open(encoding="utf-8") as found:
        labels = [row["label"] for row in csv.DictReader(found)]
    assert labels == ["neg", "pos"] * 3
    lines = tmp_path / "new.txt"
    lines.write_text("a lovely day\na dreadful day\n")
    rows = [row.split() for row in call("predict", model, lines).splitlines() if "new.txt" in row]
    assert [row[2] for row in rows] == ["pos", "neg"]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one.txt").write_text("a lovely\nday\n")
    (folder / "two.txt").write_text("a dreadful day\n")
    rows = [row.split() for row in call("predict", model, folder).splitlines() if ".txt" in row]
    assert [row[:2] for row in rows] == [
        [str(folder / "one.txt"), "pos"],
        [str(folder / "two.txt"), "neg"],
    ]


def test_evaluate_scores_another_table(model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "test.csv", reviews(60, 2))
    text = call("evaluate", model, file)
    assert "60" in text
    assert "accuracy" in text
    odd = write(tmp_path / "odd.csv", [*reviews(8, 3), ("a day", "neutral", 9)])
    with pytest.raises(FlambeauError, match="neutral"):
        call("evaluate", model, odd)
    assert "accuracy" in call("evaluate", model, odd, "--unknown", "skip")
    # A text without words is scored, too, because data that are scored are complete.
    blank = write(tmp_path / "blank.csv", [*reviews(8, 3), ("", "neg", 9)])
    assert "9" in call("evaluate", model, blank)


def test_plan_and_doctor_name_the_columns(table: Path) -> None:
    text = call("plan", table, "--domain", "text", "--target", "label", *SMALL)
    assert "bag" in text
    choices = json.loads(call("plan", table, "--domain", "text", "--json", *SMALL))["choices"]
    by_key = {choice["key"]: choice for choice in choices}
    assert "not used: id" in by_key["targets"]["reason"]
    assert by_key["max_length"]["value"] == 20_000
    assert "no findings" in call("doctor", table, "--domain", "text", *SMALL).lower()


def test_a_folder_of_classes_is_recognised(tmp_path: Path) -> None:
    for text, label, row in reviews(24, 4):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / label / f"{row}.txt").write_text(text)
    assert "2 distinct labels" in call("plan", tmp_path / "data", *SMALL)
    with pytest.raises(FlambeauError, match="its labels are the names of the folders"):
        call("plan", tmp_path / "data", "--target", "label", *SMALL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--target", "lable"), "no column 'lable'. Did you mean 'label'"),
        (("--text", "revue"), "no column 'revue'"),
        (("--truncation", "tail"), "truncation='tail'"),
        (("--valid", "nothing.csv"), "valid is 'nothing.csv'"),
        (("--tokeniser", "word"), "Did you mean '--tokenizer'"),
    ],
)
def test_bad_options_are_named(table: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(FlambeauError, match=message):
        call("plan", table, "--domain", "text", *words)


def test_a_small_demo_runs_every_step(tmp_path: Path) -> None:
    text = call("demo", "text", "--samples", "120", "--epochs", "1", "--out", tmp_path / "run")
    assert "train_loss" in text
    assert (tmp_path / "run" / "model" / "flambeau.json").exists()
