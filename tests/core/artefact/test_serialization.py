"""pack and unpack restore a tree: values, types and identity."""

import json
import math
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau.artefact.serialization import pack, unpack
from flambeau.errors import ArtefactError

Pair = namedtuple("Pair", "a b")


def round_trip(tree: Any) -> Any:
    packed, tensors = pack(tree)
    return unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors)


PLAIN = [
    None,
    True,
    False,
    0,
    -(2**80),
    1e-320,
    0.1,
    -0.0,
    "",
    "naïve 😀 \n \ud800",
    [],
    (),
    {},
    [1, (2, [3, (4,)])],
    {"a": {"b": ()}},
    {0: "int", 1: "keys"},
    {"0": "str", 0: "int"},
    {"$tensor": "not a tag", "x": 1},
    {"$tuple": []},
    {True.__int__(): 1},
]


@pytest.mark.parametrize("tree", PLAIN, ids=repr)
def test_plain_values_keep_their_types(tree: Any) -> None:
    # repr distinguishes tuple from list, -0.0 from 0.0, True from 1 and int keys from str keys.
    assert repr(round_trip(tree)) == repr(tree)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinities_are_restored(value: float) -> None:
    assert round_trip({"x": [value]}) == {"x": [value]}


def test_nan_is_restored() -> None:
    assert math.isnan(round_trip((math.nan,))[0])


def test_numpy_numbers_become_python_numbers() -> None:
    back = round_trip([np.float64(0.5), np.int64(3), np.bool_(True), np.float32("inf")])
    assert [type(value) for value in back] == [float, int, bool, float]
    assert back == [0.5, 3, True, math.inf]


def test_mappings_become_dicts_and_sizes_tuples() -> None:
    assert round_trip(OrderedDict(b=1, a=torch.Size([2]))) == {"b": 1, "a": (2,)}
    assert list(round_trip(OrderedDict(b=1, a=2))) == ["b", "a"]


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.uint16,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
def test_tensors_of_every_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape), dtype=torch.int32).reshape(shape).to(dtype)
    back = round_trip([tensor])[0]
    assert back.dtype == dtype
    assert back.shape == shape
    assert torch.equal(back, tensor)


def test_non_contiguous_views_keep_their_values() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tree = {"t": base.t(), "slice": base[:, 1:3], "flip": base.flip(0), "row": base[1], "b": base}
    packed, tensors = pack(tree)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    back = unpack(packed, tensors)
    assert all(torch.equal(back[name], tensor) for name, tensor in tree.items())


def test_lazy_conjugates_are_resolved() -> None:
    tensor = torch.tensor([1 + 2j], dtype=torch.complex64)
    assert torch.equal(round_trip([tensor.conj()])[0], torch.tensor([1 - 2j]))


def test_tensors_keep_every_bit_of_nan() -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800001, -1, 1], dtype=torch.int32)
    back = round_trip([bits.view(torch.float32)])[0]
    assert torch.equal(back.view(torch.int32), bits)


def test_a_tensor_at_two_paths_is_stored_and_restored_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    # state_dict makes a new tensor object for each name, on the same memory.
    packed, tensors = pack(model.state_dict())
    assert len(tensors) == 3
    back = unpack(packed, tensors)
    assert back["0.weight"] is back["1.weight"]
    assert back["0.bias"] is not back["1.bias"]


def test_overlapping_views_are_not_treated_as_tied() -> None:
    base = torch.arange(4.0)
    back = round_trip([base, base[:2], base[:2].view(2, 1), base.view(torch.int32)])
    assert [tuple(part.shape) for part in back] == [(4,), (2,), (2, 1), (4,)]
    assert back[3].dtype == torch.int32


def test_reused_memory_addresses_make_no_false_ties() -> None:
    # Copies made while packing must not get the address of an earlier one.
    tree = {str(i): torch.full((1000,), float(i)).expand(2, 1000)[0].neg() for i in range(50)}
    back = round_trip(tree)
    assert all(back[name][0] == -float(name) for name in tree)


