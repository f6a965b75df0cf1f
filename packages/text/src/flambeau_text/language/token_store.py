"""Encode documents piece by piece: into memory, or into a memory-mapped file for large corpora."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flambeau.data.mapped_store import MappedStore
from flambeau.progress import progress
from flambeau_text.language.lazy_texts import PROGRESS_FROM
from flambeau_text.tokenization import Tokenizer

Int32Array: TypeAlias = npt.NDArray[np.int32]

_PIECE = 2_000_000
"""Characters that are encoded at once: a list of Python numbers needs 8 bytes per token."""

_FORMAT = 1
"""Increase it when the encoding changes, so that older files are not used."""

_ADVICE = (
    " Choose a folder on a larger disk with FLAMBEAU_CACHE, or keep the tokens in memory: choices="
    '{"cache": "memory"}.'
)


def encode_in_memory(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the tokens of all documents, int32 ``(n,)``, and the number of tokens of each, int64.

    Each line of a document ends with an end token; with a tokenizer that keeps line feeds, each
    document does.
    """
    # Arrays that grow in place: joining the pieces would need the memory of all tokens twice.
    tokens, lengths = array("i"), array("i")
    for found, counts in _pieces(texts, tokenizer):
        tokens.frombytes(found.tobytes())
        lengths.frombytes(counts.tobytes())
    return _as_tensor(tokens), _as_tensor(lengths).to(torch.int64)


def _as_tensor(numbers: array[int]) -> Tensor:
    """Return a tensor that shares the memory of the numbers."""
    return torch.frombuffer(numbers, dtype=torch.int32) if numbers else torch.empty(0).int()


def encode_on_disk(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the same from a memory-mapped file, which is written if it does not exist.

    Its key is a hash of the texts and of the tokenizer, so a later run does not encode them again.

    Raises:
        StorageError: There is too little disk space, or the folder cannot be written.
    """
    n = len(texts)

    def write(file: IO[bytes]) -> Mapping[str, Any]:
        lengths: list[Int32Array] = []
        for found, counts in _pieces(texts, tokenizer):
            file.write(found.data)
            lengths.append(counts)
        file.write(np.concatenate(lengths).data)
        return {"documents": n}

    store = MappedStore("tokens", advice=_ADVICE)
    # At most one token for each byte, one for each line end, and one length per document.
    most = sum(len(text.encode("utf-8", "surrogatepass")) + text.count("\n") + 2 for text in texts)
    found = store.load(_key(texts, tokenizer), (4,), write, most_rows=most)
    numbers = found.values.view(torch.int32).squeeze(1)
    return numbers[: len(numbers) - n], numbers[len(numbers) - n :].to(torch.int64)


def _pieces(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[tuple[Int32Array, Int32Array]]:
    """Yield tokens and lengths of consecutive documents."""
    total = sum(map(len, texts))
    title = "tokenizing" if total >= PROGRESS_FROM else None
    for piece in _progressing(_divided(texts), total, title):
        documents = [tokenizer.parts_of(text) for text in piece]
        encoded = iter(tokenizer.encode_batch(list(chain.from_iterable(documents))))
        ids = [[(*next(encoded), tokenizer.special.end) for _ in lines] for lines in documents]
        counts = [sum(map(len, lines)) for lines in ids]
        flat = chain.from_iterable(chain.from_iterable(ids))
        yield np.fromiter(flat, np.int32, sum(counts)), np.array(counts, np.int32)


def _progressing(
    pieces: Iterable[Sequence[str]], total: int, title: str | None
) -> Iterator[Sequence[str]]:
    if title is None:
        yield from pieces
        return
    with progress(total, title, "character") as done:
        for piece in pieces:
            yield piece
            done(sum(map(len, piece)))


def _divided(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    piece: list[str] = []
    size = 0
    for text in texts:
        piece.append(text)
        size += len(text)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _key(texts: Sequence[str], tokenizer: Tokenizer) -> str:
    found = blake2b(digest_size=16)
    found.update(json.dumps([_FORMAT, tokenizer.as_json()], sort_keys=True).encode())
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        found.update(len(content).to_bytes(8, "little"))
        found.update(content)
    return found.hexdigest()
