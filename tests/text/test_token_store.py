"""Tokens of large corpora: encoded in pieces, in memory or in a memory-mapped file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from flambeau import Learner
from flambeau.errors import StorageError
from flambeau_text import LanguageModelData, LanguageOptions
from flambeau_text.language import token_store
from flambeau_text.language.token_store import encode_in_memory, encode_on_disk
from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization import CharacterTokenizer, Tokenizer
from flambeau_text.tokenization.tokenizer import END_ID

TEXTS = [f"line {i}\nänother <unk> {i % 7}\n" if i % 3 else f"{i}\n\n" for i in range(40)] + ["end"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return CharacterTokenizer.fit(TEXTS)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLAMBEAU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def one_by_one(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    return [
        [token for line in lines_of(text) for token in (*tokenizer.encode(line), END_ID)]
        for text in texts
    ]


@pytest.mark.parametrize("piece", [1, 50, 10_000])
@pytest.mark.parametrize("encode", [encode_in_memory, encode_on_disk])
def test_pieces_give_the_tokens_of_each_document(
    piece: int, encode: object, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store, "_PIECE", piece)
    tokens, lengths = encode(TEXTS, tokenizer)  # type: ignore[operator]
    expected = one_by_one(TEXTS, tokenizer)
    assert tokens.dtype == torch.int32
    assert lengths.tolist() == [len(each) for each in expected]
    assert tokens.tolist() == [token for each in expected for token in each]


def test_a_file_is_written_once(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encode_on_disk(TEXTS, tokenizer)

    def refuse(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(token_store, "_pieces", refuse)
    again = encode_on_disk(TEXTS, tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in ([*TEXTS[:-1], "enD"], [*TEXTS[1:], TEXTS[0]], ["".join(TEXTS[:2]), *TEXTS[2:]]):
        with pytest.raises(AssertionError, match="encoded again"):
            encode_on_disk(other, tokenizer)
    with pytest.raises(AssertionError, match="encoded again"):
        encode_on_disk(TEXTS, CharacterTokenizer.fit(TEXTS, lowercase=True))


def test_too_little_disk_space_is_said(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store.MappedStore, "available_bytes", lambda self: 100)
    with pytest.raises(StorageError, match=r'tokens need .*choices=\{"cache": "memory"\}'):
        encode_on_disk(TEXTS, tokenizer)


def test_training_is_the_same_from_memory_and_from_disk(cache_folder: Path) -> None:
    losses: list[list[float]] = []
    for cache in ("memory", "disk"):
        data = LanguageModelData.from_texts(
            TEXTS, valid=5, options=LanguageOptions(tokenizer="character")
        )
        config = {"embedding_dim": 8, "hidden_size": 8, "num_layers": 1}
        choices = {"cache": cache, "model_config": config, "batch_size": 2, "bptt": 20}
        learner = Learner(data, "awd_lstm", choices=choices, seed=1, quiet=True)
        torch.manual_seed(0)  # dropout
        losses.append(list(learner.fit(2).step_losses))
        assert (cache_folder / "tokens").exists() == (cache == "disk")
    assert losses[0] == losses[1]


def test_the_plan_chooses_by_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = LanguageModelData.from_texts(["a b c\n" * 1_000] * 20, valid=2)
    assert Learner(data, quiet=True).plan["cache"].value == "memory"
    monkeypatch.setattr("flambeau_text.language.rules.available_memory_bytes", lambda: 300_000)
    choice = Learner(data, quiet=True).plan["cache"]
    assert choice.value == "disk"
    assert "memory-mapped file" in choice.reason


def test_progress_is_shown_for_long_texts(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, str, str]] = []
    amounts: list[int] = []

    class Recorded:
        def __init__(self, total: int, title: str, unit: str) -> None:
            shown.append((total, title, unit))

        def __enter__(self) -> object:
            return amounts.append

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(token_store, "progress", Recorded)
    monkeypatch.setattr(token_store, "_PIECE", 100)
    encode_in_memory(TEXTS, tokenizer)
    assert shown == []
    monkeypatch.setattr(token_store, "PROGRESS_FROM", 200)
    encode_in_memory(TEXTS, tokenizer)
    total = sum(map(len, TEXTS))
    assert shown == [(total, "tokenizing", "character")]
    assert len(amounts) > 3
    assert sum(amounts) == total
