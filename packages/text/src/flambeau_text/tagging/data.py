"""``TagData``: sentences whose words have tags, with their split and options, immutable."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch

from flambeau.data.data import Data, digest
from flambeau.data.facts import Facts
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.reading import Reading, readings_as_facts
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Rows, Split
from flambeau.data.split_request import SplitRequest, parse_part_size
from flambeau.data.tables import read_csv
from flambeau.errors import ArgumentError, InputError, did_you_mean, explains_arguments
from flambeau.wording import name_some
from flambeau_text.classification.assemble import text_numbers
from flambeau_text.classification.sources import read_json_lines
from flambeau_text.file_kinds import JSON_SUFFIXES, TABLE_SUFFIXES, suffix_of
from flambeau_text.part_column import read_frames, split_of_option
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.tagging.dataset import EncodedTags
from flambeau_text.tagging.entities import are_entities
from flambeau_text.tagging.options import TagOptions
from flambeau_text.tagging.preprocess import TagPreprocessor
from flambeau_text.tagging.sources import (
    TaggedSentences,
    read_pairs,
    read_tag_data_sets,
    read_tag_tables,
)
from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.fit import as_tokenizer, fit_tokenizer
from flambeau_text.tokenization.normalization import normalize

PathLike: TypeAlias = str | os.PathLike[str]

_SENTENCE, _TAGS, _LOCATION = "sentence", "tags", "location"
_FILES = (str, os.PathLike)


def _option_hint(name: str) -> str:
    known = name in TagOptions.__dataclass_fields__ and name != "encoder"
    return f"Set it with options=TagOptions({name}=…)." if known else ""


@explains_arguments(_option_hint)
class TagData(Data):
    """Sentences whose words have tags, split into parts.

    Build it with ``from_arrays``, ``from_conll``, ``from_csv``, ``from_df`` or ``from_datasets``.

    Args:
        samples: One row per sentence, with the columns "sentence" and "tags" (lists of equal
            length) and "location" (for messages).
        split: The rows of the train, validation, test and calibration parts.
        options: How words are tokenized.
        readings: How the parts were found.

    Example:
        >>> words, tags = [["Ann", "sings"], ["We", "sing"]], [["B-PER", "O"], ["O", "O"]]
        >>> TagData.from_arrays(words, tags, valid=(words, tags)).facts()["class_names"]
        ['B-PER', 'O']
    """

    domain = "flambeau_text.tagging.domain:DOMAIN"

    def __init__(
        self,
        samples: Samples,
        split: Split,
        options: TagOptions | None = None,
        readings: Sequence[Reading] = (),
    ) -> None:
        self._samples = samples
        self._readings = tuple(readings)
        self._split = split
        self._options = options or TagOptions()
        given = self._options.classes
        found = {tag for tags in samples[_TAGS] for tag in tags}
        self._classes = sorted(found) if given is None else list(given)

    def __repr__(self) -> str:
        return f"TagData({len(self._samples):,} sentences: {self._split.sizes()})"

    # ------------------------------------------------------------ constructors

    @classmethod
    def from_arrays(
        cls,
        sentences: Sequence[Any],
        tags: Sequence[Sequence[str]],
        *,
        valid: float | tuple[Any, Any] = 0.2,
        test: float | tuple[Any, Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: TagOptions | None = None,
    ) -> TagData:
        """Use sentences and their tags in memory.

        Args:
            sentences: Lists of words.
            tags: A list of tags per sentence, one per word.
            valid: Share or number of sentences, drawn at random; or ``(sentences, tags)``.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            options: Further options.

        Raises:
            InputError: A sentence has no words, or another number of tags; the message names it.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed)
        pairs = {"train": (sentences, tags), **request.separate(tuple, pair="(sentences, tags)")}
        found = {part: read_pairs(pair[0], pair[1], part) for part, pair in pairs.items()}
        return cls._of(TaggedSentences.joined(found), request, options or TagOptions())

    @classmethod
    def from_conll(
        cls,
        path: PathLike,
        *,
        valid: float | PathLike = 0.2,
        test: float | PathLike = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: TagOptions | None = None,
    ) -> TagData:
        """Read a UTF-8 file in the format of CoNLL: a word per line, its tag in the last column.

        Columns are separated by spaces or tabs, sentences by blank lines; lines that begin with
        ``-DOCSTART-`` are skipped, and those between sentences that begin with ``#`` and a space
        and end neither with the tag of an entity nor with that of another word. In a file with ten
        columns of which the first numbers the words (CoNLL-U), the words are in FORM and the tags
        in UPOS, if ``options`` name no other columns; lines of ranges of words and of empty nodes
        are skipped.

        Args:
            path: The file, also ``.gz``.
            valid: Share or number of sentences, drawn at random; or a file.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            options: Further options.

        Raises:
            InputError: A line has a word without a tag, or another number of columns than the
                first; the message names it.
            SplitError: The parts cannot be formed.
        """
        from flambeau_text.tagging.conll import read_conll

        request, chosen = SplitRequest(valid, test, split, seed), options or TagOptions()
        files = {"train": path, **request.separate(*_FILES)}
        found = read_conll({part: Path(file) for part, file in files.items()}, chosen)
        return cls._of(found, request, chosen)

    @classmethod
    def from_df(
        cls,
        frame: Any,
        words: str | None = None,
        tags: str | None = None,
        *,
        sentence: str | None = None,
        valid: Any = 0.2,
        test: Any = 0.0,
        split: str | Split | bool | None = None,
        seed: int = 0,
        options: TagOptions | None = None,
    ) -> TagData:
        """Read a data frame with a sentence, or a word, in each row.

        Args:
            frame: A data frame (pandas, polars, pyarrow, …), or a mapping of column names to
                sequences.
            words: Name of the column with the words: lists, or texts, which are divided at white
                space; or one word per row. None finds it.
            tags: Name of the column with the tags, in the same form. None finds it.
            sentence: For one word per row the column that tells sentences apart: a number or name
                in consecutive rows, or only in the first row of each sentence. None finds it.
            valid: Share or number of sentences, drawn at random; or a frame with them.
            test: The same for the test part.
            split: Name of the column with the part of each row, or a ``Split``. None uses the
                column "split" or "is_valid" if there is one; False uses no column.
            seed: Seed of the random split.
            options: Further options.

        Raises:
            InputError: A column does not exist or cannot be found, or a row has not one tag per
                word; the message names the row.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed)
        tables = read_frames(frame, request)
        named = {"words": words, "tags": tags, "sentence": sentence}
        chosen = (options or TagOptions()).updated(named)
        found, chosen = read_tag_tables(tables, request, chosen)
        return cls._of(found, request, chosen)

    @classmethod
    def from_csv(
        cls,
        path: PathLike,
        words: str | None = None,
        tags: str | None = None,
        *,
        sentence: str | None = None,
        valid: float | PathLike = 0.2,
        test: float | PathLike = 0.0,
        split: str | Split | bool | None = None,
        seed: int = 0,
        options: TagOptions | None = None,
    ) -> TagData:
        """Read a CSV or TSV file (also .gz); arguments as for `from_df`.

        A cell with a sentence is a text, which is divided at white space, or a list as JSON or
        Python write it: ``["New", "York"]``. ``valid`` and ``test`` may be files.
        """
        request = SplitRequest(valid, test, split, seed)
        files = {"train": path, **request.separate(*_FILES)}
        tables = {part: read_csv(Path(file)) for part, file in files.items()}
        named = {"words": words, "tags": tags, "sentence": sentence}
        chosen = (options or TagOptions()).updated(named)
        found, chosen = read_tag_tables(tables, request, chosen)
        return cls._of(found, request, chosen)

    @classmethod
    def from_datasets(
        cls,
        train: Any,
        *,
        valid: Any = 0.2,
        test: Any = 0.0,
        seed: int = 0,
        words: str | None = None,
        tags: str | None = None,
        options: TagOptions | None = None,
    ) -> TagData:
        """Use data sets of Hugging Face, or other sequences of mappings or pairs.

        Numbers of a ``ClassLabel`` feature become the names of its classes.

        Args:
            train: A data set, a list of mappings or of pairs ``(words, tags)``; or a mapping of
                data sets by part, such as a ``DatasetDict``.
            valid: A share or number, or a data set.
            test: The same for the test part.
            seed: Seed of the random split.
            words: Key of the words; None finds it.
            tags: Key of the tags; None finds it.
            options: Further options.

        Raises:
            ArgumentError: A data set cannot be read by index, or its samples are neither mappings
                nor pairs.
            InputError: A column cannot be found, or two parts number their tags differently.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, None, seed)
        chosen = (options or TagOptions()).updated({"words": words, "tags": tags})
        found, chosen = read_tag_data_sets(train, request, chosen)
        return cls._of(found, request, chosen)

    @classmethod
    def from_path(cls, path: Path, options: Mapping[str, Any]) -> TagData:
        """Read the file of ``flambeau fit PATH``: a table, JSON lines, or the format of CoNLL."""
        from flambeau_text.tagging.conll import read_conll

        # "task" is that of the model, which its export has.
        given = {
            name: each for name, each in options.items() if each is not None and name != "task"
        }
        tags = given.pop("target", None)
        sizes = {name: given.pop(name) for name in ("valid", "test") if name in given}
        request = SplitRequest(
            **{name: _size_or_file(value) for name, value in sizes.items()},
            split=split_of_option(given.pop("split", None)),
            seed=given.pop("seed", 0),
            scored=given.pop("evaluate", None),
        )
        names = [name for name, each in TagOptions.__dataclass_fields__.items() if each.init]
        if unknown := [name for name in given if name not in names]:
            raise ArgumentError(
                f"Unknown option {unknown[0]!r} for tags. {did_you_mean(unknown[0], names)}"
            )
        chosen = TagOptions(**given).updated({"tags": tags})
        files = {"train": path, **request.separate(Path)}
        if (suffix := suffix_of(path)) in (*TABLE_SUFFIXES, *JSON_SUFFIXES):
            read = read_csv if suffix in TABLE_SUFFIXES else read_json_lines
            tables = {part: read(file) for part, file in files.items()}
            found, chosen = read_tag_tables(tables, request, chosen)
            return cls._of(found, request, chosen)
        if request.column is not None:
            raise ArgumentError(f"{path} is no table, so --split {request.column} has no column.")
        return cls._of(read_conll(files, chosen), request, chosen)

    @classmethod
    def _of(cls, found: TaggedSentences, request: SplitRequest, options: TagOptions) -> TagData:
        from flambeau_text.tagging.draw import draw_parts

        if not len(found):
            raise InputError("There are no sentences. Give at least two.")
        found.check_classes(options.classes)
        split = draw_parts(found, request)
        samples = Samples({_SENTENCE: found.words, _TAGS: found.tags, _LOCATION: found.locations})
        data = cls(samples, split, options, found.readings)
        if not request.for_training or options.like is not None:
            return data
        known = data._tags_of("train")
        unseen = [name for name in data._classes if name not in known]
        if unseen:
            raise InputError(
                f"The tags {name_some(unseen)} are in no train sentence, so that they cannot be "
                "learned. Move some of their sentences to train."
            )
        if len(data._classes) < 2:
            raise InputError(f"All words have the tag {data._classes[0]!r}. Give at least two.")
        return data

    # ------------------------------------------------------------ content

    @property
    def samples(self) -> Samples:
        """The sentences, one row per sentence."""
        return self._samples

    @property
    def split(self) -> Split:
        return self._split

    @property
    def readings(self) -> tuple[Reading, ...]:
        return self._readings

    @property
    def choices(self) -> Mapping[str, Any]:
        options = self._options
        given, size = options.given_tokenizer, options.vocab_size
        found = {
            "tokenizer": options.tokenizer_name,
            "vocab_size": len(given) if isinstance(given, Tokenizer) else size,
            "normalization": options.normalization,
        }
        return {key: value for key, value in found.items() if value is not None}

    @property
    def like(self) -> Path | None:
        return None if self._options.like is None else Path(self._options.like)

    @property
    def options(self) -> TagOptions:
        """How sentences are read, and how their words are tokenized."""
        return self._options

    @property
    def reading_options(self) -> Mapping[str, Any]:
        return self._options.reading_options

    def _tags_of(self, part: str) -> Counter[str]:
        tags = self._samples[_TAGS]
        return Counter(tag for row in self._split.part(part).tolist() for tag in tags[row])

    def facts(self) -> Facts:
        counts, names = self._tags_of("train"), self._classes
        encoder = self._options.encoder
        return cast(
            "Facts",
            {
                **({} if encoder is None else {"language_model": encoder.as_facts()}),
                "given_tokenizer": self._options.tokenizer_name,
                **{f"n_{part}": len(self._split.part(part)) for part in PARTS},
                "split": self._split.describe(),
                "in_memory": True,
                "class_names": names,
                "class_counts": [counts[name] for name in names],
                "words": sum(counts.values()),
                "distinct_words": len({word for words in self.raw("train") for word in words}),
                "entities": are_entities(names),
                **readings_as_facts(self._readings),
            },
        )

    def split_arguments(self, rows: Rows) -> Mapping[str, Any]:
        # Copies of a sentence stay in one fold.
        sentences = [tuple(self._samples[_SENTENCE][row]) for row in rows.tolist()]
        if len(set(sentences)) == len(sentences):
            return {}
        return {"groups": text_numbers(sentences).tolist()}

    def report(self) -> str:
        """Return the numbers of sentences, words and tags as text."""
        lines = [repr(self), f"split: {self._split.describe()}", *self._split.notes]
        lines += map(str, self._readings)
        for part in PARTS:
            counts = self._tags_of(part)
            if counts:
                shown = ", ".join(f"{name} {n:,}" for name, n in counts.most_common(8))
                lines.append(f"{part}: {sum(counts.values()):,} words; {shown}")
        return "\n".join(lines)

    def raw(self, part: str) -> list[list[str]]:
        sentences = self._samples[_SENTENCE]
        return [sentences[row] for row in self._split.part(part).tolist()]

    def preview(self, row: int) -> Preview:
        pairs = zip(self._samples[_SENTENCE][row], self._samples[_TAGS][row], strict=True)
        return Preview(" ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in pairs))

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of ``Data``, with a digest of words and tags."""
        content = repr((self._samples[_SENTENCE], self._samples[_TAGS])).encode()
        found = {**super().fingerprint(), "sentences": f"digest {digest(content)}"}
        encoder = self._options.encoder
        if encoder is not None and encoder.sha256 is not None:
            found["language model"] = f"digest {encoder.sha256[:12]}"
        return found

    def subset(self, rows: Mapping[str, Sequence[int]]) -> TagData:
        return self.with_split(Split.from_parts(rows))

    def with_split(self, split: Split) -> TagData:
        return TagData(self._samples, split, self._options, self._readings)

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[Any]:
        """Return the sentences of a file; see `read_sentences`."""
        from flambeau_text.tagging.inputs import read_sentences

        return read_sentences(path)

    # ------------------------------------------------------------ from the plan

    def preprocessor(self, values: Mapping[str, Any]) -> TagPreprocessor:
        given, form = self._options.given_tokenizer, values["normalization"]
        if given is not None:
            facts = {} if self._options.encoder is None else self._options.encoder.as_facts()
            tokenizer = as_tokenizer(given, False, form)
            return TagPreprocessor(tokenizer=tokenizer, max_length=facts.get("limit"))
        # Each word is a text, so that no token spans two words.
        words = [normalize(word, form) for words in self.raw("train") for word in words]
        return TagPreprocessor(tokenizer=fit_tokenizer(words, values, None, False))

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(f"There are no {part} sentences. Pass {part}= to the constructor.")
        if not isinstance(preprocessor, TagPreprocessor):
            raise ArgumentError(
                f"TagData needs a TagPreprocessor, not a {type(preprocessor).__name__}."
            )
        locations = [self._samples[_LOCATION][row] for row in rows.tolist()]
        tokens, starts = preprocessor.align(self.raw(part), locations)
        number = {name: index for index, name in enumerate(self._classes)}
        tags = [[number[tag] for tag in self._samples[_TAGS][row]] for row in rows.tolist()]
        ids = torch.from_numpy(np.array(rows))
        return EncodedTags(RaggedRows(tokens), RaggedRows(starts), RaggedRows(tags), ids)

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        arguments: dict[str, Any] = {
            "vocab_size": len(cast("TagPreprocessor", preprocessor).tokenizer),
            "n_outputs": len(self._classes),
            "config": values["model_config"],
        }
        encoder = self._options.encoder
        if encoder is not None and values["architecture"] in encoder.architectures:
            # A part of the configuration leaves the encoder's own settings as they are.
            arguments["config"] = encoder.network_config(values["model_config"])
            if values.get("weights") is not None:
                arguments["weights"] = encoder.weights_for()
        return arguments

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {"classes": self._classes}


def _size_or_file(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_part_size(value)
    except ValueError:
        return Path(value)
