"""Translation on the command line: from two files to a model, and from lines to lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flambeau import Predictor
from flambeau.cli.app import build_app
from flambeau.cli.predict_command import predict_lines
from flambeau.errors import FlambeauError
from flambeau_text import Beam, GnmtLengthPenalty, Sampling, translate
from flambeau_text.translation import task
from flambeau_text.translation.demo import date_pairs

SMALL = (
    "--set", "batch_size=16", "--set", "num_threads=1", "--set", "precision=fp32",
    "--set", 'model_config={"embedding_dim": 24, "hidden_size": 24}', "--set", "device=cpu",
)  # fmt: skip


def call(*words: object, lines: str | bytes | None = None, code: int = 0) -> str:
    """Return what a command prints; its exception is raised unchanged."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words], input=lines)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    pairs = date_pairs(150, 0)
    for ending, side in (("en", 0), ("de", 1)):
        text = "\n".join(pair[side] for pair in pairs) + "\n"
        (folder / f"train.{ending}").write_text(text, encoding="utf-8")
    return folder / "train.en", folder / "train.de"


@pytest.fixture(scope="module")
def model(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "mine"
    words = ("--task", "translation", "--source", files[0], "--target", files[1])
    # Long enough that no translation is empty.
    result = call("fit", *words, *SMALL, "--set", "lr=0.01", "--epochs", "12", "--out", folder)
    assert "150 pairs, en → de" in result
    assert "bleu" in result
    assert "|search:beam 5" in result  # the last table; the evaluations of the run were greedy
    assert ",greedy," in (folder / "history.csv").read_text()
    return folder / "model"


def test_fit_takes_two_files_and_a_task(model: Path) -> None:
    assert json.loads((model / "flambeau.json").read_text())["domain"] == "translate"


def test_the_source_can_be_path(files: tuple[Path, Path]) -> None:
    assert "rnn" in call("plan", files[0], "--target", files[1], *SMALL)
    # A folder with two languages is recognised.
    assert "rnn" in call("plan", files[0].parent, *SMALL)


def test_each_line_gives_one_line(model: Path) -> None:
    sources = [source for source, _ in date_pairs(3, 5)]
    lines = f"{sources[0]}\n\n{sources[1]}\n{sources[2]}"
    out = call("predict", model, lines=lines).split("\n")
    assert len(out) == 5
    assert out[1] == out[4] == ""
    assert all(out[row] for row in (0, 2, 3))
    assert call("predict", model, "-", lines=lines).split("\n") == out
    text = call("predict", model, "--format", "json", lines=f"{sources[0]}\n")
    assert json.loads(text)["text"] == out[0]
    text = call("predict", model, "--format", "json", lines=f"{sources[0]}\n\n")
    assert [json.loads(line) is None for line in text.splitlines()] == [False, True]
    with pytest.raises(FlambeauError, match="csv needs files"):
        call("predict", model, "--format", "csv", lines=lines)
    call("predict", model, "--out", model.parent / "p.jsonl", lines=lines)
    written = (model.parent / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line).get("text", "") for line in written] == out[:4]
    assert [json.loads(line)["line"] for line in written] == [1, 2, 3, 4]


def test_an_invalid_line_gives_an_empty_line(model: Path) -> None:
    source = date_pairs(1, 5)[0][0]
    russian = "\u0441\u043e\u0431\u0430\u043a\u0430 \u0431\u0435\u0436\u0438\u0442"  # a dog runs
    out = call("predict", model, lines=f"{source}\n{russian}\n{source}\n", code=1)
    assert "line 2: " in out
    assert "is written in Cyrillic" in out
    translations = [line for line in out.split("\n") if not line.startswith("line 2")]
    assert translations[0] == translations[2] != ""
    assert translations[1] == ""


def test_a_line_that_is_not_utf8_gives_an_empty_line(model: Path) -> None:
    source = date_pairs(1, 5)[0][0].encode()
    out = call("predict", model, lines=source + b"\nth\xff\n" + source + b"\n", code=1)
    assert "line 2: byte 3 of the line is not UTF-8" in out
    translations = [line for line in out.split("\n") if not line.startswith("line 2")]
    assert translations[0] == translations[2] != ""
    assert translations[1] == ""


