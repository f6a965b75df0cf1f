"""A choice of the plan takes effect: what is built and run from it is what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import (
    Callback,
    Classification,
    Data,
    Learner,
    Regression,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import ArgumentError, PlanError
from flambeau.plan import Plan
from flambeau.tensors.mlp import MLP


def labels(n: int = 96) -> Data:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=draws)
    return TensorData.from_tensors(x, (x[:, 0] > 0.8).long())


def amounts() -> Data:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(96, 4, generator=draws)
    return TensorData.from_tensors(x, x[:, 0] * 30 + 500)


def learner(data: Data | None = None, **choices: Any) -> Learner:
    return Learner(data or labels(), choices=choices, quiet=True)


def test_the_balanced_loss_weighs_every_class_the_same() -> None:
    made = learner(loss="balanced_cross_entropy")
    assert isinstance(made.task, Classification)
    counts = made.data.facts()["class_counts"]
    assert made.task.class_weights is not None
    parts = [w * c for w, c in zip(made.task.class_weights, counts, strict=True)]
    assert parts == pytest.approx([sum(counts) / 2] * 2)


def test_the_balanced_loss_counts_the_sample_weights() -> None:
    x, y = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)), torch.arange(100) % 2
    weights = 1 + 8 * y
    rows = torch.arange(100).repeat_interleave(weights)
    valid = (x[:4], y[:4])
    weighted = TensorData.from_tensors(x, y, sample_weight=weights, valid=valid)
    repeated = TensorData.from_tensors(x[rows], y[rows], valid=valid)
    made = [learner(data, loss="balanced_cross_entropy").task for data in (weighted, repeated)]
    for task in made:
        assert isinstance(task, Classification)
        assert task.class_weights == pytest.approx((5.0, 5 / 9))
    plans = [learner(data).plan for data in (weighted, repeated)]
    assert plans[0].values["metrics"] == plans[1].values["metrics"]
    assert "has 90% of the sample weights" in plans[0]["metrics"].reason


def test_the_smoothed_loss_smooths() -> None:
    task = learner(loss="smoothed_cross_entropy").task
    assert isinstance(task, Classification)
    assert task.label_smoothing == 0.1


@pytest.mark.parametrize("loss", ["mse", "huber", "mae"])
def test_losses_of_amounts(loss: str) -> None:
    task = learner(amounts(), loss=loss).task
    assert isinstance(task, Regression)
    assert task.loss_kind == loss


def test_targets_are_standardised_or_not() -> None:
    standard, as_is = learner(amounts()), learner(amounts(), targets="as_is")
    assert isinstance(standard.task, Regression)
    assert isinstance(as_is.task, Regression)
    assert standard.task.mean is not None
    assert standard.task.mean[0] == pytest.approx(500, abs=10)
    assert as_is.task.mean is None
    own = Learner(amounts(), nn.Linear(4, 1), choices={"targets": "standard"}, quiet=True)
    assert isinstance(own.task, Regression)
    assert own.task.mean == standard.task.mean


def test_the_head_has_the_dropout() -> None:
    model = learner(head={"dropout": 0.25}).model
    assert isinstance(model, MLP)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    assert not any(isinstance(m, nn.Dropout) for m in learner().model.modules())


def test_only_the_groups_that_are_trainable_learn() -> None:
    made = learner(trainable="head", epochs=1)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.fit()
    moved = {n for n, v in made.model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"head.weight", "head.bias"}


def test_freezing_is_a_choice_like_any_other() -> None:
    made = learner()
    made.freeze()
    assert made.plan["trainable"].source == "user"
    assert made.plan.values["trainable"] == ["head"]
    made.unfreeze()
    assert made.plan.values["trainable"] == "all"
    with pytest.raises(ArgumentError, match="no parameter group 'heads'"):
        learner(trainable=["heads"]).fit(1)


class Seen(Callback):
    """What a run looks like from inside."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.steps = 0

    def on_step_end(self, state: Any) -> None:
        self.threads.add(torch.get_num_threads())
        self.steps += 1


def test_a_run_has_the_planned_threads_and_gives_them_back() -> None:
    seen, before = Seen(), torch.get_num_threads()
    made = Learner(labels(), choices={"num_threads": before + 1}, callbacks=[seen], quiet=True)
    made.fit(1)
    assert seen.threads == {before + 1}
    assert torch.get_num_threads() == before


