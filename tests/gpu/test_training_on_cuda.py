"""Training on a CUDA device: the losses of a loop by hand, in each precision, from each loader."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import EMA, Callback, Checkpointing, Learner, Predictor, TensorData, TrainingOptions
from flambeau.errors import NonFiniteError, OutOfMemoryError

pytestmark = pytest.mark.gpu

LR = 0.01
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Table = tuple[Tensor, Tensor]


def net(seed: int = 3, dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 4)
    )


def new_learner(table: Table, model: nn.Module | None = None, **options: Any) -> Learner:
    choices = {"batch_size": 16, "optimizer": "adamw", "weight_decay": 0.0, "probe": "off"}
    choices |= options.pop("choices", {})
    return Learner(
        TensorData.from_tensors(*table, valid=0.2),
        model or net(),
        choices=choices,
        quiet=True,
        **options,
    )


def weights(learner: Learner) -> Tensor:
    values = learner.model.state_dict().values()
    return torch.cat([value.detach().float().flatten() for value in values])


def losses_by_hand(
    learner: Learner, device: torch.device, precision: str, epochs: int
) -> list[float]:
    """A loop as one writes it, with torch's own autocast and loss scale."""
    dtype = DTYPES[precision]
    model = net().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    losses: list[float] = []
    torch.manual_seed(11)
    model.train()
    loader = learner.built.loader("train")
    for epoch in range(epochs):
        for batch in loader.batches(epoch):
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                outputs = model(batch.input.to(device))
                # flambeau's losses are computed in fp32; torch's own under autocast, in half.
                loss = nn.functional.cross_entropy(outputs.float(), batch.target.to(device))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("precision", DTYPES)
def test_losses_are_those_of_a_hand_written_loop_to_the_bit(
    table: Table, cuda: torch.device, precision: str
) -> None:
    learner = new_learner(table, choices={"precision": precision})
    torch.manual_seed(11)
    history = learner.fit(2, lr=LR, schedule="constant")
    assert next(learner.model.parameters()).device == cuda
    assert learner.plan.values["device"].startswith("cuda")
    expected = losses_by_hand(learner, cuda, precision, 2)
    assert len(expected) == 100
    assert list(history.step_losses) == expected


@pytest.mark.parametrize("precision", DTYPES)
def test_all_loaders_give_the_same_training(table: Table, precision: str) -> None:
    """On the device, through pinned buffers, and from the user's own loaders."""
    found = []
    for kind in ("device", "staged", "own"):
        if kind == "own":
            like = new_learner(table, choices={"precision": precision})
            batches = [
                [(b.input.cpu(), b.target.cpu()) for b in like.built.loader(part).batches(0)]
                for part in ("train", "valid")
            ]
            learner = Learner(
                TensorData.from_loaders(*batches, n_classes=4),
                net(dropout=0.0),
                choices={
                    "precision": precision,
                    "optimizer": "adamw",
                    "weight_decay": 0.0,
                    "probe": "off",
                },
                quiet=True,
            )
        else:
            place = {"device": "cuda", "staged": "cpu"}[kind]
            learner = new_learner(
                table,
                net(dropout=0.0),
                choices={"precision": precision, "data_device": place},
            )
        history = learner.fit(1, lr=LR, schedule="constant")
        found.append((list(history.step_losses), weights(learner)))
    assert found[0][0] == found[1][0] == found[2][0]
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][1], found[2][1])