def test_predict_reads_a_file_line_by_line(model: Path, files: tuple[Path, Path]) -> None:
    records = json.loads(call("predict", model, files[0], "--format", "json"))
    assert len(records) == 150
    assert [record["item"] for record in records] == list(range(1, 151))
    assert records[7]["text"]


def test_a_file_with_an_invalid_line_is_predicted(model: Path, tmp_path: Path) -> None:
    source = date_pairs(1, 5)[0][0]
    russian = "\u0441\u043e\u0431\u0430\u043a\u0430 \u0431\u0435\u0436\u0438\u0442"
    file = tmp_path / "some.txt"
    file.write_text(f"{source}\n\n{russian}\n{source}\n", encoding="utf-8")
    records = json.loads(call("predict", model, file, "--format", "json", code=1))
    assert [record["item"] for record in records] == [1, 2, 3, 4]
    assert records[0]["text"] == records[3]["text"]
    assert records[1].keys() == {"file", "item"}
    assert "is written in Cyrillic" in records[2]["error"]
    assert "Item 0" not in records[2]["error"]
    table = call("predict", model, file, code=1)
    assert "error" in table.splitlines()[0]
    assert records[0]["text"] in table


def test_predict_searches_with_the_beam_of_the_option(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new.en"
    file.write_text("".join(f"{source}\n" for source, _ in date_pairs(3, 5)), encoding="utf-8")
    sizes: list[int] = []

    def search(model: Any, source: Any, mask: Any, decoding: Any, indices: Any = None) -> Any:
        sizes.append(decoding.size)
        return real(model, source, mask, decoding, indices)

    real = task.search
    monkeypatch.setattr(task, "search", search)
    records = json.loads(call("predict", model, file, "--beam", "2", "--format", "json"))
    call("predict", model, "--beam=1", lines=file.read_text(encoding="utf-8"))
    call("predict", model, file)
    assert sizes == [2, 1, 5]
    expected = Predictor.load(model, device="cpu")
    expected.task = expected.task.for_prediction({"beam": 2})
    sources = file.read_text(encoding="utf-8").splitlines()
    monkeypatch.undo()
    assert [record["text"] for record in records] == [
        each.text for each in translate(expected, sources, Beam(size=2))
    ]
    for value, message in (("0", "size of at least 1"), ("x", "Invalid value 'x' for --beam")):
        with pytest.raises(FlambeauError, match=message):
            call("predict", model, file, "--beam", value)


def test_evaluate_reads_two_files(model: Path, files: tuple[Path, Path]) -> None:
    words = ("--target", files[1], "--part", "valid", "--json")
    scores = json.loads(call("evaluate", model, files[0], *words))
    assert scores["samples"] == 15
    assert {"bleu", "bleu_lower", "chrf", "perplexity"} <= scores.keys()
    with pytest.raises(
        FlambeauError, match=r"in the language 'de', but in the export .* sides swapped"
    ):
        call("evaluate", model, files[1], "--target", files[0])
    folder = files[0].parent
    shown = call("evaluate", model, folder, "--source-language", "en")
    assert call("evaluate", model, folder) == shown  # not German first, by alphabet


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "SOURCE"), r"only one side of the sentence pairs. Give .*--target FILE"),
        (
            ("fit", "--task", "summary", "--source", "SOURCE", "--target", "TARGET"),
            "--task summary",
        ),
        (("fit", "--valid", "0.1"), r"PATH is missing before '--valid'.*--source"),
        (("fit", "SOURCE", "--target", "gone.de"), "no file gone.de"),
        (("fit", "SOURCE", "--target", "TARGET", "--set", "tokenizer=x"), "one of bpe, unigram"),
        (
            ("plan", "SOURCE", "--target", "TARGET", "--set", 'model_config={"hiden": 3}'),
            "no setting 'hiden'. Did you mean 'hidden_size'",
        ),
    ],
)
def test_errors_name_the_fix(
    files: tuple[Path, Path], words: tuple[str, ...], message: str
) -> None:
    given = [{"SOURCE": files[0], "TARGET": files[1]}.get(word, word) for word in words]
    with pytest.raises(FlambeauError, match=message):
        call(*given)


def test_demo_writes_figures(tmp_path: Path) -> None:
    text = call("demo", "translate", "--samples", "150", "--epochs", "1", "--out", tmp_path / "run")
    assert "150 pairs, en → de" in text
    assert "flambeau, rnn" in text
    for name in ("predictions.png", "attention.png"):
        assert name in text
        assert (tmp_path / "run" / name).stat().st_size > 5_000


