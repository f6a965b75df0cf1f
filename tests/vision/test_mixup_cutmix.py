from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from flambeau.data.batch import Batch
from flambeau.errors import InputError, PlanError
from flambeau.task import Classification
from flambeau_vision import ImageData
from flambeau_vision.mixup_cutmix import Mix, Mixing, beta_quantiles


def batch_of(n: int = 64, classes: int = 5, dtype: torch.dtype = torch.uint8) -> Batch:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 16, 24), generator=random).to(dtype)
    targets = torch.randint(0, classes, (n,), generator=random)
    return Batch({"image": images}, {"target": targets}, indices=torch.arange(n) + 7, epoch=2)


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 3.0, 20.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    quantiles = beta_quantiles(alpha)
    stats = pytest.importorskip("scipy.stats")
    expected = stats.beta(alpha, alpha).ppf(torch.linspace(0, 1, 4097, dtype=torch.float64).numpy())
    # The trapezoid rule over 32,768 steps; the largest difference was 3e-9.
    assert (quantiles - torch.from_numpy(expected)).abs().max() < 1e-7


def test_mixup_matches_the_formula_with_a_share_per_sample() -> None:
    batch = batch_of(400)
    mixed = Mix(Mixing(mixup=0.4), 5)(batch, seed=1)
    hard = F.one_hot(batch.target, 5).float()
    other = hard.roll(-1, 0)
    assert torch.allclose(mixed.target.sum(1), torch.ones(400))
    images, partner = batch.input.float(), batch.input.float().roll(-1, 0)
    different = batch.target != batch.target.roll(-1)
    share = mixed.target.gather(1, batch.target.unsqueeze(1))[:, 0]
    expected = share.view(-1, 1, 1, 1) * images + (1 - share.view(-1, 1, 1, 1)) * partner
    assert torch.allclose(mixed.input[different], expected[different], atol=0.01)  # of 255
    assert len(share[different].unique()) > 0.9 * int(different.sum())
    assert 0.45 < share[different].mean() < 0.55
    both = share.unsqueeze(1) * hard + (1 - share.unsqueeze(1)) * other
    assert torch.allclose(mixed.target[different], both[different], atol=1e-6)
    assert torch.allclose(mixed.target[~different], hard[~different])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_cutmix_shares_equal_the_pasted_area(dtype: torch.dtype) -> None:
    batch = batch_of(200, dtype=dtype)
    mixed = Mix(Mixing(cutmix=1.0), 5)(batch, seed=1)
    assert mixed.input.dtype == dtype
    own = (mixed.input == batch.input).all(1)
    other = (mixed.input == batch.input.roll(-1, 0)).all(1)
    assert (own | other).all()
    pasted = (other & ~own).flatten(1).float().mean(1)
    hard, partner = batch.target, batch.target.roll(-1)
    share = mixed.target.gather(1, partner.unsqueeze(1))[:, 0]
    # All pixels of two images differ, except one in 16 million.
    assert torch.allclose(share[hard != partner], pasted[hard != partner], atol=1e-6)
    assert pasted.min() < 0.05
    assert pasted.max() > 0.9
    # Each pasted region is a rectangle.
    for mask in (other & ~own)[:20]:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns


def test_the_loss_is_the_weighted_sum_of_both_losses() -> None:
    batch = batch_of(32)
    mixed = Mix(Mixing(mixup=1.0), 5)(batch, seed=3)
    logits = torch.randn(32, 5, generator=torch.Generator().manual_seed(1))
    task = Classification(list("abcde"))
    loss, weight = task.loss(logits, mixed)
    own = mixed.input.sub(batch.input.roll(-1, 0)).flatten(1).sum(1)
    own /= batch.input.float().sub(batch.input.float().roll(-1, 0)).flatten(1).sum(1)
    a = F.cross_entropy(logits, batch.target, reduction="none")
    b = F.cross_entropy(logits, batch.target.roll(-1), reduction="none")
    assert weight == 32
    assert task.host_weight(mixed) == 32
    assert torch.allclose(loss, (own * a + (1 - own) * b).sum(), rtol=1e-3)


