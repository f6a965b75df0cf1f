"""``Learner(data, start=…)``: an export is trained further, or gets a new head."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from flambeau import (
    Batch,
    Callback,
    Classification,
    Learner,
    Plan,
    Predictor,
    Regression,
    Task,
    TensorData,
    TrainState,
)
from flambeau.errors import ArgumentError, ArtefactError, PlanError
from flambeau.learner.start import Start

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
Y = (X[:, 0] > 5).long() + (X[:, 1] > 5).long()
NAMES = ["none", "one", "both"]
QUIET: dict[str, Any] = {"quiet": True}


def classes(x: torch.Tensor = X, y: torch.Tensor = Y, names: list[str] = NAMES) -> TensorData:
    return TensorData.from_tensors(x, y, class_names=names)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    learner = Learner(classes(), choices={"epochs": 3}, **QUIET)
    learner.fit()
    return learner.export(tmp_path_factory.mktemp("start") / "export")


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_preprocessor_and_weights_are_those_of_the_export(export: Path) -> None:
    other = X[:60] * 0.8  # another mean and std, which must not be fitted
    learner = Learner(classes(other, Y[:60]), start=export, **QUIET)
    before = Predictor.load(export, device="cpu")
    assert torch.allclose(learner.predictor().outputs(X[:9]), before.outputs(X[:9]), atol=1e-6)
    assert learner.plan.values["start"]["head"] == "kept"
    assert str(export) in learner.plan["start"].reason
    learner.fit(1)
    assert not torch.allclose(learner.predictor().outputs(X[:9]), before.outputs(X[:9]), atol=1e-3)


def test_other_classes_get_a_new_head_and_keep_the_rest(export: Path) -> None:
    data = classes(X, (X[:, 2] > 5).long(), ["low", "high"])
    learner = Learner(data, start=export, **QUIET)
    assert "a new head for low, high in place of none, one, both" in learner.plan["start"].reason
    old = Predictor.load(export, device="cpu").model.state_dict()
    own = weights(learner.model)
    same = {name for name in own if own[name].shape == old[name].shape}
    same = {name for name in same if torch.equal(own[name], old[name])}
    head = {name for name in own if own[name].shape[:1] == (2,)}
    assert head
    assert same == own.keys() - head


def test_a_new_head_can_be_asked_for(export: Path) -> None:
    fresh = Learner(classes(), start=Start(export, new_head=True), **QUIET)
    kept = Learner(classes(), start=export, **QUIET)
    differ = [
        n for n, v in weights(fresh.model).items() if not torch.equal(v, kept.model.state_dict()[n])
    ]
    assert differ
    assert {fresh.model.state_dict()[name].shape[0] for name in differ} == {3}
    with pytest.raises(ArtefactError, match="new_head=False keeps the head"):
        Learner(classes(names=["a", "b", "c"]), start=Start(export, new_head=False), **QUIET)


def test_missing_or_reordered_classes_are_refused(export: Path) -> None:
    """Their numbers would mean other classes than the outputs of the head."""
    with pytest.raises(ArtefactError, match=r"has none, one, both in this order.*new_head=True"):
        Learner(classes(names=["one", "none", "both"]), start=export, **QUIET)
    two = classes(X, (Y > 0).long(), ["none", "one"])
    with pytest.raises(ArtefactError, match="The data have the classes none, one, the export"):
        Learner(two, start=export, **QUIET)


def test_a_head_that_predicts_worse_than_chance_is_reported(tmp_path: Path) -> None:
    first = Learner(classes(), choices={"epochs": 40}, **QUIET)
    first.fit()
    first.export(tmp_path / "export")
    swapped = classes(X, (Y + 1) % 3)
    learner = Learner(swapped, start=tmp_path / "export", choices={"batch_size": 32}, **QUIET)
    finding = next(f for f in learner.doctor().findings if f.code == "high-initial-loss")
    assert "check that the classes mean the same" in finding.fix
    assert "new_head=True" in finding.fix


def test_a_choice_that_the_weights_do_not_fit_is_refused(export: Path) -> None:
    with pytest.raises(PlanError, match=r"normalisation is 'none', but the export .* 'standard'"):
        Learner(classes(), start=export, choices={"normalisation": "none"}, **QUIET)
    assert Learner(classes(), start=export, choices={"lr": 0.5}, **QUIET).plan.values["lr"] == 0.5


def test_other_inputs_are_refused_by_name_and_shape(export: Path) -> None:
    learner = Learner(classes(X[:, :3]), start=export, **QUIET)
    with pytest.raises(
        ArtefactError, match=r"do not fit MLP: .*, 3\) / .*, 4\)\) \(model / export"
    ):
        _ = learner.model


def test_the_scale_of_regression_targets_is_kept(tmp_path: Path) -> None:
    y = X.sum(1, keepdim=True) * 100 + 7
    first = Learner(TensorData.from_tensors(X, y), choices={"epochs": 2}, **QUIET)
    first.fit()
    first.export(tmp_path / "export")
    second = Learner(
        TensorData.from_tensors(X[:50], y[:50] * 0.01), start=tmp_path / "export", **QUIET
    )
    old, new = Predictor.load(tmp_path / "export", device="cpu"), second.predictor()
    assert torch.allclose(new.outputs(X[:5]), old.outputs(X[:5]), atol=1e-6)
    scales = [(each.task.mean, each.task.std) for each in (old, new)]  # type: ignore[attr-defined]
    assert scales[0] == scales[1]
    given: dict[str, Any] = {"start": tmp_path / "export", **QUIET}
    with pytest.raises(ArtefactError, match=r"The task has mean=.*was trained with mean=.*omit"):
        Learner(TensorData.from_tensors(X, y), task=Regression(["value"]), **given)
    same = Learner(TensorData.from_tensors(X, y), task=second.task, **given)
    assert torch.allclose(same.predictor().outputs(X[:5]), old.outputs(X[:5]), atol=1e-6)


def test_a_module_of_the_user_takes_the_weights(tmp_path: Path) -> None:
    x = (X - 5) / 3

    def net(n: int = 3) -> nn.Sequential:
        torch.manual_seed(n)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n))

    first = Learner(classes(x), net(), choices={"epochs": 1}, **QUIET)
    first.fit()
    first.export(tmp_path / "export")
    with pytest.raises(ArtefactError, match="only the weights of a user-defined module"):
        Learner(classes(x), start=tmp_path / "export", **QUIET)
    second = Learner(classes(x), net(), start=tmp_path / "export", **QUIET)
    for name, value in second.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[name])
    two = classes(x, (x[:, 2] > 0).long(), ["low", "high"])
    third = Learner(two, net(2), start=tmp_path / "export", **QUIET)
    assert torch.equal(third.model[0].weight, first.model[0].weight)  # type: ignore[index]
    with pytest.raises(ArtefactError, match="do not fit Sequential"):
        _ = Learner(
            classes(x), nn.Sequential(nn.Linear(4, 3)), start=tmp_path / "export", **QUIET
        ).model


class Statistics(nn.Module):
    """A network whose head has running statistics, with and without parameters of their own."""

    def __init__(self, n: int, *, wide: bool = False) -> None:
        super().__init__()
        width = 8 if wide else 6
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
        self.head = nn.Sequential(
            nn.Linear(8, width),
            nn.BatchNorm1d(width, affine=False),
            nn.BatchNorm1d(width),
            nn.Linear(width, n),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize("wide", [False, True])
def test_a_new_head_has_new_running_statistics(tmp_path: Path, wide: bool) -> None:
    first = Learner(classes(), Statistics(3), choices={"epochs": 1}, **QUIET)
    first.fit()
    first.export(tmp_path / "export")
    initial, trained = Statistics(2, wide=wide), first.model.state_dict()
    before = weights(initial)
    two = classes(X, (X[:, 2] > 5).long(), ["low", "high"])
    loaded = Learner(two, initial, start=tmp_path / "export", **QUIET).model.state_dict()
    for name, value in loaded.items():
        expected = before if name.startswith("head.") else trained
        assert torch.equal(value, expected[name]), name
    assert not torch.equal(trained["body.1.running_mean"], before["body.1.running_mean"])


def test_a_new_head_may_have_fewer_layers(tmp_path: Path) -> None:
    first = Learner(classes(), Statistics(3), **QUIET)
    first.export(tmp_path / "export")
    net = Statistics(2)
    net.head = nn.Sequential(nn.Linear(8, 2))
    two = classes(X, (X[:, 2] > 5).long(), ["low", "high"])
    model = Learner(two, net, start=tmp_path / "export", **QUIET).model
    assert torch.equal(model.body[0].weight, first.model.body[0].weight)  # type: ignore[index]


class Twins(nn.Module):
    """Two square layers, which may share their weight."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        self.two = nn.Linear(4, 4, bias=False)
        self.out = nn.Linear(4, 3)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        if tied:
            self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.two(self.one(x)))


