"""Attention learns to copy and to reverse strings that it has not seen: all of them are right.

Strings have 5 to 20 of 50 words. The budget is 4 epochs, 3,060 optimizer steps of 64 strings, four
minutes of one core; a picture of the attention runs along the diagonal, or against it.

Labels are smoothed, so that no word is ever learned to the end: without it one or two unseen
strings in a thousand had a wrong word (general attention, copy), after half as many steps again,
too.

Each string that is learned from has a choice of its own of 2 to 50 words, so that words come again
often. Where they seldom do, all kinds of attention learn to look for the word that was just
written and to take the next one, which is wrong in one unseen string of a hundred.
"""

from __future__ import annotations

import random

import pytest
import torch

from flambeau import Learner, TrainingOptions
from flambeau_text import TranslationData, TranslationOptions
from flambeau_text.translation.translate import translate

EPOCHS, PAIRS, HELD_OUT = 4, 40_000, 500
WORDS = [f"w{number}" for number in range(50)]


def strings(n: int, seed: int, fewest_words: int) -> list[list[str]]:
    draws = random.Random(seed)
    choices = (draws.sample(WORDS, draws.randint(fewest_words, 50)) for _ in range(n))
    return [draws.choices(choice, k=draws.randint(5, 20)) for choice in choices]


def pairs(rows: list[list[str]], task: str) -> list[tuple[str, str]]:
    turn = (lambda row: row[::-1]) if task == "reverse" else (lambda row: row)
    return [(" ".join(row), " ".join(turn(row))) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["copy", "reverse"])
@pytest.mark.parametrize("attention", ["additive", "concat", "dot", "general"])
def test_all_unseen_strings_are_right(attention: str, task: str) -> None:
    data = TranslationData.from_pairs(
        pairs(strings(PAIRS, 0, fewest_words=2), task),
        valid=pairs(strings(HELD_OUT, 1, fewest_words=50), task),
        options=TranslationOptions(tokenizer="word"),
    )
    size = {"embedding_dim": 64, "hidden_size": 128, "attention": attention, "dropout": 0.0}
    choices = {
        "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 64, "size": size,
        "lr": 5e-3, "label_smoothing": 0.1, "num_threads": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    run = Learner(
        data, "rnn", choices=choices, quiet=True,
        training=TrainingOptions(doctor=False, clip_norm=1.0),
    )  # fmt: skip
    run.fit(EPOCHS)
    found = translate(run.predictor(), data.raw("valid"))
    wrong = [
        (each.text, truth)
        for each, truth in zip(found, data.references("valid"), strict=True)
        if each.text != truth
    ]
    assert not wrong, (len(wrong), wrong[:2])
    places = []
    for each in found:
        assert each.attention is not None
        count = len(each.tokens) - 1
        looked = each.attention[:count].argmax(1)
        wanted = torch.arange(count)
        wanted = wanted.flip(0) if task == "reverse" else wanted
        # The neighbours' states hold a word as well: one place beside is on the line, too.
        places.append(((looked - wanted).abs() <= 1).float().mean())
    assert float(torch.stack(places).mean()) > 0.9
