"""The texts of ``imdb_ulmfit.py``: reviews of IMDb, articles of WikiText-2, synthetic ones."""

from __future__ import annotations

import csv
import gzip
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from flambeau.random import generator

CLASSES = ("negative", "positive")
_SHINGLE, _SHARE = 8, 0.5

# Not a word of any review: unknown to their vocabulary, as <unk> in WikiText-2 should be.
_UNKNOWN = "\u2047"


@dataclass(frozen=True)
class Reviews:
    """The reviews by their use.

    No text of ``scored`` is used before a score on test, and no near duplicate of one is trained
    on, neither by the language model nor by a classifier.

    Attributes:
        train: Train reviews: columns "text" and "label", in a random order.
        scored: The reviews of the test file on which the classifiers are scored.
        recipe: Numbers of reviews for each use.
    """

    train: pd.DataFrame
    scored: pd.DataFrame
    recipe: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, recipe: Mapping[str, Any]) -> Reviews:
        """Read ``train.csv.gz`` and the first reviews (by id) of ``test_10k.csv.gz``."""
        train = _frame(folder / "train.csv.gz")
        order = torch.randperm(len(train), generator=generator(0, "reviews")).numpy()
        test = _frame(folder / "test_10k.csv.gz").sort_values(["id", "label"])
        return cls(train.iloc[order], test.iloc[: recipe["test_reviews"]], recipe)

    @property
    def held(self) -> pd.DataFrame:
        """Train reviews on which settings are chosen; no model is trained on them."""
        return self.train.iloc[: self.recipe["held_reviews"]]

    @property
    def labelled(self) -> pd.DataFrame:
        """Train reviews from which the labelled ones are drawn, without near duplicates."""
        held = self.recipe["held_reviews"]
        return self.train.iloc[held:][~self.near_duplicates[held:]]

    @cached_property
    def near_duplicates(self) -> NDArray[np.bool_]:
        """Which train reviews are near duplicates of a scored review, in the order of ``train``."""
        return near_duplicates(list(self.train["text"]), list(self.scored["text"]))

    @property
    def language(self) -> list[str]:
        """The reviews on which the language model is trained."""
        return list(self.labelled["text"].iloc[: self.recipe["language_reviews"]])

    @property
    def language_valid(self) -> list[str]:
        """The reviews on which the language model is validated."""
        return list(self.held["text"].iloc[: self.recipe["language_valid"]])

    def draw(self, labels: int, seed: int) -> pd.DataFrame:
        """Return as many labelled reviews of each class, drawn with a seed."""
        parts: list[pd.DataFrame] = []
        for name in CLASSES:
            rows = self.labelled[self.labelled["label"] == name]
            drawn = torch.randperm(len(rows), generator=generator(seed, f"labels {name}"))
            parts.append(rows.iloc[drawn[: labels // 2].numpy()])
        return pd.concat(parts)


def _frame(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path)
    frame["text"] = frame["text"].str.replace(r"\s*<br />\s*", " ", regex=True)
    frame["label"] = [CLASSES[number] for number in frame["label"]]
    return frame


def near_duplicates(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """Return which texts share at least half of the word 8-grams of the shorter text with another.

    Args:
        texts: The texts.
        others: The texts with which each is compared.
    """
    shingles = [_shingles(text) for text in others]
    sizes = np.array([len(each) for each in shingles])
    keys = np.concatenate(shingles)
    owners = np.repeat(np.arange(len(others)), sizes)
    order = np.argsort(keys, kind="stable")
    keys, owners = keys[order], owners[order]
    found = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        own = _shingles(text)
        first, last = (np.searchsorted(keys, own, side) for side in ("left", "right"))
        hits = [owners[a:b] for a, b in zip(first, last, strict=True) if a < b]
        if hits:
            which, shared = np.unique(np.concatenate(hits), return_counts=True)
            found[row] = bool((shared >= _SHARE * np.minimum(sizes[which], len(own))).any())
    return found


def _shingles(text: str) -> NDArray[np.uint64]:
    """Return the distinct hashes of eight words in a row; of a shorter text that of all words."""
    words = re.findall(r"\w+", text.lower())
    hashes = np.array([zlib.crc32(word.encode()) for word in words] or [0], np.uint64)
    length = min(_SHINGLE, len(hashes))
    total = np.zeros(len(hashes) - length + 1, np.uint64)
    for at in range(length):
        total = total * np.uint64(1_000_003) + hashes[at : len(hashes) - length + 1 + at]
    return np.unique(total)


# ---------------------------------------------------------------- WikiText-2 as ordinary text


def articles(path: Path) -> list[str]:
    """Return the articles of a part of WikiText-2, written as ordinary text."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        text = file.read()
    found = re.split(r"\n(?= = [^=\n]+ = \n)", text)
    plain = ["\n".join(_plain(line) for line in each.split("\n") if line.strip()) for each in found]
    return [each for each in plain if each]


_SPACES = (
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r" ([.,;:!?%)\]])"), r"\1"),
    (re.compile(r"([(\[$£]) "), r"\1"),
    (re.compile(r" '(s|t|re|ve|ll|d|m)\b"), r"'\1"),
    (re.compile(r'" ([^"]+?) "'), r'"\1"'),
)


def _plain(line: str) -> str:
    """Return a line without marks of headings and without spaces before punctuation."""
    line = line.strip(" =").replace("<unk>", _UNKNOWN)
    for pattern, replacement in _SPACES:
        line = pattern.sub(replacement, line)
    return line


# ---------------------------------------------------------------- synthetic reviews


def write_smoke_data(folder: Path) -> None:
    """Write small files in the format of IMDb: the words of a review tell its label."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = random.Random(0)
    kinds = (("dull", "bad", "poor", "awful"), ("great", "good", "fine", "lovely"))
    fillers = [f"word{number}" for number in range(40)]
    for name, n in (("train", 160), ("test_10k", 30)):
        with gzip.open(folder / f"{name}.csv.gz", "wt", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", "rating", "text"])
            for number in range(n):
                for label in (0, 1):
                    words = draws.choices(kinds[label], k=6) + draws.choices(fillers, k=12)
                    draws.shuffle(words)
                    text = f"{' '.join(words[:9])}.<br /><br />{' '.join(words[9:])}, really."
                    writer.writerow([number, label, 9 if label else 2, text])