@pytest.mark.parametrize("new_head", [None, True])
def test_two_tensors_do_not_fit_a_tied_module(tmp_path: Path, new_head: bool | None) -> None:
    first = Learner(classes(), Twins(tied=False), **QUIET)
    start = Start(first.export(tmp_path / "export"), new_head=new_head)
    with pytest.raises(ArtefactError, match=r"ties 'two.weight' to 'one.weight', but .* two diff"):
        _ = Learner(classes(), Twins(tied=True), start=start, **QUIET).model
    with torch.no_grad():
        first.model.two.weight.copy_(first.model.one.weight)  # type: ignore[union-attr, operator]
    start = Start(first.export(tmp_path / "equal"), new_head=new_head)
    tied = Learner(classes(), Twins(tied=True), start=start, **QUIET).model
    assert torch.equal(tied.two.weight, first.model.one.weight)  # type: ignore[union-attr,arg-type]


def test_fractions_are_not_loaded_into_whole_numbers(tmp_path: Path) -> None:
    net = Twins(tied=False)
    net.steps = torch.tensor(0.5)
    path = Learner(classes(), net, **QUIET).export(tmp_path / "export")
    with pytest.raises(ArtefactError, match=r"steps \(int64 \(\) / float32 \(\)\)"):
        _ = Learner(classes(), Twins(tied=False), start=path, **QUIET).model


