"""``FastTokenizer``: what all tokenizers in the format ``tokenizer.json`` share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from flambeau.errors import FlambeauError, InputError
from flambeau_text.optional_libraries import transformers
from flambeau_text.tokenization.tokenizer import Tokenizer


class FastTokenizer(Tokenizer):
    """The tokens of a pretrained model, stored in the format ``tokenizer.json``.

    Line feeds are part of the tokens. Special tokens that are written in a text are encoded as
    text.

    Args:
        model: The content of ``tokenizer.json``.
        tokens: Special tokens by name; None for one that is missing.

    Attributes:
        tokens: The argument ``tokens``.

    Raises:
        InputError: The vocabulary lacks a special token.
    """

    normalization = "none"
    keeps_lines = True

    def __init__(self, model: Mapping[str, Any], tokens: Mapping[str, str | None]) -> None:
        self._model = {**model, "truncation": None, "padding": None}
        self.tokens = dict(tokens)

    def id_of(self, name: str) -> int | None:
        """Return the id of a special token by its name; None without one.

        Raises:
            InputError: The vocabulary lacks the token.
        """
        token = self.tokens.get(name)
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

    def _built(self) -> Any:
        import tokenizers

        return tokenizers.Tokenizer.from_str(json.dumps(self._model))

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [each.ids for each in found]

    def normalize(self, text: str) -> str:
        """Return the text unchanged: the tokenizer reads it as it is."""
        return text

    def tokenize(self, text: str) -> list[str]:
        return self.ids_to_tokens(self.encode(text))

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._tokenizer.id_to_token(int(each)) for each in ids]

    def join(self, tokens: Sequence[str]) -> str:
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids, without special tokens."""
        return self._tokenizer.decode([int(each) for each in ids], skip_special_tokens=True)

    def arguments(self) -> Mapping[str, Any]:
        return {"model": self._model, "tokens": self.tokens}


def read_folder(
    folder: str | os.PathLike[str], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str | None], str | None]:
    """Return the model, the special tokens and the chat template of the tokenizer in a folder.

    The file ``tokenizer.json`` is used as it is, so that ids are those with which the model was
    trained; a folder without it is converted by transformers.

    Args:
        folder: A folder with ``tokenizer.json`` and ``tokenizer_config.json``.
        names: Names of the special tokens, such as "eos".

    Raises:
        InputError: A file is missing or damaged, or the tokenizer has no fast form.
        MissingDependencyError: ``tokenizer.json`` is missing, and transformers not installed.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"There is no folder {path}. Give the folder of a pretrained model.")
    try:
        if (path / "tokenizer.json").is_file():
            return _read_files(path, names)
        found = transformers().AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FlambeauError):
            raise
        raise InputError(
            f"The tokenizer in {path} cannot be read: {error!s:.200}. The folder needs "
            "tokenizer.json and tokenizer_config.json, as save_pretrained writes them."
        ) from error
    return read_object(found, names)


def read_object(
    tokenizer: Any, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str | None], str | None]:
    """Return model, special tokens and chat template of a tokenizer of transformers.

    Raises:
        InputError: It has no fast form.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise InputError(
            f"{type(tokenizer).__name__} has no fast form (tokenizer.json), which an export "
            "needs. Convert it with transformers.PreTrainedTokenizerFast."
        )
    tokens = {name: getattr(tokenizer, f"{name}_token", None) for name in names}
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default")
    return json.loads(inner.to_str()), tokens, template


def _read_files(
    folder: Path, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str | None], str | None]:
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= json.loads((folder / name).read_text(encoding="utf-8"))
    tokens = {name: _text_of(settings.get(f"{name}_token")) for name in names}
    if (folder / "chat_template.jinja").is_file():
        return model, tokens, (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several templates by name
        template = {each["name"]: each["template"] for each in template}.get("default")
    return model, tokens, template


def _text_of(token: Any) -> str | None:
    """Return a special token, which is a text, or a mapping with its content."""
    return token.get("content") if isinstance(token, dict) else token
