"""``TextData``: texts, their labels and all data choices, in one immutable object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.data import digest, select_values
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.reading import Reading, readings_as_facts
from flambeau.data.samples import Samples
from flambeau.data.split import Rows, Split
from flambeau.data.targets import Targets
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau.task.named_losses import loss_arguments
from flambeau_text.classification.assemble import (
    GROUP,
    SECOND_TEXT,
    TEXT,
    WEIGHT,
    text_numbers,
    texts_of,
)
from flambeau_text.classification.columns import as_names
from flambeau_text.classification.constructors import TextDataConstructors
from flambeau_text.classification.dataset import EncodedTexts
from flambeau_text.classification.facts import TextFacts, text_facts
from flambeau_text.classification.options import TASKS, TextOptions
from flambeau_text.classification.paths import read_inputs
from flambeau_text.classification.preprocess import EncoderTextPreprocessor, TextPreprocessor
from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.backward import BackwardTokenizer, in_direction
from flambeau_text.tokenization.encoder_tokenizer import EncoderTokenizer
from flambeau_text.tokenization.fit import as_tokenizer, fit_tokenizer, tokenizer_name
from flambeau_text.tokenization.normalization import normalize

if TYPE_CHECKING:
    from flambeau.report.interpretation import Interpretation
    from flambeau.report.page import Section

_SHOWN = 200  # characters of a text in a preview

ANY_LANGUAGE = "xx"
"""spaCy's rules for words that work for many languages."""