def test_a_plan_with_a_start_replays_and_notices_another_export(
    export: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(export, tmp_path / "copy"))
    plan = Learner(classes(), start=copy, **QUIET).plan
    again = Learner(classes(), plan=Plan.from_json(plan.to_json()), **QUIET)
    assert torch.equal(
        again.predictor().outputs(X[:3]), Predictor.load(export, device="cpu").outputs(X[:3])
    )
    shutil.rmtree(copy)
    other = Learner(classes(X + 1), choices={"epochs": 1}, **QUIET)
    other.fit()
    other.export(copy)
    with pytest.raises(ArtefactError, match=r"The preprocessor in .* the export was replaced"):
        _ = Learner(classes(), plan=plan, **QUIET).model


def test_a_replayed_plan_refuses_a_kept_head_for_other_classes(export: Path) -> None:
    plan = Learner(classes(), start=export, **QUIET).plan
    for names in (["one", "none", "both"], ["a", "b", "c"]):
        with pytest.raises(ArtefactError, match=f"none, one, both .* {', '.join(names)}.*new_head"):
            Learner(classes(names=names), plan=plan, **QUIET)
        with pytest.raises(ArtefactError, match="The plan keeps the head"):
            Learner(classes(), plan=plan, task=Classification(names), **QUIET)
    assert Learner(classes(), plan=plan, task=Classification(NAMES), **QUIET).plan == plan
    fresh = Learner(classes(), start=Start(export, new_head=True), **QUIET).plan
    assert Learner(classes(names=["a", "b", "c"]), plan=fresh, **QUIET).model is not None


