"""Vocabulary, transforms and bridge against the real torchtext 0.18, in its own environment.

`make torchtext` runs it; elsewhere it skips. ``flambeau-text`` itself is not installed there, so
its modules are loaded from the source tree, as a user of an old environment would.
"""

from __future__ import annotations

import gzip
import os
import pickle
import random
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

warnings.filterwarnings("ignore", message=".*torchtext.*")
torchtext = pytest.importorskip("torchtext", reason="make torchtext has an environment for it")

SOURCE = Path(__file__).parents[2] / "packages/text/src/flambeau_text"
if "flambeau_text" not in sys.modules:
    package = types.ModuleType("flambeau_text")
    package.__path__ = [str(SOURCE)]  # its __init__ needs flambeau, these modules do not
    sys.modules["flambeau_text"] = package

import torch  # noqa: E402
import torchtext.transforms as theirs  # noqa: E402
from torchtext.data.utils import get_tokenizer  # noqa: E402
from torchtext.vocab import build_vocab_from_iterator, vocab  # noqa: E402

import flambeau_text.transforms as ours  # noqa: E402
import flambeau_text.vocab as own  # noqa: E402
from flambeau_text.interop.torchtext import (  # noqa: E402
    as_dataset,
    as_transform,
    as_vocab,
    to_torchtext,
)

SPECIALS = ["<unk>", "<pad>", "<bos>", "<eos>"]


def made_lines() -> list[str]:
    draws = random.Random(0)
    words = [f"wort{n}" for n in range(300)] + ["it's", "(so)", "Größe,", "A.", "!"]
    return [" ".join(draws.choices(words, k=draws.randint(1, 15))) for _ in range(500)]


def corpora() -> dict[str, list[str]]:
    found = {"made": made_lines()}
    folder = Path(os.environ.get("FLAMBEAU_DATA", "nowhere")) / "multi30k"
    for language in ("en", "de"):
        path = folder / f"train.{language}.gz"
        if path.exists():
            found[language] = gzip.decompress(path.read_bytes()).decode().splitlines()
    return found


CORPORA = corpora()


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"min_freq": 2}, {"specials": SPECIALS}, {"max_tokens": 60, "specials": SPECIALS},
        {"specials": SPECIALS, "special_first": False, "min_freq": 3},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_are_the_same(name: str, options: dict[str, Any]) -> None:
    tokens = [line.split() for line in CORPORA[name]]
    wanted = build_vocab_from_iterator(iter(tokens), **options)
    found = own.build_vocab_from_iterator(iter(tokens), **options)
    assert found.get_itos() == wanted.get_itos()
    assert found.get_stoi() == wanted.get_stoi()
    assert len(found) == len(wanted)


def test_methods_are_the_same() -> None:
    counts = {"b": 3, "a": 3, "c": 1}
    both = [vocab(counts, specials=["<unk>"]), own.vocab(counts, specials=["<unk>"])]
    for each in both:
        assert each.get_default_index() is None
        with pytest.raises(RuntimeError):
            each["zebra"]
        each.set_default_index(0)
        each.append_token("z")
        each.insert_token("y", 1)
        with pytest.raises(RuntimeError):
            each.append_token("z")
        with pytest.raises(RuntimeError):
            each.lookup_token(99)
    theirs_, ours_ = both
    assert ours_.get_itos() == theirs_.get_itos()
    words = ["a", "y", "zebra", "z"]
    assert ours_(words) == theirs_(words) == ours_.lookup_indices(words)
    assert ours_.lookup_tokens([0, 3]) == theirs_.lookup_tokens([0, 3])
    assert ("a" in ours_, "q" in ours_) == ("a" in theirs_, "q" in theirs_)
    assert pickle.loads(pickle.dumps(ours_)).get_stoi() == theirs_.get_stoi()


@pytest.mark.parametrize("name", CORPORA)
def test_basic_english_cuts_the_same(name: str) -> None:
    wanted, found = get_tokenizer("basic_english"), ours.get_tokenizer("basic_english")
    odd = ['He said: "No; isn\'t it?" (twice)...', "<br /> A.B,c!", "  tabs\tand  spaces "]
    for line in [*CORPORA[name][:3000], *odd]:
        assert found(line) == wanted(line)


def test_transforms_are_the_same() -> None:
    words = {"<unk>": 9, "a": 5, "dog": 3}
    rows = [["a", "dog", "a", "a"], ["dog"], ["a", "dog"]]
    results = []
    for module, make in ((theirs, vocab), (ours, own.vocab)):
        table = make(words)
        chain = module.Sequential(
            module.VocabTransform(table),
            module.Truncate(3),
            module.AddToken(7),
            module.AddToken(8, begin=False),
            module.ToTensor(0),
            module.PadTransform(9, 4),
        )
        labels = module.LabelToIndex(label_names=["neg", "pos"], sort_names=True)
        numbers = module.StrToIntTransform()
        results.append(
            (chain(rows).tolist(), labels(["pos", "neg"]), labels("neg"), numbers([["1"], ["2"]]))
        )
    assert results[0] == results[1]


def test_objects_cross_the_bridge_and_back() -> None:
    made = build_vocab_from_iterator([line.split() for line in CORPORA["made"]], specials=SPECIALS)
    made.set_default_index(0)
    read = as_vocab(pickle.loads(pickle.dumps(made)))
    assert read.get_stoi() == made.get_stoi()
    assert read.get_default_index() == 0
    back = to_torchtext(read)
    assert back.get_itos() == made.get_itos()
    assert back["no such word"] == 0
    apply = as_transform(theirs.VocabTransform(made))
    line = CORPORA["made"][0].split()
    assert apply(line) == read(line)
    pairs = [("a", "b"), ("c", "d")]
    loader = torch.utils.data.DataLoader(pairs, batch_size=None)  # type: ignore[arg-type]
    assert as_dataset(loader) == pairs
