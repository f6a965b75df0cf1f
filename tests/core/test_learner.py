"""The Learner's own promises: one place for values, exact replay, weights in and out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from flambeau import Callback, Data, EarlyStopping, Learner, Predictor
from flambeau.errors import ArtefactError, InputError, PlanError, ResumeError


def data(seed: int = 0, n: int = 240) -> Data:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=draws)
    return Data.from_tensors(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long(), valid=0.2, test=0.1)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_saved_plan_replays_to_the_same_weights(tmp_path: Path) -> None:
    first = Learner(data(), choices={"batch_size": 32}, seed=3, quiet=True)
    torch.manual_seed(0)
    first.fit(4, lr=3e-3)
    first.plan.save(tmp_path / "plan.json")

    again = Learner(data(), plan=tmp_path / "plan.json", seed=3, quiet=True)
    torch.manual_seed(0)
    again.fit()

    assert again.plan.values == first.plan.values
    assert again.plan["lr"].source == "user"
    assert same(weights(first), weights(again))


def test_first_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(Learner(data(), seed=5, quiet=True))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, weights(Learner(data(), seed=5, quiet=True)))
    assert not same(first, weights(Learner(data(), seed=6, quiet=True)))


def test_an_override_of_a_replayed_plan_changes_it_alone() -> None:
    saved = Learner(data(), choices={"lr": 0.5}, quiet=True).plan
    changed = Learner(data(), plan=saved, choices={"epochs": 2}, quiet=True).plan
    assert {
        change for change in changed.values if changed.values[change] != saved.values[change]
    } == {"epochs"}


def test_unknown_choices_name_the_nearest() -> None:
    with pytest.raises(PlanError, match="batch_size"):
        Learner(data(), choices={"batchsize": 4})
    with pytest.raises(TypeError, match="not list"):
        Learner([1, 2])


def test_the_planned_metrics_reach_the_history() -> None:
    learner = Learner(data(), choices={"metrics": ["accuracy", "macro_f1"]}, quiet=True)
    history = learner.fit(1)
    assert {"valid_accuracy", "valid_macro_f1"} <= history.rows[-1].keys()


def test_early_stopping_puts_the_best_epoch_back() -> None:
    class Seen(Callback):
        def __init__(self) -> None:
            self.after: list[dict[str, torch.Tensor]] = []

        def on_epoch_end(self, state) -> None:
            self.after.append({k: v.clone() for k, v in state.model.state_dict().items()})

    seen = Seen()
    learner = Learner(data(n=60), callbacks=[seen, EarlyStopping(patience=2)], quiet=True)
    history = learner.fit(200, lr=0.05, schedule="constant")
    losses = history.column("valid_loss")
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 200
    assert same(weights(learner), seen.after[best])
    assert learner.evaluate()["loss"] == pytest.approx(min(losses))


def test_save_and_load(tmp_path: Path) -> None:
    first, second = Learner(data(), seed=1, quiet=True), Learner(data(), seed=2, quiet=True)
    file = first.save(tmp_path / "weights")
    assert file.name == "weights.safetensors"
    second.load(tmp_path / "weights")
    assert same(weights(first), weights(second))
    first.export(tmp_path / "export")
    third = Learner(data(), seed=4, quiet=True)
    third.load(tmp_path / "export")
    assert same(weights(first), weights(third))
    other = Learner(data(), nn.Linear(6, 3), quiet=True)
    with pytest.raises(ArtefactError, match="Linear"):
        other.load(file)
    with pytest.raises(ArtefactError, match="nowhere"):
        first.load(tmp_path / "nowhere")


def test_predict_export_and_validation_agree(tmp_path: Path) -> None:
    samples = data()
    learner = Learner(samples, quiet=True)
    learner.fit(5)
    items = samples.raw("test")
    answers = learner.predict(items)
    assert [a.label for a in Predictor.load(learner.export(tmp_path / "e")).predict(items)] == [
        a.label for a in answers
    ]
    loader = learner.realised.loader("test")
    truth = torch.cat([batch.target for batch in loader.batches(0)])
    right = sum(a.label == str(int(t)) for a, t in zip(answers, truth, strict=True))
    assert right / len(truth) == pytest.approx(learner.evaluate("test")["accuracy"])


def test_a_bare_module_exports_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learner = Learner(data(), nn.Linear(6, 3), quiet=True)
    learner.fit(1)
    exported = learner.export(tmp_path / "e")
    items = data().raw("test")
    loaded = Predictor.load(exported, model=nn.Linear(6, 3))
    assert torch.equal(loaded.outputs(items), learner.predictor().outputs(items))
    with pytest.raises(ArtefactError, match="model="):
        Predictor.load(exported)


def test_a_second_fit_goes_on() -> None:
    learner = Learner(data(), quiet=True)
    learner.fit(2)
    learner.fit(1)
    assert learner.history.column("epoch") == [1, 2, 3]


def test_a_last_batch_of_one_does_not_break_batch_norm() -> None:
    x = torch.randn(41, 6)
    samples = Data.from_tensors(x, torch.arange(41) % 2, valid=0.2)
    assert len(samples.split.train) % 8 == 1
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    history = Learner(samples, net, choices={"batch_size": 8}, quiet=True).fit(1)
    assert len(history.step_losses) == len(samples.split.train) // 8


def test_nothing_is_written_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Learner(data(), quiet=True).fit(1)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done_says_what_to_do(tmp_path: Path) -> None:
    learner = Learner(data(), quiet=True)
    with pytest.raises(ResumeError, match="no folder"):
        learner.resume()
    with pytest.raises(ResumeError, match="no checkpoint"):
        learner.resume(tmp_path)
    with pytest.raises(InputError, match="leaves nothing to train"):
        learner.freeze_to(9)
    only = Data.from_tensors(torch.randn(20, 2), torch.arange(20) % 2, valid=0.5)
    with pytest.raises(InputError, match="no test samples"):
        Learner(only, quiet=True).evaluate("test")


def test_summary_counts_parameters() -> None:
    text = str(Learner(data(), nn.Linear(6, 3), quiet=True).summary())
    assert "21" in text
