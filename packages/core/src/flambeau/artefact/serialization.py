"""Convert a nested tree of plain values and tensors to JSON and a table of tensors, and back.

Values that JSON can represent are stored unchanged, so a checkpoint can be read with any editor.
Other values are stored as an object with one key, a tag that starts with "$":

    {"$tensor": name}      a tensor in the table       {"$tuple": [...]}            a tuple
    {"$array": name}       a numpy array               {"$dict": [[key, value]]}    int keys
    {"$float": "nan"}      "nan", "inf" or "-inf"

Tensors with the same memory (tied weights, one tensor at two paths) have one name in the table and
are restored as one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.errors import ArtefactError, did_you_mean

StorageKey = tuple[int, int | torch.SymInt, torch.dtype, torch.Size, tuple[int, ...]]


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return the tree as ``(json_value, tensors)``; ``unpack`` is the inverse.

    Args:
        tree: dict (str or int keys), list, tuple, str, int, float (also nan and infinity), bool,
            None, tensors and numpy arrays, nested to any depth. A subclass of dict is restored as
            a dict, a numpy number as a Python number, a parameter as a tensor without gradient.

    Returns:
        A value for ``json.dumps(..., allow_nan=False)``, and contiguous CPU tensors named by their
        path ("optimizer/state/0/exp_avg"). Tensors of the tree that are contiguous and on the CPU
        are not copied, so write the result to disk before the next training step changes them.

    Raises:
        ArtefactError: The tree contains a value of another type; the message has its path.

    >>> pack({"lr": 0.1, "betas": (0.9, 0.999)})
    ({'lr': 0.1, 'betas': {'$tuple': [0.9, 0.999]}}, {})
    """
    packer = _Packer()
    return packer.value(tree, ()), packer.tensors


def unpack(json_value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the tree that was passed to ``pack``; ``tensors`` are the tensors that it returned.

    Raises:
        ArtefactError: A tag or a tensor is unknown or malformed; the message has its path.
    """
    return _unpack(json_value, tensors, ())


def check_packable(tree: Any) -> None:
    """Check that ``pack`` accepts the tree; no tensor is read or copied.

    Raises:
        ArtefactError: The tree contains a value that ``pack`` refuses; the message has its path.
    """
    _Packer(copies=False).value(tree, ())


def storage_key(tensor: Tensor) -> StorageKey | None:
    """Return a key that is equal for two tensors if and only if they are the same view of memory.

    Return None for an empty tensor: it has no memory that it could share.
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


def to_storable(tensor: Tensor, name: str) -> Tensor:
    """Return the tensor as safetensors accepts it: detached, contiguous, on the CPU.

    Args:
        tensor: A dense tensor.
        name: Name of the tensor in error messages.

    Raises:
        ArtefactError: The tensor is not dense, or safetensors does not support its dtype.
    """
    _check_storable(tensor, name)
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.cpu().contiguous()


def _check_storable(tensor: Tensor, name: str) -> None:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise ArtefactError(
            f"{name} cannot be saved: it is a sparse, quantized or meta tensor (layout "
            f"{tensor.layout}, device {tensor.device}). Convert it with tensor.to_dense() or "
            "dequantize(), or move the module off the meta device with "
            "module.to_empty(device=...)."
        )
    if tensor.dtype not in _DTYPES:
        raise ArtefactError(
            f"{name} has the dtype {tensor.dtype}, which safetensors does not support. Convert it, "
            "for example with torch.view_as_real(tensor)."
        )


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
    """Return a path in a tree as a Python expression: ``tree['optimizer'][0]``."""
    return "tree" + "".join(f"[{part!r}]" for part in path)


class _Packer:
    def __init__(self, *, copies: bool = True) -> None:
        self._copies = copies
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[StorageKey, str] = {}
        self._ancestors: set[int] = set()
        # A memory address identifies a tensor only while the tensor is alive: keep references.
        self._references: list[Tensor] = []

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
            f"{show_path(path)} is {_short(value)} of type {type(value).__qualname__}. This type "
            "cannot be saved, because loading it would run code. Use dict, list, tuple, str, int, "
            "float, bool, None, tensors or numpy arrays."
        )

    def _container(self, container: Any, path: Path) -> Any:
        value: object = container
        identity = id(container)
        if identity in self._ancestors:
            raise ArtefactError(
                f"{show_path(path)} contains itself, so the tree cannot be saved. Remove the "
                "circular reference."
            )
        self._ancestors.add(identity)
        if isinstance(value, dict):
            packed = self._dict(cast("dict[Any, Any]", value), path)
        else:
            parts = cast("list[Any]", value)
            packed = [self.value(part, (*path, i)) for i, part in enumerate(parts)]
            if not isinstance(value, list):
                packed = {"$tuple": packed}
        self._ancestors.remove(identity)
        return packed

    def _dict(self, value: dict[Any, Any], path: Path) -> Any:
        for name in value:
            if type(name) not in (str, int):
                raise ArtefactError(
                    f"{show_path(path)} has the key {_short(name)} of type "
                    f"{type(name).__qualname__}. Only str and int keys can be saved."
                )
        pairs = [(name, self.value(part, (*path, name))) for name, part in value.items()]
        if all(isinstance(name, str) and not name.startswith("$") for name, _ in pairs):
            return dict(pairs)
        return {"$dict": [[name, part] for name, part in pairs]}

    def _array(self, array: np.ndarray[Any, Any], path: Path) -> str:
        try:
            # A copy: torch refuses negative strides and warns about read-only memory.
            tensor = torch.from_numpy(np.array(array, order="C"))  # pyright: ignore[reportUnknownMemberType]
        except TypeError:
            raise ArtefactError(
                f"{show_path(path)} is a numpy array of dtype {array.dtype}, which has no torch "
                "dtype. Save it as a list, or convert it to numbers."
            ) from None
        return self._tensor(tensor, path)

    def _tensor(self, tensor: Tensor, path: Path) -> str:
        if not self._copies:
            _check_storable(tensor, show_path(path))
            return ""
        plain = to_storable(tensor, show_path(path))
        key = storage_key(tensor)
        if key is not None and key in self._names:
            return self._names[key]
        stem = "/".join(map(str, path)) or "tree"
        name, copies = stem, 1
        while name in self.tensors:  # keys "0" and 0, or a key with "/"
            copies += 1
            name = f"{stem}#{copies}"
        self.tensors[name] = plain
        if key is not None:
            self._names[key] = name
            self._references.append(tensor)
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
            f"{show_path(path)} has the unknown tag {tag!r}: another version of flambeau wrote the "
            f"file, or it is damaged. {did_you_mean(tag, _TAGS)}"
        )
    return _tagged(tag, entries[tag], tensors, path)


def _tagged(tag: str, payload: Any, tensors: Mapping[str, Tensor], path: Path) -> Any:
    content: object = payload
    if tag in ("$tensor", "$array") and isinstance(content, str):
        if content not in tensors:
            raise ArtefactError(
                f"{show_path(path)} refers to the tensor {content!r}, which is not in the tensor "
                f"file. {did_you_mean(content, tensors)}"
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
        f"{show_path(path)} has the tag {tag!r} with {_short(payload)}: the file is damaged."
    )


def _is_pair(pair: Any) -> bool:
    if not isinstance(pair, list):
        return False
    parts = cast("list[Any]", pair)
    return len(parts) == 2 and type(parts[0]) in (str, int)
