"""``HFTokenizer``: the tokenizer of a pretrained model, with its special tokens and template."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from flambeau.errors import FlambeauError, InputError
from flambeau_text.optional_libraries import transformers
from flambeau_text.tokenization.tokenizer import SpecialIds, Tokenizer

_NAMES = ("bos", "eos", "pad")


class HFTokenizer(Tokenizer):
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
    normalization = "none"
    keeps_lines = True

    def __init__(
        self,
        model: Mapping[str, Any],
        tokens: Mapping[str, str | None],
        chat_template: str | None = None,
        stop: Sequence[int] = (),
    ) -> None:
        self._model = {**model, "truncation": None, "padding": None}
        self.tokens = {name: tokens.get(name) for name in _NAMES}
        self.chat_template = chat_template
        ids = {name: self._id_of(token) for name, token in self.tokens.items()}
        begin, end = ids["bos"], ids["eos"]
        if end is None:
            raise InputError(
                "The tokenizer has no end token (eos_token), so a model could not learn to stop. "
                "Set one in tokenizer_config.json."
            )
        self.stop = tuple(sorted({end, *stop}))
        padding = end if ids["pad"] is None else ids["pad"]
        never = tuple(each for each in (padding, begin) if each not in (None, *self.stop))
        self.special = SpecialIds(end if begin is None else begin, end, padding, never)

    @classmethod
    def from_folder(
        cls, folder: str | os.PathLike[str], *, stop: Sequence[int] = ()
    ) -> HFTokenizer:
        """Read the tokenizer in the folder of a model.

        The file ``tokenizer.json`` is used as it is, so that ids are those with which the model was
        trained; a folder without it is converted by transformers.

        Args:
            folder: A folder with ``tokenizer.json`` and ``tokenizer_config.json``.
            stop: As for the class.

        Raises:
            InputError: A file is missing or damaged, or the tokenizer has no fast form.
            MissingDependencyError: ``tokenizer.json`` is missing, and transformers not installed.
        """
        path = Path(folder)
        if not path.is_dir():
            raise InputError(f"There is no folder {path}. Give the folder of a pretrained model.")
        try:
            if (path / "tokenizer.json").is_file():
                return cls(*_read(path), stop=stop)
            found = transformers().AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, FlambeauError):
                raise
            raise InputError(
                f"The tokenizer in {path} cannot be read: {error!s:.200}. The folder needs "
                "tokenizer.json and tokenizer_config.json, as save_pretrained writes them."
            ) from error
        return cls.of(found, stop=stop)

    @classmethod
    def of(cls, tokenizer: Any, *, stop: Sequence[int] = ()) -> HFTokenizer:
        """Return a tokenizer of transformers in the form that an export stores.

        Raises:
            InputError: It has no fast form.
        """
        inner = getattr(tokenizer, "backend_tokenizer", None)
        if inner is None:
            raise InputError(
                f"{type(tokenizer).__name__} has no fast form (tokenizer.json), which an export "
                "needs. Convert it with transformers.PreTrainedTokenizerFast."
            )
        tokens = {name: getattr(tokenizer, f"{name}_token", None) for name in _NAMES}
        template = getattr(tokenizer, "chat_template", None)
        if isinstance(template, Mapping):
            template = template.get("default")
        return cls(json.loads(inner.to_str()), tokens, template, stop)

    def _id_of(self, token: str | None) -> int | None:
        if token is None:
            return None
        found: int | None = self._tokenizer.token_to_id(str(token))
        if found is None:
            raise InputError(
                f"The tokenizer has no token {token!r}, which its settings name as a special token."
            )
        return found

    @cached_property
    def _tokenizer(self) -> Any:
        found = self._built()
        # "</s>" written in a text is text, not the end token.
        found.encode_special_tokens = True
        return found

    @cached_property
    def _of_templates(self) -> Any:
        return self._built()

    def _built(self) -> Any:
        import tokenizers

        return tokenizers.Tokenizer.from_str(json.dumps(self._model))

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [each.ids for each in found]

    def encode_rendered(self, text: str) -> list[int]:
        """Return the ids of the output of a chat template, in which special tokens are tokens."""
        return self._of_templates.encode(text, add_special_tokens=False).ids

    @cached_property
    def special_texts(self) -> tuple[str, ...]:
        """The texts of all special tokens."""
        added = self._model.get("added_tokens") or ()
        return tuple(each["content"] for each in added if each["special"])

    def normalize(self, text: str) -> str:
        """Return the text unchanged: the tokenizer keeps it as it is."""
        return text

    def tokenize(self, text: str) -> list[str]:
        return self.ids_to_tokens(self.encode(text))

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._tokenizer.id_to_token(int(each)) for each in ids]

    def join(self, tokens: Sequence[str]) -> str:
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))

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
        return {
            "model": self._model,
            "tokens": self.tokens,
            "chat_template": self.chat_template,
            "stop": list(self.stop),
        }


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, str | None], str | None]:
    """Return the tokenizer's model, its special tokens and its chat template."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= json.loads((folder / name).read_text(encoding="utf-8"))
    tokens = {name: _text_of(settings.get(f"{name}_token")) for name in _NAMES}
    if (folder / "chat_template.jinja").is_file():
        return model, tokens, (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several templates by name
        template = {each["name"]: each["template"] for each in template}.get("default")
    return model, tokens, template


def _text_of(token: Any) -> str | None:
    """Return a special token, which is a text, or a mapping with its content."""
    return token.get("content") if isinstance(token, dict) else token