def test_pairs_are_read_like_an_export(files: tuple[Path, Path], model: Path) -> None:
    words = ("plan", files[0], "--target", files[1], "--like", model, "--json")
    plan = {choice["key"]: choice for choice in json.loads(call(*words))["choices"]}
    assert plan["start"]["value"]["export"] == str(model)
    assert plan["tokenizer"]["reason"].startswith(f"As in the export {model}")
    with pytest.raises(FlambeauError, match=r"lowercase is True, but in the export .* False"):
        call(*words, "--lowercase")
    with pytest.raises(FlambeauError, match=r"train.de is in the language 'de', but"):
        call("plan", files[1], "--target", files[0], "--like", model)


def test_the_options_of_predict_choose_search_and_details(model: Path) -> None:
    lines = "".join(f"{source}\n" for source, _ in date_pairs(3, 5))
    sources = lines.splitlines()
    predictor = Predictor.load(model, device="cpu")

    def records(*words: str) -> list[dict[str, Any]]:
        shown = call("predict", model, *words, "--format", "json", lines=lines)
        return [json.loads(line) for line in shown.splitlines()]

    beam = Beam(size=4, n_best=3, length_penalty=GnmtLengthPenalty(0.5))
    expected = translate(predictor, sources, beam)
    words = ("--beam", "4", "--n-best", "3", "--length-penalty", "0.5", "--attention")
    for found, wanted in zip(records(*words), expected, strict=True):
        assert found["text"] == wanted.text
        assert found["score"] == pytest.approx(wanted.score, abs=1e-6)
        assert [text for text, _ in found["alternatives"]] == [
            each.text for each in wanted.alternatives
        ]
        assert tuple(found["tokens"]) == wanted.tokens
        assert tuple(found["source_tokens"]) == wanted.source_tokens
        np.testing.assert_allclose(found["attention"], wanted.attention, atol=1e-6)
    # Samples do not depend on the batch, and differ between seeds.
    words = ("--temperature", "0.7", "--seed", "3")
    sampled = [each["text"] for each in records(*words)]
    assert sampled == [each["text"] for each in records(*words, "--batch-size", "1")]
    assert sampled != [each["text"] for each in records(*words[:3], "4")]
    predictor.task.decoding = Sampling(temperature=0.7, seed=3)  # type: ignore[attr-defined]
    assert sampled == [each.text for each in predictor.predict(sources)]
    one = call("predict", model, "--batch-size", "1", lines=lines)
    assert one == call("predict", model, lines=lines)
    for words, message in (
        (("--beam", "3", "--temperature", "1"), "--beam is an option of beam search and --temp"),
        (("--temperature", "0"), "temperature must be above 0"),
        (("--batch-size", "0"), "--batch-size must be at least 1"),
        (("--n-best", "0"), "n_best between 1"),
    ):
        with pytest.raises(FlambeauError, match=message):
            call("predict", model, *words, lines=lines)


def test_unknown_words_are_replaced_by_the_option(model: Path) -> None:
    predictor = Predictor.load(model, device="cpu")
    sources = ["we met on march twenty one zzzz forty two", "zzzz closes on may two"]
    # A decoder that writes unknown tokens only.
    with torch.no_grad():
        predictor.model.output.bias[0] += 100.0
    expected = translate(predictor, sources, Beam(size=2), replace_unknown=True)
    predictor.task = predictor.task.for_prediction({"replace_unknown": True, "beam": 2})
    found = predictor.predict(sources)
    assert [each.text for each in found] == [each.text for each in expected]
    assert "<unk>" not in found[0].text


def test_with_batch_size_1_each_line_is_answered_before_the_next_is_read() -> None:
    seen: list[str] = []

    class Echo:
        batch_size = 1

        def predict(self, items: list[str]) -> list[str]:
            seen.extend(f"answered {item}" for item in items)
            return items

    def lines() -> Iterator[bytes]:
        for text in ("one", "two"):
            seen.append(f"read {text}")
            yield f"{text}\n".encode()

    predict_lines(Echo(), lines())  # type: ignore[arg-type]
    assert seen == ["read one", "answered one", "read two", "answered two"]