def test_wrong_arguments(export: Path) -> None:
    with pytest.raises(ArgumentError, match=r"start is 3; give the folder"):
        Learner(classes(), start=3, **QUIET)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="exclude each other"):
        Learner(classes(), start=export, plan=Learner(classes(), **QUIET).plan, **QUIET)
    with pytest.raises(ArtefactError, match="is not an export"):
        Learner(classes(), start="nowhere", **QUIET)


def test_an_interrupted_run_with_a_start_is_resumed(export: Path, tmp_path: Path) -> None:
    def learner(folder: Path) -> Learner:
        return Learner(classes(), start=export, folder=folder, choices={"epochs": 2}, **QUIET)

    whole = learner(tmp_path / "a")
    whole.fit()

    class StopAfter(Callback):
        def on_epoch_end(self, state: TrainState) -> None:
            if state.position.epoch == 1:
                raise RuntimeError("stop")

    part = Learner(
        classes(),
        start=export,
        folder=tmp_path / "b",
        choices={"epochs": 2},
        callbacks=[StopAfter()],
        **QUIET,
    )
    with pytest.raises(RuntimeError, match="stop"):
        part.fit()
    resumed = learner(tmp_path / "b")
    resumed.resume()
    for name, value in resumed.model.state_dict().items():
        assert np.array_equal(value, whole.model.state_dict()[name])


def test_only_the_difference_is_exported(export: Path, tmp_path: Path) -> None:
    learner = Learner(classes(), start=export, choices={"trainable": "head"}, **QUIET)
    learner.fit(1)
    whole = learner.export(tmp_path / "whole")
    small = learner.export(tmp_path / "small", difference=True)
    stored = load_file(small / "model.safetensors")
    body = [name for name in load_file(whole / "model.safetensors") if name not in stored]
    assert body
    assert {value.shape[0] for value in stored.values()} == {3}  # the head
    loaded = Predictor.load(small, device="cpu")
    assert torch.equal(loaded.outputs(X), Predictor.load(whole, device="cpu").outputs(X))
    again = Learner(classes(), start=small, **QUIET)
    again.load(small)
    assert torch.equal(again.model.state_dict()[body[0]], learner.model.state_dict()[body[0]])


