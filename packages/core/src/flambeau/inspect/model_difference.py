"""``model_difference``: how the weights of two models differ, layer by layer."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flambeau.inspect.inspect_tables import html_table, text_rows
from flambeau.wording import count_of, format_number, name_some

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MEAN, _VARIANCE = "running_mean", "running_var"
_RIGHT = ("values", "change", "cosine", "rank of change", "CKA")
_MODEL = "(model)"
_MOST_NAMED = 6


@dataclass(frozen=True)
class TensorChange:
    """How a tensor of the second model differs from that of the first.

    Attributes:
        name: As in ``state_dict()``.
        shape: Its shape.
        norm: Euclidean norm in the first model.
        moved: Norm of the difference.
        cosine: Cosine of the angle between both tensors, as vectors: 1 if only the scale differs;
            NaN if one of them is 0.
        rank: Effective rank of the difference of a matrix (of a convolution as outputs × others):
            the participation ratio of its squared singular values, ``(Σσ²)² / Σσ⁴``, from 1 to
            ``full_rank``; NaN for other tensors and without a difference.
        full_rank: The smaller side of the matrix; 0 for other tensors.
        is_statistic: Whether it is a running mean or variance of a norm layer.
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    moved: float
    cosine: float
    rank: float = math.nan
    full_rank: int = 0
    is_statistic: bool = False

    @property
    def change(self) -> float:
        """Norm of the difference relative to ``norm``; infinite if the tensor was 0."""
        return _relative(self.moved, self.norm)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LayerChange:
    """How a layer of the second model differs from that of the first.

    Attributes:
        name: Name of the module that has the tensors; "(model)" for the model itself.
        tensors: Its tensors, parameters and statistics.
        mean_shift: Of a norm layer: root mean square over the channels of the difference between
            the running means, in standard deviations of the first model; NaN for other layers.
        variance_ratio: Of a norm layer: geometric mean over the channels of the ratio of the
            running variances, second to first; NaN for other layers.
    """

    name: str
    tensors: tuple[TensorChange, ...]
    mean_shift: float = math.nan
    variance_ratio: float = math.nan

    @property
    def parameters(self) -> tuple[TensorChange, ...]:
        """The tensors without the statistics of norm layers."""
        return tuple(each for each in self.tensors if not each.is_statistic)

    @property
    def size(self) -> int:
        """Number of values of the parameters."""
        return sum(each.size for each in self.parameters)

    @property
    def change(self) -> float:
        """Relative change of all parameters together; NaN for a layer without parameters."""
        if not self.parameters:
            return math.nan
        moved = math.hypot(*(each.moved for each in self.parameters))
        return _relative(moved, math.hypot(*(each.norm for each in self.parameters)))

    @property
    def largest(self) -> TensorChange | None:
        """The parameter with most values; None without one."""
        return max(self.parameters, key=lambda each: each.size, default=None)


