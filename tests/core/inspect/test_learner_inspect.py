"""``learner.inspect``: the training is the same with it, it resumes, and it writes a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import (
    EMA,
    Callback,
    FlambeauWarning,
    Learner,
    Phase,
    TensorData,
    TrainingOptions,
    TrainState,
)
from flambeau.callbacks.layer_inspection import LayerInspection
from flambeau.errors import InputError
from flambeau.inspect.watch.layer_figure import drawn_layers
from flambeau.inspect.watch.layer_record import load_record
from flambeau.inspect.watch.weight_watch import FROZEN
from flambeau.report.layer_section import layers_page


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.manual_seed(5)
    yield
    torch.set_rng_state(before)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(5, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(16, 3),
        )


def table() -> TensorData:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    return TensorData.from_tensors(x, x[:, :3].argmax(1), valid=0.25)


def make(folder: Path | None = None, **options: Any) -> Learner:
    torch.manual_seed(7)
    choices = {"lr": 0.05, "probe": "off", "batch_size": 8, **options.pop("choices", {})}
    callbacks = options.pop("callbacks", ())
    return Learner(
        table(),
        options.pop("model", None) or net(),
        choices=choices,
        training=TrainingOptions(doctor=False, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def gan_like(model: nn.Module, micro_batches: Any, task: Any, step: Any) -> Tensor:
    [batch] = micro_batches
    for name in ("body", "head"):
        loss = nn.functional.cross_entropy(model(batch.input), batch.target)
        step.backward(loss)
        step.update(loss, name)
    return loss.detach()


def two_optimizers(model: nn.Module, values: Any) -> dict[str, torch.optim.Optimizer]:
    return {
        "body": torch.optim.SGD(model[0].parameters(), lr=values["lr"]),
        "head": torch.optim.SGD(model[4].parameters(), lr=values["lr"]),
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sgd": {"choices": {"optimizer": "sgd"}},
    "accumulation, clipping, average": {
        "accumulate": 2, "clip_norm": 0.1, "average": EMA(),
    },
    "bf16": {"choices": {"precision": "bf16"}},
    "fp16": {"choices": {"precision": "fp16"}},
    "guard off": {"nonfinite": "off"},
    "several optimizers": {"train_step": gan_like, "optimizer": two_optimizers},
    "lbfgs": {
        "optimizer": lambda model, values: {
            "main": torch.optim.LBFGS(model.parameters(), lr=values["lr"], max_iter=3)
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_training_is_the_same_bit_for_bit(name: str) -> None:
    plain, watched = make(**OPTIONS[name]), make(**OPTIONS[name])
    watch = watched.inspect(every=1)
    for learner in (plain, watched):
        torch.manual_seed(11)
        learner.fit(2)
    assert list(plain.history.step_losses) == list(watched.history.step_losses)
    states = plain.model.state_dict(), watched.model.state_dict()
    assert all(map(torch.equal, *(state.values() for state in states)))
    n_steps = len(watched.history.step_losses)
    assert watch.record.steps == list(range(n_steps))
    assert watch.record.series("2", "zeros")
    assert max(watch.record.weight_series("0.weight", "update_norm").values()) > 0
    assert watch.record.notes == []


def test_an_inspection_that_changes_a_weight_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = LayerInspection.on_step_end

    def broken(self: LayerInspection, state: TrainState) -> None:
        end(self, state)
        with torch.no_grad():
            state.model[0].weight[0, 0] += 1e-3

    monkeypatch.setattr(LayerInspection, "on_step_end", broken)
    with pytest.raises(AssertionError):
        test_training_is_the_same_bit_for_bit("defaults")


def test_nothing_is_registered_in_steps_that_are_not_watched() -> None:
    seen: list[int] = []

    class Count(Callback):
        def on_gradients_ready(self, state: TrainState) -> None:
            seen.append(sum(len(m._forward_hooks) for m in state.model.modules()))

    learner = make(callbacks=[Count()])
    learner.inspect(every=4)
    learner.fit(1)
    assert [count > 0 for count in seen] == [True, False, False, False, True, False]


def test_a_resumed_run_has_the_record_of_an_uninterrupted_one(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step_end(self, state: TrainState) -> None:
            if state.position.step == 9:
                raise KeyboardInterrupt

    options = {"model": None, "choices": {"optimizer": "sgd"}}
    whole = make(tmp_path / "whole", **options)
    expected = whole.inspect(every=2)
    whole.fit(3)
    cut = make(tmp_path / "cut", callbacks=[Stop()], **options)
    cut.inspect(every=2)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(3)
    resumed = make(tmp_path / "cut", **options)
    found = resumed.inspect(every=2)
    resumed.resume()
    assert found.record.steps == expected.record.steps == list(range(0, 18, 2))
    one, other = found.record.state_dict(), expected.record.state_dict()
    for part in ("rows", "weight_rows"):
        assert one[part].keys() == other[part].keys()
        for name in one[part]:
            a, b = one[part][name]["rows"], other[part][name]["rows"]
            assert torch.equal(a.nan_to_num(-9.0), b.nan_to_num(-9.0)), name
    assert torch.equal(found.record.last_active["2"], expected.record.last_active["2"])
    assert load_record(tmp_path / "cut").steps == load_record(tmp_path / "whole").steps


def test_the_file_has_a_line_per_layer_and_step(tmp_path: Path) -> None:
    learner = make(tmp_path)
    watch = learner.inspect(every=3)
    learner.fit(2)
    lines = [json.loads(line) for line in (tmp_path / "inspect.jsonl").read_text().splitlines()]
    assert "inspect" in lines[0]
    steps = [line for line in lines if "layer" not in line and "step" in line]
    assert [line["step"] for line in steps] == [0, 3, 6, 9]
    assert all(line["lr"] > 0 for line in steps)
    relu = [line for line in lines if line.get("layer") == "2"]
    assert [line["step"] for line in relu] == [0, 3, 6, 9]
    assert {"mean", "rms", "silent", "rank", "histogram", "gradient_histogram"} <= set(relu[0])
    linear = next(line for line in lines if line.get("layer") == "0")
    assert set(linear["weights"]["0.weight"]) == {"norm", "gradient_norm", "update_norm"}
    assert load_record(tmp_path).series("2", "rms") == pytest.approx(
        watch.record.series("2", "rms"), rel=1e-4
    )
    learner.fit(1)
    assert load_record(tmp_path).steps == [0, 3, 6, 9, 12, 15]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    learner = make()
    learner.inspect()
    learner.fit(1)
    assert not list(tmp_path.iterdir())


def test_a_run_resumed_without_a_folder_continues_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Callback):
        def on_step_end(self, state: TrainState) -> None:
            if state.position.step == 7:
                raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    learner = make(tmp_path / "run", callbacks=[Stop()])
    learner.inspect(every=1)
    with pytest.raises(KeyboardInterrupt):
        learner.fit(3)
    other = make()
    other.inspect(every=1)
    other.resume(tmp_path / "run")
    assert load_record(tmp_path / "run").steps == list(range(18))


def test_a_file_that_cannot_be_written_does_not_end_the_training(tmp_path: Path) -> None:
    learner = make(tmp_path / "run")
    (tmp_path / "run" / f".inspect.jsonl.{os.getpid()}.part").mkdir(parents=True)
    watch = learner.inspect(every=1)
    with pytest.warns(FlambeauWarning, match="inspect-not-written"):
        learner.fit(1)
    assert len(watch.record.steps) == 6


def test_a_long_run_keeps_fewer_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("flambeau.inspect.watch.layer_record.MOST_STEPS", 10)
    learner = make(tmp_path)
    watch = learner.inspect(every=1)
    learner.fit(4)
    # 12 steps after two epochs, of which every second one is kept and watched from then on; again
    # 12 after four epochs.
    assert watch.record.steps == list(range(0, 24, 4))
    assert load_record(tmp_path).steps == watch.record.steps


def test_a_layer_without_steps_after_thinning_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that runs in every second step only."""
    monkeypatch.setattr("flambeau.inspect.watch.layer_record.MOST_STEPS", 3)
    learner = make()
    watch = learner.inspect(every=1)
    learner.fit(steps=3)
    record = watch.record
    record.rows["rare"] = {1: record.rows["0"][1]}
    record.values[3] = record.values[2]
    assert watch.thin_out()
    assert "rare" not in record.rows
    assert "rare" not in watch.state_dict()["record"]["rows"]


