"""Local folders with pretrained models of Hugging Face: what they have, and what they lack."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flambeau.artefact.export_format import RECORD_FILE, export_folder
from flambeau.errors import InputError
from flambeau_text.optional_libraries import transformers
from flambeau_text.tokenization.fast_tokenizer import FastTokenizer

_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder of a pretrained model after checking that its files are there.

    Raises:
        InputError: It does not exist, or a file is missing.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(
            f"There is no folder {path}. A pretrained model is read from a local folder, as "
            "save_pretrained writes it; nothing is downloaded."
        )
    missing = [name for name in ("config.json",) if not (path / name).is_file()]
    if (path / _INDEX).is_file():
        try:
            files = set(json.loads((path / _INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{path / _INDEX} is damaged: {error!s:.100}.") from error
        missing += [name for name in sorted(files) if not (path / name).is_file()]
    elif not (path / "model.safetensors").is_file():
        missing.append("model.safetensors")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        missing.append("tokenizer.json")
    if missing:
        hint = ""
        if list(path.glob("*.bin")):
            hint = (
                " Its weights are a pickle, which could run code: load it with transformers and "
                "write it with save_pretrained(folder, safe_serialization=True)."
            )
        raise InputError(
            f"{path} lacks {', '.join(missing)}. A pretrained model has config.json, its weights "
            f"in safetensors, and a tokenizer.{hint}"
        )
    return path


def read_config(path: Path) -> Any:
    """Return the settings in a folder, as an object of transformers.

    Raises:
        InputError: They cannot be read, or transformers has no such model.
        MissingDependencyError: transformers is not installed.
    """
    try:
        return transformers().AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path / 'config.json'} cannot be read, or names no model that transformers has: "
            f"{error!s:.200}"
        ) from error


def is_model_folder(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder has files of a model of transformers, and is no export."""
    path = Path(folder)
    if not path.is_dir() or (export_folder(path) / RECORD_FILE).is_file():
        return False
    return any((path / name).is_file() for name in _FILES) or any(path.glob("*.safetensors"))


_OF_TOKENIZER = (
    *("like", "tokenizer", "vocab_size", "language", "lowercase", "normalization", "word_rules"),
)


def refuse_tokenization(options: Any, folder: str | os.PathLike[str]) -> None:
    """Raise an InputError if options of tokenization are set beside a pretrained model.

    Args:
        options: The options of the data.
        folder: The folder of the model.
    """
    for name in _OF_TOKENIZER:
        value = getattr(options, name, None)
        if value is not None and not isinstance(value, FastTokenizer):
            raise InputError(
                f"{name}={value!r:.60} cannot be combined with language_model={os.fspath(folder)!r}"
                f": a pretrained model reads the tokens with which it was trained. Omit {name}."
            )
