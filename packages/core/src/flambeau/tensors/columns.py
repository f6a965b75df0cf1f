"""From the arrays that a user has to CPU tensors: numbers as they are, words as class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.errors import ArgumentError, InputError, did_you_mean

Array: TypeAlias = Tensor | NDArray[Any]
Arrays: TypeAlias = Array | Mapping[str, Array]

_COMPACT = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32)
_WORDS = "UST"
_ENCODE = "encode the words as numbers first (np.unique(…, return_inverse=True))"
# What to do with a kind of NumPy array that holds no numbers.
_MEND = {
    **dict.fromkeys(_WORDS, _ENCODE),
    "M": "count the time from a first one: (times - times.min()) / np.timedelta64(1, 'D')",
    "m": "divide it by a unit: spans / np.timedelta64(1, 's')",
    "c": "give real and imaginary parts as two columns, or a complex torch tensor",
}


def as_columns(arrays: Arrays | None, kind: str) -> dict[str, Array]:
    """The arrays by name; a single one is called ``kind``. Arrays of objects become plain ones.

    Raises:
        ArgumentError: Something else than tensors and NumPy arrays.
        InputError: A tensor without plain memory, or objects that are no numbers and no words.
    """
    if arrays is None:
        return {}
    columns = dict(arrays) if isinstance(arrays, Mapping) else {kind: arrays}
    return {name: _checked(name, value) for name, value in columns.items()}


def as_tensors(columns: Mapping[str, Array]) -> dict[str, Tensor]:
    """CPU tensors. NumPy's float64 is its default, not a wish: it becomes torch's default.

    Raises:
        InputError: A NumPy array holds no numbers.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in columns.items():
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu()
            continue
        if value.dtype.kind not in "fiub":
            mend = _MEND.get(value.dtype.kind, "encode it as numbers first (classes as 0, 1, …)")
            raise InputError(f"{name!r} holds {value.dtype}, not numbers: {mend}.")
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        # torch warns of read-only memory (memory maps), which it could not protect.
        tensor = torch.as_tensor(native if native.flags.writeable else native.copy())
        is_default = tensor.dtype == torch.float64
        tensors[name] = tensor.to(torch.get_default_dtype()) if is_default else tensor
    return tensors


def as_targets(columns: Mapping[str, Array]) -> dict[str, Tensor]:
    """Labels as int64, which torch's losses take; a table of truth values as floats."""
    targets: dict[str, Tensor] = {}
    for name, value in as_tensors(columns).items():
        if value.dtype == torch.bool and value.ndim > 1:
            targets[name] = value.to(torch.get_default_dtype())
        else:
            targets[name] = value.long() if value.dtype in _COMPACT else value
    return targets


def encode_string_labels(
    parts: Mapping[str, Mapping[str, Array]], class_names: Sequence[str] | None
) -> tuple[dict[str, dict[str, Array]], Sequence[str] | None]:
    """One column of words becomes the places of the words among the class names, in every part.

    Args:
        parts: Targets by part; train is among them.
        class_names: Which number each word has; None takes the sorted words of train.

    Returns:
        The parts with numbers, and the class names (None where the targets are no words).

    Raises:
        InputError: A word is no class: it is only in another part than train, or not among
            ``class_names``. The message names the row.
    """
    columns = {part: dict(targets) for part, targets in parts.items()}
    [name, *others] = list(columns["train"]) or [""]
    if others or not _is_words(columns["train"].get(name)):
        return columns, class_names
    given = class_names is not None
    if class_names is None:
        words = np.unique(cast("NDArray[Any]", columns["train"][name]))
        class_names = [str(word) for word in words]
    place = {word: number for number, word in enumerate(class_names)}
    for part, targets in columns.items():
        value = targets.get(name)
        if not _is_words(value):
            continue  # the parts differ, which is refused where they are compared
        found = [str(word) for word in cast("NDArray[Any]", value)]
        wrong = next((row for row, word in enumerate(found) if word not in place), None)
        if wrong is not None:
            why = "which is not in class_names" if given else "which no train row has"
            raise InputError(
                f"The {part} targets hold {found[wrong]!r} in row {wrong}, {why}: nothing could "
                f"be learned of it. {did_you_mean(found[wrong], place)} Mend the label, leave the row "
                "out, or give rows of this class to train."
            )
        targets[name] = np.array([place[word] for word in found], dtype=np.int64)
    return columns, class_names


def _is_words(value: object) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    words = cast("NDArray[Any]", value)
    return words.dtype.kind in _WORDS and words.ndim == 1


def _checked(name: str, value: object) -> Array:
    if isinstance(value, Tensor):
        return _plain_tensor(name, value)
    if not isinstance(value, np.ndarray):
        raise ArgumentError(
            f"{name!r} is a {type(value).__name__}, not a tensor or NumPy array. Convert it: "
            "torch.as_tensor(…), or .to_numpy() for a frame."
        )
    array = cast("NDArray[Any]", value)
    return _without_objects(name, array) if array.dtype.kind == "O" else array


def _plain_tensor(name: str, tensor: Tensor) -> Tensor:
    mend = ""
    if tensor.is_meta:
        mend = "it is on the meta device, so it has no numbers. Make it on a real device"
    elif tensor.is_nested:
        mend = "its rows have different sizes. Pad them: torch.nested.to_padded_tensor(tensor, 0.0)"
    elif tensor.layout != torch.strided:
        mend = f"its layout is {tensor.layout}. Convert it: tensor.to_dense()"
    elif tensor.is_quantized:
        mend = f"it is quantised ({tensor.dtype}). Convert it: tensor.dequantize()"
    if mend:
        raise InputError(f"{name!r} is a tensor that rows cannot be taken from: {mend}.")
    return tensor


def _without_objects(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Numbers or words that came as Python objects (a frame's column) as a plain array."""
    flat: list[object] = list(array.reshape(-1))
    numbers = (bool, int, float, np.number, np.bool_)
    for kind in (str, numbers):
        if flat and all(isinstance(value, kind) for value in flat):
            try:
                return np.array(flat).reshape(array.shape)
            except OverflowError:
                break
    first = type(flat[0]) if flat else object
    odd = next((i for i, value in enumerate(flat) if not isinstance(value, numbers)), 0)
    if first is str:
        odd = next((i for i, value in enumerate(flat) if not isinstance(value, str)), 0)
    place = np.unravel_index(odd, array.shape) if flat else (0,)
    row = ", ".join(str(int(index)) for index in place)
    found = f"{flat[odd]!r:.60} of type {type(flat[odd]).__name__}" if flat else "nothing"
    missing = (
        " A missing value has to be filled in, or its row dropped." if _none(flat, odd) else ""
    )
    raise InputError(
        f"{name!r} holds object, not numbers: at [{row}] is {found}.{missing} Give an array of one "
        "dtype: array.astype(np.float32) for numbers, array.astype(str) for words."
    )


def _none(flat: Sequence[object], place: int) -> bool:
    value = flat[place] if flat else 0
    return value is None or value != value  # noqa: PLR0124  NaN differs from itself
