"""``TagData``: sentences whose words have tags, with their split and options, immutable."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.data import Data, digest
from flambeau.data.facts import IGNORED, Facts
from flambeau.data.loader import Dataset, Loader, LoaderOptions
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.data.split_request import SplitRequest, consecutive_rows, parse_part_size
from flambeau.errors import ArgumentError, InputError, explains_arguments
from flambeau.wording import name_some
from flambeau_text.classification.dataset import TARGET, TextLoader
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.tagging.entities import are_entities
from flambeau_text.tagging.preprocess import TagPreprocessor, tag_inputs, words_of
from flambeau_text.tagging.task import WORDS
from flambeau_text.text_lines import read_lines
from flambeau_text.tokenization.fit import as_tokenizer, fit_tokenizer, tokenizer_name
from flambeau_text.tokenization.normalization import normalize
from flambeau_text.tokenization.option_checks import check_tokenization

PathLike: TypeAlias = str | os.PathLike[str]

_SENTENCE, _TAGS, _LOCATION = "sentence", "tags", "location"


@explains_arguments()
@dataclass(frozen=True)
class TagOptions:
    """How the words of sentences are tokenized, for the constructors of ``TagData``.

    Attributes:
        tokenizer: "bpe", "unigram", "word" (a token per word) or "character", fitted on train; None
            lets the plan choose. Or a fitted tokenizer.
        vocab_size: Size of the vocabulary; None lets the plan choose.
        normalization: Unicode form: "nfc", "nfkc" or "none"; None lets the plan choose.

    Raises:
        InputError: A value is invalid.
    """

    tokenizer: Any = None
    vocab_size: int | None = None
    normalization: str | None = None

    def __post_init__(self) -> None:
        check_tokenization(self.tokenizer, self.vocab_size, self.normalization, like=None)


class TagData(Data):
    """Sentences whose words have tags, split into parts.

    Build it with ``from_arrays`` or ``from_conll``.

    Args:
        samples: One row per sentence, with the columns "sentence" and "tags" (lists of equal
            length) and "location" (for messages).
        split: The rows of the train, validation, test and calibration parts.
        options: How words are tokenized.

    Example:
        >>> words, tags = [["Ann", "sings"], ["We", "sing"]] * 5, [["B-PER", "O"], ["O", "O"]] * 5
        >>> TagData.from_arrays(words, tags, valid=2).facts()["class_names"]
        ['B-PER', 'O']
    """

    domain = "flambeau_text.tagging.domain:DOMAIN"

    def __init__(self, samples: Samples, split: Split, options: TagOptions | None = None) -> None:
        self._samples = samples
        self._split = split
        self._options = options or TagOptions()
        self._classes = sorted({tag for tags in samples[_TAGS] for tag in tags})

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
        found = {
            part: [
                (each, own, f"{part} sentence {row}")
                for row, (each, own) in enumerate(_zipped(pair[0], pair[1], part))
            ]
            for part, pair in pairs.items()
        }
        return cls._of(found, request, options)

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
        ``-DOCSTART-`` or ``#`` and a space are skipped.

        Args:
            path: The file, also ``.gz``.
            valid: Share or number of sentences, drawn at random; or a file.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            options: Further options.

        Raises:
            InputError: A line has a word without a tag; the message names it.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed)
        files = {"train": path, **request.separate(str, os.PathLike)}
        found = {part: list(_read_conll(Path(file))) for part, file in files.items()}
        return cls._of(found, request, options)

    @classmethod
    def from_path(cls, path: Path, options: Mapping[str, Any]) -> TagData:
        """Read the file of ``flambeau fit PATH``; see `from_conll`."""
        given = {name: value for name, value in options.items() if value is not None}
        names = ("tokenizer", "vocab_size", "normalization")
        chosen = TagOptions(**{name: given.pop(name) for name in names if name in given})
        sizes = {name: given.pop(name) for name in ("valid", "test") if name in given}
        request = SplitRequest(
            **{name: _size_or_file(value) for name, value in sizes.items()},
            seed=given.pop("seed", 0),
            scored=given.pop("evaluate", None),
        )
        for name in ("classes", "task"):  # those of the model, which its export has
            given.pop(name, None)
        if given:
            raise ArgumentError(f"Unknown option {next(iter(given))!r} for tags.")
        files = {"train": path, **request.separate(Path)}
        found = {part: list(_read_conll(Path(file))) for part, file in files.items()}
        return cls._of(found, request, chosen)

    @classmethod
    def _of(
        cls,
        parts: Mapping[str, Sequence[tuple[Any, Any, str]]],
        request: SplitRequest,
        options: TagOptions | None,
    ) -> TagData:
        sentences: list[list[str]] = []
        tags: list[list[str]] = []
        locations: list[str] = []
        for rows in parts.values():
            for item, given, where in rows:
                words, own = words_of(item, where), [str(tag) for tag in given]
                if len(words) != len(own):
                    raise InputError(
                        f"{where} has {len(words)} words, but {len(own)} tags. Give one per word."
                    )
                sentences.append(words)
                tags.append(own)
                locations.append(where)
        if not sentences:
            raise InputError("There are no sentences. Give at least two.")
        rows = consecutive_rows({part: len(each) for part, each in parts.items()})
        split = request.resolve(len(sentences), given=rows if len(parts) > 1 else None)
        samples = Samples({_SENTENCE: sentences, _TAGS: tags, _LOCATION: locations})
        found = cls(samples, split, options)
        known = found._tags_of("train")
        unseen = [name for name in found._classes if name not in known]
        if unseen and request.for_training:
            raise InputError(
                f"The tags {name_some(unseen)} are in no train sentence, so that they cannot be "
                "learned. Move some of their sentences to train."
            )
        if len(found._classes) < 2 and request.for_training:
            raise InputError(f"All words have the tag {found._classes[0]!r}. Give at least two.")
        return found

    # ------------------------------------------------------------ content

    @property
    def samples(self) -> Samples:
        """The sentences, one row per sentence."""
        return self._samples

    @property
    def split(self) -> Split:
        return self._split

    @property
    def choices(self) -> Mapping[str, Any]:
        given = self._options.tokenizer
        name = given if given is None or isinstance(given, str) else tokenizer_name(given)
        found = {
            "tokenizer": name,
            "vocab_size": self._options.vocab_size,
            "normalization": self._options.normalization,
        }
        return {key: value for key, value in found.items() if value is not None}

    def _tags_of(self, part: str) -> Counter[str]:
        tags = self._samples[_TAGS]
        return Counter(tag for row in self._split.part(part).tolist() for tag in tags[row])

    def facts(self) -> Facts:
        counts = self._tags_of("train")
        names = sorted(counts)
        return cast(
            "Facts",
            {
                **{f"n_{part}": len(self._split.part(part)) for part in PARTS},
                "split": self._split.describe(),
                "in_memory": True,
                "class_names": names,
                "class_counts": [counts[name] for name in names],
                "words": sum(counts.values()),
                "distinct_words": len({word for words in self.raw("train") for word in words}),
                "entities": are_entities(names),
            },
        )

    def report(self) -> str:
        """Return the numbers of sentences, words and tags as text."""
        lines = [repr(self), f"split: {self._split.describe()}", *self._split.notes]
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
        return {**super().fingerprint(), "sentences": f"digest {digest(content)}"}

    def subset(self, rows: Mapping[str, Sequence[int]]) -> TagData:
        return self.with_split(Split.from_parts(rows))

    def with_split(self, split: Split) -> TagData:
        return TagData(self._samples, split, self._options)

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[str]:
        """Return the lines of a file: sentences, whose words are divided at white space."""
        return read_lines(path)

    # ------------------------------------------------------------ from the plan

    def preprocessor(self, values: Mapping[str, Any]) -> TagPreprocessor:
        given, form = self._options.tokenizer, values["normalization"]
        if given is not None and not isinstance(given, str):
            return TagPreprocessor(tokenizer=as_tokenizer(given, False, form))
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
        tokens, starts = preprocessor.align(self.raw(part))
        number = {name: index for index, name in enumerate(self._classes)}
        tags = [[number[tag] for tag in self._samples[_TAGS][row]] for row in rows.tolist()]
        ids = torch.from_numpy(np.array(rows))
        return EncodedTags(RaggedRows(tokens), RaggedRows(starts), RaggedRows(tags), ids)

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        tokenizer = cast("TagPreprocessor", preprocessor).tokenizer
        return {
            "vocab_size": len(tokenizer),
            "n_outputs": len(self._classes),
            "config": values["model_config"],
        }

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {"classes": self._classes}


class EncodedTags:
    """The sentences of a part as token ids, with the tags of their words.

    Args:
        tokens: Token ids of each sentence.
        starts: Position of each word's first token.
        tags: Class number of each word.
        ids: Sample ids, int64 ``(n,)``.
    """

    def __init__(
        self, tokens: RaggedRows, starts: RaggedRows, tags: RaggedRows, ids: Tensor
    ) -> None:
        self.texts: tuple[RaggedRows, ...] = (tokens,)
        self.lengths = tokens.lengths
        self.starts, self.tags, self.ids = starts, tags, ids

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Tensor, epoch: int = 0, widths: Sequence[int] | None = None) -> Batch:
        """Return the sentences at ``rows`` as a padded batch, whose weight is its words."""
        inputs, mask = tag_inputs(self.texts[0], self.starts, rows, widths)
        tags, _ = self.tags.padded(rows)
        return Batch(
            inputs,
            {TARGET: tags.masked_fill(~mask, IGNORED)},
            {WORDS: mask},
            weight=float(self.tags.lengths[rows].sum()),
            indices=self.ids[rows],
            epoch=epoch,
        )

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a loader of batches of similar lengths."""
        return TextLoader(self, options)


def _zipped(sentences: Any, tags: Any, part: str) -> Iterable[tuple[Any, Any]]:
    if len(sentences) != len(tags):
        raise InputError(
            f"There are {len(sentences):,} {part} sentences, but {len(tags):,} lists of tags. Give "
            "one list per sentence."
        )
    return zip(sentences, tags, strict=True)


def _read_conll(path: Path) -> Iterable[tuple[list[str], list[str], str]]:
    words: list[str] = []
    tags: list[str] = []
    first = 1
    for number, line in enumerate([*read_lines(path), ""], start=1):
        if line.startswith(("-DOCSTART-", "# ")):
            continue
        # Only spaces and tabs, as other white space may be part of a word.
        fields = [field for field in line.replace("\t", " ").split(" ") if field]
        if fields and len(fields) < 2:
            raise InputError(
                f"{path}, line {number}: {line!r:.40} has a word without a tag. Write the word, a "
                "space and its tag; blank lines end sentences."
            )
        if fields:
            first = number if not words else first
            words.append(fields[0])
            tags.append(fields[-1])
        elif words:
            yield words, tags, f"{path}, line {first}"
            words, tags = [], []


def _size_or_file(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_part_size(value)
    except ValueError:
        return Path(value)