def test_a_difference_finds_its_base_from_every_working_folder(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, other = tmp_path / "models", tmp_path / "other"
    shutil.copytree(export, models / "base")
    other.mkdir()
    monkeypatch.chdir(models)
    learner = Learner(classes(), start="base", choices={"trainable": "head"}, **QUIET)

    def close(one: torch.Tensor, other: torch.Tensor) -> bool:
        return torch.allclose(one, other, atol=1e-6)  # other batch sizes

    expected = learner.predictor().outputs(X)
    learner.export("deep/small", difference=True)
    saved = learner.plan.to_json()
    monkeypatch.chdir(other)
    assert close(Predictor.load(models / "deep/small", device="cpu").outputs(X), expected)
    again = Learner(classes(), plan=Plan.from_json(saved), **QUIET)
    assert close(again.predictor().outputs(X), expected)
    moved = models.rename(tmp_path / "moved")  # both together
    (other / "link").symlink_to(moved / "deep/small")
    for small in (moved / "deep/small", Path("link"), Path("../moved/deep/small")):
        assert close(Predictor.load(small, device="cpu").outputs(X), expected)
        assert close(Learner(classes(), start=small, **QUIET).predictor().outputs(X), expected)


def test_the_record_of_a_difference_can_name_where_its_base_is_now(
    export: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(export, tmp_path / "base"))
    learner = Learner(classes(), start=base, choices={"trainable": "head"}, **QUIET)
    small = learner.export(tmp_path / "small", difference=True)
    moved = base.rename(tmp_path / "moved")
    fresh = Learner(classes(), choices={"architecture": "mlp"}, **QUIET)
    for load in (
        fresh.load,
        lambda path: Learner(classes(), start=path, **QUIET).model,
        Predictor.load,
    ):
        with pytest.raises(ArtefactError) as caught:
            load(small)
        assert "base.export of " in str(caught.value)
        assert str(small / "flambeau.json") in str(caught.value)
        assert ("base=" in str(caught.value)) is (load == Predictor.load)
    record = json.loads((small / "flambeau.json").read_text())
    for path in (str(moved), "../moved"):
        record["base"]["export"] = path
        (small / "flambeau.json").write_text(json.dumps(record))
        started = Learner(classes(), start=small, **QUIET)
        assert torch.equal(started.predictor().outputs(X), learner.predictor().outputs(X))


def test_a_difference_needs_its_base(export: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(export, tmp_path / "base"))
    learner = Learner(classes(), start=base, choices={"trainable": "head"}, **QUIET)
    small = learner.export(tmp_path / "small", difference=True)
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(ArtefactError, match=r"stores only the difference from .*base=…"):
        Predictor.load(small)
    assert Predictor.load(small, base=moved, device="cpu").predict(X[0]).label in NAMES
    other = Learner(classes(), choices={"epochs": 1}, **QUIET)
    with pytest.raises(ArtefactError, match="difference from another export"):
        Predictor.load(small, base=other.export(tmp_path / "other"))
    with pytest.raises(ArgumentError, match="did not start from one"):
        other.export(tmp_path / "none", difference=True)


class Unnamed(Task):
    """A task whose outputs have no names."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, float]:
        return nn.functional.cross_entropy(outputs, batch.target, reduction="sum"), len(batch)


def test_the_classes_of_a_given_task_keep_the_head(export: Path) -> None:
    for start in (export, Start(export, new_head=False)):
        learner = Learner(classes(), start=start, task=Classification(NAMES), **QUIET)
        assert learner.plan.values["start"]["head"] == "kept"
        before = Predictor.load(export, device="cpu")
        assert torch.allclose(learner.predictor().outputs(X[:9]), before.outputs(X[:9]), atol=1e-6)
    other = Learner(classes(), start=export, task=Classification(["a", "b", "c"]), **QUIET)
    assert "a new head for a, b, c in place of none, one, both" in other.plan["start"].reason
    with pytest.raises(ArtefactError, match="The data have the classes one, none, both"):
        Learner(classes(), start=export, task=Classification(["one", "none", "both"]), **QUIET)


def test_a_task_without_names_must_say_whether_the_head_fits(export: Path) -> None:
    options: dict[str, Any] = {"choices": {"architecture": "mlp"}, **QUIET}
    with pytest.raises(ArtefactError, match=r"are none, one, both, .* not named, .*new_head=False"):
        Learner(classes(), start=export, task=Unnamed(), **options)
    for new_head, head in ((False, "kept"), (True, "new")):
        start = Start(export, new_head=new_head)
        plan = Learner(classes(), start=start, task=Unnamed(), **options).plan
        assert plan.values["start"]["head"] == head


def test_reasons_do_not_call_the_weights_of_an_export_random(export: Path) -> None:
    like = TensorData.from_tensors(X, Y, like=export)
    learner = Learner(like, start=export, **QUIET)
    saved = Learner(like, plan=learner.plan, choices={"optimizer": "sgd"}, **QUIET)
    for plan in (learner.plan, saved.plan):
        assert "from the weights of the export" in plan["trainable"].reason
        assert "replace the initial ones" in plan["weights"].reason
        assert "without the weights of an export" in plan["lr"].reason
        assert plan["task"].reason.startswith("As in the export")
    new = Learner(like, **QUIET).plan
    assert "the weights are random" in new["trainable"].reason
    assert new["task"].reason.startswith("As in the export")
