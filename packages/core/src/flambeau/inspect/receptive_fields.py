"""``ReceptiveFields``: how much of the input an output of a convolution depends on.

Two numbers follow each tensor along each spatial dimension: the size of the receptive field, and
the distance in the input between two neighbouring positions. A convolution with kernel k, dilation
d and stride s makes of (size, jump) the pair (size + (k - 1) · d · jump, jump · s), see
Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019. Where
branches are joined (residual connections, concatenation) the larger field counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from flambeau.torch_internals import dispatch_mode_class

_CONVOLUTION = "aten::convolution"
_POOLING = ("max_pool", "avg_pool")


@dataclass(frozen=True)
class Field:
    """Receptive field of the positions of a tensor.

    Attributes:
        size: Positions of the input along each spatial dimension, padding included.
        jump: Distance in the input between two neighbouring positions.
    """

    size: tuple[float, ...]
    jump: tuple[float, ...]

    def after(self, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Field:
        """Return the field after a convolution or a pooling."""
        n = len(self.size)
        kernel, stride, dilation = (_spread(each, n) for each in (kernel, stride, dilation))
        pairs = zip(self.size, kernel, dilation, self.jump, strict=True)
        size = [r + (k - 1) * d * j for r, k, d, j in pairs]
        jump = [j * s for j, s in zip(self.jump, stride, strict=True)]
        return Field(tuple(size), tuple(jump))

    def after_transposed(
        self, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> Field:
        """Return the field after a transposed convolution, which inserts positions."""
        n = len(self.size)
        kernel, stride, dilation = (_spread(each, n) for each in (kernel, stride, dilation))
        size = [
            r + ((k - 1) * d // s) * j
            for r, k, d, s, j in zip(self.size, kernel, dilation, stride, self.jump, strict=True)
        ]
        jump = [j / s for j, s in zip(self.jump, stride, strict=True)]
        return Field(tuple(size), tuple(jump))

    def rounded(self) -> tuple[int, ...]:
        """Return the size in whole positions."""
        return tuple(map(round, self.size))


def _spread(values: Sequence[int], n: int) -> Sequence[int]:
    return list(values) * n if len(values) == 1 else values


class ReceptiveFields:
    """Follows the receptive field from inputs with spatial dimensions through a forward pass.

    Tensors that depend on no such input, or whose spatial dimensions are not followed (after a
    flattening, a global pooling, an attention), have no field.

    Args:
        inputs: Inputs of the model; those of 3 to 5 dimensions, ``(batch, channels, …)``, start
            with a field of one position.
    """

    def __init__(self, inputs: Iterable[object]) -> None:
        self._fields: Any = WeakTensorKeyDictionary()
        for value in inputs:
            if isinstance(value, Tensor) and value.ndim in (3, 4, 5) and value.is_floating_point():
                ones = (1.0,) * (value.ndim - 2)
                self._fields[value] = Field(ones, ones)

    def of(self, value: object) -> Field | None:
        """Return the field of a tensor; None if it is not known."""
        return self._fields.get(value) if isinstance(value, Tensor) else None

    def following(self) -> AbstractContextManager[object]:
        """Return a context manager that follows operators; it does nothing if torch cannot."""
        mode = dispatch_mode_class()
        if mode is None:
            return nullcontext()
        fields = self

        class Following(mode):
            def __torch_dispatch__(
                self,
                operator: Any,
                types: Any,
                arguments: tuple[Any, ...] = (),
                named: Mapping[str, Any] | None = None,
            ) -> Any:
                result = operator(*arguments, **(named or {}))
                fields.note(operator, arguments, result)
                return result

        return cast("AbstractContextManager[object]", Following())

    def note(self, operator: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> None:
        """Compute the field of the result of an operator."""
        output = next(iter(_tensors(result)), None)
        sources = [each for value in arguments for each in _tensors(value)]
        known = [(each, field) for each in sources if (field := self.of(each)) is not None]
        if not known or output is None:
            return
        name = str(cast("Any", operator).name()).partition(".")[0]
        field = _after(name, arguments, known, output)
        if field is not None:
            self._fields[output] = field


def _after(
    name: str, arguments: tuple[Any, ...], known: Sequence[tuple[Tensor, Field]], output: Tensor
) -> Field | None:
    source, field = known[0]
    if name == _CONVOLUTION:
        kernel = arguments[1].shape[2:]
        change = field.after_transposed if arguments[6] else field.after
        return change(kernel, arguments[3], arguments[5])
    if any(word in name for word in _POOLING) and "adaptive" not in name:
        kernel = arguments[1]
        stride = arguments[2] if len(arguments) > 2 and arguments[2] else kernel
        dilation = arguments[4] if "max" in name and len(arguments) > 4 else (1,)
        return field.after(_listed(kernel), _listed(stride), _listed(dilation))
    if "squeeze" in name and len(arguments) > 1 and isinstance(arguments[1], int):
        return _squeezed(field, arguments[1], source.ndim, output.ndim)
    if output.ndim != source.ndim:
        return None
    if "upsample" in name:
        pairs = zip(field.jump, source.shape[2:], output.shape[2:], strict=True)
        return Field(field.size, tuple(jump * before / after for jump, before, after in pairs))
    if "pad" in name or output.shape[2:] == source.shape[2:]:
        fields = [each for _, each in known if len(each.size) == len(field.size)]
        size = tuple(map(max, zip(*(each.size for each in fields), strict=True)))
        return Field(size, tuple(map(max, zip(*(each.jump for each in fields), strict=True))))
    return None


def _squeezed(field: Field, dim: int, before: int, after: int) -> Field | None:
    """Return the field with a spatial dimension of one position added or removed."""
    size, jump = list(field.size), list(field.jump)
    place = dim % max(before, after) - 2
    if place < 0 or after - before not in (1, -1):
        return field if before == after else None
    if after > before:
        size.insert(place, 1.0)
        jump.insert(place, 1.0)
    else:
        del size[place], jump[place]
    return Field(tuple(size), tuple(jump))


def _listed(value: Any) -> Sequence[int]:
    return [value] if isinstance(value, int) else list(value)


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [each for each in cast("Sequence[object]", value) if isinstance(each, Tensor)]
    return []
