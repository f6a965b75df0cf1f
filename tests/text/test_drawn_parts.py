"""Drawn validation parts: no source in two parts, and a fair sample for the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flambeau import Learner
from flambeau.data.batch import Batch
from flambeau_text import TranslationData, TranslationOptions
from flambeau_text.translation.task import TranslationTask

CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 8,
    "model_config": {"embedding_dim": 8, "hidden_size": 8},
}  # fmt: skip
# As in Tatoeba: several translations of one source, which differs in form at times.
PAIRS = [(f"source {n // 4}", f"target {n}") for n in range(80)]
PAIRS[5] = ("Source  1", "target 5")
PAIRS[9] = ("SOURCE\n2", "target 9")


def sources(data: TranslationData, part: str) -> set[str]:
    return {" ".join(text.lower().split()) for text in data.raw(part)}


def test_no_source_is_in_two_drawn_parts(tmp_path: Path) -> None:
    lines = [f"{one.replace(chr(10), ' ')}\t{other}" for one, other in PAIRS]
    (tmp_path / "t.tsv").write_text("\n".join(["source\ttarget", *lines]), encoding="utf-8")
    frame = {"source": [one for one, _ in PAIRS], "target": [other for _, other in PAIRS]}
    for data in (
        TranslationData.from_pairs(PAIRS, valid=0.2, test=0.1),
        TranslationData.from_df(frame, valid=0.2, test=0.1),
        TranslationData.from_path(tmp_path / "t.tsv", {"valid": "0.2", "test": "8"}),
    ):
        found = [sources(data, part) for part in ("train", "valid", "test")]
        assert sum(map(len, found)) == 20
        assert len(data.split.valid) == 16
        assert "a group is all pairs of one source" in data.report()
    assert "by group" in Learner(data, choices=CHOICES, quiet=True).plan["split"].value


def test_single_pairs_are_drawn_where_it_is_asked_for_or_there_are_no_groups() -> None:
    options = TranslationOptions(group_sources=False)
    data = TranslationData.from_pairs(PAIRS, valid=0.2, options=options)
    assert sources(data, "train") & sources(data, "valid")
    distinct = [(f"a {n}", "b") for n in range(20)]
    one, other = (
        TranslationData.from_pairs(distinct, options=TranslationOptions(group_sources=group))
        for group in (True, False)
    )
    assert one.split.valid.tolist() == other.split.valid.tolist()
    assert "random" in one.split.method
    same = TranslationData.from_pairs([("a", "b")] * 20)
    assert "only 1 distinct groups" in same.report()


def test_a_test_part_is_drawn_by_source_beside_separate_valid_pairs() -> None:
    data = TranslationData.from_pairs(PAIRS, valid=PAIRS[:3], test=0.2)
    assert data.raw("valid") == [source for source, _ in PAIRS[:3]]
    assert not sources(data, "train") & sources(data, "test")


@pytest.mark.parametrize("max_decoded", [10, 64])
def test_the_search_during_a_run_takes_a_fair_sample(max_decoded: int) -> None:
    # A corpus sorted by length: its first sentences are the short ones.
    pairs = [("a " * (1 + n // 8) + f"x{n}", f"y{n}") for n in range(64)]
    data = TranslationData.from_pairs(pairs, valid=pairs)
    learner = Learner(data, choices=CHOICES, quiet=True)
    task = learner.task
    assert isinstance(task, TranslationTask)
    task.max_decoded = max_decoded
    searched: list[str] = []
    original = task._overlaps

    def record(forced: Any, free: Any) -> Any:
        searched.extend(task.target.decode(row[:-1]) for row in forced.targets.tolist())
        assert len(free) == len(forced.targets)
        return original(forced, free)

    task._overlaps = record  # type: ignore[method-assign]
    learner.fit(1)
    found = sorted(int(text[1:]) for text in searched)
    assert len(found) == len(set(found)) == max_decoded
    if max_decoded == 10:
        # Spread over the part: the mean of ten draws of 0 to 63 has a deviation of 5.4.
        assert abs(np.mean(found) - 31.5) < 3 * 5.4
        assert max(found) > 40


def searched(data: TranslationData, batch_size: int) -> list[int]:
    """Return the numbers of the sentences that a fit searches, ten of the validation part."""
    learner = Learner(data, choices={**CHOICES, "batch_size": batch_size}, quiet=True)
    task = learner.task
    assert isinstance(task, TranslationTask)
    task.max_decoded = 10
    found: list[str] = []
    original = task._overlaps

    def record(forced: Any, free: Any) -> Any:
        found.extend(task.target.decode(row[:-1]) for row in forced.targets.tolist())
        return original(forced, free)

    task._overlaps = record  # type: ignore[method-assign]
    learner.fit(1)
    return sorted(int(text[1:]) for text in found)


SORTED = [("a " * (1 + n // 8) + f"x{n}", f"y{n}") for n in range(64)]


def test_the_sample_depends_neither_on_the_source_nor_on_the_batches(tmp_path: Path) -> None:
    rows = [{"en": one, "de": other} for one, other in SORTED]
    for part in ("train", "valid"):
        for at, name in enumerate(("src", "tgt")):
            text = "\n".join(pair[at] for pair in SORTED)
            (tmp_path / f"{part}.{name}").write_text(text, encoding="utf-8")
    wanted = searched(TranslationData.from_pairs(SORTED, valid=SORTED), 8)
    assert len(set(wanted)) == 10
    assert abs(np.mean(wanted) - 31.5) < 3 * 5.4
    for data, batch_size in (
        (TranslationData.from_pairs(SORTED, valid=SORTED), 5),
        (TranslationData.from_pairs(rows, valid=rows, source="en", target="de"), 16),
        (TranslationData.from_path(tmp_path, {}), 8),
    ):
        assert searched(data, batch_size) == wanted


def test_a_part_drawn_from_a_sorted_corpus_has_all_lengths() -> None:
    data = TranslationData.from_pairs(SORTED, valid=16, test=16)
    for part in ("valid", "test"):
        lengths = [len(text.split()) for text in data.raw(part)]
        assert min(lengths) <= 4  # of 2 to 9 words
        assert max(lengths) >= 7
        assert np.mean(lengths) == pytest.approx(
            5.5, abs=3 * 2.3 / 4
        )  # 3 deviations of a mean of 16


def test_without_ranks_the_first_sentences_are_searched() -> None:
    data = TranslationData.from_pairs(PAIRS[:20])
    task = Learner(data, choices=CHOICES, quiet=True).task
    assert isinstance(task, TranslationTask)
    task.max_decoded = 5
    batch = Batch({"source": torch.ones(4, 2)})
    assert list(task._searched_rows(batch, 0)) == [0, 1, 2, 3]
    assert list(task._searched_rows(batch, 4)) == [0]
    assert list(task._searched_rows(batch, 8)) == []