def test_agrees_with_the_cpu(table: Table) -> None:
    found = []
    for device in ("cuda", "cpu"):
        learner = new_learner(
            table, net(dropout=0.0), choices={"device": device, "precision": "fp32"}
        )
        history = learner.fit(2, lr=LR)
        found.append((torch.tensor(list(history.step_losses)), history.rows[-1]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=2e-4, atol=2e-4)
    assert found[0][1]["valid_loss"] == pytest.approx(found[1][1]["valid_loss"], rel=1e-3)


class Stop(Callback):
    """Ends a run as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("precision", DTYPES)
def test_a_resumed_run_continues_to_the_bit(table: Table, tmp_path: Path, precision: str) -> None:
    """Dropout draws on the device, whose generator is part of the checkpoint."""

    def start(folder: Path | None, *callbacks: Callback) -> Learner:
        return new_learner(
            table,
            choices={"precision": precision},
            folder=folder,
            callbacks=callbacks,
            training=TrainingOptions(average=EMA(), accumulate=2),
        )

    torch.manual_seed(5)
    whole = start(None)
    whole.fit(3, lr=LR)
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, Stop(37), Checkpointing(every_s=1e-9)).fit(3, lr=LR)
    torch.manual_seed(999)
    resumed = start(tmp_path)
    resumed.resume()
    assert list(resumed.history.step_losses) == list(whole.history.step_losses)
    assert torch.equal(weights(resumed), weights(whole))


class Overflows(nn.Module):
    """A linear net whose answer becomes infinite in a step of one's choice."""

    def __init__(self, at: int, value: float = float("nan")) -> None:
        super().__init__()
        self.layer = net(dropout=0.0)
        self.at, self.value, self.calls = at, value, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.layer(x) * (self.value if self.training and self.calls == self.at else 1.0)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_a_bad_step_is_named_and_changes_no_weights(table: Table, optimizer: str) -> None:
    """With an optimizer that reads the flag in its kernel, and with one that does not."""
    model = Overflows(at=8)
    learner = new_learner(
        table,
        model,
        choices={"precision": "fp32", "bn": "train", "optimizer": optimizer},
        training=TrainingOptions(doctor=False),
    )
    good: dict[str, Tensor] = {}

    class Keep(Callback):
        def on_step_start(self, state: Any) -> None:
            if model.calls == 7:
                good.update(copy.deepcopy(state.model.state_dict()))

    learner.callbacks = (Keep(),)
    with pytest.raises(NonFiniteError, match="step 7"):
        learner.fit(4, lr=LR)
    assert good
    for name, value in learner.model.named_parameters():
        assert torch.equal(value, good[name]), name
    # The norm's statistics go back to a copy that is some steps older.
    assert all(value.isfinite().all() for value in learner.model.buffers())


def test_out_of_memory_is_caught_with_advice(cuda: torch.device) -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            if self.training and len(x) > 64:
                torch.empty(1 << 60, dtype=torch.uint8, device=x.device)
            return self.layer(x)

    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=100)
    options: dict[str, Any] = {"training": TrainingOptions(doctor=False), "quiet": True}
    learner = Learner(data, Greedy(), choices={"batch_size": 128, "probe": "off"}, **options)
    with pytest.raises(OutOfMemoryError, match='"batch_size": 64, "accumulate": 2'):
        learner.fit(1, lr=LR)
    advised = {"batch_size": 64, "accumulate": 2, "probe": "off"}
    history = Learner(data, Greedy(), choices=advised, **options).fit(1, lr=LR)
    assert len(history.step_losses) == 3


def test_a_file_saved_on_the_device_loads_on_the_cpu(table: Table, tmp_path: Path) -> None:
    learner = new_learner(table)
    learner.fit(1, lr=LR)
    learner.export(tmp_path / "net")
    x = table[0][:10]
    on_device = Predictor.load(tmp_path / "net", model=net())
    on_cpu = Predictor.load(tmp_path / "net", model=net(), device="cpu")
    assert on_device.device.type == "cuda"
    torch.testing.assert_close(on_device.outputs(x), on_cpu.outputs(x), rtol=1e-4, atol=1e-4)


def test_lr_find_restores_everything_on_the_device(table: Table) -> None:
    """lr_find and the first fit's probes: afterwards the run is that of a learner without them."""
    plain, probed = (new_learner(table, choices={"precision": "fp32"}) for _ in range(2))
    torch.manual_seed(2)
    probed.lr_find()
    torch.manual_seed(2)
    probed.fit(1, lr=LR)
    torch.manual_seed(2)
    plain.fit(1, lr=LR)
    assert list(plain.history.step_losses) == list(probed.history.step_losses)
    assert torch.equal(weights(plain), weights(probed))


@pytest.mark.parametrize("compiled", ["regions", "whole"])
def test_a_compiled_model_trains_like_the_uncompiled_one(table: Table, compiled: str) -> None:
    found = []
    for how in ("off", compiled):
        learner = new_learner(
            table, net(dropout=0.0), choices={"precision": "fp32", "compile": how}
        )
        found.append(torch.tensor(list(learner.fit(1, lr=LR).step_losses)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_the_defaults_learn(table: Table) -> None:
    """Nothing chosen: probes, finder, doctor and all."""
    x, y = table
    learner = Learner(TensorData.from_tensors(x, y, valid=0.2), quiet=True)
    learner.fit(10)
    majority = y.bincount().max() / len(y)
    assert learner.evaluate("valid")["accuracy"] > majority + 0.15