def test_accumulated_batches_make_one_step() -> None:
    seen = Seen()
    choices = {"batch_size": 8, "accumulate": 3}
    made = Learner(labels(), choices=choices, callbacks=[seen], quiet=True)
    assert made.plan["epochs"].evidence["steps_per_epoch"] == -(-77 // 24)
    made.fit(1)
    assert seen.steps == -(-77 // 24)


def test_accumulate_of_the_options_is_a_choice_of_the_plan() -> None:
    options = TrainingOptions(accumulate=3)
    made = Learner(labels(), training=options, quiet=True)
    assert (made.plan.values["accumulate"], made.plan["accumulate"].source) == (3, "user")
    with pytest.raises(ArgumentError, match=r"accumulate is 2 in choices and 3 in TrainingOptions"):
        Learner(labels(), training=options, choices={"accumulate": 2})


def test_a_task_of_the_users_own_keeps_its_loss_and_metrics() -> None:
    task = Classification(["no", "yes"], metrics=["macro_f1"])
    made = Learner(labels(), task=task, quiet=True)
    assert made.plan.values["metrics"] == ["macro_f1"]
    assert made.plan.values["loss"] == "cross entropy"
    for key, value in (("loss", "smoothed_cross_entropy"), ("metrics", ["accuracy"])):
        with pytest.raises(PlanError, match=rf"{key} is .*Pass another task"):
            Learner(labels(), task=task, choices={key: value})


def test_a_domain_that_drops_the_loss_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = labels()
    made = Learner(data, choices={"loss": "smoothed_cross_entropy"}, quiet=True)
    only_classes = {"classes": ["0", "1"]}
    monkeypatch.setattr(type(data), "task_arguments", lambda self, *given: only_classes)
    with pytest.raises(
        PlanError, match=r"loss is 'smoothed_cross_entropy', but the task '.*' of the domain 'tens"
    ):
        _ = made.task


# ---------------------------------------------------------------- strict


def test_a_strict_plan_refuses_what_it_is_not_sure_of() -> None:
    data, module = labels(), nn.Linear(4, 2)
    unsure = Learner(data, module, quiet=True).plan
    low = [key for key in unsure if unsure[key].confidence < 0.5]
    assert low
    with pytest.raises(PlanError) as refused:
        Learner(data, module, choices={"strict": True})
    for key in low:
        assert f'choices={{"{key}": ' in str(refused.value)
        assert unsure[key].override in str(refused.value)
    sure = {key: unsure[key].value for key in low}
    assert Learner(data, module, choices={"strict": True, **sure}).plan.values["strict"] is True


def test_a_plan_that_is_sure_passes() -> None:
    Plan([]).require_confidence()
    assert learner(strict=True).plan.values["strict"] is True


# ---------------------------------------------------------------- exact replay

REPLAY = """
import hashlib, sys, torch
sys.path.insert(0, {tests!r})
torch.manual_seed(7)
from flambeau import Learner, TensorData
draws = torch.Generator().manual_seed(0)
x = torch.randn(96, 4, generator=draws)
learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0.8).long()), plan={plan!r}, quiet=True)
learner.fit()
print(hashlib.sha256(b"".join(
    value.numpy().tobytes() for value in learner.model.state_dict().values())).hexdigest())
"""


def digest(values: dict[str, Tensor]) -> str:
    import hashlib

    joined = b"".join(value.numpy().tobytes() for value in values.values())
    return hashlib.sha256(joined).hexdigest()


def test_a_saved_plan_replays_to_the_same_weights_in_a_new_process(tmp_path: Path) -> None:
    choices = {
        "head": {"dropout": 0.3},
        "batch_size": 8,
        "accumulate": 2,
        "loss": "balanced_cross_entropy",
        "num_threads": 1,
    }
    made = learner(**choices)
    torch.manual_seed(7)  # dropout draws from torch's own generator
    made.fit(3, lr=5e-3)
    made.plan.save(tmp_path / "plan.json")
    script = REPLAY.format(tests=str(Path(__file__).parent), plan=str(tmp_path / "plan.json"))
    again = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert again.stdout.split()[-1] == digest(dict(made.model.state_dict()))


def test_a_built_learner_resumes_with_the_measured_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAMBEAU_CACHE", str(tmp_path / "cache"))
    first = Learner(labels(), choices={"probe": "always"}, folder=tmp_path / "run", quiet=True)
    first.fit(1)
    assert first.plan.values["probe"] in ("measured", "cached")
    again = Learner(labels(), folder=tmp_path / "run", quiet=True)
    _ = again.model
    again.resume()
    assert again.plan.values == first.plan.values


def test_numpy_scalars_are_accepted_as_choices_and_seed() -> None:
    choices = {"lr": np.float64(1e-3), "batch_size": np.int64(8), "weight_decay": np.float32(0)}
    learner = Learner(labels(), seed=np.int64(3), choices=choices, quiet=True)
    plain = Learner(labels(), seed=3, choices={"lr": 1e-3, "batch_size": 8, "weight_decay": 0.0})
    assert learner.plan.values == plain.plan.values
    assert type(learner.seed) is int
    with pytest.raises(PlanError, match=r"lr is .*finite number above 0"):
        Learner(labels(), choices={"lr": np.float32("inf")})
