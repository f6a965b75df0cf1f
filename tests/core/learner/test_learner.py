"""The Learner's own promises: one place for values, exact replay, weights in and out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from flambeau import (
    SWA,
    Callback,
    Classification,
    Data,
    EarlyStopping,
    Learner,
    Phase,
    Predictor,
    ReduceOnPlateau,
    Schedule,
    Split,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import ArtefactError, InputError, NonFiniteError, PlanError, ResumeError


def data(seed: int = 0, n: int = 240) -> Data:
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=draws)
    return TensorData.from_tensors(
        x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long(), valid=0.2, test=0.1
    )


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
    loader = learner.built.loader("test")
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


def test_a_second_fit_continues() -> None:
    learner = Learner(data(), quiet=True)
    learner.fit(2)
    learner.fit(1)
    assert learner.history.column("epoch") == [1, 2, 3]


def test_a_last_batch_of_one_does_not_break_batch_norm() -> None:
    x = torch.randn(41, 6)
    samples = TensorData.from_tensors(x, torch.arange(41) % 2, valid=0.2)
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


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    learner = Learner(data(), quiet=True)
    with pytest.raises(ResumeError, match="no folder"):
        learner.resume()
    with pytest.raises(ResumeError, match="no checkpoint"):
        learner.resume(tmp_path)
    with pytest.raises(InputError, match=r"freeze_to\(9\) freezes every parameter group"):
        learner.freeze_to(9)
    only = TensorData.from_tensors(torch.randn(20, 2), torch.arange(20) % 2, valid=0.5)
    with pytest.raises(InputError, match="no test samples"):
        Learner(only, quiet=True).evaluate("test")


def test_summary_counts_parameters() -> None:
    text = str(Learner(data(), nn.Linear(6, 3), quiet=True).summary())
    assert "21" in text


def test_summary_counts_the_groups_that_the_next_fit_trains() -> None:
    learner = Learner(data(), norm_net(), quiet=True)  # 8 * 6 + 8, 8 + 8, 3 * 8 + 3
    assert learner.summary().trainable == 56 + 16 + 27
    learner.freeze()
    assert learner.summary().trainable == 16 + 27  # bn "auto" trains scales and shifts
    assert [layer.trainable for layer in learner.summary().layers] == [0, 16, 0, 27]
    learner.fit(1)
    assert learner.summary().trainable == 16 + 27
    learner.unfreeze()
    assert learner.summary().trainable == 99
    fixed = Learner(data(), norm_net(), choices={"trainable": ["3"], "bn": "eval"}, quiet=True)
    assert fixed.summary().trainable == 27


def norm_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_arguments_take_precedence_over_a_saved_plan() -> None:
    saved = Learner(data(), quiet=True).plan
    learner = Learner(data(), net(), plan=saved, quiet=True)
    assert learner.plan["architecture"].value == "Sequential"
    assert learner.plan["epochs"] == saved["epochs"]
    with pytest.raises(PlanError, match="does not have"):
        Learner(data(), "resnet99", plan=saved)
    with pytest.raises(PlanError, match=r"'Sequential'.*Learner\(data, model=…\)"):
        Learner(data(), plan=learner.plan)


def test_parameters_frozen_by_the_user_stay_frozen() -> None:
    model = net()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    learner = Learner(data(), model, quiet=True)
    learner.fine_tune(1, lr=1e-2)
    learner.freeze()
    learner.fit(1, lr=1e-2)
    assert torch.equal(model[0].weight, before)
    # And what a phase has frozen learns again: the model is left as it came.
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_a_resumed_learner_can_go_on_training(tmp_path: Path) -> None:
    Learner(data(), net(), quiet=True, folder=tmp_path).fit(2)
    again = Learner(data(), net(), quiet=True, folder=tmp_path)
    again.resume()
    assert again.fit(1, lr=1e-4).rows[-1]["epoch"] == 3


@pytest.mark.parametrize("made_before", [False, True])
def test_an_optimizer_of_the_user_s_own_keeps_its_rate(made_before: bool) -> None:
    rates: list[float] = []

    class Rates(Callback):
        def on_step_end(self, state) -> None:
            rates.append(state.optimizers["main"].param_groups[0]["lr"])

    options = TrainingOptions(
        optimizer=lambda model, values: {"main": torch.optim.SGD(model.parameters(), 0.01)}
    )
    learner = Learner(data(), net(), training=options, callbacks=[Rates()], quiet=True)
    if made_before:
        assert learner.model is not None
    learner.fit(1, schedule="constant")
    assert rates == pytest.approx([0.01] * len(rates))


def test_a_second_fit_averages_its_own_last_steps() -> None:
    averages: list[list[int]] = []

    class Updates(Callback):
        def on_fit_start(self, state) -> None:
            averages.append([])

        def on_epoch_end(self, state) -> None:
            averages[-1].append(state.snapshot()["average"]["updates"])

    training = TrainingOptions(average=SWA(0.5))
    learner = Learner(data(), net(), training=training, callbacks=[Updates()], quiet=True)
    learner.fit(4)
    learner.fit(4)
    assert averages[0][1] == 0 < averages[0][3]
    assert averages[1] == averages[0]


def test_the_best_epoch_by_any_column() -> None:
    x, y = torch.randn(40, 6), torch.arange(40) % 3
    kept = TrainingOptions(keep_best="train_loss")
    learner = Learner(TensorData.from_tensors(x, y), net(), training=kept, quiet=True)
    assert len(learner.fit(2).rows) == 2
    kept = TrainingOptions(keep_best="valid_los")
    with pytest.raises(TypeError, match=r"by 'valid_los', but it is not known.*'valid_l"):
        Learner(TensorData.from_tensors(x, y), net(), training=kept, quiet=True).fit(1)


def test_an_error_in_a_step_names_the_samples() -> None:
    with pytest.raises(RuntimeError) as caught:
        Learner(data(), nn.Linear(5, 3), quiet=True).fit(1)
    [note, *_] = caught.value.__notes__
    assert note.startswith("In training step 0, on input (")
    assert "6) float32, target (" in note


def test_invalid_arguments() -> None:
    with pytest.raises(TypeError, match="seed is 'a'"):
        Learner(data(), seed="a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callbacks is one callback; give a list"):
        Learner(data(), callbacks=EarlyStopping())  # type: ignore[arg-type]
    for options, message in (
        ({"accumulate": 1.5}, "accumulate must be a whole number of micro-batches"),
        ({"nonfinite": "rais"}, "Did you mean 'raise'"),
        ({"controllers": ReduceOnPlateau()}, r"give a tuple: controllers=\(controller,\)"),
        ({"average": "ema"}, r"give EMA\(\), SWA\(\), TriggeredAverage\(\) or None"),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))])}, r"a SGD; give a class"),
        ({"optimizer": "sgd"}, r'a str; give a class.*choices=\{"optimizer": "sgd"\}'),
        ({"train_step": 3}, r"train_step is a int; give a function train_step\(model, micro"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            TrainingOptions(**options)
    made = TrainingOptions(optimizer=lambda model, values: torch.optim.SGD(model.parameters()))
    with pytest.raises(TypeError, match="returned one SGD instead of optimizers by name"):
        Learner(data(), net(), training=made, quiet=True).fit(1)
    steps: Any = TrainingOptions(train_step=lambda *arguments: 3.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"returned a float\. It must return the mean loss"):
        Learner(data(), net(), training=steps, quiet=True).fit(1)
    with pytest.raises(InputError, match=r"must be a whole number, at least 1, not 1\.5"):
        Phase(1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Unknown batch norm policy 'adopt'"):
        Phase(1, bn="adopt")


def test_early_stopping_is_known_to_the_last_checkpoint(tmp_path: Path) -> None:
    def make() -> Learner:
        stop = EarlyStopping(patience=2, min_delta=10.0)
        return Learner(data(), net(), callbacks=[stop], quiet=True, folder=tmp_path)

    whole = make()
    assert len(whole.fit(8).rows) == 3
    again = make()
    assert len(again.resume().rows) == 3
    assert same(weights(whole), weights(again))


def test_a_callback_that_fails_in_on_exception_keeps_no_other_from_saving(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_step_end(self, state) -> None:
            raise ValueError("first")

        def on_exception(self, state) -> None:
            raise KeyError("second")

    learner = Learner(data(), net(), callbacks=[Fails()], quiet=True, folder=tmp_path)
    with pytest.raises(ValueError, match="first") as caught:
        learner.fit(1)
    assert "failed too: KeyError('second')" in caught.value.__notes__[0]
    assert "A checkpoint of step 1 is in" in caught.value.__notes__[1]


class Stream(IterableDataset):
    def __init__(self, bad: bool = False) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 40

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        for i in range(40):
            yield torch.full((6,), float("nan") if self.bad and i == 30 else i / 40), i % 3


def streams(bad: bool = False) -> Data:
    return TensorData.from_loaders(DataLoader(Stream(bad), 4), DataLoader(Stream(), 4), n_classes=3)


def test_a_loader_that_cannot_repeat_itself_is_not_resumed(tmp_path: Path) -> None:
    Learner(streams(), nn.Linear(6, 3), quiet=True, folder=tmp_path).fit(1)
    with pytest.raises(ResumeError, match="its data set is an IterableDataset"):
        Learner(streams(), nn.Linear(6, 3), quiet=True, folder=tmp_path).resume()


def test_a_bad_step_of_such_a_loader_is_still_that(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"Step 7 .*cannot repeat its batches: its data set"):
        Learner(streams(bad=True), nn.Linear(6, 3), quiet=True).fit(1)


def test_values_that_a_phase_does_not_schedule_are_as_at_the_start() -> None:
    seen: list[tuple[float, float]] = []

    class Values(Callback):
        def on_step_end(self, state) -> None:
            [group, *_] = state.optimizers["main"].param_groups
            seen.append((round(group["lr"], 6), round(group["weight_decay"], 6)))

    learner = Learner(
        data(), net(), callbacks=[Values()], choices={"lr": 0.05, "weight_decay": 0.2}, quiet=True
    )
    falling = {"lr": Schedule("linear", 0.1), "weight_decay": Schedule("linear", 0.5)}
    learner.fit_phases([Phase(1, falling), Phase(1)])
    assert seen[0] == (0.1, 0.5)
    assert seen[len(seen) // 2 - 1] == (0.0, 0.0)
    assert set(seen[len(seen) // 2 :]) == {(0.05, 0.2)}


def test_columns_are_predicted_as_they_were_given() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.head(a * b)

    x = torch.randn(40, 6)
    learner = Learner(TensorData.from_tensors({"a": x, "b": x}, torch.arange(40) % 2), Product())
    many = learner.predict({"a": x[:3], "b": x[:3]})
    assert [one.label for one in many] == [
        learner.predict({"a": row, "b": row}).label for row in x[:3]
    ]
    with pytest.raises(InputError, match="Cannot predict from a NoneType"):
        learner.predict(None)


def test_a_column_of_classes_is_named_as_that() -> None:
    with pytest.raises(InputError, match=r"shape \(rows, 1\), but classif.*targets\[:, 0\]"):
        Learner(TensorData.from_tensors(torch.randn(40, 3), (torch.arange(40) % 2)[:, None])).fit(1)


def test_train_is_looked_at_whole_and_in_order() -> None:
    # 33 train samples in batches of 4 and a batch norm: training leaves the single last one out.
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    given = TensorData.from_tensors(
        x, (x[:, 0] > 0).long(), split=Split.from_indices(range(33), range(33, 40))
    )
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    learner = Learner(given, model, choices={"batch_size": 4}, quiet=True)
    learner.fit(1)
    train = learner.built.loader("train")
    seen = torch.cat([batch.indices for batch in train.batches(0)])
    assert len(seen) == 32
    assert not torch.equal(seen, seen.sort().values)
    looked_at = learner.built.evaluation_loader("train")
    assert torch.equal(
        torch.cat([batch.indices for batch in looked_at.batches(0)]), torch.arange(33)
    )
    with torch.no_grad():
        inputs = torch.cat([b.input for b in learner.built.batches("train")])
        right = (learner.model.eval()(inputs).argmax(1) == (x[:33, 0] > 0)).double().mean()
    assert learner.evaluate("train")["accuracy"] == pytest.approx(right.item(), abs=1e-12)


def test_a_loss_without_a_weight_is_refused() -> None:
    class Mean(Classification):
        def loss(self, outputs: Any, batch: Any) -> Any:
            return nn.functional.cross_entropy(outputs, batch.target)

    class UnknownWeight(Mean):
        def host_weight(self, batch: Any) -> None:
            return None

    for task in (Mean(["a", "b", "c"]), UnknownWeight(["a", "b", "c"])):
        with pytest.raises(InputError, match=r"loss returned one number instead of two: the sum"):
            Learner(data(), net(), task=task, quiet=True).fit(1)


def test_metric_objects_without_names_are_refused() -> None:
    metrics: Any = [lambda outputs, targets: 0.0]
    with pytest.raises(
        TypeError, match=r"has no name\. Give metric objects and lambdas in a dict, metrics=\{"
    ):
        Classification(["a", "b"], metrics=metrics)


def test_a_history_shows_its_last_row() -> None:
    history = Learner(data(), net(), quiet=True).history
    assert repr(history) == "History(no epochs)"
    history.add({"phase": "fit", "epoch": 1, "valid_loss": 0.123456})
    assert repr(history) == "History(1 epoch; last: phase fit, epoch 1, valid_loss 0.1235)"
    history.add({"phase": "fit", "epoch": 2})
    assert repr(history) == "History(2 epochs; last: phase fit, epoch 2)"


def test_an_export_says_what_it_does_not_contain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Mine(Classification):
        pass

    parts = [{"model": net()}, {"model": "mlp"}, {"model": "mlp", "task": Mine(["0", "1", "2"])}]
    said: list[str] = []
    for number, arguments in enumerate(parts):
        Learner(data(), **arguments).export(tmp_path / str(number))
        said.append(" ".join(capsys.readouterr().err.split()))
    assert "is not complete. A user-defined Sequential: only its weights" in said[0]
    assert "Predictor.load(path, model=...)" in said[0]
    assert not said[1]
    assert "No domain registers" in said[2]
    assert "Predictor.load(path, task=...)" in said[2]
    Learner(data(), net(), quiet=True).export(tmp_path / "quiet")
    assert not capsys.readouterr().err
    with pytest.raises(ArtefactError, match=r"Predictor.load\(path, model=\.\.\.\)"):
        Predictor.load(tmp_path / "0")


def test_the_repr_names_model_and_epochs() -> None:
    learner = Learner(data(), net(), quiet=True, training=TrainingOptions(doctor=False))
    assert repr(learner) == "Learner(tensors, Sequential, 0 epochs trained)"  # nothing is built
    learner.fit(1)
    count = f"{sum(p.numel() for p in learner.model.parameters()):,}"
    assert repr(learner) == f"Learner(tensors, Sequential, {count} parameters, 1 epoch trained)"
    learner.fit(2)
    assert repr(learner).endswith("3 epochs trained)")
