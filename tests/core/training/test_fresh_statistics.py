"""Early evaluations use statistics of the current weights, not lagging averages."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, IterableDataset

from flambeau import (
    EMA,
    SWA,
    Callback,
    FlambeauWarning,
    Learner,
    Phase,
    Schedule,
    TensorData,
    TrainingOptions,
    TrainState,
)


def data(n: int = 64) -> TensorData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64) * 3 + 5
    y = (x[:, 0] > 5).long()
    return TensorData.from_tensors(x, y, valid=(x[:16], y[:16]))


def net(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8, **settings)
    layers = (nn.Linear(6, 8), norm, nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    return nn.Sequential(*layers).double()


class KeepWeights(Callback):
    """Keeps the model at the beginning of every evaluation."""

    def __init__(self) -> None:
        self.models: list[nn.Module] = []

    def on_eval_start(self, state: TrainState) -> None:
        self.models.append(copy.deepcopy(state.model))


def learner(model: nn.Module, *, callbacks: Any = (), n: int = 64, **options: Any) -> Learner:
    choices = options.pop("choices", {})
    return Learner(
        data(n),
        model,
        choices={"lr": 0.05, "batch_size": 8, "probe": "off", "input_dtype": "float64", **choices},
        training=TrainingOptions(doctor=False, **options),
        callbacks=callbacks,
    )


def batches(fitted: Learner, epoch: int) -> list[Tensor]:
    built = fitted.built
    loader = built.loader("train").batches(epoch)
    return [built.preprocessor.on_device(batch).input for batch in loader]


@torch.no_grad()
def recomputed(model: nn.Module, inputs: list[Tensor]) -> nn.Module:
    """torch's own update of the statistics, with everything else in eval mode."""
    again = copy.deepcopy(model)
    dropout = [module for module in again.modules() if isinstance(module, nn.Dropout)]
    for module in dropout:
        module.p = 0.0
    update_bn(inputs, again)
    return again.eval()


@pytest.mark.parametrize("average", [None, EMA(0.5)], ids=["plain", "ema"])
def test_early_evaluations_use_statistics_of_the_weights(average: EMA | None) -> None:
    keep = KeepWeights()
    fitted = learner(net(), callbacks=[keep], average=average)
    history = fitted.fit(2)
    for epoch, (model, row) in enumerate(zip(keep.models, history.rows, strict=True)):
        again = recomputed(model, batches(fitted, epoch))
        torch.testing.assert_close(model[1].running_mean, again[1].running_mean)  # type: ignore[index]
        torch.testing.assert_close(model[1].running_var, again[1].running_var)  # type: ignore[index]
        valid = list(fitted.built.batches("valid"))
        outputs = torch.cat([again(batch.input) for batch in valid])
        loss = nn.functional.cross_entropy(outputs, torch.cat([b.target for b in valid]))
        assert row["valid_loss"] == pytest.approx(float(loss.detach()), rel=1e-9)


def test_training_is_the_same_with_running_statistics() -> None:
    fresh = learner(net()).fit(2)
    running = learner(net(), choices={"bn_statistics": "running"}).fit(2)
    assert fresh.step_losses == running.step_losses
    assert fresh.rows[0]["valid_loss"] != running.rows[0]["valid_loss"]


def test_running_statistics_are_those_of_torch() -> None:
    keep = KeepWeights()
    fitted = learner(net(), callbacks=[keep], choices={"bn_statistics": "running"})
    history = fitted.fit(1)
    assert len(history.step_losses) == 8
    weight = 0.9**8  # of the initial mean of 0
    layer, inputs = keep.models[0][1], batches(fitted, 0)  # type: ignore[index]
    assert layer.num_batches_tracked == 8
    again = recomputed(keep.models[0], inputs)[1]  # type: ignore[index]
    ratio = float((layer.running_mean / again.running_mean).median())
    assert ratio == pytest.approx(1 - weight, abs=0.1)


