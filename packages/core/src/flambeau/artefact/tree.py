"""A nested tree of plain values and tensors as JSON plus a flat table of tensors, and back.

What JSON knows stays as it is, so that a checkpoint can be read with any editor. The rest is an
object with one key that starts with "$":

    {"$tensor": name}      a tensor in the table       {"$tuple": [...]}            a tuple
    {"$array": name}       a numpy array               {"$dict": [[key, value]]}    int keys
    {"$float": "nan"}      "nan", "inf" or "-inf"

Tensors that are one in memory (tied weights, the same tensor in two places) have one name in the
table, and come back as one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.errors import ArtefactError, nearest

Key = tuple[int, int | torch.SymInt, torch.dtype, torch.Size, tuple[int, ...]]


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """The tree as ``(json_value, tensors)``; ``unpack`` gives it back.

    Args:
        tree: dict (str or int keys), list, tuple, str, int, float (nan and infinities too), bool,
            None, tensors and numpy arrays, nested in any way. A subclass of dict comes back as a
            dict, a numpy number as a Python number, a parameter as a tensor without gradient.

    Returns:
        A value for ``json.dumps(..., allow_nan=False)``, and contiguous CPU tensors named after
        their path ("optimizer/state/0/exp_avg"). They share memory with the tree's where those
        are contiguous on the CPU: write them before the next training step.

    Raises:
        ArtefactError: The tree holds anything else; the message names the path.

    >>> pack({"lr": 0.1, "betas": (0.9, 0.999)})
    ({'lr': 0.1, 'betas': {'$tuple': [0.9, 0.999]}}, {})
    """
    packer = _Packer()
    return packer.value(tree, ()), packer.tensors


def unpack(json_value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that ``pack`` was given; its tensors are those of ``tensors``, on the CPU.

    Raises:
        ArtefactError: A tag or a tensor is unknown or malformed; the message names the path.
    """
    return _unpack(json_value, tensors, ())


def tensor_key(tensor: Tensor) -> Key | None:
    """What two tensors share exactly when they are the same memory seen in the same way.

    None for an empty tensor: it has no memory, so nothing can be tied to it.
    """
    if tensor.numel() == 0:
        return None
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
    )


def storable(tensor: Tensor, where: str) -> Tensor:
    """The tensor as safetensors takes it: detached, contiguous, on the CPU.

    Raises:
        ArtefactError: It has no plain memory of a known dtype; the message names ``where``.
    """
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise ArtefactError(
            f"{where} is a tensor without plain memory (layout {tensor.layout}, device "
            f"{tensor.device}), which cannot be saved. Convert it first: tensor.to_dense(), or "
            "dequantize(), or give the module real memory."
        )
    if tensor.dtype not in _DTYPES:
        raise ArtefactError(
            f"{where} is a tensor of dtype {tensor.dtype}, which the safetensors format does not "
            "have. Convert it, for example with torch.view_as_real(tensor)."
        )
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.cpu().contiguous()


_DTYPES = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.uint32, torch.uint64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64,
}  # fmt: skip
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_TAGS = ("$array", "$dict", "$float", "$tensor", "$tuple")

Path = tuple[str | int, ...]


def show_path(path: Path) -> str:
    """The place in a tree as one would write it: ``tree['optimizer'][0]``."""
    return "tree" + "".join(f"[{part!r}]" for part in path)


