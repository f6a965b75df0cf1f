"""TabM against one MLP, separate layers, slow averages and the authors' package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Batch, Classification, Learner, TensorData
from flambeau.errors import InputError
from flambeau.task.ensemble_outputs import EnsembleOutputs
from flambeau_tabular.models import tabm
from flambeau_tabular.models.tabm import MemberLinear, MemberScale, TabM, average

EDGES = [[-1.0, 0.0, 1.0], [-2.0, -1.0, 2.0]]
N, K = 6, 4


def inputs(n: int = N) -> tuple[torch.Tensor, ...]:
    draws = torch.Generator().manual_seed(0)
    numbers = torch.randn(n, 2, generator=draws)
    codes = torch.randint(0, 5, (n, 1), generator=draws)
    return numbers, torch.zeros(n, 0), codes


def model(**more: Any) -> TabM:
    torch.manual_seed(1)
    columns = {"n_numbers": 2, "cardinalities": [5], "ple_edges": EDGES, "unknown_dropout": 0.0}
    arguments = {"n_outputs": 3, "k": K, "hidden": [8, 7], "dropout": 0.0, **more}
    return tabm(inputs=columns, **arguments)


def test_equal_members_are_one_mlp() -> None:
    """With the same scale and output layer in each member, TabM is an MLP."""
    ensemble = model()
    with torch.no_grad():
        ensemble.scale.weight.copy_(ensemble.scale.weight[:1].clone().expand(K, -1))
        ensemble.head.weight.copy_(ensemble.head.weight[:1].clone().expand(K, -1, -1))
        ensemble.head.bias.copy_(ensemble.head.bias[:1].clone().expand(K, -1))
        scale, head = ensemble.scale.weight[0], nn.Linear(7, 3)
        head.weight.copy_(ensemble.head.weight[0].T)
        head.bias.copy_(ensemble.head.bias[0])
    one = head(ensemble.body(ensemble.inputs(*inputs()) * scale))
    found = ensemble(*inputs()).members
    for k in range(K):
        torch.testing.assert_close(found[:, k], one)
    torch.testing.assert_close(ensemble.eval()(*inputs()), one)


def test_member_layers_are_separate_linear_layers() -> None:
    torch.manual_seed(0)
    layer, x = MemberLinear(K, 5, 2), torch.randn(N, K, 5)
    found = layer(x)
    for k in range(K):
        alone = nn.Linear(5, 2)
        with torch.no_grad():
            alone.weight.copy_(layer.weight[k].T)
            alone.bias.copy_(layer.bias[k])
        torch.testing.assert_close(found[:, k], alone(x[:, k]))
    assert float(layer.weight.detach().abs().max()) <= 5**-0.5


def test_initial_scales_are_equal_within_a_feature() -> None:
    torch.manual_seed(0)
    chunks = [3, 1, 2]
    normal = MemberScale(chunks, 500, "normal").weight.detach()
    signs = MemberScale(chunks, 500, "signs").weight.detach()
    for weight in (normal, signs):
        assert torch.equal(weight[:, 0], weight[:, 2])
        assert torch.equal(weight[:, 4], weight[:, 5])
        assert not torch.equal(weight[:, 2], weight[:, 3])
    assert float(normal.std()) == pytest.approx(1, abs=0.1)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}


def test_scales_are_normal_with_embedded_numbers_and_signs_without() -> None:
    assert model().scale.weight.abs().unique().numel() > 1
    plain = tabm(inputs={"n_numbers": 2, "number_embedding": "none"}, n_outputs=1)
    assert plain.scale.weight.detach().abs().unique().tolist() == [1.0]
    assert [layer.out_features for layer in plain.body if isinstance(layer, nn.Linear)] == [512] * 3


# ---------------------------------------------------------------- averages


def test_classes_average_probabilities() -> None:
    members = 3 * torch.randn(N, K, 3, generator=torch.Generator().manual_seed(0))
    found = average(members, [("classification", 3)])
    mean = torch.stack([members[:, k].double().softmax(1) for k in range(K)]).mean(0)
    torch.testing.assert_close(found.double().softmax(1), mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.double(), mean.log(), rtol=1e-5, atol=1e-5)


def test_labels_average_probabilities() -> None:
    members = 3 * torch.randn(N, K, 2, generator=torch.Generator().manual_seed(0))
    mean = members.double().sigmoid().mean(1)
    found = average(members, [("multi_label", 2)])
    torch.testing.assert_close(found.double().sigmoid(), mean, rtol=1e-6, atol=1e-7)


def test_other_outputs_average_plainly_and_several_tasks_each_in_their_way() -> None:
    members = torch.randn(N, K, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(average(members, [("regression", 4)]), members.mean(1))
    found = average(members, [("classification", 3), ("regression", 1)])
    torch.testing.assert_close(found[:, :3], average(members[:, :, :3], [("classification", 3)]))
    torch.testing.assert_close(found[:, 3], members[:, :, 3].mean(1))


def test_extreme_logits_stay_finite() -> None:
    members = torch.tensor([[[200.0, -200.0], [-200.0, 200.0]]])
    for kind in ("classification", "multi_label"):
        assert bool(average(members, [(kind, 2)]).isfinite().all())
    half = average(members.bfloat16(), [("classification", 2)])
    assert half.dtype == torch.float32


# ---------------------------------------------------------------- loss and training


def test_the_loss_is_the_mean_of_the_members_losses() -> None:
    ensemble, target = model(kind="classification"), torch.tensor([0, 2, 1, 1, 0, 2])
    task, batch = Classification(["a", "b", "c"]), Batch({"x": inputs()[0]}, {"y": target})
    outputs = ensemble(*inputs())
    total, weight = task.loss(outputs, batch)
    each = [task.loss(outputs.members[:, k], batch)[0] for k in range(K)]
    torch.testing.assert_close(total, torch.stack(each).mean())
    assert weight == N
    averaged, _ = task.loss(ensemble.eval()(*inputs()), batch)
    assert float(averaged.detach()) < float(total.detach())  # Jensen's inequality


def test_a_learner_trains_it_and_evaluates_the_average() -> None:
    numbers, _, codes = inputs(96)
    flags, target = (numbers[:, 1:] > 0).float(), numbers[:, :1] * 2 + codes
    columns = {"numbers": numbers, "flags": flags, "categories": codes}
    data = TensorData.from_tensors(columns, target, valid=32)
    torch.manual_seed(0)
    learner = Learner(
        data,
        tabm(
            inputs={"n_numbers": 2, "n_flags": 1, "cardinalities": [5], "ple_edges": EDGES},
            n_outputs=1,
            k=K,
            hidden=[16],
        ),
        choices={"batch_size": 16, "probe": "off", "normalisation": "none", "targets": "as_is"},
        quiet=True,
    )
    learner.fit(15, lr=1e-2, schedule="constant")
    losses = learner.history.column("train_loss")
    assert losses[-1] < losses[0] / 4
    valid = torch.as_tensor(data.split.valid)
    with torch.no_grad():
        found = learner.model.eval()(*(column[valid] for column in columns.values()))
    rmse = float((found - target[valid]).square().mean().sqrt())
    assert learner.evaluate()["rmse"] == pytest.approx(rmse, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"hidden": []}, "at least one hidden layer"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"scale_init": "ones"}, "scale_init is 'ones'"),
        ({"kind": [("classification", 2)]}, "kind has 2 outputs.*n_outputs is 3"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tabm(inputs={"n_flags": 1}, **{"n_outputs": 3, **arguments})


# ---------------------------------------------------------------- the authors' package


def test_outputs_equal_those_of_the_authors() -> None:
    """Numbers with PLE (version B), one category as one-hot, two blocks; the same weights."""
    theirs = pytest.importorskip("tabm", reason="needs the authors' package tabm")
    embeddings = pytest.importorskip("rtdl_num_embeddings")
    reference = theirs.TabM.make(
        n_num_features=2,
        cat_cardinalities=[4],  # their codes start at our code 1
        d_out=3,
        num_embeddings=embeddings.PiecewiseLinearEmbeddings(
            [torch.tensor(edges) for edges in EDGES], 16, activation=False, version="B"
        ),
        k=K,
        d_block=8,
        n_blocks=2,
        dropout=0.0,
        arch_type="tabm-mini",
    )
    ours = model(hidden=[8, 8])
    with torch.no_grad():
        ours.inputs.numbers.linear.weight.normal_()
        reference.num_module.linear.weight.copy_(ours.inputs.numbers.linear.weight)
        reference.num_module.linear0.weight.copy_(ours.inputs.numbers.slope)
        reference.num_module.linear0.bias.copy_(ours.inputs.numbers.bias)
        reference.backbone.affine.weight.copy_(ours.scale.weight)
        linear = [layer for layer in ours.body if isinstance(layer, nn.Linear)]
        for block, layer in zip(reference.backbone.blocks, linear, strict=True):
            block[0].load_state_dict(layer.state_dict())
        reference.output.load_state_dict(ours.head.state_dict())
    numbers, flags, codes = inputs()
    codes = codes.clamp(min=1)  # they have no code for missing
    found = ours(numbers, flags, codes)
    assert isinstance(found, EnsembleOutputs)
    torch.testing.assert_close(found.members, reference(numbers, codes - 1), rtol=1e-5, atol=1e-5)
    chunks = ours.inputs.chunks
    assert chunks == [16, 16, 4]
    assert sum(p.numel() for p in ours.parameters()) == sum(
        p.numel() for p in reference.parameters()
    )
