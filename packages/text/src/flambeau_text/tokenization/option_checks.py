"""Check the options of tokenization that language models and text classification share."""

from __future__ import annotations

from typing import Any

from flambeau.errors import InputError
from flambeau_text.tokenization.fit import TOKENIZERS, check_given
from flambeau_text.tokenization.normalization import FORMS


def check_tokenization(
    tokenizer: Any, vocab_size: Any, normalization: str | None, *, like: Any
) -> None:
    """Check the tokenizer, the size of the vocabulary and the Unicode form.

    Args:
        tokenizer: A name, None, or a tokenizer.
        vocab_size: A number of tokens, or None.
        normalization: A Unicode form, or None.
        like: An export, or None. With it the name may be that of the export's custom tokenizer.

    Raises:
        ArgumentError: The object is not a tokenizer.
        InputError: A value is invalid.
    """
    is_name = isinstance(tokenizer, str | None)
    if is_name and tokenizer not in (None, *TOKENIZERS) and like is None:
        raise InputError(
            f"tokenizer={tokenizer!r} is invalid. Use one of {', '.join(TOKENIZERS)}, or "
            "an object with encode, decode and __len__."
        )
    if not is_name:
        check_given(tokenizer)
    if normalization not in (None, *FORMS):
        raise InputError(
            f"normalization={normalization!r} is invalid. Use one of {', '.join(FORMS)}."
        )
    if vocab_size is not None and (type(vocab_size) is not int or vocab_size < 5):
        raise InputError(f"vocab_size must be a whole number of at least 5, not {vocab_size!r}.")
