"""The cases at their smallest size: both sides do the same work, and the gates can fail."""

from __future__ import annotations

import gc
import gzip
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau import TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Size
from flambeau_bench.cases import CASES, by_hand, language_sides
from flambeau_bench.cases.callback_scaling import CallbackScaling
from flambeau_bench.cases.cold_start import ColdStart
from flambeau_bench.cases.collector import VARIANTS as COLLECTOR_VARIANTS
from flambeau_bench.cases.collector import Collector, EpochTimes
from flambeau_bench.cases.folds import Folds
from flambeau_bench.cases.host_reads import count_host_reads
from flambeau_bench.cases.inspect_cost import InspectCost, watched_share
from flambeau_bench.cases.language import Language
from flambeau_bench.cases.loaders import Loaders
from flambeau_bench.cases.loop_overhead import VARIANTS, LoopOverhead
from flambeau_bench.cases.loss_memory import LossMemory
from flambeau_bench.cases.sync_count import SyncCount
from flambeau_bench.cases.tabular import Tabular
from flambeau_bench.cases.tabular_sides import SIDES, Job, Trained, coslog, flat_cosine
from flambeau_bench.cases.vision_fit import FLAMBEAU, USUAL, SmallResNet, VisionFit
from flambeau_bench.fresh_process import FreshRun, measure_in_fresh_processes
from flambeau_bench.invalid_pairs import invalid_reasons
from flambeau_bench.measurement import Measurement
from flambeau_bench.side.idx_file import read_idx


def both(case: Case, size: Size, variant: str) -> tuple[Comparison, Measurement, Measurement]:
    [comparison] = [c for c in case.comparisons(size) if c.variant == variant]
    sides = (comparison.baseline, comparison.candidate)
    baseline, candidate = (case.measure(comparison, side, size, 0) for side in sides)
    return comparison, baseline, candidate


def test_every_case_has_a_quick_size_and_variants() -> None:
    for name, case in CASES.items():
        assert case.name == name
        assert "quick" in case.sizes
        for suite, size in case.sizes.items():
            assert size.name == suite
            variants = [comparison.variant for comparison in case.comparisons(size)]
            assert variants
            assert len(set(variants)) == len(variants)


def test_folds_and_separate_fits_train_the_same_models() -> None:
    case = Folds()
    size = replace(case.sizes["quick"], counts={"rows": 301, "folds": 2, "seeds": 2})
    _, baseline, candidate = both(case, size, "1 epoch")
    assert len(str(baseline.quality["losses"]).split()) == 5  # four models and the predictions
    assert case.gate(case.comparisons(size)[0], [(baseline, candidate)]).passed
    other = replace(candidate, quality={"losses": "others"})
    assert not case.gate(case.comparisons(size)[0], [(baseline, other)]).passed


# ---------------------------------------------------------------- tabular


def test_the_tensor_loop_trains_the_default_network_bitwise() -> None:
    case = Tabular()
    size = replace(case.sizes["quick"], counts={"rows": 700, "epochs": 1})
    comparison, baseline, candidate = both(case, size, "batches of 256")
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert baseline.steps == 5 * 3  # the long run has five epochs of 560 rows
    assert baseline.samples == 5 * 560
    assert baseline.quality["accuracy"] == candidate.quality["accuracy"]
    assert case.gate(comparison, [(baseline, candidate)]).passed
    other = replace(candidate, quality={**candidate.quality, "losses": "others"})
    assert not case.gate(comparison, [(baseline, other)]).passed


