"""Collaborative filtering: the equations, ranges, unknown users, and invalid arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from flambeau.errors import InputError
from flambeau.training.optim.groups import parameter_groups
from flambeau_tabular.models import MODELS, CollabDot, CollabNet

USERS, ITEMS = torch.tensor([2, 0, 4, 1]), torch.tensor([3, 2, 1, 0])


def test_the_dot_model_equals_its_equation() -> None:
    torch.manual_seed(0)
    model = CollabDot(6, 5, 3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    (p, bu), (q, bi) = (
        [t.weight.detach() for t in part.tables] for part in (model.users, model.items)
    )
    expected = [
        [float((p[u] * q[i]).sum() + bu[u, 0] + bi[i, 0] + model.bias.detach()[0])]
        for u, i in zip(USERS, ITEMS, strict=True)
    ]
    with torch.no_grad():
        found = model(USERS, ITEMS)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("name", ["collab_dot", "collab_net"])
def test_outputs_stay_in_the_range(name: str) -> None:
    model = MODELS[name](n_users=6, n_items=5, y_range=[0.5, 5.5]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 3)
        found, middle = model(USERS, ITEMS), MODELS[name](n_users=6, n_items=5, y_range=[0.5, 5.5])
        assert bool(((found >= 0.5) & (found <= 5.5)).all())
        # Small initial vectors: close to the middle of the range.
        assert float((middle(USERS, ITEMS) - 3).abs().max()) < 0.5


@pytest.mark.parametrize("name", ["collab_dot", "collab_net"])
def test_weights_survive_json_arguments_and_a_state_dict(name: str) -> None:
    arguments: dict[str, Any] = {"n_users": 6, "n_items": 5, "y_range": [1, 5]}
    first = MODELS[name](**arguments).eval()
    second = MODELS[name](**json.loads(json.dumps(arguments))).eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(USERS, ITEMS), second(USERS, ITEMS))
    # As columns, and with another integer dtype.
    found = first(USERS.to(torch.uint8)[:, None], ITEMS.int()[:, None])
    assert torch.equal(found, first(USERS, ITEMS))
    assert next(iter(parameter_groups(first))) == "vectors"


@pytest.mark.parametrize("kind", [CollabDot, CollabNet])
def test_unknown_users_and_items_learn(kind: Any) -> None:
    torch.manual_seed(0)
    model = kind(50, 40, unknown_dropout=0.02)
    codes = torch.randint(2, 40, (3_000,)), torch.randint(2, 40, (3_000,))
    model(*codes).square().sum().backward()
    for part in (model.users, model.items):
        assert bool(part.tables[0].weight.grad[1].any())
        assert not part.tables[0].weight.grad[0].any()
    with torch.no_grad():
        assert torch.equal(model.eval()(*codes), model(*codes))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("collab_dot", {"n_users": 1, "n_items": 5}, "1 codes"),
        ("collab_dot", {"n_users": 5, "n_items": 5, "n_factors": 0}, "impossible"),
        ("collab_dot", {"n_users": 5, "n_items": 5, "y_range": [5, 1]}, r"y_range is \[5, 1\]"),
        ("collab_dot", {"n_users": 5, "n_items": 5, "unknown_dropout": 1.0}, "unknown_dropout"),
        ("collab_net", {"n_users": 5, "n_items": 5, "hidden": []}, "positive hidden widths"),
        ("collab_net", {"n_users": 5, "n_items": 5, "dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_invalid_arguments_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MODELS[name](**arguments)