class _Packer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Key, str] = {}
        self._open: set[int] = set()
        # An address is only unique while its memory is held.
        self._held: list[Tensor] = []

    def value(self, given: Any, path: Path) -> Any:
        value: object = given
        if isinstance(value, np.generic):
            value = cast("np.generic[Any]", value).item()
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, Tensor):
            return {"$tensor": self._tensor(value, path)}
        if isinstance(value, np.ndarray):
            return {"$array": self._array(cast("np.ndarray[Any, Any]", value), path)}
        if isinstance(value, dict) or type(value) in (list, tuple, torch.Size):
            return self._container(value, path)
        raise ArtefactError(
            f"{show_path(path)} is {_short(value)} of type {type(value).__qualname__}, which "
            "cannot be saved without running code when it is loaded. Save plain values instead: "
            "dict, list, tuple, str, int, float, bool, None, tensor, numpy array."
        )

    def _container(self, container: Any, path: Path) -> Any:
        value: object = container
        identity = id(container)
        if identity in self._open:
            raise ArtefactError(
                f"{show_path(path)} contains itself, so the tree has no end. "
                "Remove the reference that leads back."
            )
        self._open.add(identity)
        if isinstance(value, dict):
            packed = self._dict(cast("dict[Any, Any]", value), path)
        else:
            parts = cast("list[Any]", value)
            packed = [self.value(part, (*path, i)) for i, part in enumerate(parts)]
            if not isinstance(value, list):
                packed = {"$tuple": packed}
        self._open.remove(identity)
        return packed

    def _dict(self, value: dict[Any, Any], path: Path) -> Any:
        for name in value:
            if type(name) not in (str, int):
                raise ArtefactError(
                    f"{show_path(path)} has the key {_short(name)} of type "
                    f"{type(name).__qualname__}. Only str and int keys can be saved: rename it."
                )
        pairs = [(name, self.value(part, (*path, name))) for name, part in value.items()]
        if all(isinstance(name, str) and not name.startswith("$") for name, _ in pairs):
            return dict(pairs)
        return {"$dict": [[name, part] for name, part in pairs]}

    def _array(self, array: np.ndarray[Any, Any], path: Path) -> str:
        try:
            # A copy: torch refuses negative strides and warns where the memory is read-only.
            tensor = torch.from_numpy(np.array(array, order="C"))  # pyright: ignore[reportUnknownMemberType]
        except TypeError:
            raise ArtefactError(
                f"{show_path(path)} is a numpy array of dtype {array.dtype}, which no tensor has. "
                "Save it as a list, or convert it to numbers."
            ) from None
        return self._tensor(tensor, path)

    def _tensor(self, tensor: Tensor, path: Path) -> str:
        plain = storable(tensor, show_path(path))
        key = tensor_key(tensor)
        if key is not None and key in self._names:
            return self._names[key]
        stem = "/".join(map(str, path)) or "tree"
        name, copies = stem, 1
        while name in self.tensors:  # keys "0" and 0, or a "/" inside a key
            copies += 1
            name = f"{stem}#{copies}"
        self.tensors[name] = plain
        if key is not None:
            self._names[key] = name
            self._held.append(tensor)
        return name


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _unpack(value: Any, tensors: Mapping[str, Tensor], path: Path) -> Any:
    if isinstance(value, list):
        parts = cast("list[Any]", value)
        return [_unpack(part, tensors, (*path, i)) for i, part in enumerate(parts)]
    if not isinstance(value, dict):
        return value
    entries = cast("dict[str, Any]", value)
    tag = next((name for name in entries if name.startswith("$")), None)
    if tag is None:
        return {name: _unpack(part, tensors, (*path, name)) for name, part in entries.items()}
    if len(entries) != 1 or tag not in _TAGS:
        raise ArtefactError(
            f"{show_path(path)} has the unknown mark {tag!r}: the file was not written by this "
            f"version of flambeau, or it is damaged. {nearest(tag, _TAGS)}"
        )
    return _tagged(tag, entries[tag], tensors, path)


def _tagged(tag: str, payload: Any, tensors: Mapping[str, Tensor], path: Path) -> Any:
    content: object = payload
    if tag in ("$tensor", "$array") and isinstance(content, str):
        if content not in tensors:
            raise ArtefactError(
                f"{show_path(path)} refers to the tensor {content!r}, which the file of tensors "
                f"does not have. {nearest(content, tensors)}"
            )
        found = tensors[content]
        return found if tag == "$tensor" else found.numpy().copy()
    if tag == "$float" and isinstance(content, str) and content in _NON_FINITE:
        return _NON_FINITE[content]
    if tag == "$tuple" and isinstance(content, list):
        return tuple(_unpack(content, tensors, path))
    if tag == "$dict" and isinstance(content, list):
        pairs = cast("list[Any]", content)
        if all(_is_pair(pair) for pair in pairs):
            return {name: _unpack(part, tensors, (*path, name)) for name, part in pairs}
    raise ArtefactError(
        f"{show_path(path)} is marked {tag!r} but holds {_short(payload)}: the file is damaged."
    )


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, list):
        return False
    parts = cast("list[Any]", pair)
    return len(parts) == 2 and type(parts[0]) in (str, int)