@dataclass(frozen=True)
class ModelDifference:
    """How the second of two models differs from the first; ``print`` shows a table of the layers.

    Attributes:
        layers: The layers that both have, in the order of the second model.
        added: Names of tensors that only the second model has.
        missing: Names of tensors that only the first model has.
        other_shape: Shapes in the first and in the second model of tensors whose shapes differ.
        first: What the first model is, for the table.
        second: What the second model is.
        similarities: CKA of the outputs of modules by name, see ``feature_similarity``; empty if
            it was not measured.
        n_samples: Samples of which the outputs were compared.
        notes: What could not be compared.
    """

    layers: tuple[LayerChange, ...]
    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    )
    first: str = "the first model"
    second: str = "the second model"
    similarities: Mapping[str, float] = field(default_factory=dict[str, float])
    n_samples: int = 0
    notes: tuple[str, ...] = ()

    def __getitem__(self, layer: str) -> LayerChange:
        return next(each for each in self.layers if each.name == layer)

    @property
    def is_equal(self) -> bool:
        """Whether all parameters and statistics of both models are equal."""
        others = self.added or self.missing or self.other_shape
        return not others and all(t.moved == 0 for each in self.layers for t in each.tensors)

    def __str__(self) -> str:
        head = f"From {self.first} to {self.second}:"
        headers, rows = self._table()
        return "\n".join([head, *text_rows(headers, rows, _RIGHT), *self._end()])

    def _repr_html_(self) -> str:
        headers, rows = self._table()
        head = f"<p>{html.escape(f'From {self.first} to {self.second}:')}</p>"
        end = "".join(f"<p>{html.escape(line)}</p>" for line in self._end())
        return head + html_table(headers, rows, _RIGHT) + end

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plot change, rank of the change and CKA of each layer.

        Args:
            path: File to write (.png, .pdf, .svg); None writes no file.

        Raises:
            InputError: The models have no layer in common.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.inspect.difference_figure import plot_difference

        return plot_difference(self, None if path is None else Path(path))

    def _table(self) -> tuple[list[str], list[list[str]]]:
        headers = ["layer", "values", "change", "cosine", "rank of change"]
        has_statistics = any(not math.isnan(each.mean_shift) for each in self.layers)
        headers += ["statistics"] * has_statistics + ["CKA"] * bool(self.similarities)
        rows: list[list[str]] = []
        for layer in self.layers:
            largest = layer.largest
            row = [layer.name, f"{layer.size:,}", _percent(layer)]
            row.append("" if largest is None else _cosine(largest))
            row.append("" if largest is None else _rank(largest))
            if has_statistics:
                row.append(_statistics(layer))
            if self.similarities:
                found = self.similarities.get(layer.name, math.nan)
                row.append("" if math.isnan(found) else f"{found:.3f}")
            rows.append(row)
        return headers, rows

    def _end(self) -> Iterator[str]:
        if self.is_equal:
            yield "All weights are equal."
        lists = {"Only in the second": self.added, "Only in the first": self.missing}
        for what, names in lists.items():
            if names:
                yield f"{what}: {name_some(names, most=_MOST_NAMED)}."
        if self.other_shape:
            shown = [
                f"{name} ({_shape(one)} → {_shape(other)})"
                for name, (one, other) in self.other_shape.items()
            ]
            yield f"Other shape: {name_some(shown, most=_MOST_NAMED)}."
        if self.similarities:
            yield f"CKA: similarity of the outputs for {count_of(self.n_samples, 'sample')}."
        yield from self.notes


def model_difference(
    first: nn.Module | Mapping[str, Tensor],
    second: nn.Module | Mapping[str, Tensor],
    *,
    names: tuple[str, str] = ("the first model", "the second model"),
) -> ModelDifference:
    """Return how the weights of the second model differ from those of the first, layer by layer.

    Parameters and the statistics of norm layers are compared, in float64 on the CPU; other buffers,
    such as masks, and whole numbers are not.

    Args:
        first: A module, or its tensors by name as in ``state_dict()``, of which those of whole
            numbers are left out; if neither model is a module, buffers of real numbers count as
            parameters.
        second: The same for the other model.
        names: What the models are, for the table.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> before = {name: value.clone() for name, value in model.state_dict().items()}
        >>> with torch.no_grad():
        ...     _ = model[2].weight.mul_(1.5)
        >>> found = model_difference(before, model)
        >>> round(found["2"].tensors[0].change, 3), found["0"].change
        (0.5, 0.0)
    """
    buffers = _buffers(first) | _buffers(second)
    one, other = _tensors(first, buffers), _tensors(second, buffers)
    shapes = {
        name: (tuple(one[name].shape), tuple(other[name].shape))
        for name in other
        if name in one and one[name].shape != other[name].shape
    }
    grouped: dict[str, list[str]] = {}
    for name in other:
        if name in one and name not in shapes:
            grouped.setdefault(name.rpartition(".")[0] or _MODEL, []).append(name)
    return ModelDifference(
        tuple(_layer(layer, names_, one, other) for layer, names_ in grouped.items()),
        added=tuple(name for name in other if name not in one),
        missing=tuple(name for name in one if name not in other),
        other_shape=shapes,
        first=names[0],
        second=names[1],
    )


