"""The domain record for DNA, with its model, rule, check, option and demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flambeau import Choice, Classification, Data, Domain, Rule, Split
from flambeau.doctor import Check, Finding, TrainingSetup
from flambeau.domain import DATA_COMMANDS, CliOption, Recognition
from flambeau.random import generator
from flambeau.task import SumMetric

from .data import DnaData, DnaFacts, DnaPreprocessor

COMPLEMENT = str.maketrans("ACGT", "TGCA")


class MotifNet(nn.Module):
    """Logits ``(batch, n_outputs)`` from convolutions that detect motifs at any position."""

    def __init__(self, n_outputs: int, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, width, 9, padding=4), nn.ReLU())
        self.head = nn.Linear(width, n_outputs)

    def forward(self, dna: Tensor) -> Tensor:
        one_hot = F.one_hot(dna.long(), 5)[..., :4].to(self.head.weight.dtype)  # N is all zeros
        return self.head(self.body(one_hot.transpose(1, 2)).amax(2))


class LowestRecall(SumMetric):
    """The recall of the class with the lowest recall, 0..1."""

    higher_is_better = True

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        of_class = targets[:, None] == torch.arange(outputs.shape[1], device=targets.device)
        correct = outputs.argmax(1) == targets
        self.add("samples", of_class.sum(0))
        self.add("correct", (of_class & correct[:, None]).sum(0))

    def compute(self) -> float:
        recall = self.sums["correct"] / self.sums["samples"]
        return float(recall.nan_to_num(1.0).min())


def choose_length(facts: DnaFacts, values: Mapping[str, Any]) -> Choice:
    """Choose ``length``: that of the longest train sequence, at most 512 bases."""
    longest = facts["longest"]
    reason = f"The longest of {facts['n_train']:,} train sequences has {longest} bases."
    return Choice("length", min(longest, 512), reason, {"longest": longest}, (64, 512))


def find_leaks(setup: TrainingSetup) -> Finding | None:
    """Valid sequences that train knows, perhaps read from the other strand."""
    data = setup.data
    assert isinstance(data, DnaData)
    strands = {part: [_one_strand(each) for each in data.raw(part)] for part in ("train", "valid")}
    known = set(strands["train"])
    leaked = [row for row, each in enumerate(strands["valid"]) if each in known]
    if not leaked:
        return None
    what = f"{len(leaked)} valid sequences are in train too, such as {data.raw('valid')[leaked[0]]}"
    fix = "Drop the copies, or split with Split.by_group so that copies stay together."
    return Finding("dna-leak", what, {"of": len(strands["valid"])}, fix, severity="error")


def _one_strand(sequence: str) -> str:
    return min(sequence, sequence.translate(COMPLEMENT)[::-1])


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise files with the suffix ``.dna``."""
    is_dna = path.suffix == ".dna" and path.is_file()
    return Recognition("sure", "Its name ends in .dna.") if is_dna else None


def demo(n_samples: int, seed: int) -> Data:
    """Create random sequences of 60 bases; promoters contain a TATA box, the background none."""
    draws = generator(seed, "dna demo")
    labels = ["promoter" if row % 2 else "background" for row in range(n_samples)]
    sequences = []
    for label in labels:
        bases = "".join("ACGT"[code] for code in torch.randint(4, (60,), generator=draws))
        position = int(torch.randint(52, (1,), generator=draws))
        box = "TATAAATA" if label == "promoter" else ""
        sequences.append(bases[:position] + box + bases[position + len(box) :])
    split = Split.random(n_samples, valid=0.2, test=0.2, seed=seed, stratify=labels)
    return DnaData(sequences, labels, split)


LENGTH = CliOption("length", int, "Bases per sequence; longer ones are cut.", "length")

DOMAIN = Domain(
    name="dna",
    data_classes={"DnaData": DnaData},
    models={"motif_net": MotifNet},
    tasks={"classification": Classification},
    metrics={"lowest_recall": LowestRecall},
    preprocessors={"dna_preprocessor": DnaPreprocessor},
    rules=(Rule("length", (), choose_length, determines="preprocessor"),),
    checks=(Check("dna-leak", "valid sequences that are in train", find_leaks),),
    recognise=recognise,
    cli_options=dict.fromkeys(DATA_COMMANDS, (LENGTH,)),
    demo=demo,
)
