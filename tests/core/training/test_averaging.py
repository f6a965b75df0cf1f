"""EMA and SWA against slow loops and torch's AveragedModel."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flambeau.errors import InputError, ResumeError, TrainingError
from flambeau.training.optim.averaging import EMA, SWA, RunningAverage

STEPS = 12


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model.register_buffer("table", torch.arange(3.0))
    return model.to(dtype)


def training(model: nn.Module, steps: int = STEPS) -> Iterator[int]:
    """Moves weights and statistics; yields the number of steps done."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, steps + 1):
        x = torch.randn(5, 3, generator=generator, dtype=dtype)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        yield step


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def averaged(average: RunningAverage, model: nn.Module) -> dict[str, Tensor]:
    with average.swapped(model):
        return tensors(model)


@pytest.mark.parametrize("warmup", [True, False])
def test_ema_equals_a_slow_loop(warmup: bool) -> None:
    model = net(torch.float64)
    average = EMA(decay=0.5 if not warmup else 0.3, warmup=warmup).running()
    average.start(model)
    expected = {n: p.detach().clone() for n, p in model.named_parameters()}
    for update, step in enumerate(training(model)):
        average.update(step, STEPS)
        decay = min(0.3, (1 + update) / (10 + update)) if warmup else 0.5
        for name, parameter in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    found = averaged(average, model)
    for name, value in expected.items():
        # lerp computes a + w (b - a): the same up to rounding.
        torch.testing.assert_close(found[name], value, rtol=1e-13, atol=1e-15)


def test_ema_equals_that_of_torch() -> None:
    model = net()
    average = EMA(decay=0.9, warmup=False).running()
    average.start(model)
    # torch takes the first update as a copy, so it starts where ours starts.
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)
    for step in training(model):
        average.update(step, STEPS)
        theirs.update_parameters(model)
    found = averaged(average, model)
    for name, value in theirs.module.named_parameters():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-6, atol=1e-7)


def test_ema_does_not_average_buffers() -> None:
    model = net()
    average = EMA(decay=0.5, warmup=False).running()
    average.start(model)
    for step in training(model):
        average.update(step, STEPS)
    found = averaged(average, model)
    for name, buffer in model.named_buffers():
        assert torch.equal(found[name], buffer)


def test_swa_equals_that_of_torch_with_statistics() -> None:
    model = net()
    average = SWA(start=0.5).running()
    average.start(model)
    theirs = AveragedModel(model, use_buffers=True)
    for step in training(model):
        average.update(step, STEPS)
        if step > STEPS * 0.5:
            theirs.update_parameters(model)
    assert average.updates == STEPS // 2
    found = averaged(average, model)
    expected = theirs.module.state_dict()
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)
    assert found["1.num_batches_tracked"] == STEPS  # a count stays the model's own


def test_swa_does_nothing_before_its_start() -> None:
    model = net()
    average = SWA(start=0.9).running()
    average.start(model)
    for step in training(model, 3):
        average.update(step, STEPS)
    before = tensors(model)
    assert all(torch.equal(v, before[n]) for n, v in averaged(average, model).items())
    average.finish(model)
    assert all(torch.equal(v, before[n]) for n, v in tensors(model).items())


@pytest.mark.parametrize("spec", [EMA(0.5), SWA(0.0)])
def test_swapped_restores_the_weights_of_the_model(spec: EMA | SWA) -> None:
    model = net()
    average = spec.running()
    average.start(model)
    for step in training(model):
        average.update(step, STEPS)
    before, own = tensors(model), dict(model.named_parameters())
    with pytest.raises(KeyError), average.swapped(model):
        assert not torch.equal(model[0].weight, before["0.weight"])
        raise KeyError  # also when evaluation fails
    assert all(torch.equal(v, before[n]) for n, v in tensors(model).items())
    assert all(own[n] is p for n, p in model.named_parameters())


@pytest.mark.parametrize("spec", [EMA(0.5), SWA(0.0)])
def test_finish_writes_the_average(spec: EMA | SWA) -> None:
    model = net()
    average = spec.running()
    average.start(model)
    for step in training(model):
        average.update(step, STEPS)
    expected = averaged(average, model)
    average.finish(model)
    assert all(torch.equal(v, expected[n]) for n, v in tensors(model).items())


@pytest.mark.parametrize("spec", [EMA(0.9), SWA(0.3)])
def test_resumed_average_equals_an_uninterrupted_one(spec: EMA | SWA) -> None:
    model = net()
    unbroken = spec.running()
    unbroken.start(model)
    resumed = None
    for step in training(model):
        unbroken.update(step, STEPS)
        if resumed is not None:
            resumed.update(step, STEPS)
        if step == 6:
            saved = copy.deepcopy(unbroken.state_dict())
            resumed = spec.running()
            resumed.start(model)
            resumed.load_state_dict(saved)
    expected = averaged(unbroken, model)
    assert all(torch.equal(v, expected[n]) for n, v in averaged(resumed, model).items())


def test_half_precision_is_averaged_in_float32() -> None:
    model = nn.Linear(2, 1, dtype=torch.bfloat16)
    average = EMA(decay=0.999, warmup=False).running()
    average.start(model)
    start = model.weight.detach().float().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    target = model.weight.detach().float().clone()
    for step in range(1, 1001):
        average.update(step, 1000)
    found = average.state_dict()["tensors"]["weight"]
    # In bf16 nothing would have moved: 0.001 is below its resolution near 1.
    torch.testing.assert_close(found, target + 0.999**1000 * (start - target), rtol=1e-3, atol=0.0)
    with average.swapped(model):
        assert model.weight.dtype is torch.bfloat16


def test_tied_parameters_are_averaged_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    average = EMA().running()
    average.start(model)
    assert sorted(average.state_dict()["tensors"]) == ["0.bias", "0.weight", "1.bias"]


def test_a_saved_average_of_another_model() -> None:
    average, other = EMA().running(), EMA().running()
    average.start(net())
    other.start(nn.Linear(2, 2))
    message = r"differ from the tensors of the model: 0\.bias, 0\.weight"
    with pytest.raises(ResumeError, match=message):
        average.load_state_dict(other.state_dict())


def test_an_average_that_was_never_started() -> None:
    with pytest.raises(TrainingError, match=r"Call start\(model\) first"):
        EMA().running().finish(net())


def test_shares() -> None:
    with pytest.raises(
        InputError, match=r"decay of EMA must be .* at least 0 and below 1, not 1\.0"
    ):
        EMA(decay=1.0)
    with pytest.raises(InputError, match=r"start of SWA must be .*, not -0\.1"):
        SWA(start=-0.1)