def _buffers(model: nn.Module | Mapping[str, Tensor]) -> set[str]:
    """Return the names of buffers, such as masks, without the statistics of norm layers."""
    if not isinstance(model, nn.Module):
        return set()
    names = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {name for name in names if name.rpartition(".")[2] not in (_MEAN, _VARIANCE)}


def _tensors(model: nn.Module | Mapping[str, Tensor], buffers: set[str]) -> dict[str, Tensor]:
    """Return parameters and statistics; tensors of whole numbers are neither."""
    state: Mapping[str, object] = model.state_dict() if isinstance(model, nn.Module) else model
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor)
        and name not in buffers
        and (value.is_floating_point() or value.is_complex())
        and not is_lazy(value)  # without values until the first call
    }


def _layer(
    layer: str, names: Sequence[str], first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> LayerChange:
    changes = tuple(_change(name, first[name], second[name]) for name in names)
    by_end = {name.rpartition(".")[2]: name for name in names}
    if _MEAN not in by_end or _VARIANCE not in by_end:
        return LayerChange(layer, changes)
    means = [_real(tensors[by_end[_MEAN]]) for tensors in (first, second)]
    variances = [_real(tensors[by_end[_VARIANCE]]) for tensors in (first, second)]
    before, after = (each.clamp(min=1e-12) for each in variances)
    shift = (means[1] - means[0]) / before.sqrt()
    return LayerChange(
        layer,
        changes,
        float(shift.square().mean().sqrt()),
        math.exp(float((after / before).log().mean())),
    )


def _change(name: str, first: Tensor, second: Tensor) -> TensorChange:
    one, other = _real(first), _real(second)
    delta = other - one
    norm, moved = _norm(one), _norm(delta)
    norms = norm * _norm(other)
    cosine = float((one * other).sum()) / norms if norms else math.nan
    found = TensorChange(
        name,
        tuple(second.shape),
        norm,
        moved,
        min(cosine, 1.0) if not math.isnan(cosine) else cosine,
        is_statistic=name.rpartition(".")[2] in (_MEAN, _VARIANCE),
    )
    if second.ndim < 2 or found.is_statistic:
        return found
    matrix = delta.flatten(1)
    # The eigenvalues of this product are the squared singular values.
    product = matrix.T @ matrix if matrix.shape[0] > matrix.shape[1] else matrix @ matrix.T
    rank = float(product.trace().square() / product.square().sum()) if found.moved else math.nan
    return replace(found, rank=rank, full_rank=len(product))


def _real(tensor: Tensor) -> Tensor:
    """Return the values in float64, on the CPU."""
    own = tensor.detach().cpu()
    return (torch.view_as_real(own) if own.is_complex() else own).double()


def _norm(values: Tensor) -> float:
    return float(values.square().sum().sqrt())


def _relative(moved: float, norm: float) -> float:
    return moved / norm if norm else (math.inf if moved else 0.0)


def _percent(layer: LayerChange) -> str:
    value = layer.change
    if math.isnan(value):
        return "not finite" if layer.parameters else ""
    if value == 0:
        return "equal"
    return "was 0" if math.isinf(value) else f"{format_number(100 * value)} %"


def _cosine(tensor: TensorChange) -> str:
    if math.isnan(tensor.cosine) or not tensor.moved:
        return ""
    return f"{tensor.cosine:.4f}"


def _rank(tensor: TensorChange) -> str:
    return "" if math.isnan(tensor.rank) else f"{format_number(tensor.rank)} of {tensor.full_rank}"


def _statistics(layer: LayerChange) -> str:
    if math.isnan(layer.mean_shift):
        return ""
    if layer.mean_shift == 0 and layer.variance_ratio == 1:
        return "equal"
    return f"mean by {format_number(layer.mean_shift)} σ, variance ×{layer.variance_ratio:.3g}"


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"
