"""One form of a text for data, tokenizers, prediction and scores; one line for one line."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from sacrebleu.metrics.bleu import BLEU
from typer import Exit

from flambeau import Learner, Predictor
from flambeau.cli.predict_command import predict_lines
from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau_text import (
    CharacterTokenizer,
    SubwordTokenizer,
    TranslationData,
    TranslationOptions,
    TranslationTask,
    WordTokenizer,
)
from flambeau_text.text_lines import read_lines
from flambeau_text.tokenization.normalization import is_blank, normalize
from flambeau_text.translation.dataset import REFERENCE
from flambeau_text.translation.interpretation import translation_summary

CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32",
    "model_config": {"embedding_dim": 8, "hidden_size": 8},
}  # fmt: skip
COMPOSED = ["Müller läuft über die Brücke.", "Ça a été préparé à côté.", "Él está aquí mañana."]
DECOMPOSED = [unicodedata.normalize("NFD", text) for text in COMPOSED]
TOKENIZERS = {
    "word": lambda texts, **more: WordTokenizer.fit(texts, language="xx", **more),
    "character": CharacterTokenizer.fit,
    "subword": lambda texts, **more: SubwordTokenizer.train(texts * 3, vocab_size=90, **more),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_both_forms_have_the_same_tokens(kind: str) -> None:
    tokenizer = TOKENIZERS[kind](DECOMPOSED)
    assert tokenizer.encode_batch(COMPOSED) == tokenizer.encode_batch(DECOMPOSED)
    assert [tokenizer.normalize(text) for text in DECOMPOSED] == COMPOSED
    variants = TOKENIZERS[kind](["ﬁne ②"] * 4, normalization="nfkc")
    assert variants.normalize("ﬁne ②") == "fine 2"
    lowered = TOKENIZERS[kind](["ÄB c"] * 4, lowercase=True)
    assert lowered.normalize("A\u0308B\u2028c") == "äb c"
    assert lowered.encode("äb c") == lowered.encode("ÄB\r\nc")


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_perfect_predictions_score_100_in_any_form(kind: str) -> None:
    target = TOKENIZERS[kind](COMPOSED)
    task = TranslationTask(target=target)
    decoded = [target.decode([*ids, 3]) for ids in target.encode_batch(COMPOSED)]
    scores = task._scores(decoded, DECOMPOSED, in_run=False)
    expected = BLEU().corpus_score(decoded, [COMPOSED]).score
    assert scores["bleu"] == pytest.approx(expected, abs=1e-9)
    assert BLEU().corpus_score(decoded, [DECOMPOSED]).score < 60  # what was reported
    ids = [torch.tensor([*row, 3]) for row in target.encode_batch(COMPOSED)]
    tokens = torch.nn.utils.rnn.pad_sequence(ids, True, 1.0)
    batch = Batch({"source": tokens}, masks={"source": tokens != 1}, extras={REFERENCE: DECOMPOSED})
    outputs = {name: torch.ones(3) for name in ("loss_sum", "likelihood_sum", "n_tokens")}
    outputs |= {"tokens": tokens, "scores": torch.ones(3)}
    assert translation_summary(outputs, batch, target).entries("target_text") == COMPOSED


def test_a_reference_keeps_its_case_unless_the_target_is_lower_cased() -> None:
    texts = ["The Big Dog runs in the Park."]
    for lowercase in (False, True):
        task = TranslationTask(target=WordTokenizer.fit(texts, lowercase=lowercase))
        assert task._scores(texts, texts, in_run=True)["bleu"] == pytest.approx(
            BLEU().corpus_score(texts, [[task.target.normalize(texts[0])]]).score
        )
        lower = [texts[0].lower()]
        assert (task._scores(lower, texts, in_run=True)["bleu"] > 99) is lowercase


def test_the_plan_normalises_data_prediction_and_export(tmp_path: Path) -> None:
    pairs = [(f"{one} {n}", f"{one} {n}") for n in range(8) for one in COMPOSED]
    pairs[1::2] = [
        (unicodedata.normalize("NFD", source), unicodedata.normalize("NFD", target))
        for source, target in pairs[1::2]
    ]
    learner = Learner(TranslationData.from_pairs(pairs), choices=CHOICES, quiet=True)
    choice = learner.plan["normalization"]
    assert choice.value == "nfc"
    assert choice.evidence["n_other_form"] > 0
    learner.export(tmp_path / "export")
    predictor = Predictor.load(tmp_path / "export")
    texts = [f"{text} 3" for text in COMPOSED]
    other = [unicodedata.normalize("NFD", text) for text in texts]
    assert [str(each) for each in predictor.predict(texts)] == [
        str(each) for each in predictor.predict(other)
    ]
    options = TranslationOptions(normalization="nfkc")
    given = Learner(TranslationData.from_pairs(pairs, options=options), choices=CHOICES, quiet=True)
    assert given.plan["normalization"].source == "user"
    assert given.task.target.normalize("ﬁ") == "fi"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="normalization='nfd' is invalid"):
        TranslationOptions(normalization="nfd")


# ---------------------------------------------------------------- lines


def test_the_report_finds_duplicates_in_any_form() -> None:
    train = [(f"{text} {n}", "x y z") for n, text in enumerate(COMPOSED * 3)]
    again = [(unicodedata.normalize("NFD", source), target) for source, target in train]
    data = TranslationData.from_pairs([*train, *again[:2]], valid=again[3:6], test=again[6:8])
    report = data.report()
    assert "duplicates: 2 train pairs repeat another train pair" in report
    assert "3 valid pairs are also in train, such as valid pair 0" in report
    assert "source words not in train: valid 0.0%, test 0.0%" in report


def test_a_line_break_in_a_text_is_a_space() -> None:
    pairs = [(f"a\nb {n}", f"c\u2028d\r\n {n}") for n in range(12)]
    for kind, fit in TOKENIZERS.items():
        tokenizer = fit([target for _, target in pairs])
        text = tokenizer.decode(tokenizer.encode("c\nd 3"))
        assert text == "c d 3", kind
    learner = Learner(
        TranslationData.from_pairs(pairs, options=TranslationOptions(tokenizer="character")),
        choices=CHOICES, quiet=True,
    )  # fmt: skip
    tokens = learner.task.target.vocab.get_itos()  # type: ignore[attr-defined]
    assert not {"\n", "\r", "\u2028"} & set(tokens)


class _Echo:
    """Returns each input as its prediction, as a model with line breaks in its tokens may do."""

    batch_size = 4

    def predict(self, items: list[str]) -> list[str]:
        return [item.replace("|", "\n") for item in items]


def test_one_line_of_input_gives_one_line_of_output(capsys: pytest.CaptureFixture[str]) -> None:
    lines = io.BytesIO("\ufeffone|two\n\nthree\n".encode())
    predict_lines(_Echo(), lines)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "one two\n\nthree\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = "a dog runs\nto the house\n".encode(encoding)
    (tmp_path / "a.en").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.en .*UTF-16.*iconv -f UTF-16 -t UTF-8"):
        read_lines(tmp_path / "a.en")
    with pytest.raises(Exit):
        predict_lines(_Echo(), io.BytesIO(content))  # type: ignore[arg-type]
    captured = capsys.readouterr()
    assert "line 1: the line" in captured.err
    assert "UTF-16" in captured.err
    (tmp_path / "t.tsv").write_bytes("en\tde\na\tb\n".encode(encoding))
    with pytest.raises(InputError, match="UTF-16"):
        TranslationData.from_path(tmp_path / "t.tsv", {})


def test_a_byte_order_mark_is_not_part_of_the_first_text(tmp_path: Path) -> None:
    body = "".join(f"a {n}\tb {n}\n" for n in range(12))
    (tmp_path / "t.tsv").write_text("\ufeffen\tde\n" + body, encoding="utf-8")
    assert TranslationData.from_path(tmp_path / "t.tsv", {}).options.source_language == "en"
    for fit in TOKENIZERS.values():
        tokenizer = fit(["a dog runs"])
        assert tokenizer.encode("\ufeffa dog runs") == tokenizer.encode("a dog runs")


def test_texts_that_are_not_valid_are_counted_or_refused() -> None:
    pairs = [(f"a {n}", f"b {n}") for n in range(12)]
    pairs[2] = ("a \ud800", "b")
    pairs[5] = ("a", "b\0c")
    data = TranslationData.from_pairs(pairs)
    assert data.skipped == {"not text": 2}
    assert "pair 2: the source has the unpaired surrogate '\\ud800' at index 2" in data.report()
    learner = Learner(data, choices=CHOICES, quiet=True)
    with pytest.raises(InputError, match=r"Item 1: .*NUL characters: probably UTF-16"):
        learner.predict(["a 3", "a\0 3"])


@pytest.mark.parametrize("text", ["\u200b", "\u00ad \u200e", "\ufeff", "\u3000\u00a0"])
def test_a_text_of_invisible_characters_is_empty(text: str) -> None:
    assert is_blank(text)
    assert normalize(text, "nfc") == ""
    assert not is_blank(f"{text}a")
    tokenizer = WordTokenizer.fit(["a b"], language=None, min_freq=1, max_tokens=10)
    assert tokenizer.encode(text) == []