def test_who_reads_the_record_within_an_epoch_takes_no_steps_from_the_file(tmp_path: Path) -> None:
    class Reads(Callback):
        def on_step_end(self, state: TrainState) -> None:
            seen.append(len(watch.record.steps))

    seen: list[int] = []
    learner = make(tmp_path / "run", callbacks=[Reads()])
    watch = learner.inspect(every=1)
    learner.fit(2)
    assert seen[-1] > 1
    assert load_record(tmp_path / "run").steps == watch.record.steps


def test_an_incomplete_last_line_of_the_file_is_left_out(tmp_path: Path) -> None:
    learner = make(tmp_path / "run")
    watch = learner.inspect(every=1)
    learner.fit(1)
    path = tmp_path / "run" / "inspect.jsonl"
    path.write_text(path.read_text() + '{"step": 99, "lay')
    assert load_record(path).steps == watch.record.steps


def test_a_further_call_returns_the_record_and_may_change_the_interval() -> None:
    learner = make()
    assert not learner.is_inspected
    watch = learner.inspect(every=3)
    learner.fit(1)
    assert learner.inspect() is watch
    assert learner.inspect(every=2).every == 2
    learner.fit(1)
    assert watch.record.steps == [0, 3, 6, 8, 10]


def test_layers_that_a_phase_freezes_are_frozen_deliberately() -> None:
    learner = make()
    watch = learner.inspect(every=1)
    learner.fit_phases([Phase(1, trainable=["4"])])
    assert watch.record.deliberately_frozen
    assert watch.record.weight_series("0.weight", "gradient_norm")[0] == FROZEN
    learner.fit_phases([Phase(1)])
    assert not watch.record.deliberately_frozen


