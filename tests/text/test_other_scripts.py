"""Languages without spaces between words: length, filter, tokens and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU

from flambeau import Learner
from flambeau.errors import FlambeauError, MissingDependencyError
from flambeau_text import TranslationData, TranslationOptions, corpus_score
from flambeau_text.languages import language_code
from flambeau_text.translation.scores import bleu_tokenizer
from flambeau_text.translation.task import TranslationTask
from flambeau_text.word_count import count_words, is_unspaced, script_of

ENGLISH = [
    f"I would very much like to listen to some good music number {n} today" for n in range(12)
]
CHINESE = [f"我今天很想听一些好听的音乐第{n}首。" for n in range(12)]
JAPANESE = [f"今日は音楽をたくさん聞きたいです{n}。" for n in range(12)]
THAI = [f"วันนี้ฉันอยากฟังเพลงเพราะๆ มากมาย{n}" for n in range(12)]
CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32",
    "model_config": {"embedding_dim": 8, "hidden_size": 8},
}  # fmt: skip


def test_words_are_estimated_where_there_are_no_spaces() -> None:
    assert count_words("a dog  runs\n") == 3
    assert count_words("Ein über-großer Hund") == 3
    # 17 letters and a number; punctuation counts as a word of its own.
    assert 8 <= count_words(CHINESE[3]) <= 11
    assert 7 <= count_words(JAPANESE[3]) <= 11
    assert 5 <= count_words(THAI[3]) <= 10
    assert count_words("") == count_words(" \n") == 0
    found = map(is_unspaced, (CHINESE[0], THAI[0], "über", "안녕 세상", "用 Python"))
    assert list(found) == [True, True, False, False, False]
    assert [script_of(texts) for texts in (CHINESE, JAPANESE, THAI, ENGLISH)] == [
        "zh", "ja", "th", None
    ]  # fmt: skip


@pytest.mark.parametrize("others", [CHINESE, JAPANESE, THAI])
def test_pairs_are_kept_in_both_directions(others: list[str]) -> None:
    long = "I think so " * 4, others[0] * 3
    for pairs in (zip(ENGLISH, others, strict=True), zip(others, ENGLISH, strict=True)):
        data = TranslationData.from_pairs([*pairs, long])
        assert data.skipped == {}
    # Wrong alignments are still found.
    assert TranslationData.from_pairs(
        [*zip(ENGLISH, others, strict=True), ("yes it is", others[0] * 12)]
    ).skipped == {"length ratio": 1}


def test_limits_are_options_of_the_command_line(tmp_path: Path) -> None:
    lines = [f"{'a ' * (n + 1)}\tb" for n in range(20)]
    (tmp_path / "t.tsv").write_text("\n".join(["source\ttarget", *lines]), encoding="utf-8")
    read = TranslationData.from_path
    assert len(read(tmp_path / "t.tsv", {}).samples) == 9
    assert len(read(tmp_path / "t.tsv", {"max_length_ratio": 30.0}).samples) == 20
    assert len(read(tmp_path / "t.tsv", {"max_words": 4}).samples) == 4
    assert len(read(tmp_path / "t.tsv", {"max_characters": 6}).samples) == 3
    with pytest.raises(FlambeauError, match="--max-words, --max-characters and --max-ratio"):
        read(tmp_path / "t.tsv", {"max_characters": 1})


@pytest.mark.parametrize("language", ["zh", None])
def test_the_plan_takes_subwords_and_scores_in_the_target_language(language: str | None) -> None:
    options = TranslationOptions("en", language)
    data = TranslationData.from_pairs(list(zip(ENGLISH, CHINESE, strict=True)), options=options)
    learner = Learner(data, choices=CHOICES, quiet=True)
    assert learner.plan["tokenizer"].value == "bpe"
    assert "no spaces" in learner.plan["tokenizer"].reason
    assert learner.plan["bleu_tokenizer"].value == "zh"
    task = learner.task
    assert isinstance(task, TranslationTask)
    ids = task.target.encode_batch(CHINESE)
    assert min(map(len, ids)) > 1
    # Exact predictions score 100; with the tokenization of European languages they had 0.
    short = ["我爱你", "你好"]
    scores = task._scores(short, short, in_run=False)
    assert scores["bleu"] == pytest.approx(BLEU(tokenize="zh").corpus_score(short, [short]).score)
    almost = [CHINESE[1].replace("好听", "美丽"), CHINESE[2]]
    expected = BLEU(tokenize="zh").corpus_score(almost, [CHINESE[1:3]]).score
    assert task._scores(almost, CHINESE[1:3], in_run=True)["bleu"] == pytest.approx(expected)
    assert 0 < expected < 100
    assert "tok:zh" in task.signatures["bleu"]


def test_the_tokenization_of_bleu_follows_the_language() -> None:
    assert [bleu_tokenizer(name) for name in ("de", None, "zh", "th")] == [
        "13a",
        "13a",
        "zh",
        "char",
    ]
    with pytest.raises(FlambeauError, match="Unknown tokenization '13b'"):
        corpus_score(["a"], ["a"], tokenizer="13b")
    same = corpus_score(["a b c d"], ["a b c d"], tokenizer="intl")
    assert "tok:intl" in same.signature


@pytest.mark.parametrize(
    ("texts", "language", "package"), [(JAPANESE, None, "ja"), (["안녕 세상"] * 12, "ko", "ko")]
)
def test_missing_tokenizers_are_named_before_training(
    texts: list[str], language: str | None, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flambeau_text.translation.scores.find_spec", lambda name: None)
    options = TranslationOptions("en", language)
    data = TranslationData.from_pairs(list(zip(ENGLISH, texts, strict=True)), options=options)
    with pytest.raises(
        MissingDependencyError, match=rf"pip install 'sacrebleu\[{package}\]'.*char"
    ):
        Learner(data, choices=CHOICES, quiet=True)
    plan = Learner(data, choices={**CHOICES, "bleu_tokenizer": "char"}, quiet=True).plan
    assert plan["bleu_tokenizer"].value == "char"
    with pytest.raises(FlambeauError, match=rf"sacrebleu\[{package}\]"):
        Learner(data, choices={**CHOICES, "bleu_tokenizer": f"{package}-mecab"}, quiet=True)


OTHERS = {
    "lo": "ຂ້ອຍມັກດົນຕີຫຼາຍ",
    "km": "ខ្ញុំស្រឡាញ់តន្ត្រី",
    "my": "ကျွန်တော်ဂီတကိုချစ်တယ်",
    "bo": "ང་རང་བོད་སྐད་ལ་དགའ་",
    "jv": "ꦲꦏꦸꦱꦸꦏꦩꦸꦱꦶꦏ꧀",
    "shn": "ႁဝ်းမၵ်ႉၸၢႆးသေၵႂၢမ်းၼင်ႇၼႆ",
}


@pytest.mark.parametrize("language", OTHERS)
def test_other_scripts_without_spaces_are_kept_and_split(language: str) -> None:
    text = OTHERS[language]
    assert 3 <= count_words(text) <= 8
    assert script_of([text]) == "th"
    pairs = [(f"I like the music of number {n} very much", text * (1 + n % 2)) for n in range(20)]
    for swap in (False, True):
        both = [(target, source) if swap else (source, target) for source, target in pairs]
        data = TranslationData.from_pairs(both)
        assert data.skipped == {}
        assert Learner(data, choices=CHOICES, quiet=True).plan["tokenizer"].value == "bpe"


def test_tibetan_is_scored_by_characters() -> None:
    assert [bleu_tokenizer(code) for code in ("bo", "dz", "my", "km", "lo")] == ["char"] * 5
    assert language_code("tibetan") == language_code("bod") == "bo"
