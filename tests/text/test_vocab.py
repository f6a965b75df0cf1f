"""``Vocab``: torchtext's names, order and errors."""

from __future__ import annotations

import pickle

import pytest

from flambeau_text.vocab import Vocab, build_vocab_from_iterator, vocab

TEXTS = [["b", "a", "b"], ["c", "a", "b"], ["d"]]


def test_order_is_by_frequency_then_alphabet() -> None:
    found = build_vocab_from_iterator(TEXTS, specials=["<unk>", "<pad>"])
    assert found.get_itos() == ["<unk>", "<pad>", "b", "a", "c", "d"]
    assert found.get_stoi() == {"<unk>": 0, "<pad>": 1, "b": 2, "a": 3, "c": 4, "d": 5}


def test_limits_and_specials_last() -> None:
    found = build_vocab_from_iterator(TEXTS, min_freq=2, specials=["<unk>"], special_first=False)
    assert found.get_itos() == ["b", "a", "<unk>"]
    found = build_vocab_from_iterator(TEXTS, specials=["<unk>"], max_tokens=3)
    assert found.get_itos() == ["<unk>", "b", "a"]
    with pytest.raises(ValueError, match="2 special tokens, so there is no room"):
        build_vocab_from_iterator(TEXTS, specials=["<unk>", "<pad>"], max_tokens=2)


def test_counts_keep_their_order() -> None:
    assert vocab({"z": 1, "a": 5}, specials=["a"]).get_itos() == ["a", "z"]
    assert vocab({"z": 1, "a": 5}, min_freq=2).get_itos() == ["a"]


def test_unknown_tokens_raise_without_a_default() -> None:
    words = Vocab(["x", "y"])
    assert words.get_default_index() is None
    with pytest.raises(RuntimeError, match=r"'z' is not in the vocabulary of 2.*set_default_index"):
        words["z"]
    with pytest.raises(RuntimeError, match="no default index"):
        words(["x", "z"])
    words.set_default_index(1)
    assert words["z"] == 1
    assert words.lookup_indices(["x", "z"]) == [0, 1]
    with pytest.raises(ValueError, match="must be at least 0, not -1"):
        words.set_default_index(-1)


def test_lookup_and_insertion() -> None:
    words = Vocab(["x", "y"])
    assert words.lookup_token(1) == "y"
    with pytest.raises(RuntimeError, match="The index 2 does not exist"):
        words.lookup_tokens([0, 2])
    words.insert_token("w", 1)
    words.append_token("z")
    assert words.get_itos() == ["x", "w", "y", "z"]
    assert [words[token] for token in words.get_itos()] == [0, 1, 2, 3]
    assert "w" in words
    with pytest.raises(RuntimeError, match="'w' is already in the vocabulary, at index 1"):
        words.append_token("w")
    with pytest.raises(RuntimeError, match="between 0 and 4"):
        words.insert_token("v", 9)
    with pytest.raises(ValueError, match="'x' occurs twice"):
        Vocab(["x", "x"])


def test_pickle_and_equality() -> None:
    words = Vocab(["x", "y"], default_index=0)
    assert pickle.loads(pickle.dumps(words)) == words
    assert words != Vocab(["x", "y"])


def test_iteration_and_wrong_key_types() -> None:
    words = Vocab(["<unk>", "a", "b"], default_index=0)
    assert list(words) == words.get_itos() == ["<unk>", "a", "b"]
    assert Vocab(words).get_itos() == words.get_itos()
    with pytest.raises(TypeError, match=r"1 is of type int.*lookup_token"):
        words[1]  # type: ignore[index]
