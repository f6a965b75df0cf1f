"""Record how the installed packages tokenize, and warn if they change after training."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flambeau.errors import FlambeauWarning
from flambeau_text.tokenization.custom import CustomTokenizer
from flambeau_text.tokenization.tokenizer import Tokenizer

_PACKAGES = ("spacy", "tokenizers", "sentencepiece")
_SENTENCE = (
    "Dr. O'Neil can't read “naïve”, well-known e-mails (3.5 km); z. B. l'été: «c'est ça»… "
    "今日はいい天気です! Ça va? _x_ #1 $5"
)


def record_of(tokenizers: Sequence[Tokenizer]) -> dict[str, Any]:
    """Return the versions of the packages, and a digest of the tokens of a test sentence."""
    tokens = [_tokens(tokenizer) for tokenizer in tokenizers]
    digest = hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]
    return {"versions": {name: _version(name) for name in _PACKAGES}, "digest": digest}


def _tokens(tokenizer: Tokenizer) -> list[str]:
    try:
        return tokenizer.tokenize(_SENTENCE)
    except Exception:
        # A user-defined one may refuse characters that its texts do not have.
        if isinstance(tokenizer, CustomTokenizer):
            return []
        raise


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def warn_if_changed(saved: Mapping[str, Any], tokenizers: Sequence[Tokenizer]) -> None:
    """Warn if the test sentence has other tokens now than when the model was trained."""
    now = record_of(tokenizers)
    if now["digest"] == saved["digest"]:
        return
    changed = ", ".join(
        f"{name} {saved['versions'].get(name)} (now {found})"
        for name, found in now["versions"].items()
        if found != saved["versions"].get(name)
    )
    warnings.warn(
        "The installed packages split a test sentence into other tokens than the packages with "
        f"which the model was trained ({changed or 'their versions are equal'}; digest "
        f"{saved['digest']}, now {now['digest']}), so the model's predictions may be worse. "
        "Install the versions with which it was trained.",
        FlambeauWarning,
        stacklevel=2,
    )
