"""Check that a folder has all files of a pretrained model."""

from __future__ import annotations

import json
import os
from pathlib import Path

from flambeau.errors import InputError

_INDEX = "model.safetensors.index.json"


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder of a pretrained model after checking that its files are there.

    Raises:
        InputError: It does not exist, or a file is missing.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(
            f"There is no folder {path}. CausalLM.from_hf reads a local folder, as save_pretrained "
            "writes it; it downloads nothing."
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
