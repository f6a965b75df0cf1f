"""``model_difference`` and ``learner.difference``: what changed, layer by layer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from flambeau import EMA, Learner, TensorData, TrainingOptions
from flambeau.artefact.saved_weights import read_saved_weights
from flambeau.callbacks import Checkpointing
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, ArtefactError
from flambeau.inspect import model_difference
from flambeau.inspect.feature_similarity import feature_similarity


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# Weights


def test_the_figures_of_a_layer_are_those_of_numpy() -> None:
    model = net()
    before = state(model)
    torch.manual_seed(1)
    with torch.no_grad():
        model[0].weight += torch.randn(16, 2) @ torch.randn(2, 6)  # a change of rank 2
        model[3].weight *= 2.0
    found = model_difference(before, model)
    assert [each.name for each in found.layers] == ["0", "1", "3"]
    weight = found["0"].tensors[0]
    old, new = before["0.weight"], model[0].weight.detach()
    assert weight.change == pytest.approx(float((new - old).norm() / old.norm()), rel=1e-6)
    cosine = torch.nn.functional.cosine_similarity(old.flatten(), new.flatten(), dim=0)
    assert weight.cosine == pytest.approx(float(cosine), rel=1e-5)
    squares = torch.linalg.svdvals(new - old) ** 2
    rank = float(squares.sum() ** 2 / squares.square().sum())
    assert weight.rank == pytest.approx(rank, rel=1e-4)
    assert 1.0 <= weight.rank <= 2.0
    assert weight.full_rank == 6
    scaled = found["3"].tensors[0]
    assert (scaled.change, scaled.cosine) == (pytest.approx(1.0), pytest.approx(1.0))
    # All parameters of the layer together.
    size = math.hypot(float(before["3.weight"].norm()), float(before["3.bias"].norm()))
    assert found["3"].change == pytest.approx(float(before["3.weight"].norm()) / size, rel=1e-6)
    assert found["1"].change == 0.0
    assert not found.is_equal


def test_equal_models_have_no_difference() -> None:
    found = model_difference(net(), net())
    assert found.is_equal
    assert "All weights are equal." in str(found)
    assert math.isnan(found["0"].tensors[0].rank)


def test_the_statistics_of_norm_layers_are_compared() -> None:
    model = net()
    before = state(model)
    model[1].running_mean += 3.0 * model[1].running_var.sqrt()
    model[1].running_var *= 4.0
    model[1].num_batches_tracked += 7
    layer = model_difference(before, model)["1"]
    assert layer.mean_shift == pytest.approx(3.0)
    assert layer.variance_ratio == pytest.approx(4.0)
    assert layer.change == 0.0  # scale and bias alone
    assert "mean by 3 σ, variance ×4" in str(model_difference(before, model))


def test_missing_added_and_other_layers_are_named() -> None:
    first, second = net(), net()
    second[3] = nn.Linear(16, 5)
    second.append(nn.Linear(5, 2))
    del first[1]
    found = model_difference(first, second)
    assert found.other_shape == {}
    text = str(found)
    assert "Only in the second: " in text
    assert "Only in the first: " in text
    found = model_difference(net(), second)
    assert found.other_shape == {"3.weight": ((3, 16), (5, 16)), "3.bias": ((3,), (5,))}
    assert found.added == ("4.weight", "4.bias")
    assert "Other shape: 3.weight (3×16 → 5×16)" in str(found)


def test_weights_that_were_zero_and_that_are_not_finite() -> None:
    first, second = net(), net()
    nn.init.zeros_(first[3].weight)
    nn.init.zeros_(first[3].bias)
    with torch.no_grad():
        second[0].weight[0, 0] = torch.nan
    found = model_difference(first, second)
    assert math.isinf(found["3"].change)
    assert math.isnan(found["0"].change)
    text = str(found)
    assert "was 0" in text
    assert "not finite" in text


# Outputs


class Batch(list[Any]):
    """A batch of one tensor."""

    def __len__(self) -> int:
        return len(self[0])


def similarity(first: nn.Module, second: nn.Module, x: Tensor, size: int = 64) -> dict[str, float]:
    batches = [Batch([part]) for part in x.split(size)]
    return feature_similarity(first, second, batches, lambda model, batch: model(batch[0]))[0]


def test_outputs_that_are_rotated_and_scaled_are_the_same() -> None:
    torch.manual_seed(2)
    first = nn.Sequential(nn.Linear(6, 8))
    second = nn.Sequential(nn.Linear(6, 8))
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q
    with torch.no_grad():
        second[0].weight.copy_(3.0 * rotation @ first[0].weight)
    assert similarity(first, second, torch.randn(256, 6))["0"] == pytest.approx(1.0, abs=1e-5)


def test_the_similarity_is_that_of_the_usual_estimate_for_many_samples() -> None:
    torch.manual_seed(3)
    first, second = net().eval(), net().eval()
    with torch.no_grad():
        second[0].weight += 0.3 * torch.randn(16, 6)
    x = torch.randn(2000, 6)
    with torch.no_grad():
        a, b = first[0](x).double(), second[0](x).double()
    a, b = a - a.mean(0), b - b.mean(0)
    expected = float((b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))
    found = similarity(first, second, x, 500)
    assert found["0"] == pytest.approx(expected, abs=0.01)
    assert 0.5 < found["0"] < 0.999


def test_many_features_of_random_networks_are_not_similar() -> None:
    # The biased estimate is above 0.8 here, with 2,000 features of 32 samples.
    torch.manual_seed(4)
    first, second = nn.Linear(2000, 2000), nn.Linear(2000, 2000)
    batches = [Batch([torch.randn(32, 2000), torch.randn(32, 2000)]) for _ in range(20)]

    def forward(model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0] if model is first else batch[1])

    found, n_samples = feature_similarity(first, second, batches, forward)
    assert abs(found["(model)"]) < 0.15
    assert n_samples == 640


def test_small_batches_are_compared_together() -> None:
    first, second = net(), net()
    with torch.no_grad():
        second[0].weight += 0.3 * torch.randn(16, 6)
    x = torch.randn(24, 6)

    def of(size: int) -> tuple[dict[str, float], int]:
        batches = [Batch([part]) for part in x.split(size)]
        return feature_similarity(first, second, batches, lambda model, batch: model(batch[0]))

    whole, n_samples = of(4)
    assert n_samples == 24
    for size in (1, 2):
        found, n_samples = of(size)
        assert n_samples == 24
        assert found == pytest.approx(whole, abs=1e-5)
    assert of(5)[1] == 20 + 4


def test_both_models_are_unchanged_and_fewer_than_four_samples_are_left_out() -> None:
    first, second = net().train(), net().train()
    before = state(first)
    found, n_samples = feature_similarity(
        first, second, [Batch([torch.randn(3, 6)])], lambda model, batch: model(batch[0])
    )
    assert (found, n_samples) == ({}, 0)
    similarity(first, second, torch.randn(64, 6))
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    assert first.training
    assert first[1].training
    assert not first[0]._forward_hooks


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("mask", torch.ones(4, 4, dtype=torch.bool))
        self.register_buffer("positions", torch.arange(7))
        self.register_buffer("angles", torch.randn(5))


def test_buffers_are_no_weights() -> None:
    first, second = Masked(), Masked()
    second.positions += 1
    second.mask[0] = False
    for found in (
        model_difference(first, second),
        model_difference(state(first), second),
        model_difference(first, state(second)),
    ):
        assert [each.name for each in found.layers] == ["linear"]
        assert (found.added, found.missing) == ((), ())
    # Of two mappings only the type is known.
    layers = model_difference(state(first), state(second)).layers
    assert {t.name for each in layers for t in each.tensors} == {
        "linear.weight", "linear.bias", "angles",
    }  # fmt: skip


# The learner


def learner(folder: Path | None = None, **options: Any) -> Learner:
    x = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
    callbacks = [Checkpointing(keep=9, at_epoch_end=True)]
    return Learner(
        TensorData.from_tensors(x, x[:, :3].argmax(1), valid=0.25),
        net(),
        choices={"lr": 0.05, "probe": "off", "batch_size": 8},
        training=TrainingOptions(doctor=False, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def test_checkpoints_exports_files_and_learners_are_read(tmp_path: Path) -> None:
    trained = learner(tmp_path / "run", average=EMA())
    trained.fit(2)
    trained.export(tmp_path / "export")
    trained.save(tmp_path / "weights.safetensors")
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert len(checkpoints) == 2
    assert trained.difference(tmp_path / "export").is_equal
    assert trained.difference(tmp_path / "weights.safetensors").is_equal
    assert trained.difference(trained).is_equal
    assert trained.difference(trained.model).is_equal
    first, second = map(read_saved_weights, checkpoints)
    found = model_difference(first, second)
    assert 0 < found["0"].change < 1
    # The folder of a run is its newest checkpoint: the weights of the step, not the average.
    newest = read_saved_weights(tmp_path / "run")
    assert all(torch.equal(newest[name], second[name]) for name in second)
    assert not trained.difference(tmp_path / "run").is_equal


def test_outputs_are_compared_on_a_part_of_the_data(tmp_path: Path) -> None:
    trained = learner(tmp_path / "run")
    trained.fit(2)
    first = sorted((tmp_path / "run" / "checkpoints").iterdir())[0]
    found = trained.difference(first, "valid")
    assert found.n_samples == 24
    before = net()
    before.load_state_dict(dict(read_saved_weights(first)))
    inputs = torch.stack(list(trained.data.raw("valid")))
    expected, _ = feature_similarity(
        before,
        trained.model,
        [Batch([part]) for part in inputs.split(8)],
        lambda model, batch: model(batch[0]),
    )
    assert found.similarities == pytest.approx(expected, abs=1e-5)
    assert found.similarities["(model)"] < 1
    assert "CKA" in str(found)
    assert trained.difference(trained, "valid").similarities["3"] == pytest.approx(1.0)
    found.plot(tmp_path / "difference.png")
    assert (tmp_path / "difference.png").exists()


def test_weights_of_another_shape_are_compared_without_outputs(tmp_path: Path) -> None:
    other = learner()
    other.model[3] = nn.Linear(16, 4)
    other.save(tmp_path / "other.safetensors")
    found = learner().difference(tmp_path / "other.safetensors", "valid")
    assert found.similarities == {}
    assert "The outputs are not compared" in found.notes[0]


def test_what_has_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="There are no weights in"):
        learner().difference(tmp_path)
    with pytest.raises(ArtefactError, match=r"missing\.safetensors"):
        learner().difference(tmp_path / "missing")
    with pytest.raises(ArgumentError, match="give a learner, a module, or the path"):
        learner().difference(3)  # type: ignore[arg-type]


def test_the_command_prints_the_table_and_writes_the_figure(tmp_path: Path) -> None:
    one = learner()
    one.save(tmp_path / "one.safetensors")
    one.fit(1)
    one.export(tmp_path / "two")
    words = ["difference", str(tmp_path / "one.safetensors"), str(tmp_path / "two")]
    result = CliRunner().invoke(build_app(), [*words, "--plot", str(tmp_path / "figure.svg")])
    assert result.exit_code == 0, result.output
    assert "rank of change" in result.output
    assert "two:" in result.output
    assert (tmp_path / "figure.svg").exists()


def test_lazy_layers_without_values_are_not_compared() -> None:
    one, other = (nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(4)) for _ in range(2))
    found = model_difference(one, other)
    assert [layer.name for layer in found.layers] == ["0"]
