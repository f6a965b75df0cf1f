"""``CustomTokenizer``: a tokenizer of a user, registered by name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from flambeau.errors import (
    ArgumentError,
    ArtefactError,
    FlambeauWarning,
    InputError,
    did_you_mean,
    explains_arguments,
)
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, Tokenizer, content_ids
from flambeau_text.vocab import SPECIALS

_REGISTERED: dict[str, type[Any]] = {}
_FIRST = len(SPECIALS)
RESERVED = frozenset(
    {
        *("auto", "bpe", "character", "custom", "huggingface", "sentencepiece", "subword"),
        *("unigram", "word"),
    }
)
"""Names of flambeau's own tokenizers, which no user-defined one can have."""
_CHECKED_TEXTS = 64


@runtime_checkable
class TokenizerLike(Protocol):
    """What a user-defined tokenizer must have; ids are 0 to ``len(tokenizer) - 1``.

    None of them is a special token: flambeau adds begin, end, padding and unknown. Two more methods
    are optional. ``arguments()`` returns the JSON values from which the class is built again
    (default: none). ``normalize(text)`` returns the text that ``decode(encode(text))`` gives, in
    which references are compared (default: the text).
    """

    def __len__(self) -> int:
        """Return the number of ids."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        ...


def register_tokenizer(name: str, kind: type[Any]) -> None:
    """Register the class of a user-defined tokenizer, so that exports can name it.

    A program that loads such an export registers the class first.

    Args:
        name: The name in exports; do not change it afterwards.
        kind: A class with the methods of `TokenizerLike`.

    Raises:
        ArgumentError: The class lacks a method, or the name belongs to another one.
    """
    if not isinstance(cast("object", name), str) or not name.strip() or name in RESERVED:
        raise ArgumentError(
            f"The name {name!r} cannot be given to a tokenizer: it must be a text, and none of "
            f"flambeau's own names ({', '.join(sorted(RESERVED))}). Choose another name."
        )
    missing = [each for each in ("__len__", "encode", "decode") if not hasattr(kind, each)]
    if not isinstance(kind, type) or missing:
        raise ArgumentError(
            f"{kind!r:.60} cannot be registered as a tokenizer: give a class with encode(text), "
            f"decode(ids) and __len__(); missing: {', '.join(missing) or 'it is no class'}."
        )
    before = _REGISTERED.get(name)
    # A cell of a notebook that runs again defines the class anew.
    if before is not None and before.__qualname__ != kind.__qualname__:
        raise ArgumentError(
            f"The tokenizer name {name!r} belongs to {before.__qualname__}. Choose another name."
        )
    _REGISTERED[name] = kind


def registered_name(tokenizer: TokenizerLike) -> str:
    """Return the name under which a tokenizer's class is registered.

    Raises:
        ArgumentError: It is not registered.
    """
    for name, kind in _REGISTERED.items():
        if type(tokenizer) is kind:
            return name
    kind_name = type(tokenizer).__name__
    raise ArgumentError(
        f"The tokenizer {kind_name} is not registered, so that no export could name it. Call "
        f"flambeau_text.tokenization.register_tokenizer({kind_name.lower()!r}, {kind_name})."
    )


@explains_arguments()
class CustomTokenizer(Tokenizer):
    """A user-defined tokenizer with flambeau's special tokens before its own ids.

    Args:
        name: The name under which its class is registered.
        arguments: The arguments of its class.
        lowercase: Whether texts are lower-cased first.
        normalization: The Unicode form of texts: "nfc", "nfkc" or "none".

    Raises:
        ArtefactError: No class is registered under the name, or it cannot be built.
    """

    kind: ClassVar[str] = "custom"

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        lowercase: bool = False,
        normalization: str = "nfc",
    ) -> None:
        if name not in _REGISTERED:
            raise ArtefactError(
                f"The user-defined tokenizer {name!r} is not registered. "
                f"{did_you_mean(name, _REGISTERED)} Import the code that calls "
                f"register_tokenizer({name!r}, …) before loading; the command line cannot load "
                "such an export."
            )
        self.name, self.lowercase, self.normalization = name, lowercase, normalization
        self._arguments = dict(arguments or {})
        try:
            self.inner: TokenizerLike = _REGISTERED[name](**self._arguments)
        except Exception as error:
            raise ArtefactError(
                f"{_REGISTERED[name].__name__}(**{self._arguments!r:.80}) failed: {error!s:.80}. "
                "Its method arguments() must return the JSON values of its constructor."
            ) from error

    @classmethod
    def of(
        cls, inner: TokenizerLike, *, lowercase: bool = False, normalization: str = "nfc"
    ) -> CustomTokenizer:
        """Return the tokenizer of a registered object, rebuilt as an export would rebuild it.

        Raises:
            ArgumentError: Its class is not registered, its arguments are no JSON values, or the
                rebuilt one has another number of ids.
            ArtefactError: It cannot be rebuilt.
        """
        name = registered_name(inner)
        given = getattr(inner, "arguments", dict)()
        try:
            arguments = json.loads(json.dumps(given))
        except TypeError as error:
            raise ArgumentError(
                f"The arguments() of the tokenizer {name!r} are not JSON values: {error}."
            ) from error
        found = cls(name, arguments, lowercase, normalization)
        if len(found.inner) != len(inner):
            raise ArgumentError(
                f"The tokenizer {name!r} has {len(inner)} ids, but {len(found.inner)} when it is "
                "built again from its arguments(). Return all arguments of its constructor there."
            )
        return found

    def __len__(self) -> int:
        return _FIRST + len(self.inner)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encoded(self.normalize(text)) for text in texts]

    def _encoded(self, text: str) -> list[int]:
        found = cast("object", self.inner.encode(text))
        size = len(self.inner)
        try:
            ids = [index(each) for each in cast("Iterable[Any]", found)]
        except TypeError:
            raise InputError(
                f"The tokenizer {self.name!r} returned {found!r:.60} for {text!r:.60}; encode must "
                "return a sequence of whole numbers."
            ) from None
        for each in ids:
            if not 0 <= each < size:
                raise InputError(
                    f"The tokenizer {self.name!r} returned the id {each} for {text!r:.60}; its ids "
                    f"must be 0 to {size - 1}."
                )
        return [_FIRST + each for each in ids]

    def check(self, texts: Sequence[str]) -> None:
        """Check on some texts that ``decode`` is the inverse of ``encode``.

        Args:
            texts: Train texts of one side, of which 64 are used.

        Raises:
            InputError: ``encode`` returns other ids for the same text; or most texts differ from
                ``decode(encode(text))``, so that no translation could match its reference.

        Warns:
            FlambeauWarning: [tokenizer-changes-text] Some texts differ.
        """
        some = texts[:: max(1, len(texts) // _CHECKED_TEXTS)][:_CHECKED_TEXTS]
        changed: list[tuple[str, str]] = []
        for text in map(self.normalize, some):
            ids = self._encoded(text)
            if ids != self._encoded(text):
                raise InputError(
                    f"The tokenizer {self.name!r} returned different ids for {text!r:.60} in two "
                    "calls. encode must not be random: evaluation and prediction use it too."
                )
            decoded = cast("object", self.decode(ids))
            if not isinstance(decoded, str):
                raise InputError(
                    f"The tokenizer {self.name!r} decoded {text!r:.60} to {decoded!r:.60}; decode "
                    "must return a text."
                )
            if decoded != text:
                changed.append((text, decoded))
        if not changed:
            return
        text, decoded = changed[0]
        what = (
            f"decode(encode(text)) of the tokenizer {self.name!r} differs from the text for "
            f"{len(changed)} of {len(some)} train texts: {text!r:.60} became {decoded!r:.60}."
        )
        if 2 * len(changed) > len(some):
            raise InputError(
                f"{what} No translation could match such a reference. Let decode restore the text "
                "(without special tokens), or define normalize(text), which returns the text that "
                "decode(encode(text)) gives."
            )
        warnings.warn(f"[tokenizer-changes-text] {what}", FlambeauWarning, stacklevel=3)

    def normalize(self, text: str) -> str:
        found = super().normalize(text)
        found = found.lower() if self.lowercase else found
        own = getattr(self.inner, "normalize", None)
        return found if own is None else own(found)

    def tokenize(self, text: str) -> list[str]:
        return self.ids_to_tokens(self.encode(text))

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        return [
            SPECIALS[each] if each < _FIRST else self.inner.decode([each - _FIRST]) for each in ids
        ]

    def join(self, tokens: Sequence[str]) -> str:
        return "".join(tokens)

    def decode(self, ids: Iterable[int]) -> str:
        # Of several ids the object's own decode restores the spaces, not join.
        known = [each - _FIRST for each in content_ids(ids) if each != UNKNOWN_ID]
        return self.inner.decode(known)

    def arguments(self) -> Mapping[str, Any]:
        return {
            "name": self.name,
            "arguments": self._arguments,
            "lowercase": self.lowercase,
            "normalization": self.normalization,
        }
