"""Data class and preprocessor: from text files to batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flambeau.data import Batch, Data, Facts, MemoryDataset, Preprocessor, Split
from flambeau.data.data import select_values
from flambeau.data.split_request import SplitRequest
from flambeau.errors import InputError

CODES = {base: code for code, base in enumerate("ACGTN")}  # N: any base; also the padding


def read(path: Path) -> list[tuple[str, str]]:
    """Return label and sequence of each line; the label is empty if a line has none."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        label, _, sequence = line.strip().rpartition("\t")
        if set(sequence) - CODES.keys():
            raise InputError(
                f"{path}, line {number}: {sequence!r:.40} has other letters than ACGTN."
            )
        pairs += [(label, sequence)] if sequence else []
    return pairs


class DnaPreprocessor(Preprocessor):
    """Encodes bases as integers 0 to 4; sequences are cut or padded to ``length``."""

    def __init__(self, length: int) -> None:
        self.length = length

    @property
    def builder(self) -> str:
        return "dna_preprocessor"

    def encode(self, items: Sequence[str]) -> Batch:
        codes = torch.full((len(items), self.length), CODES["N"], dtype=torch.uint8)
        for row, sequence in enumerate(items):
            if set(sequence) - CODES.keys():
                raise InputError(f"Item {row}: {sequence!r:.40} has other letters than ACGTN.")
            numbers = [CODES[base] for base in sequence[: self.length]]
            codes[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.uint8)
        return Batch({"dna": codes}, weight=float(len(items)), indices=torch.arange(len(items)))

    def arguments(self) -> Mapping[str, Any]:
        return {"length": self.length}


class DnaFacts(Facts):
    """Core's facts and the length of the longest train sequence."""

    longest: int


@dataclass(frozen=True)
class DnaData(Data):
    """Labelled sequences in memory; ``classes`` default to the labels of the train rows."""

    sequences: list[str]
    labels: list[str]
    rows: Split
    classes: list[str] | None = None
    length: int | None = None

    domain = "flambeau_toy.domain:DOMAIN"

    @classmethod
    def from_path(cls, path: str | Path, options: Mapping[str, Any] | None = None) -> DnaData:
        """Read the file of ``flambeau fit PATH``; ``options`` come from the command line."""
        pairs, options = read(Path(path)), options or {}
        labels, sequences = [label for label, _ in pairs], [sequence for _, sequence in pairs]
        request = SplitRequest(valid=0.2, test=0.1, scored=options.get("evaluate"))
        split = request.resolve(len(pairs), classes=np.array(labels))
        return cls(sequences, labels, split, options.get("classes"), options.get("length"))

    @classmethod
    def inputs_from_path(cls, path: Path) -> list[str]:
        """Read the inputs of ``flambeau predict MODEL PATH``: the sequences of the file."""
        return [sequence for _, sequence in read(path)]

    @property
    def split(self) -> Split:
        return self.rows

    @property
    def choices(self) -> Mapping[str, Any]:
        return {} if self.length is None else {"length": self.length}

    @property
    def names(self) -> list[str]:
        """The class names: those that were given, else the labels of the train rows, sorted."""
        return self.classes or sorted({self.labels[row] for row in self.rows.train.tolist()})

    def facts(self) -> DnaFacts:
        counts = Counter(self.labels[row] for row in self.rows.train.tolist())
        return {
            "n_train": len(self.rows.train),
            "n_valid": len(self.rows.valid),
            "n_test": len(self.rows.test),
            "split": self.rows.describe(),
            "in_memory": True,
            "target_dtype": "str",
            "target_shape": [],
            "target_distinct": len(counts),
            "class_names": self.names,
            "class_counts": [counts[name] for name in self.names],
            "longest": max(len(self.sequences[row]) for row in self.rows.train),
        }

    def preprocessor(self, values: Mapping[str, Any]) -> DnaPreprocessor:
        return DnaPreprocessor(values["length"])

    def dataset(self, part: str, preprocessor: Any, values: Mapping[str, Any]) -> MemoryDataset:
        rows = self.rows.part(part).tolist()
        batch = preprocessor.encode(self.raw(part))
        labels = torch.tensor([self.names.index(self.labels[row]) for row in rows])
        return MemoryDataset(batch.inputs, {"label": labels}, torch.tensor(rows))

    def model_arguments(self, preprocessor: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"n_outputs": len(self.names)}

    def task_arguments(self, preprocessor: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"classes": self.names, **select_values(values, "metrics")}

    def raw(self, part: str) -> list[str]:
        return [self.sequences[row] for row in self.rows.part(part)]

    def subset(self, rows: Mapping[str, Sequence[int]]) -> DnaData:
        return replace(self, rows=Split.from_parts(rows))
