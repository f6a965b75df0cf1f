"""``TabM``: an ensemble of multilayer perceptrons that share all layers but the first scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau.errors import InputError
from flambeau.task.ensemble_outputs import EnsembleOutputs
from flambeau_tabular.models.table_inputs import InputOptions, Kinds, TableInputs

ScaleInit = Literal["normal", "signs"]


MEMBERS, CPU_MEMBERS = 32, 16
"""Members that the authors use, and a number with which a CPU is fast enough."""


class MemberScale(nn.Module):
    """A learned factor for each input of each member: the only difference of TabM-mini's members.

    Args:
        chunks: The width of each feature's part of the inputs; all inputs of a feature have the
            same factor at first.
        n_members: Number of members.
        init: "normal" draws the factors from a standard normal distribution, "signs" from -1 and 1.
    """

    def __init__(self, chunks: Sequence[int], n_members: int, init: ScaleInit) -> None:
        super().__init__()
        if init not in ("normal", "signs"):
            raise InputError(f"scale_init is {init!r}, but must be 'normal' or 'signs'.")
        drawn = torch.randn(n_members, len(chunks))
        if init == "signs":
            drawn = torch.randint(0, 2, drawn.shape) * 2.0 - 1.0
        self.weight = nn.Parameter(drawn.repeat_interleave(torch.tensor(chunks), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, members, n_in)`` for inputs ``(batch, n_in)``."""
        return x.unsqueeze(1) * self.weight


class MemberLinear(nn.Module):
    """A linear layer for each member, ``(batch, members, n_in)`` to ``(batch, members, n_out)``."""

    def __init__(self, n_members: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = n_in**-0.5
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_members, n_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of each member's layer."""
        return torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1) + self.bias


