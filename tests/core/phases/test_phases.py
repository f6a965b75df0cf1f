"""A two-phase fine-tune that is interrupted and resumed equals the uninterrupted one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flambeau import EMA, Callback, Learner, TensorData, TrainingOptions


class Net(nn.Module):
    """Batch norm, dropout and three groups from stem to head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)))


class Crash(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state) -> None:
        if state.position.step == self.at:
            raise KeyboardInterrupt


class Recorder(Callback):
    """Records at every step which groups are trained, their lr and the mode of norm layers."""

    def __init__(self) -> None:
        self.steps: list[tuple[object, ...]] = []

    def on_step_start(self, state) -> None:
        net = state.model
        groups = state.optimizers["main"].param_groups
        self.steps.append(
            (
                state.phase.name,
                [p.requires_grad for p in (net.stem[0].weight, net.head.weight)],
                [net.stem[1].training, net.body[1].training],
                {group["group"]: group["lr"] for group in groups if group["decay"]},
            )
        )


def make(callbacks=(), folder=None, bn: str = "auto") -> Learner:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(150, 6, generator=draws)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    torch.manual_seed(7)
    return Learner(
        TensorData.from_tensors(x, y, valid=0.2),
        Net(),
        choices={"batch_size": 16, "bn": bn},
        training=TrainingOptions(average=EMA(0.9), accumulate=2, clip_norm=1.0),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


STEPS = 4  # 120 train rows, 16 a batch, 2 batches a step


@pytest.mark.parametrize("at", [STEPS + 2, 2 * STEPS, 3 * STEPS - 1])
def test_a_run_resumed_in_phase_two_is_bitwise_equal(tmp_path, at: int) -> None:
    whole = make()
    whole.fine_tune(2, lr=0.02)
    with pytest.raises(KeyboardInterrupt):
        make([Crash(at)], tmp_path).fine_tune(2, lr=0.02)
    torch.manual_seed(99)  # earlier random numbers must not matter
    resumed = make(folder=tmp_path)
    resumed.resume()

    assert list(resumed.history.step_losses) == list(whole.history.step_losses)
    for (name, ours), theirs in zip(
        resumed.model.state_dict().items(), whole.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    drop = {"seconds"}
    assert [{k: v for k, v in row.items() if k not in drop} for row in resumed.history.rows] == [
        {k: v for k, v in row.items() if k not in drop} for row in whole.history.rows
    ]


def test_the_head_is_trained_first_then_all_groups() -> None:
    recorder = Recorder()
    learner = make([recorder])
    learner.fine_tune(1, lr=0.02)
    first, second = recorder.steps[0], recorder.steps[-1]
    assert first[:3] == ("head", [False, True], [True, True])
    assert second[:3] == ("all", [True, True], [True, True])
    rates = second[3]
    assert rates["head"] == pytest.approx(10 * rates["body"]) == pytest.approx(100 * rates["stem"])


def test_frozen_groups_keep_weights_and_statistics() -> None:
    learner = make(bn="eval")
    learner.training = TrainingOptions()
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    learner.freeze()
    learner.fit(1, lr=0.05)
    after = learner.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("bn", ["train", "adapt"])
def test_norm_layers_of_frozen_groups_are_trained(bn: str) -> None:
    learner = make(bn=bn)
    learner.training = TrainingOptions()
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    learner.freeze()
    learner.fit(1, lr=0.05)
    after = learner.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    norms = {name for name in before if name.startswith(("stem.1.", "body.1."))}
    # "adapt" measures the statistics once and does not count batches.
    norms -= {n for n in norms if bn == "adapt" and n.endswith("num_batches_tracked")}
    assert changed == {"head.weight", "head.bias"} | norms


def test_another_model_is_refused(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make([Crash(3)], tmp_path).fit(1)
    other = make(folder=tmp_path)
    other.model.head = nn.Linear(16, 4)
    with pytest.raises(RuntimeError, match=r"head\.weight: \[3, 16\].*\[4, 16\]"):
        other.resume()