def test_later_evaluations_use_the_running_statistics() -> None:
    keep = KeepWeights()
    fitted = learner(net(), callbacks=[keep], n=8 * 26)
    fitted.fit(2)  # evaluations after 26 and 52 steps
    for epoch, is_fresh in enumerate((True, False)):
        again = recomputed(keep.models[epoch], batches(fitted, epoch)[:20])
        stored = keep.models[epoch][1].running_mean  # type: ignore[index]
        assert torch.allclose(stored, again[1].running_mean) is is_fresh  # type: ignore[index]


@pytest.mark.parametrize("again", [True, False])
def test_phases_that_train_the_same_layers_count_together(again: bool) -> None:
    """A run with a time budget has a phase for each evaluation."""
    keep = KeepWeights()
    fitted = learner(net(), callbacks=[keep], n=8 * 26)
    trainable = None if again else ("1", "4")
    phases = [Phase(1, {"lr": Schedule("constant", 0.05)}, trainable=each)
              for each in (None, trainable)]  # fmt: skip
    fitted.fit_phases(phases)
    for epoch, is_fresh in enumerate((True, not again)):
        expected = recomputed(keep.models[epoch], batches(fitted, epoch)[:20])
        stored = keep.models[epoch][1].running_mean  # type: ignore[index]
        assert torch.allclose(stored, expected[1].running_mean) is is_fresh  # type: ignore[index]


def test_statistics_that_never_follow_the_data_stay() -> None:
    model = net(momentum=0.0)
    learner(model).fit(1)
    assert not model[1].running_mean.any()  # type: ignore[index]
    assert model[1].momentum == 0.0  # type: ignore[index]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_momentum_and_count_are_kept(momentum: float | None) -> None:
    model = net(momentum=momentum)
    learner(model).fit(1)
    assert model[1].momentum == momentum  # type: ignore[index]
    assert model[1].num_batches_tracked == 8  # type: ignore[index]


def test_frozen_statistics_stay() -> None:
    model = net()
    with torch.no_grad():
        model[1].running_mean.fill_(4.0)  # type: ignore[index]
    learner(model, choices={"bn": "eval"}).fit(1)
    assert (model[1].running_mean == 4.0).all()  # type: ignore[index]


def test_swa_keeps_its_own_mean_of_the_statistics() -> None:
    model = net()
    keep = KeepWeights()
    fitted = learner(model, callbacks=[keep], average=SWA(0.0))
    fitted.fit(1)
    torch.testing.assert_close(keep.models[-1].state_dict(), model.state_dict())


def test_a_measurement_of_the_rate_does_not_warn() -> None:
    """Its short runs end with statistics that lag, but nobody evaluates them."""
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    layers = (nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    fitted = Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=8),
        nn.Sequential(*layers),
        choices={"batch_size": 16},
        quiet=True,
    )
    fitted.lr_find()


def test_statistics_that_cannot_be_computed_anew_are_warned_of() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            generator = torch.Generator().manual_seed(0)
            for row in torch.randn(64, 6, generator=generator) + 50:
                yield row, int(row[0] > 50)

    rows = [pair for _, pair in zip(range(16), Stream(), strict=False)]
    data = TensorData.from_loaders(
        DataLoader(Stream(), 8), DataLoader(rows, 8), class_names=["a", "b"]
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    fitted = Learner(
        data,
        model,
        choices={"lr": 0.01, "probe": "off"},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    with pytest.warns(FlambeauWarning, match=r"lagging-statistics.*50 steps.*read twice") as found:
        history = fitted.fit(steps=8)
    assert sum("lagging-statistics" in str(each.message) for each in found) == 1
    # The running mean has 57 % of the weight of eight batches; with their own statistics the loss
    # is about half.
    inputs = torch.stack([row for row, _ in Stream()]).split(8)
    again = recomputed(model, list(inputs))
    valid = torch.stack([row for row, _ in rows])
    loss = nn.functional.cross_entropy(again(valid), torch.tensor([label for _, label in rows]))
    assert history.rows[-1]["valid_loss"] > 1.5 * float(loss.detach())
