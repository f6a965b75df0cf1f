"""Private names of torch: what replaces them, and that they change no result."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from flambeau import EMA, FlambeauWarning, Learner, TensorData, TrainingOptions
from flambeau.torch_internals import (
    FALLBACKS,
    build_optimizer,
    divided_backward,
    fused_groups,
    names,
    non_finite_flagger,
    unwrapped,
)
from flambeau.training.optim.fused_step import OptimizerStep

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
    learner.lr_find(max_steps=60)
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
    ours = build_optimizer(kind, [{"params": [parameter()], "group": "a"}], {"lr": 0.1})
    theirs = kind([{"params": [parameter()], "group": "a"}], lr=0.1)
    assert type(ours) is kind
    assert vars(ours).keys() == vars(theirs).keys()
    with torch.no_grad():
        unwrapped(ours, "step")()
    theirs.step()
    saved, expected = unwrapped(ours, "state_dict")(), theirs.state_dict()
    assert str(saved) == str(expected)
    assert torch.equal(ours.param_groups[0]["params"][0], theirs.param_groups[0]["params"][0])
    again = kind([{"params": [parameter()], "group": "a"}], lr=0.3)
    unwrapped(again, "load_state_dict")(saved)
    assert str(again.state_dict()) == str(expected)


def test_groups_are_added_as_ever_once_it_is_build_optimizer() -> None:
    optimizer = build_optimizer(SGD, [parameter()], {"lr": 0.1})
    optimizer.add_param_group({"params": [parameter()], "lr": 0.2})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    with pytest.raises(ValueError, match="appear in more than one parameter group"):
        optimizer.add_param_group({"params": optimizer.param_groups[0]["params"]})


def test_what_torch_refuses_to_build_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid learning rate"):
        build_optimizer(SGD, [parameter()], {"lr": -1.0})


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
    unwrapped(optimizer, "step")()
    optimizer.step = watched(optimizer.step, "object")
    unwrapped(optimizer, "step")()
    assert calls == ["class", "object", "class"]


def test_a_derived_class_keeps_its_wraps() -> None:
    kind = type("Derived", (AdamW,), {})
    optimizer = build_optimizer(kind, [parameter()], {"lr": 0.1})
    assert type(optimizer) is kind
    assert unwrapped(optimizer, "step") == optimizer.step
    assert unwrapped(AdamW([parameter()]), "step") != AdamW([parameter()]).step


def test_a_divided_backward_pass_gives_torchs_gradients() -> None:
    weight = torch.randn(5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen: list[torch.Tensor] = []
    weight.register_post_accumulate_grad_hook(lambda w: seen.append(w.grad.clone()))
    for run in (divided_backward(), lambda loss, divisor: (loss / divisor).backward()):
        run((weight.sin() * weight).sum(), 3.0)
        run(weight.square().sum(), 2.0)  # added to the first
        run(weight.square().sum(), 1.0)
        weight.grad = None
    for ours, theirs in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(ours, theirs)


def test_a_backward_pass_that_torch_refuses_is_refused() -> None:
    run = divided_backward()
    with pytest.raises(RuntimeError, match="only for scalar outputs"):
        run(parameter() * 2, 3.0)
    with pytest.raises(RuntimeError, match="does not require grad"):
        run(torch.ones(()), 3.0)
    loss = parameter().square().sum()
    run(loss, 3.0)
    with pytest.raises(RuntimeError, match="second time"):
        run(loss, 3.0)


# ---------------------------------------------------------------- a private name is missing

STEPS = 20

ELSEWHERE = {
    "torch._C.DisableTorchFunction",
    "torch._dynamo.OptimizedModule._orig_mod",
    "torch.nn.Module._compiled_call_impl",
    "torch.utils._python_dispatch.TorchDispatchMode",
    "torch.utils.data.DataLoader._shutdown_workers",
}
"""Names that no training step uses; tests of the code that does report them absent."""


def test_every_name_is_found_in_this_torch() -> None:
    optimizer = SGD([parameter()])
    owners = {
        "torch.optim.Optimizer.step.__wrapped__": SGD.step,
        "torch.optim.Optimizer._optimizer_step_pre_hooks": optimizer,
        "torch.optim.Optimizer._optimizer_step_post_hooks": optimizer,
    }
    for name in set(FALLBACKS) - ELSEWHERE:
        found = names.attribute(owners[name], name) if name in owners else names.lookup(name)
        assert found is not None, name


def test_every_name_is_tested_without_it(private_names: set[str]) -> None:
    assert private_names | ELSEWHERE == set(FALLBACKS)
    files = [p for p in Path(__file__).parents[1].rglob("test_*.py") if p != Path(__file__)]
    tests = "".join(path.read_text() for path in files)
    assert [name for name in ELSEWHERE if f'"{name}"' not in tests] == []


def test_a_name_without_a_fallback_is_refused() -> None:
    with pytest.raises(KeyError, match="has no entry in FALLBACKS"):
        names.lookup("torch._foreach_sqrt")


@functools.cache
def fit(optimizer: str, absent: str = "") -> list[torch.Tensor]:
    """Weights after 20 steps. Another ``absent`` is another entry of the cache."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(100, 4, generator=draws, dtype=torch.float64)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).double()
    learner = Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long()),
        model,
        choices={"batch_size": 8, "optimizer": optimizer, "device": "cpu"},
        training=TrainingOptions(clip_norm=0.1, average=EMA(0.9), doctor=False),
        quiet=True,
    )
    learner.fit(2, lr=1e-2)
    assert len(learner.history.step_losses) == STEPS
    return [value.detach() for value in learner.model.parameters()]


