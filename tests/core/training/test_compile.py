"""``torch.compile`` in place: the same object with the same names, and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError
from flambeau.torch_internals import is_compiled
from flambeau.training.compile import compile_model, repeated_blocks, undo


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def compiled(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if getattr(m, "_compiled_call_impl", None)]


def test_repeated_blocks_are_regions() -> None:
    net = Net()
    assert repeated_blocks(net) == list(net.blocks)
    assert repeated_blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []
    nested = nn.ModuleList([Net(), Net()])
    assert repeated_blocks(nested) == list(nested), "the outermost ones"


def test_compile_and_undo() -> None:
    net = Net()
    names = list(net.state_dict())
    assert compile_model(net, "off") == []
    regions = compile_model(net, "regions")
    assert compiled(net) == ["blocks.0", "blocks.1", "blocks.2"]
    undo(regions)
    assert compiled(net) == []
    undo(compile_model(net, "whole"))
    assert compiled(net) == []
    assert compile_model(nn.Linear(2, 2), "regions"), "without blocks, as one"
    assert list(net.state_dict()) == names
    with pytest.raises(ArgumentError, match="Unknown value 'hole'"):
        compile_model(net, "hole")


@pytest.mark.parametrize("absent", ["", "torch.nn.Module._compiled_call_impl"])
def test_undo_restores_eager_execution(absent: str, report_absent: Any) -> None:
    if absent:
        report_absent(absent)
    net = Net()
    undo(compile_model(net, "regions"))
    assert is_compiled(net.blocks[0]) is False
    net(torch.ones(1, 4)).sum().backward()  # a compiled block would call a C++ compiler


@pytest.mark.parametrize(
    ("absent", "found"),
    [
        ("", [True, True, False]),
        ("torch.nn.Module._compiled_call_impl", [False, True, False]),
        ("torch._dynamo.OptimizedModule._orig_mod", [True, False, False]),
    ],
)
def test_is_compiled(absent: str, found: list[bool], report_absent: Any) -> None:
    in_place, wrapped = nn.Linear(2, 2), torch.compile(nn.Linear(2, 2))
    in_place.compile()
    if absent:
        report_absent(absent)
    assert [is_compiled(module) for module in (in_place, wrapped, nn.ReLU())] == found


def test_modules_that_the_user_compiled_stay_compiled() -> None:
    net = Net()
    net.head.compile()
    undo(compile_model(net, "off"))
    assert compiled(net) == ["head"]
