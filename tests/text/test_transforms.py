"""torchtext's transforms, and the conversion of torchtext's objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import flambeau_text
from flambeau_text.interop.torchtext import (
    as_dataset,
    as_transform,
    as_vocab,
    from_legacy_field,
    to_torchtext,
)
from flambeau_text.transforms import (
    AddToken,
    LabelToIndex,
    PadTransform,
    Sequential,
    StrToIntTransform,
    ToTensor,
    Truncate,
    VocabTransform,
    get_tokenizer,
)
from flambeau_text.vocab import Vocab

WORDS = Vocab(["<unk>", "<pad>", "a", "dog"], default_index=0)


def test_a_chain_of_transforms() -> None:
    chain = Sequential(
        VocabTransform(WORDS), Truncate(3), AddToken(9), AddToken(8, begin=False), ToTensor(1)
    )
    assert chain([["a", "dog", "a", "cat"], ["dog"]]).tolist() == [[9, 2, 3, 2, 8], [9, 3, 8, 1, 1]]
    assert chain(["a"]).tolist() == [9, 2, 8]
    assert PadTransform(4, 7)(torch.tensor([1, 2])).tolist() == [1, 2, 7, 7]
    assert PadTransform(1, 7)(torch.tensor([1, 2])).tolist() == [1, 2]
    assert StrToIntTransform()([["1", "2"], ["3"]]) == [[1, 2], [3]]
    assert StrToIntTransform()(["4"]) == [4]


def test_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("neg\npos\n")
    for labels in (LabelToIndex(["neg", "pos"]), LabelToIndex(label_path=tmp_path / "labels.txt")):
        assert labels("pos") == 1
        assert labels(["pos", "neg"]) == [1, 0]
    assert LabelToIndex(["b", "a"], sort_names=True).label_names == ["a", "b"]
    with pytest.raises(ValueError, match="exactly one of label_names and label_path"):
        LabelToIndex()


def test_tokenizers() -> None:
    assert get_tokenizer(None)("A  dog.") == ["A", "dog."]
    assert get_tokenizer("basic_english")('He said: "No; never" (twice)!') == [
        "he", "said", "no", "never", "(", "twice", ")", "!"
    ]  # fmt: skip
    assert get_tokenizer("spacy", "en_core_web_sm")("It isn't.") == ["It", "is", "n't", "."]
    assert get_tokenizer(list)("ab") == ["a", "b"]
    with pytest.raises(ValueError, match="language 'en', not 'de'"):
        get_tokenizer("basic_english", "de")
    with pytest.raises(ValueError, match="Unknown tokenizer 'subword'"):
        get_tokenizer("subword")


def test_objects_are_recognised_by_their_methods() -> None:
    class Theirs(nn.Module):
        def get_itos(self) -> list[str]:
            return ["<unk>", "x"]

        def get_default_index(self) -> int:
            return 0

        def forward(self, tokens: list[str]) -> list[int]:
            return [len(token) for token in tokens]

    assert as_vocab(Theirs()) == Vocab(["<unk>", "x"], 0)
    assert as_transform(Theirs())(["abc"]) == [3]
    assert as_dataset(iter([("a", "b"), ["c", "d"], "e"])) == [("a", "b"), ("c", "d"), ("e",)]
    for function in (as_vocab, as_transform, as_dataset, from_legacy_field):
        with pytest.raises(TypeError, match="int"):
            function(3)  # type: ignore[arg-type]


def test_a_legacy_field() -> None:
    field = SimpleNamespace(
        vocab=SimpleNamespace(itos=["<unk>", "<pad>", "dog"]), unk_token="<unk>", lower=True,
        tokenize=str.split,
    )  # fmt: skip
    vocab, cut = from_legacy_field(field)
    assert vocab(cut("Dog cat\n")) == [2, 0]
    field.vocab = None
    with pytest.raises(TypeError, match="no built vocabulary"):
        from_legacy_field(field)


def test_without_torchtext_the_error_names_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchtext", None)
    with pytest.raises(ImportError, match=r"torch==2\.3\.1 and torchtext==0\.18\.0"):
        to_torchtext(WORDS)


def test_torchtext_modules_load_without_flambeau() -> None:
    """They are used with torch 2.3, which core does not support."""
    folder = Path(flambeau_text.__file__).parent
    code = f"""
import sys, types
sys.modules["flambeau"] = None
package = types.ModuleType("flambeau_text")
package.__path__ = [{str(folder)!r}]
sys.modules["flambeau_text"] = package
import flambeau_text.vocab, flambeau_text.transforms, flambeau_text.interop.torchtext
"""
    subprocess.run([sys.executable, "-c", code], check=True)