def test_the_model_is_freed_with_the_learner() -> None:
    import gc
    import weakref

    learner = make()
    watch = learner.inspect(every=1)
    learner.fit(1)
    model = weakref.ref(learner.model)
    del learner
    gc.collect()
    assert model() is None
    assert watch.record.steps


def test_verdicts_are_printed_once_unless_the_learner_is_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for quiet in (True, False):
        model = net()
        with torch.no_grad():
            model[1].bias.fill_(-20.0)
        learner = make(model=model)
        learner.quiet = quiet
        watch = learner.inspect(every=1)
        learner.fit(3)
        assert [(each.kind, each.layer) for each in watch.verdicts()] == [("dead", "2")]
        err = capsys.readouterr().err
        assert err.count("inspect: layer 3 (2): 100% of its 16 units never fire") == 1 - quiet
    assert "layer 3 (2): 100%" in str(watch)
    assert "4 layers watched in 18 steps" in str(watch)


def test_the_report_has_a_section_and_the_page_stands_alone(tmp_path: Path) -> None:
    model = net()
    with torch.no_grad():
        model[1].bias.fill_(-20.0)
    learner = make(model=model)
    plain = learner.interpret().report(tmp_path / "plain.html").read_text()
    assert ">Layers<" not in plain
    learner.inspect(every=1)
    learner.fit(1)
    page = learner.interpret().report(tmp_path / "report.html").read_text()
    assert ">Layers<" in page
    assert "100% of its 16 units never fire since step 0" in page
    assert page.count('aria-label="Histograms of') == 5  # the input and four layers
    alone = layers_page(learner.inspect()).html()
    assert "share of silent units, by layer and step" in alone
    assert "<script" not in alone


def test_a_plot_needs_two_steps_and_draws_at_most_24_layers(tmp_path: Path) -> None:
    deep = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    deep.extend([nn.Linear(4, 4) for _ in range(30)])
    deep.append(nn.Linear(4, 3))
    learner = make(model=deep)
    watch = learner.inspect(every=100)
    learner.fit(1)
    with pytest.raises(InputError, match="has 1 watched step, but"):
        watch.plot()
    learner.inspect(every=1)
    learner.fit(1)
    names = drawn_layers(watch.record, first={"20"})
    assert len(names) == 24
    assert "20" in names
    figure = watch.plot(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").stat().st_size > 10_000
    assert len(figure.axes) == 48


def test_the_noise_scale_does_not_contain_the_scale_of_the_loss() -> None:
    """fp16 multiplies the loss by 65,536, and divides the gradients by it before the update."""
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
    found: list[float] = []
    for precision in ("fp32", "fp16"):
        torch.manual_seed(0)
        learner = Learner(
            data,
            nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)),
            choices={"probe": "off", "batch_size": 8, "precision": precision},
            training=TrainingOptions(accumulate=2, doctor=False),
            quiet=True,
        )
        watch = learner.inspect(every=1)
        learner.fit(1)
        found += watch.record.noise[0]
    assert found[2:] == pytest.approx(found[:2], rel=0.05)
