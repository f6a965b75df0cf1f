"""torch's optimizers below their wraps: the same code, and no compiler that is imported for it."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from flambeau.training.bare import backward, bare, built

FIT = """
import sys
import torch
from flambeau import TensorData, Learner

assert "torch._dynamo" not in sys.modules, "import torch brings the compiler by itself"
x = torch.randn(64, 4)
data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
for optimizer in ("adamw", "sgd", "rmsprop"):
    learner = Learner(data, folder=f"{sys.argv[1]}/{optimizer}", choices={"optimizer": optimizer})
    learner.fit(2)
    learner.resume()
    learner.lr_find(most_steps=60)
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_no_fit_imports_the_compiler(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", FIT, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == "[]"


def parameter() -> nn.Parameter:
    made = nn.Parameter(torch.ones(3))
    made.grad = torch.full((3,), 0.5)
    return made


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, Adagrad, RMSprop])
def test_what_is_built_and_stepped_is_what_torch_builds_and_steps(kind: type[Optimizer]) -> None:
    ours = built(kind, [{"params": [parameter()], "group": "a"}], {"lr": 0.1})
    theirs = kind([{"params": [parameter()], "group": "a"}], lr=0.1)
    assert type(ours) is kind
    assert vars(ours).keys() == vars(theirs).keys()
    with torch.no_grad():
        bare(ours, "step")()
    theirs.step()
    saved, expected = bare(ours, "state_dict")(), theirs.state_dict()
    assert str(saved) == str(expected)
    assert torch.equal(ours.param_groups[0]["params"][0], theirs.param_groups[0]["params"][0])
    again = kind([{"params": [parameter()], "group": "a"}], lr=0.3)
    bare(again, "load_state_dict")(saved)
    assert str(again.state_dict()) == str(expected)


def test_groups_are_added_as_ever_once_it_is_built() -> None:
    optimizer = built(SGD, [parameter()], {"lr": 0.1})
    optimizer.add_param_group({"params": [parameter()], "lr": 0.2})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    with pytest.raises(ValueError, match="appear in more than one parameter group"):
        optimizer.add_param_group({"params": optimizer.param_groups[0]["params"]})


def test_what_torch_refuses_to_build_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid learning rate"):
        built(SGD, [parameter()], {"lr": -1.0})


def test_wraps_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def watched(method: Any, name: str) -> Any:
        @functools.wraps(method)
        def wrap(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return method(*args, **kwargs)

        return wrap

    optimizer = AdamW([parameter()], lr=0.1)
    monkeypatch.setattr(AdamW, "step", watched(AdamW.step, "class"))
    bare(optimizer, "step")()
    optimizer.step = watched(optimizer.step, "object")
    bare(optimizer, "step")()
    assert calls == ["class", "object", "class"]


def test_a_derived_class_keeps_its_wraps() -> None:
    kind = type("Derived", (AdamW,), {})
    optimizer = built(kind, [parameter()], {"lr": 0.1})
    assert type(optimizer) is kind
    assert bare(optimizer, "step") == optimizer.step
    assert bare(AdamW([parameter()]), "step") != AdamW([parameter()]).step


def test_the_gradients_of_a_seed_are_those_of_torch() -> None:
    weight = torch.randn(5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    heard: list[torch.Tensor] = []
    weight.register_post_accumulate_grad_hook(lambda w: heard.append(w.grad.clone()))
    for run in (backward, torch.Tensor.backward):
        run((weight.sin() * weight).sum(), torch.tensor(1 / 3))
        run(weight.square().sum(), torch.tensor(0.5))  # added to the first
        weight.grad = None
    assert torch.equal(heard[0], heard[2])
    assert torch.equal(heard[1], heard[3])


def test_backward_passes_that_torch_refuses_are_refused() -> None:
    for run in (backward, torch.Tensor.backward):
        with pytest.raises(RuntimeError, match="Mismatch in shape"):
            run(parameter() * 2, torch.tensor(1.0))
        with pytest.raises(RuntimeError, match="does not require grad"):
            run(torch.ones(()), torch.tensor(1.0))
        loss = parameter().square().sum()
        run(loss, torch.tensor(1.0))
        with pytest.raises(RuntimeError, match="second time"):
            run(loss, torch.tensor(1.0))
