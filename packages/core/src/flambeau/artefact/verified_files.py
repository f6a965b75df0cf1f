"""safetensors and JSON files of checkpoints and exports, verified when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from flambeau.errors import ArtefactError


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``tensors`` to a safetensors file; tensors that share memory are copied.

    Args:
        path: The file.
        tensors: The tensors by name.
        metadata: Texts by name, which are stored in the file's header.
    """
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    seen: set[int] = set()
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        # safetensors refuses two views of one storage (slices of a flat buffer): copy the second.
        separate[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    path.touch()
    mode = path.stat().st_mode  # as for any new file; safetensors makes it unreadable for others
    save_file(separate, path, dict(metadata) if metadata else None)
    path.chmod(mode)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file.

    Raises:
        ArtefactError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            return cast("dict[str, str]", file.metadata() or {})  # pyright: ignore[reportUnknownMemberType]
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"Cannot read {path}: {error}.{_read_hint(path)}") from error


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU, after verifying its checksum.

    Raises:
        ArtefactError: The file is missing, or differs from the one that was saved.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    if path.exists() and not path.is_file():
        raise ArtefactError(f"Cannot read {path}: it is not a regular file.")
    try:
        found = file_sha256(path)
        if found != sha256:
            raise ArtefactError(
                f"{path} is damaged or was replaced: its SHA-256 is {found[:12]}…, but "
                f"{sha256[:12]}… was recorded when it was saved. Use another copy of the folder, "
                "or an older one."
            )
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"Cannot read {path}: {error}.{_read_hint(path)}") from error


def _read_hint(path: Path) -> str:
    """Return advice for a missing file, and for a file of ``torch.save``, which could run code."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError:
        return " Check the path."
    if not start.startswith((b"PK", b"\x80")):
        return ""
    return (
        " It is a pickle or a file of torch.save, not safetensors; flambeau loads no pickles. If "
        "you trust the file: model.load_state_dict(torch.load(path, weights_only=True))."
    )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ArtefactError: The file is missing or does not contain a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtefactError(f"Cannot read {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is damaged or not a JSON file: {error}.") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path} must contain a JSON object, not a {type(value).__name__}.")
    return cast("dict[str, Any]", value)


def check_schema(path: Path, content: Mapping[str, Any], supported: int) -> None:
    """Raise an ArtefactError unless ``content`` has the schema version ``supported``."""
    version = content.get("schema_version")
    if version == supported and type(version) is int:
        return
    newer = type(version) is int and version > supported
    raise ArtefactError(
        f"{path} has schema_version {version!r}, but this version of flambeau reads {supported}. "
        + (
            "Update flambeau to read it."
            if newer
            else "The file is damaged, or flambeau did not write it."
        )
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
