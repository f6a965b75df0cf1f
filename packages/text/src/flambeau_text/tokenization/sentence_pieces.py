"""``SentencePieceTokenizer``: the subwords of a trained SentencePiece model."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from flambeau.errors import InputError, MissingDependencyError, check_path
from flambeau_text.tokenization.normalization import normalize
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, Tokenizer, content_ids
from flambeau_text.vocab import SPECIALS

_FIRST = len(SPECIALS)
_SPACE_MARK = "\u2581"  # in pieces, before a word


class SentencePieceTokenizer(Tokenizer):
    """The pieces of a SentencePiece model, with its normalisation; needs ``sentencepiece``.

    The model's own begin and end tokens are not used; its unknown piece is the unknown token.

    Args:
        model: The content of the ``.model`` file in base64, as exports store it.

    Raises:
        MissingDependencyError: ``sentencepiece`` is not installed.

    Source:
        Kudo and Richardson, "SentencePiece" (arXiv 1808.06226).
    """

    kind: ClassVar[str] = "sentencepiece"

    def __init__(self, model: str) -> None:
        self._model = model
        self._unknown = int(self._pieces.unk_id())

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SentencePieceTokenizer:
        """Read a ``.model`` file.

        Raises:
            InputError: The file is missing, or not a SentencePiece model.
            MissingDependencyError: ``sentencepiece`` is not installed.
        """
        check_path(path, "path")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"Cannot read the SentencePiece model {path}: {error}.") from error
        try:
            return cls(base64.b64encode(content).decode())
        except RuntimeError as error:
            raise InputError(f"{path} is not a SentencePiece model: {error!s:.80}.") from error

    @cached_property
    def _pieces(self) -> Any:
        try:
            import sentencepiece  # pyright: ignore[reportMissingImports] optional
        except ImportError as error:
            raise MissingDependencyError(
                "SentencePiece models need the package sentencepiece: "
                'pip install "flambeau-text[sentencepiece]".'
            ) from error
        return sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(self._model))

    def __len__(self) -> int:
        return _FIRST + int(self._pieces.get_piece_size())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        rows = self._pieces.encode([normalize(text, self.normalization) for text in texts])
        return [[UNKNOWN_ID if i == self._unknown else _FIRST + i for i in row] for row in rows]

    def normalize(self, text: str) -> str:
        return _with_spaces(self._pieces.normalize(super().normalize(text)))

    def tokenize(self, text: str) -> list[str]:
        return list(self._pieces.encode(normalize(text, self.normalization), out_type=str))

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        find = self._pieces.id_to_piece
        return [SPECIALS[i] if i < _FIRST else find(i - _FIRST) for i in ids]

    def join(self, tokens: Sequence[str]) -> str:
        return _with_spaces("".join(tokens))

    def decode(self, ids: Iterable[int]) -> str:
        # Of ids, so that pieces of bytes become letters.
        pieces = [self._unknown if i == UNKNOWN_ID else i - _FIRST for i in content_ids(ids)]
        return str(self._pieces.decode(pieces))

    def arguments(self) -> Mapping[str, Any]:
        return {"model": self._model}


def _with_spaces(text: str) -> str:
    return text.replace(_SPACE_MARK, " ").strip()