def test_names_are_paths_and_unique() -> None:
    tree = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1), 0: torch.ones(1) * 2}
    tree["0"] = torch.ones(1) * 3  # type: ignore[index]
    packed, tensors = pack(tree)
    assert list(tensors) == ["a/b", "a/b#2", "0", "0#2"]
    back = unpack(packed, tensors)
    assert [back["a"]["b"], back["a/b"], back[0], back["0"]] == [0, 1, 2, 3]


def test_an_optimizer_state_is_restored() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    back = round_trip(state)
    assert list(back["state"]) == [0, 1]
    assert back["param_groups"] == state["param_groups"]
    assert torch.equal(back["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    torch.optim.AdamW(model.parameters()).load_state_dict(back)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3)[:, ::-1],
        np.array(1.5),
        np.zeros((0, 2), dtype=np.float32),
        np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        np.array([True, False]),
    ],
)
def test_numpy_arrays_are_restored(array: Any) -> None:
    back = round_trip({"x": array})["x"]
    assert isinstance(back, np.ndarray)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_read_only_arrays_do_not_warn() -> None:
    array = np.arange(3)
    array.flags.writeable = False
    assert round_trip([array])[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [1, {2: object()}]}, r"tree\['a'\]\[1\]\[2\] is <object .* of type object"),
        ({"f": len}, r"tree\['f'\] is .* of type .*\. This type cannot be saved"),
        ([{1, 2}], r"tree\[0\] is \{1, 2\} of type set"),
        ({"p": Pair(1, 2)}, r"tree\['p'\] .* type Pair"),
        ({(1, 2): 3}, r"tree has the key \(1, 2\) of type tuple"),
        ({True: 3}, "key True of type bool"),
        ([b"bytes"], r"tree\[0\] is b'bytes'"),
        ([np.array(["a"])], r"tree\[0\] is a numpy array of dtype <U1"),
        ([torch.zeros(2).to_sparse()], r"tree\[0\] cannot be saved: .*layout torch.sparse_coo"),
        (
            [torch.zeros(2, device="meta")],
            r"tree\[0\] cannot be saved: .*layout .* device meta",
        ),
        ([torch.zeros(2, dtype=torch.complex128)], r"tree\[0\] has the dtype .*complex128"),
        ([3 + 2j], r"tree\[0\] is \(3\+2j\) of type complex"),
    ],
)
def test_other_types_are_refused_with_their_path(tree: Any, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        pack(tree)


def test_a_circular_tree_is_refused() -> None:
    tree: dict[str, Any] = {"a": []}
    tree["a"].append(tree)
    with pytest.raises(ArtefactError, match=r"tree\['a'\]\[0\] contains itself"):
        pack(tree)


def test_the_same_list_twice_is_allowed() -> None:
    part = [1]
    assert round_trip([part, part]) == [[1], [1]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"$tensor": "wieght"}}, r"tree\['a'\] refers to the tensor 'wieght'.*'weight'"),
        ([{"$tensro": "weight"}], r"tree\[0\] has the unknown tag '\$tensro'.*'\$tensor'"),
        ({"$tuple": 3}, r"tree has the tag '\$tuple' with 3"),
        ({"$float": "one"}, r"has the tag '\$float' with 'one'"),
        ({"$float": []}, r"has the tag '\$float' with \[\]"),
        ({"$dict": [[1]]}, r"has the tag '\$dict' with"),
        ({"$dict": [[[1], 2]]}, r"has the tag '\$dict' with"),
        ({"$tensor": 4}, r"has the tag '\$tensor' with 4"),
        ({"$tuple": [], "more": 1}, r"unknown tag '\$tuple'"),
    ],
)
def test_damaged_trees_are_refused(value: Any, message: str) -> None:
    tensors: dict[str, Tensor] = {"weight": torch.zeros(1)}
    with pytest.raises(ArtefactError, match=message):
        unpack(value, tensors)