class TabM(nn.Module):
    """TabM-mini: ``k`` multilayer perceptrons in one, which train on the same batches.

    The members share the embedded inputs and the hidden layers; each has a scale of its own for the
    inputs and an output layer of its own. In train mode ``forward`` returns ``EnsembleOutputs``
    ``(batch, k, n_outputs)``, whose loss is the mean of the losses of the members; in eval mode it
    returns their average ``(batch, n_outputs)``.

    Args:
        inputs: Turns a row into a vector.
        n_outputs: Number of outputs.
        kind: How members are averaged: the outputs of "classification" are logarithms of the mean
            probabilities, those of "multi_label" the logits of the mean probabilities, those of
            "log_link" (counts and amounts) logarithms of the mean values, and other outputs the
            plain means.
        k: Number of members.
        hidden: Widths of the hidden layers.
        dropout: Dropout probability of the hidden units.
        scale_init: Initial input scales of the members: "normal" if numbers are embedded, "signs"
            if not; None chooses between these.

    Raises:
        InputError: A number is not positive, ``dropout`` is out of range, or ``kind`` does not have
            ``n_outputs`` outputs.

    Source:
        Gorishniy et al., "TabM: Advancing Tabular Deep Learning with Parameter-Efficient
        Ensembling", 2025 (arXiv 2410.24210), TabM-mini, and the authors' package tabm 0.0.3.
        Differences: large categories have embeddings instead of one-hot vectors; there are inputs
        for flags, unknown categories and text. All members train on the same batches (the authors'
        ``share_training_batches=True``).
    """

    def __init__(
        self,
        inputs: TableInputs,
        n_outputs: int,
        *,
        kind: Kinds = "regression",
        k: int = MEMBERS,
        hidden: Sequence[int] = (512, 512),
        dropout: float = 0.1,
        scale_init: ScaleInit | None = None,
    ) -> None:
        super().__init__()
        if min([*hidden, n_outputs, k, len(hidden)]) < 1:
            raise InputError(
                f"TabM needs at least one hidden layer and positive numbers, but got hidden="
                f"{list(hidden)}, n_outputs={n_outputs} and k={k}."
            )
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}, but must be at least 0 and below 1.")
        self.k, self.kinds = k, _checked_kinds(kind, n_outputs)
        self.inputs = inputs
        if scale_init is None:
            scale_init = "signs" if inputs.numbers is None else "normal"
        self.scale = MemberScale(inputs.chunks, k, scale_init)
        layers: list[nn.Module] = []
        before = inputs.width
        for width in hidden:
            layers += [nn.Linear(before, width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            before = width
        self.body = nn.Sequential(*layers)
        self.head = MemberLinear(k, before, n_outputs)

    def forward(
        self, numbers: Tensor, flags: Tensor, categories: Tensor, tokens: Tensor | None = None
    ) -> Tensor | EnsembleOutputs:
        """Return ``EnsembleOutputs``, or ``(batch, n_outputs)`` in eval mode.

        For the arguments see ``TableInputs.forward``.
        """
        rows = self.inputs(numbers, flags, categories, tokens)
        members = self.head(self.body(self.scale(rows)))
        return EnsembleOutputs(members) if self.training else average(members, self.kinds)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups, from input to output."""
        return {"inputs": [self.inputs, self.scale], "body": [self.body], "head": [self.head]}


def average(members: Tensor, kinds: Sequence[tuple[str, int]]) -> Tensor:
    """Return the average prediction ``(batch, outputs)`` of members ``(batch, k, outputs)``.

    Args:
        members: The outputs of the members: logits of classes or labels, or values.
        kinds: Kind and number of outputs of each task, in the order of the outputs.
    """
    # float32, because a mean of probabilities in half precision loses small ones.
    wide = members.float() if members.dtype in (torch.float16, torch.bfloat16) else members
    parts = wide.split([n for _, n in kinds], dim=2)
    averaged = [_average(part, kind) for part, (kind, _) in zip(parts, kinds, strict=True)]
    return averaged[0] if len(averaged) == 1 else torch.cat(averaged, dim=1)


def _average(members: Tensor, kind: str) -> Tensor:
    log_k = math.log(members.shape[1])
    if kind == "classification":
        return members.log_softmax(dim=2).logsumexp(dim=1) - log_k
    if kind == "multi_label":
        # log p - log(1 - p) of the mean probabilities of 1 and of 0; their number cancels out.
        yes, no = F.logsigmoid(members), F.logsigmoid(-members)
        return yes.logsumexp(dim=1) - no.logsumexp(dim=1)
    if kind == "log_link":
        return members.logsumexp(dim=1) - log_k
    return members.mean(dim=1)


def _checked_kinds(kind: Kinds, n_outputs: int) -> tuple[tuple[str, int], ...]:
    if isinstance(kind, str):
        return ((kind, n_outputs),)
    kinds = tuple((name, int(n)) for name, n in kind)
    if sum(n for _, n in kinds) != n_outputs:
        raise InputError(
            f"kind has {sum(n for _, n in kinds)} outputs ({kinds}), but n_outputs is {n_outputs}."
        )
    return kinds


def tabm(
    *,
    inputs: Mapping[str, Any],
    n_outputs: int,
    kind: Kinds = "regression",
    k: int = MEMBERS,
    hidden: Sequence[int] | None = None,
    dropout: float = 0.1,
    scale_init: ScaleInit | None = None,
) -> TabM:
    """Return a ``TabM`` from JSON values.

    Args:
        inputs: The columns and their embeddings, by the names of ``InputOptions``; numbers have
            "ple" embeddings by default, which need ``ple_edges``.
        n_outputs: Number of outputs.
        kind: Kind of the task, or kinds and widths of several tasks.
        k: Number of members.
        hidden: Widths of the hidden layers; None is the authors' default, two layers of 512 with
            embedded numbers and three without.
        dropout: Dropout probability of the hidden units.
        scale_init: See ``TabM``.

    Example:
        >>> import torch
        >>> columns = {"n_numbers": 1, "ple_edges": [[0.0, 1.0]]}
        >>> model = tabm(inputs=columns, n_outputs=2, k=4, hidden=[8])
        >>> rows = torch.zeros(5, 1), torch.zeros(5, 0), torch.zeros(5, 0, dtype=torch.uint8)
        >>> model(*rows).members.shape, model.eval()(*rows).shape
        (torch.Size([5, 4, 2]), torch.Size([5, 2]))
    """
    table = TableInputs(InputOptions.of({"number_embedding": "ple", **inputs}))
    if hidden is None:
        hidden = (512,) * (3 if table.numbers is None else 2)
    return TabM(
        table, n_outputs, kind=kind, k=k, hidden=hidden, dropout=dropout, scale_init=scale_init
    )
