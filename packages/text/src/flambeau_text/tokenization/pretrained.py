"""``HFTokenizer``: the tokenizer of a pretrained model, with its special tokens and template."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from flambeau.errors import InputError, check_path
from flambeau_text.optional_libraries import transformers
from flambeau_text.tokenization.fast_tokenizer import FastTokenizer, read_folder, read_object
from flambeau_text.tokenization.tokenizer import SpecialIds

_NAMES = ("bos", "eos", "pad")


class HFTokenizer(FastTokenizer):
    """The tokens of a pretrained model, stored in the format ``tokenizer.json``.

    Line feeds are part of the tokens. A document begins with the model's begin token, or with its
    end token if it has no other, and ends with the end token. Special tokens that are written in a
    text are encoded as text.

    Args:
        model: The content of ``tokenizer.json``.
        tokens: The special tokens by name: "bos", "eos" and "pad"; None for one that is missing.
        chat_template: The Jinja template of conversations, None without one.
        stop: Ids with which the model ends its output, in addition to "eos".

    Raises:
        InputError: The tokenizer has no end token, or lacks a special token.
    """

    kind: ClassVar[str] = "huggingface"

    def __init__(
        self,
        model: Mapping[str, Any],
        tokens: Mapping[str, str | None],
        chat_template: str | None = None,
        stop: Sequence[int] = (),
    ) -> None:
        super().__init__(model, {name: tokens.get(name) for name in _NAMES})
        self.chat_template = chat_template
        begin, end, padding = map(self.id_of, _NAMES)
        if end is None:
            raise InputError(
                "The tokenizer has no end token (eos_token), so a model could not learn to stop. "
                "Set one in tokenizer_config.json."
            )
        self.stop = tuple(sorted({end, *stop}))
        padding = end if padding is None else padding
        never = tuple(each for each in (padding, begin) if each not in (None, *self.stop))
        self.special = SpecialIds(end if begin is None else begin, end, padding, never)

    @classmethod
    def from_folder(
        cls, folder: str | os.PathLike[str], *, stop: Sequence[int] = ()
    ) -> HFTokenizer:
        """Read the tokenizer in the folder of a model; see `read_folder`.

        Args:
            folder: A folder with ``tokenizer.json`` and ``tokenizer_config.json``.
            stop: As for the class.

        Raises:
            InputError: A file is missing or damaged, or the tokenizer has no fast form.
            MissingDependencyError: ``tokenizer.json`` is missing, and transformers not installed.
        """
        check_path(folder, "folder")
        return cls(*read_folder(folder, _NAMES), stop=stop)

    @classmethod
    def of(cls, tokenizer: Any, *, stop: Sequence[int] = ()) -> HFTokenizer:
        """Return a tokenizer of transformers in the form that an export stores.

        Raises:
            InputError: It has no fast form.
        """
        return cls(*read_object(tokenizer, _NAMES), stop=stop)

    @cached_property
    def _of_templates(self) -> Any:
        return self._built()

    def encode_rendered(self, text: str) -> list[int]:
        """Return the ids of the output of a chat template, in which special tokens are tokens."""
        return self._of_templates.encode(text, add_special_tokens=False).ids

    @cached_property
    def special_texts(self) -> tuple[str, ...]:
        """The texts of all special tokens."""
        added = self._model.get("added_tokens") or ()
        return tuple(each["content"] for each in added if each["special"])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids before the first stop token, without special tokens."""
        found: list[int] = []
        begun = False
        for each in ids:
            # A document may begin with the token that also ends it.
            if each in self.stop and (begun or each != self.special.start):
                break
            begun = True
            found.append(int(each))
        return self._tokenizer.decode(found, skip_special_tokens=True)

    def with_tokens(self, tokens: Sequence[str]) -> HFTokenizer:
        """Return the tokenizer with further tokens, which are never divided.

        Raises:
            InputError: A token is empty, or already one of the tokenizer.
        """
        inner = self._built()
        for token in tokens:
            if not token or inner.token_to_id(token) is not None:
                raise InputError(
                    f"The token {token!r} is empty or already a token of the model. Omit it."
                )
            inner.add_tokens([token])
        return HFTokenizer(json.loads(inner.to_str()), self.tokens, self.chat_template, self.stop)

    def as_transformers(self) -> Any:
        """Return the tokenizer as a ``PreTrainedTokenizerFast`` of transformers."""
        named = {f"{name}_token": token for name, token in self.tokens.items() if token is not None}
        found = transformers().PreTrainedTokenizerFast(tokenizer_object=self._built(), **named)
        found.chat_template = self.chat_template
        return found

    def arguments(self) -> Mapping[str, Any]:
        own = {"chat_template": self.chat_template, "stop": list(self.stop)}
        return {**super().arguments(), **own}