@pytest.mark.parametrize("fault", ["seed", "epochs", "batch size"])
def test_unequal_work_on_a_table_is_invalid(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand_side = SIDES["tensor loop"]

    def faulty(job: Job, data: Any, epochs: int) -> Trained:
        job = replace(job, seed=job.seed + (fault == "seed"))
        job = replace(job, batch_size=128) if fault == "batch size" else job
        return by_hand_side(job, data, epochs + (fault == "epochs"))

    monkeypatch.setattr(
        "flambeau_bench.cases.tabular.SIDES", {"tensor loop": by_hand_side, "flambeau": faulty}
    )
    case = Tabular()
    size = replace(case.sizes["quick"], counts={"rows": 400, "epochs": 1})
    _, baseline, candidate = both(case, size, "batches of 256")
    assert invalid_reasons(baseline, candidate, {})


def test_the_schedules_of_the_tensor_loop_are_the_recipes() -> None:
    from flambeau.phases.schedule import Schedule
    from flambeau_bench.cases import tabular_sides as sides
    from flambeau_tabular.models.recipes import recipe

    chosen = recipe("mlp", kind="classification")
    assert (chosen.lr, chosen.weight_decay) == (sides.PEAK_LR, sides.WEIGHT_DECAY)
    assert chosen.betas == sides.BETAS
    for progress in np.linspace(0, 1, 41).tolist():
        assert coslog(progress) == Schedule("coslog")(progress)
        decay = chosen.schedules["weight_decay"]
        assert flat_cosine(progress) == Schedule(decay["shape"], 1.0, decay["options"])(progress)


# ---------------------------------------------------------------- language


@pytest.mark.parametrize("variant", ["awd_lstm fp32", "decoder bf16"])
def test_the_plain_loop_trains_the_same_language_model(variant: str) -> None:
    case = Language()
    size = replace(case.sizes["quick"], counts={"documents": 20, "vocabulary": 100})
    comparison, baseline, candidate = both(case, size, variant)
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert baseline.samples == candidate.samples > 1_000
    assert case.gate(comparison, [(baseline, candidate)]).passed
    for name in ("loss_of_step_3", "valid_loss"):
        quality = {**candidate.quality, name: 1.05 * float(candidate.quality[name])}
        other = replace(candidate, quality=quality)
        assert not case.gate(comparison, [(baseline, other)]).passed


@pytest.mark.parametrize("fault", ["seed", "rows", "precision"])
def test_unequal_work_on_a_text_is_invalid(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = language_sides.SIDES["plain loop"]

    def faulty(job: language_sides.Job) -> language_sides.Trained:
        changes: dict[str, Any] = {"seed": 5, "rows": 3, "precision": "bf16"}
        return plain(replace(job, **{fault: changes[fault]}))

    monkeypatch.setattr(language_sides, "SIDES", {"plain loop": plain, "flambeau": faulty})
    case = Language()
    size = replace(case.sizes["quick"], counts={"documents": 20, "vocabulary": 100})
    _, baseline, candidate = both(case, size, "decoder fp32")
    assert invalid_reasons(baseline, candidate, {})


def test_the_loss_needs_less_memory_for_the_same_gradients() -> None:
    case = LossMemory()
    size = replace(case.sizes["quick"], counts={"tokens": 2_000, "words": 20_000})
    [comparison] = case.comparisons(size)
    runs = [
        FreshRun(case.name, comparison.variant, side, size, 0)
        for side in (comparison.baseline, comparison.candidate)
    ]
    baseline, candidate = measure_in_fresh_processes(runs)
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert case.gate(comparison, [(baseline, candidate)]).passed
    # All logits and their gradients alone are 320 MB.
    assert baseline.figures["peak_mb"] > 320
    assert candidate.figures["peak_mb"] < 0.5 * baseline.figures["peak_mb"]
    quality = {**candidate.quality, "2": 1.01 * float(candidate.quality["2"])}
    other = replace(candidate, quality=quality)
    assert not case.gate(comparison, [(baseline, other)]).passed


# ---------------------------------------------------------------- loop-overhead


@pytest.mark.parametrize("variant", VARIANTS)
def test_loop_overhead_sides_are_bitwise_equal(variant: str) -> None:
    case = LoopOverhead()
    comparison, baseline, candidate = both(case, Size("quick", {"steps": 5}), variant)
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert baseline.steps == 25
    assert case.gate(comparison, [(baseline, candidate)]).passed
    other = replace(candidate, quality={"losses": "other"})
    assert not case.gate(comparison, [(baseline, other)]).passed


def test_the_hand_written_lr_is_torchs_one_cycle() -> None:
    steps = 40
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        by_hand.PEAK_LR,
        # torch counts steps up to the peak; this value puts its peak at the same step.
        total_steps=steps,
        pct_start=(0.25 * (steps - 1) + 1) / steps,
        final_div_factor=1e5 / 25,
        cycle_momentum=False,
    )
    for step in range(steps):
        # The same curve in another formula: only rounding differs.
        expected = optimizer.param_groups[0]["lr"]
        assert by_hand.one_cycle_lr(step, steps) == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            schedule.step()


# ---------------------------------------------------------------- callbacks and host reads


def test_callbacks_get_every_event_of_a_step() -> None:
    case = CallbackScaling()
    comparison, baseline, candidate = both(case, Size("quick", {"steps": 3}), "5")
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert case.gate(comparison, [(baseline, candidate)]).passed
    fewer = replace(candidate, quality={**candidate.quality, "events_per_step": 2.0})
    assert "events per step" in case.gate(comparison, [(baseline, fewer)]).reason


@pytest.mark.parametrize("variant", ["guard off", "inspect"])
def test_planted_reads_are_counted_and_flambeau_has_none(variant: str) -> None:
    case = SyncCount()
    size = Size("quick", {"steps": 5}, pairs=1, floor_pairs=0)
    comparison, baseline, candidate = both(case, size, variant)
    assert baseline.figures["host_reads"] == 1.0
    assert candidate.figures["host_reads"] == 0.0
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert case.gate(comparison, [(baseline, candidate)]).passed
    uncounted = replace(baseline, quality={"host_reads": 0})
    assert not case.gate(comparison, [(uncounted, candidate)]).passed


@pytest.mark.parametrize("absent", ["", "torch.utils._python_dispatch.TorchDispatchMode"])
def test_every_kind_of_read_is_counted_only_while_active(absent: str, report_absent: Any) -> None:
    if absent:
        report_absent(absent)
    value = torch.ones(())
    with count_host_reads() as reads:
        value.item()
        reads.active = True
        value.item()
        float(value)
        bool(value)
        value.tolist()
        value.numpy()
        value.cpu()
        reads.active = False
        value.tolist()
    assert reads.total == 6, reads.found
    assert "tolist" not in vars(torch.Tensor)


@pytest.mark.parametrize("variant", COLLECTOR_VARIANTS)
def test_pausing_the_collector_changes_no_result(variant: str) -> None:
    case = Collector()
    size = Size("quick", {"steps": 5, "objects": 100}, pairs=1, floor_pairs=1)
    frozen = gc.get_freeze_count()
    comparison, baseline, candidate = both(case, size, variant)
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert case.gate(comparison, [(baseline, candidate)]).passed
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen
    assert not any("EpochTimes" in repr(each) for each in gc.callbacks)


def test_time_in_the_collector_is_measured() -> None:
    times = EpochTimes(None)
    state = cast("TrainState", None)  # no event of it reads the state
    times.on_epoch_start(state)
    gc.collect()
    times.on_eval_start(state)
    gc.collect()
    assert times.collections == 1
    assert 0.0 < times.collector_s <= times.seconds


# ---------------------------------------------------------------- loaders


@pytest.mark.parametrize("variant", ["tables", "images"])
def test_loaders_give_equal_batches(variant: str) -> None:
    case = Loaders()
    size = Size("quick", {"table_rows": 2_500, "images": 1_100})
    comparison, baseline, candidate = both(case, size, variant)
    assert invalid_reasons(baseline, candidate, {}) == ""
    assert candidate.samples == size["table_rows" if variant == "tables" else "images"]
    gate = case.gate(comparison, [(baseline, candidate)])
    assert gate.passed, gate.reason
    for other in ({"contents": "other"}, {"order_of_seed": "other"}):
        changed = replace(candidate, quality={**candidate.quality, **other})
        assert not case.gate(comparison, [(baseline, changed)]).passed


# ---------------------------------------------------------------- vision-fit


def write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.fixture
def small_fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write 120 train and 40 test images as files of Fashion-MNIST."""
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    draws = np.random.default_rng(0)
    for stem, n in (("train", 120), ("t10k", 40)):
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", draws.integers(0, 256, (n, 28, 28)))
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", np.arange(n) % 10)
    monkeypatch.setenv("FLAMBEAU_DATA", str(tmp_path))
    return folder


def test_idx_files_are_read(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "a.gz", array)
    assert np.array_equal(read_idx(tmp_path / "a.gz"), array)


@pytest.mark.slow
@pytest.mark.usefixtures("small_fashion")
def test_vision_fit_does_the_same_number_of_steps() -> None:
    case = VisionFit()
    counts = {"train": 100, "valid": 40, "epochs": 2, "batch_size": 32, "thousandths": 3}
    size = Size("quick", counts)
    assert case.skip_reason(size) == ""
    comparison, baseline, candidate = both(case, size, "no workers")
    assert baseline.steps == 8
    assert invalid_reasons(baseline, candidate, comparison.may_differ) == ""
    assert "precision" in candidate.notes
    runs = [FreshRun(case.name, "no workers", side, size, 0) for side in (USUAL, FLAMBEAU)]
    for fresh in measure_in_fresh_processes(runs):
        assert fresh.init_hash == baseline.init_hash
        assert 0.0 < fresh.figures["wall_s"] < 60.0


def test_the_vision_gate_compares_means_over_seeds() -> None:
    case = VisionFit()
    [comparison, _] = case.comparisons(case.sizes["cpu"])

    def of(accuracy: float) -> Measurement:
        return Measurement({}, quality={"accuracy": accuracy, "allowed_below": 0.003})

    baselines = [of(0.90), of(0.91), of(0.92)]
    near = list(zip(baselines, [of(0.912), of(0.904), of(0.906)], strict=True))
    far = list(zip(baselines, [of(0.90), of(0.90), of(0.919)], strict=True))
    assert case.gate(comparison, near).passed
    assert not case.gate(comparison, far).passed


def test_the_net_has_four_convolutions_and_a_residual() -> None:
    net = SmallResNet(4).eval()
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 4
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    def by_steps(x: Tensor) -> Tensor:
        stem = net.stem(x)
        assert stem.shape == (2, 8, 7, 7)
        return F.linear((stem + net.block(stem)).mean((2, 3)), net.head.weight, net.head.bias)

    with torch.no_grad():
        assert torch.equal(net(x), by_steps(x))


def test_vision_fit_gives_a_skip_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    size = VisionFit.sizes["cpu"]
    monkeypatch.delenv("FLAMBEAU_DATA", raising=False)
    assert "FLAMBEAU_DATA is not set" in VisionFit().skip_reason(size)
    monkeypatch.setenv("FLAMBEAU_DATA", str(tmp_path))
    assert "does not exist" in VisionFit().skip_reason(size)
    assert FLAMBEAU in [c.candidate for c in VisionFit().comparisons(size)]


def test_gpu_sizes_are_skipped_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_gpu = [case for case in CASES.values() if "gpu" in case.sizes]
    assert len(on_gpu) >= 3
    assert all("no CUDA" in case.skip_reason(case.sizes["gpu"]) for case in on_gpu)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "variant", ["default", "guard off", "clip", "accumulate4", "ema", "inspect"]
)
def test_steps_do_not_synchronise_on_cuda(variant: str) -> None:
    case = SyncCount()
    comparison, baseline, candidate = both(case, case.sizes["gpu"], variant)
    assert candidate.figures["host_reads"] == 0.0
    assert case.gate(comparison, [(baseline, candidate)]).passed


# ---------------------------------------------------------------- inspect-cost


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["vision", "translation"])
def test_inspected_fits_train_the_same_weights(variant: str) -> None:
    case = InspectCost()
    comparison, baseline, candidate = both(case, case.sizes["quick"], variant)
    assert baseline.steps == candidate.steps == 6
    assert baseline.figures["inspect_percent"] == 0.0
    assert math.isfinite(candidate.figures["inspect_percent"])
    assert invalid_reasons(baseline, candidate, comparison.may_differ) == ""
    assert case.gate(comparison, [(baseline, candidate)]).passed
    changed = replace(candidate, quality={"losses": "other"})
    assert not case.gate(comparison, [(baseline, changed)]).passed


def test_a_watched_step_is_compared_with_the_steps_around_it() -> None:
    """Steps of 10 ms, later of 20 ms; the watched ones take three times as long."""
    seconds = [0.01] * 150 + [0.02] * 150
    for step in (0, 100, 200):
        seconds[step] *= 3
    assert watched_share(seconds, 100) == pytest.approx(0.02)
    seconds[0] = 5.0  # the first step is longer for other reasons
    assert watched_share(seconds, 100) == pytest.approx(0.02)


# ---------------------------------------------------------------- cold-start


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["import", "first step"])
def test_cold_start_measures_new_processes(variant: str) -> None:
    case = ColdStart()
    comparison, baseline, candidate = both(case, case.sizes["cpu"], variant)
    assert invalid_reasons(baseline, candidate, comparison.may_differ) == ""
    gate = case.gate(comparison, [(baseline, candidate)])
    assert gate.passed, gate.reason
    for criterion in comparison.criteria:
        assert math.isfinite(criterion.value(baseline, candidate))


# ---------------------------------------------------------------- hashes


def test_hashes_depend_on_values_dtypes_and_order() -> None:
    x = torch.arange(4.0)
    tensors = [[x], [x.double()], [x.reshape(2, 2)], [x, x], [-x], [x.bfloat16()]]
    assert len({fingerprint.of_tensors(t) for t in tensors}) == len(tensors)
    assert fingerprint.of_tensors([x]) == fingerprint.of_tensors([x.clone()])
    assert fingerprint.of_numbers([0.1, 0.2]) != fingerprint.of_numbers([0.2, 0.1])
    assert fingerprint.of_numbers([0.1]) != fingerprint.of_numbers([math.nextafter(0.1, 1)])


def test_threads_and_optimizer_options_are_settings() -> None:
    assert fingerprint.machine_settings()["threads"] == torch.get_num_threads()
    parameter = [torch.zeros(2, requires_grad=True)]
    found = [
        fingerprint.optimizer_settings(torch.optim.AdamW(parameter, fused=fused, weight_decay=wd))
        for fused in (True, False)
        for wd in (0.0, 0.1)
    ]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