def test_random_numbers_belong_to_the_sample() -> None:
    batch = batch_of(20)
    mix = Mix(Mixing(mixup=0.4, cutmix=1.0, probability=0.6), 5)
    mixed = mix(batch, seed=1)
    # The first ten have the same partners, except the last of them.
    part = Batch(
        {"image": batch.input[:10]}, {"target": batch.target[:10]},
        indices=batch.indices[:10], epoch=2,
    )  # fmt: skip
    assert torch.allclose(mix(part, seed=1).input[:9], mixed.input[:9], atol=1e-4)
    assert torch.equal(mix(part, seed=1).target[:9], mixed.target[:9])
    assert not torch.equal(mix(batch, seed=2).target, mixed.target)
    unmixed = (mixed.input == batch.input.float()).flatten(1).all(1).float().mean()
    assert 0.15 < unmixed < 0.7


def test_multi_label_targets_are_mixed() -> None:
    targets = torch.randint(0, 2, (30, 4)).float()
    batch = Batch({"image": torch.rand(30, 1, 8, 8)}, {"target": targets}, indices=torch.arange(30))
    mixed = Mix(Mixing(mixup=1.0), 4)(batch, seed=0).target
    assert mixed.shape == (30, 4)
    low, high = torch.minimum(targets, targets.roll(-1, 0)), torch.maximum(
        targets, targets.roll(-1, 0)
    )  # fmt: skip
    assert ((low - 1e-6 <= mixed) & (mixed <= high + 1e-6)).all()


def test_invalid_values_are_refused() -> None:
    assert Mixing.from_json(Mixing(mixup=0.2).as_json()) == Mixing(mixup=0.2)
    with pytest.raises(InputError, match="not both 0"):
        Mixing()
    with pytest.raises(InputError, match="has no 'alpha'; it has mixup, cutmix"):
        Mixing.from_json({"alpha": 1})
    with pytest.raises(InputError, match="no sample indices"):
        Mix(Mixing(mixup=1), 2)(Batch({"image": torch.zeros(2, 1, 2, 2)}), seed=0)


def test_the_plan_enables_mixing() -> None:
    images = torch.randint(0, 256, (20, 8, 8), dtype=torch.uint8)
    data = ImageData.from_arrays(images, ["a", "b"] * 10)
    assert data.transforms({"augmentation": None, "mixing": None}) == ()
    (mix,) = data.transforms({"augmentation": None, "mixing": {"cutmix": 1.0}})
    assert mix.n_classes == 2
    numbers = ImageData.from_arrays(images, torch.rand(20))
    with pytest.raises(PlanError, match="regression"):
        numbers.transforms({"augmentation": None, "mixing": {"cutmix": 1.0}})


def test_sample_weights_are_mixed_with_the_loss_of_their_samples() -> None:
    """The loss is that of both samples of a pair, each with its own weight."""
    n = 16
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(n, 3, 4, 4, generator=draws)
    labels = torch.randint(0, 3, (n,), generator=draws)
    weights = torch.rand(n, generator=draws, dtype=torch.float64)
    weights[:2] = 0  # both samples of a pair
    logits = torch.randn(n, 3, generator=draws, dtype=torch.float64)
    batch = Batch({"image": images}, {"label": labels}, weight=1.0, indices=torch.arange(n))
    transform = Mix(Mixing(mixup=1.0, cutmix=0.0, probability=1.0), 3)
    plain = transform(batch, 0)
    own = plain.target[torch.arange(n), labels].double()
    other = labels.roll(-1)
    own = torch.where(labels == other, 0.5, own)  # the same label: any share gives the same loss
    mixed = transform(replace(batch, sample_weight=weights), 0)
    task = Classification(["a", "b", "c"])
    total, weight = task.loss(logits, mixed)
    first, second = (F.cross_entropy(logits, y, reduction="none") for y in (labels, other))
    different = labels != other
    wanted = own * weights * first + (1 - own) * weights.roll(-1) * second
    for row in different.nonzero()[:, 0].tolist():
        alone, _ = task.loss(logits[row : row + 1], mixed.rows(slice(row, row + 1)))
        assert float(alone) == pytest.approx(float(wanted[row]), rel=1e-5, abs=1e-7)
    assert task.host_weight(mixed) is None
    assert float(weight) == pytest.approx(float(mixed.sample_weight.sum()))
    assert torch.isfinite(total)