def test_without_a_name_training_gives_the_same_weights(
    private_name: str, optimizer: str, report_absent: Any
) -> None:
    expected = fit(optimizer)
    calls = report_absent(private_name)
    for value, wanted in zip(fit(optimizer, private_name), expected, strict=True):
        # Only the order of sums may differ.
        torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-12)
    # torch makes the first step of every optimizer, so one replacement may have 19 calls.
    assert len(calls) >= STEPS - 1


def test_flambeau_imports_without_any_private_name() -> None:
    program = """
import sys, torch
from flambeau_names import NAMES
for name in NAMES:
    module, _, last = name.rpartition(".")
    if module in sys.modules and hasattr(sys.modules[module], last):
        delattr(sys.modules[module], last)
import flambeau
print(flambeau.Learner.__name__)
"""
    setup = f"import sys, types; m = types.ModuleType('flambeau_names'); m.NAMES = {[*FALLBACKS]}"
    answer = subprocess.run(
        [sys.executable, "-c", f"{setup}; sys.modules['flambeau_names'] = m\n{program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.strip() == "Learner", answer.stderr


# ---------------------------------------------------------------- a kernel has changed


@pytest.fixture
def change_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``change_kernel(name, kernel)``: torch has another kernel under that name."""
    original = names.lookup

    def change(name: str, kernel: Any) -> None:
        read = lambda wanted: kernel if wanted == name else original(wanted)  # noqa: E731
        monkeypatch.setattr(names, "lookup", read)

    fused_groups.kernel_agrees.cache_clear()
    yield change
    fused_groups.kernel_agrees.cache_clear()


def other_keywords(*lists: Any, learning_rate: float) -> None:
    raise AssertionError("never called")


def other_results(*lists: Any, lr: float, **settings: Any) -> None:
    torch._fused_adamw_(*lists, lr=2 * lr, **settings)


def ignores_found_inf(*lists: Any, found_inf: Any, **settings: Any) -> None:
    torch._fused_adamw_(*lists, found_inf=None, **settings)


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (other_keywords, "TypeError: .*unexpected keyword argument"),
        (other_results, "its step differs from that of AdamW"),
        (ignores_found_inf, "its step differs from that of AdamW"),
    ],
)
def test_a_changed_kernel_is_not_used(kernel: Any, why: str, change_kernel: Any) -> None:
    change_kernel("torch._fused_adamw_", kernel)
    ours, theirs = parameter(), parameter()
    optimizer, expected = AdamW([ours], fused=True), AdamW([theirs], fused=True)
    step = OptimizerStep(optimizer)
    with pytest.warns(FlambeauWarning, match=rf"torch\._fused_adamw_ .*{why}.*AdamW.step"):
        step()
    step()  # without a second warning, which would be an error
    for _ in range(2):
        expected.step()
    assert torch.equal(ours, theirs)


def test_a_kernel_is_tried_once_for_each_dtype(change_kernel: Any) -> None:
    for _ in range(2):
        for dtype in (torch.float32, torch.float64):
            value = nn.Parameter(torch.ones(2, dtype=dtype))
            value.grad = torch.ones_like(value)
            OptimizerStep(SGD([value], fused=True))()
    found = fused_groups.kernel_agrees.cache_info()
    assert (found.hits, found.misses) == (2, 2)


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (lambda tensors, flag: None, "TypeError"),
        (lambda tensors, flag, one: None, r"flags were \[0.0, 0.0\]"),
        (lambda tensors, flag, one: tensors[0].zero_(), "changed the tensors"),
    ],
)
def test_a_changed_check_for_infinities_is_not_used(
    kernel: Any, why: str, change_kernel: Any
) -> None:
    change_kernel("torch._amp_foreach_non_finite_check_and_unscale_", kernel)
    with pytest.warns(FlambeauWarning, match=f"{why}.*the norm of the tensors"):
        check = non_finite_flagger(torch.device("cpu"))
    flag, one = torch.zeros(()), torch.ones(())
    check([torch.ones(2)], flag, one)
    assert flag == 0
    check([torch.tensor([1.0, float("nan")])], flag, one)
    assert flag == 1


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (lambda outputs, gradients, **settings: None, "TypeError"),
        (lambda *arguments, **settings: None, "gradient was None"),
    ],
)
def test_a_changed_engine_is_not_used(engine: Any, why: str, change_kernel: Any) -> None:
    change_kernel("torch.autograd.graph._engine_run_backward", engine)
    with pytest.warns(FlambeauWarning, match=f"{why}.*Tensor.backward"):
        run = divided_backward()
    number = torch.ones((), requires_grad=True)
    run(number * 3, 2.0)
    assert number.grad == 1.5


def test_optimizers_that_obey_found_inf() -> None:
    assert OptimizerStep(AdamW([parameter()], fused=True)).reads_found_inf()
    assert OptimizerStep(Adagrad([parameter()], fused=True)).reads_found_inf()
    assert not OptimizerStep(AdamW([parameter()])).reads_found_inf()
    assert not OptimizerStep(RMSprop([parameter()])).reads_found_inf()