class TextData(TextDataConstructors):
    """Texts with their labels, split into parts.

    Build it with ``from_csv``, ``from_df``, ``from_jsonl``, ``from_folder``, ``from_arrays`` or
    ``from_datasets``.

    Args:
        samples: One row per text, with the columns "text" and "location" (where the text was
            found, for messages), and "sample_weight" and "group" if they are given.
        targets: The targets, one per row.
        split: The rows of the train, validation, test and calibration parts.
        options: How texts and labels are read.
        notes: Notes for the report.
        readings: How columns and folders were interpreted; ``targets`` has the same for the labels.

    Example:
        >>> texts = ["a good film", "a bad film", "good fun", "bad sound"] * 10
        >>> data = TextData.from_arrays(texts, ["pos", "neg"] * 20, valid=2)
        >>> data.facts()["class_names"], data.facts()["words"]
        (['neg', 'pos'], 50)
    """

    domain = "flambeau_text.classification.domain:DOMAIN"

    def __init__(
        self,
        samples: Samples,
        targets: Targets,
        split: Split,
        options: TextOptions,
        notes: Sequence[str] = (),
        readings: Sequence[Reading] = (),
    ) -> None:
        self._samples = samples
        self._targets = targets
        self._split = split
        self._options = options
        self._notes = tuple(notes)
        self._readings = tuple(readings)
        self._facts: TextFacts | None = None

    def __repr__(self) -> str:
        parts = self._split.sizes()
        return f"TextData({len(self._samples):,} texts, {self._targets.kind}: {parts})"

    # ------------------------------------------------------------ content

    @property
    def samples(self) -> Samples:
        """The texts, one row per text."""
        return self._samples

    @property
    def targets(self) -> Targets:
        """The targets, one per row of ``samples``."""
        return self._targets

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> TextOptions:
        """How texts and labels are read, and how texts are tokenized."""
        return self._options

    @property
    def like(self) -> Path | None:
        return None if self._options.like is None else Path(self._options.like)

    @property
    def choices(self) -> Mapping[str, Any]:
        options = self._options
        names = ("task", "tokenizer", "vocab_size", "lowercase", "normalization", "word_rules")
        names += ("max_length", "truncation")
        given: dict[str, Any] = {name: getattr(options, name) for name in names}
        passed = options.given_tokenizer
        if passed is not None:
            extra = 0 if isinstance(passed, Tokenizer) else 4
            given |= {"tokenizer": tokenizer_name(passed), "vocab_size": len(passed) + extra}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How labels, folders and columns were interpreted, if more than one way is possible."""
        return (*self._targets.readings, *self._readings)

    @property
    def reading_options(self) -> Mapping[str, Any]:
        return self._options.reading_options

    def facts(self) -> TextFacts:
        if self._facts is None:
            found = text_facts(self._samples, self._targets, self._split, self._options)
            self._facts = cast("TextFacts", {**found, **readings_as_facts(self.readings)})
        return self._facts

    def report(self) -> str:
        """Return the numbers of texts and words, the classes, and what was left out, as text."""
        lines = [repr(self), f"labels: {self._targets.reason}"]
        lines += [f"split: {self._split.describe()}", *self._split.notes]
        train = set(self.raw("train"))
        for part in ("train", "valid", "test", "calibration"):
            rows = self._split.part(part)
            if not len(rows):
                continue
            texts = self.raw(part)
            words = sum(len(text.split()) for column in self._columns(part) for text in column)
            line = f"{part}: {len(texts):,} texts, {words:,} words"
            if counts := self._targets.select(rows).counts():
                line += "; " + ", ".join(f"{name} {n:,}" for name, n in counts.items())
            repeated = sum(text in train for text in texts) if part != "train" else 0
            lines.append(line + (f"; {repeated:,} are also in train" if repeated else ""))
        if problems := self._samples.problems:
            lines.append(f"left out: {len(problems):,} texts, for example {problems[0]}")
        return "\n".join([*lines, *map(str, self.readings), *self._notes])

    @property
    def n_texts(self) -> int:
        """1, or 2 for pairs of texts."""
        return 2 if SECOND_TEXT in self._samples.columns else 1

    def raw(self, part: str) -> list[Any]:
        return [texts_of(self._samples, row) for row in self._split.part(part).tolist()]

    def _columns(self, part: str) -> list[list[str]]:
        """Return the texts of a part; of pairs, the first and the second texts."""
        rows = self._split.part(part).tolist()
        names = (TEXT, SECOND_TEXT)[: self.n_texts]
        return [[self._samples[name][row] for row in rows] for name in names]

    def preview(self, row: int) -> Preview:
        found = texts_of(self._samples, row)
        text = found if isinstance(found, str) else " | ".join(found)
        return Preview(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of ``Data``, with digests of the texts and of their weights."""
        found = super().fingerprint()
        names = (TEXT, SECOND_TEXT)[: self.n_texts]
        texts = (text for name in names for text in self._samples[name])
        content = "\0".join(texts).encode("utf-8", "surrogatepass")
        found["texts"] = f"digest {digest(content)}"
        encoder = self._options.encoder
        if encoder is not None and encoder.sha256 is not None:
            found["language model"] = f"digest {encoder.sha256[:12]}"
        if WEIGHT in self._samples.columns:
            weights = torch.as_tensor(self._samples[WEIGHT]).double().numpy()
            found["sample weights"] = f"digest {digest(weights.tobytes())}"
        return found

    def groups(self, part: str) -> Sequence[str] | None:
        return self._groups_of(self._split.part(part))

    def _groups_of(self, rows: Rows) -> list[str] | None:
        if GROUP not in self._samples.columns:
            return None
        groups = self._samples[GROUP]
        return [groups[int(row)] for row in rows]

    def split_arguments(self, rows: Rows) -> Mapping[str, Any]:
        groups: Sequence[Any] | None = self._groups_of(rows)
        if groups is None:
            # Copies of a text stay in one fold.
            texts = [texts_of(self._samples, row) for row in rows.tolist()]
            groups = text_numbers(texts).tolist() if len(set(texts)) < len(texts) else None
        found: dict[str, Any] = {} if groups is None else {"groups": groups}
        if self._targets.kind == "classification":
            found["stratify"] = self._targets.select(rows).values.numpy()
        return found

    def subset(self, rows: Mapping[str, Sequence[int]]) -> TextData:
        """Return the data with only these rows in each part (row numbers of ``samples``)."""
        return self.with_split(Split.from_parts(rows))

    def with_split(self, split: Split) -> TextData:
        return TextData(
            self._samples, self._targets, split, self._options, self._notes, self._readings
        )

    def weights_of(self, rows: Rows) -> Tensor | None:
        """Return the weights of rows of ``samples``, ``(rows,)``; None if all are 1."""
        if WEIGHT not in self._samples.columns:
            return None
        weights = torch.as_tensor(self._samples[WEIGHT])[torch.from_numpy(np.array(rows))]
        return None if bool((weights == 1).all()) else weights

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[Any]:
        """Return the rows of a table, the lines of a text file, or the files of a folder."""
        return read_inputs(path)

    # ------------------------------------------------------------ report

    def baselines(self, found: Interpretation) -> Mapping[str, Mapping[str, float]] | None:
        """Return the scores of linear models of words; see `text_baselines`."""
        from flambeau_text.classification.report.baselines import text_baselines

        return text_baselines(self, found)

    def report_sections(self, found: Interpretation) -> Sequence[Section]:
        from flambeau_text.classification.report.sections import report_sections

        return report_sections(self, found)

    # ------------------------------------------------------------ from the plan

    def preprocessor(self, values: Mapping[str, Any]) -> TextPreprocessor:
        options, form = self._options, values["normalization"]
        given, lowercase = options.given_tokenizer, values["lowercase"]
        if given is not None and values["tokenizer"] == tokenizer_name(given):
            tokenizer = as_tokenizer(given, lowercase, form)
        else:
            texts = (text for column in self._columns("train") for text in column)
            lines = [normalize(line, form) for text in texts for line in lines_of(text)]
            tokenizer = fit_tokenizer(lines, values, options.language or ANY_LANGUAGE, lowercase)
            encoder = options.encoder
            # The network reads in the direction of its language model.
            backward = encoder is not None and encoder.tokenizer["kind"] == BackwardTokenizer.kind
            tokenizer = in_direction(tokenizer, backward)
        of_encoder = isinstance(tokenizer, EncoderTokenizer)
        kind = EncoderTextPreprocessor if of_encoder else TextPreprocessor
        return kind(
            tokenizer=tokenizer,
            fields=as_names(options.text),
            n_texts=self.n_texts,
            **select_values(values, "max_length", "truncation"),
        )

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(
                f"There are no {part} texts. Pass {part}= to the constructor of the data."
            )
        self._check_task(values)
        tokens, truncated = _checked(preprocessor).tokens(self._columns(part))
        ids = torch.from_numpy(np.array(rows))
        targets = self._targets.select(rows).values
        return EncodedTexts(tokens, targets, ids, self.weights_of(rows), truncated)

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        tokenizer = _checked(preprocessor).tokenizer
        arguments: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "n_outputs": len(self._targets.names),
            "config": values["model_config"],
            "n_texts": self.n_texts,
        }
        encoder = self._options.encoder
        if encoder is not None and values["architecture"] in encoder.architectures:
            # A part of the configuration leaves the encoder's own settings as they are.
            arguments["config"] = encoder.network_config(values["model_config"])
            if values.get("weights") is not None:
                arguments["weights"] = encoder.weights_for(tokenizer)
        elif isinstance(tokenizer, EncoderTokenizer) and self.n_texts > 1:
            raise InputError(
                "The tokenizer of a pretrained encoder writes both texts of a pair into one row, "
                f"which the architecture {values['architecture']!r} does not read. Use "
                '"hf_encoder", or data without language_model=….'
            )
        return arguments

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        self._check_task(values)
        names, train = list(self._targets.names), self._targets.select(self._split.train)
        chosen = select_values(values, "metrics")
        if self._targets.kind != "regression":
            return {
                "classes": names,
                **chosen,
                **loss_arguments(values, list(self._class_totals())),
            }
        arguments = {"names": names, **chosen, **loss_arguments(values)}
        if values.get("targets") != "standard":
            return arguments
        numbers = train.values.double().reshape(len(train.values), -1)
        # The deviation of a constant target is 0, which cannot be a divisor.
        std = [value or 1.0 for value in numbers.std(dim=0, correction=0).tolist()]
        return {**arguments, "mean": numbers.mean(dim=0).tolist(), "std": std}

    # ------------------------------------------------------------ internal

    def _class_totals(self) -> Sequence[float]:
        """Return the number of train texts of each class, or the sum of their weights."""
        facts = self.facts()
        return facts.get("class_weight_sums") or facts.get("class_counts") or ()

    def _check_task(self, values: Mapping[str, Any]) -> None:
        task = values.get("task", self._targets.kind)
        if task in TASKS and task != self._targets.kind:
            raise PlanError(
                f"The plan's task is {task!r}, but the labels were read as targets for "
                f"{self._targets.kind!r}: {self._targets.reason}. Pass the task when you create "
                f"the data: TextOptions(task={task!r})."
            )


def _checked(preprocessor: Preprocessor) -> TextPreprocessor:
    if not isinstance(preprocessor, TextPreprocessor):
        raise ArgumentError(
            f"TextData needs a TextPreprocessor, not a {type(preprocessor).__name__}."
        )
    return preprocessor
