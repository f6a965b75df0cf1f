"""How the time of a step is divided, from figures that are made up here, and the promised gains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flambeau.inspect import profile_promises as promises
from flambeau.inspect.code_times import CodeTimes
from flambeau.inspect.device_times import DeviceTimes, device_times
from flambeau.inspect.profile_parts import Accelerator, Loading, Measured, parts_of
from flambeau.inspect.profiled_run import typical

NO_LOADING = Loading(0.0, in_memory=True)


def seconds(measured: Measured) -> dict[str, float]:
    """Seconds by part, without parts that take none."""
    parts = parts_of(measured)
    assert sum(part.share for part in parts) == pytest.approx(100)
    assert sum(part.seconds for part in parts) == pytest.approx(measured.whole_s)
    assert [part.seconds for part in parts] == sorted((p.seconds for p in parts), reverse=True)
    return {part.name: part.seconds for part in parts if part.seconds > 1e-12}


def test_loading_is_divided_by_the_kind_of_code() -> None:
    code = CodeTimes(python=0.25, files=0.5)
    found = seconds(Measured(Loading(4.0, code), 0.0, 8))
    assert found == pytest.approx({"reading": 2.0, "decoding": 1.0, "Python": 1.0})
    found = seconds(Measured(Loading(4.0, code, in_memory=True), 0.0, 8))
    assert found == pytest.approx({"reading": 3.0, "Python": 1.0})


def test_the_fixed_cost_is_divided_between_launch_and_memory() -> None:
    """100 operators of 1 ms, and 3 GB at 10 GB/s: one part to three."""
    figures: dict[str, Any] = {"operators": 100, "operator_s": 0.001, "weight_bytes": 3e9}
    found = seconds(Measured(NO_LOADING, 2.0, 8, fixed_s=0.8, **figures))
    assert found == pytest.approx({"launch": 0.2, "memory": 0.6, "compute": 1.2})
    found = seconds(Measured(NO_LOADING, 2.0, 8, fixed_s=None, **figures))
    assert found == pytest.approx({"launch": 0.1, "memory": 0.3, "compute": 1.6})
    found = seconds(Measured(NO_LOADING, 0.2, 8, fixed_s=None, **figures))
    assert found == pytest.approx({"launch": 0.05, "memory": 0.15})


def test_code_that_waits_counts_as_user_code() -> None:
    """Reads of values and exchanges wait, too, and are parts of their own."""
    figures: dict[str, Any] = {"fixed_s": 1.8, "operators": 1, "operator_s": 1.0}
    found = seconds(Measured(NO_LOADING, 2.0, 8, blocked_s=1.5, **figures))
    assert found == pytest.approx({"Python": 1.5, "launch": 0.5})
    found = seconds(Measured(NO_LOADING, 2.0, 8, blocked_s=1.5, read_wait_s=1.0, **figures))
    assert found == pytest.approx({"Python": 0.5, "synchronisation": 1.0, "launch": 0.5})
    ranks = Measured(
        NO_LOADING,
        2.0,
        8,
        blocked_s=1.5,
        communication_s=1.5,
        n_ranks=2,
        **{**figures, "fixed_s": 0.5},
    )
    assert seconds(ranks) == pytest.approx({"communication": 1.5, "launch": 0.5})
    unknown = Measured(NO_LOADING, 2.0, 8, blocked_s=1.5, n_ranks=2)
    assert seconds(unknown) == pytest.approx({"compute": 2.0})


def test_python_and_reads_of_a_step_are_no_fixed_cost() -> None:
    measured = Measured(
        NO_LOADING, 2.0, 8, CodeTimes(python=0.25), 1, 1.0, fixed_s=1.5,
        reads={"forward (net.py:3)": 2.0}, read_wait_s=1.0,
    )  # fmt: skip
    found = seconds(measured)
    assert found == pytest.approx({"Python": 0.5, "synchronisation": 1.0, "launch": 0.5})
    [part] = [part for part in parts_of(measured) if part.name == "synchronisation"]
    assert part.evidence == "the host reads values: 2× forward (net.py:3)"


def test_an_evaluation_counts_for_the_steps_between() -> None:
    measured = Measured(NO_LOADING, 1.0, 8, evaluation_s=0.5, steps_per_evaluation=40)
    assert seconds(measured) == pytest.approx({"compute": 1.0, "evaluation": 0.5})
    [part] = [part for part in parts_of(measured) if part.name == "evaluation"]
    assert part.evidence == "20.0 s after every 40 steps"


# ---------------------------------------------------------------- a device beside the host


def on_device(host_s: float, busy_s: float, step_s: float, **more: Any) -> Measured:
    """A step of ``step_s`` seconds, launched in ``host_s`` and computed in ``busy_s``."""
    accelerator = Accelerator(
        host_s, busy_s, more.pop("copy_s", 0.0), wait_s=more.pop("wait_s", 0.0)
    )
    return Measured(more.pop("loading", NO_LOADING), step_s, 8, accelerator=accelerator, **more)


def test_a_busy_device_computes() -> None:
    assert seconds(on_device(0.2, 1.0, 1.0)) == pytest.approx({"compute": 1.0})
    found = seconds(on_device(0.2, 1.0, 1.0, copy_s=0.6))
    assert found == pytest.approx({"transfer": 0.6, "compute": 0.4})
    found = seconds(on_device(0.2, 1.0, 1.0, weight_bytes=7e9))
    assert found == pytest.approx({"memory": 0.7, "compute": 0.3})


def test_an_idle_device_waits_for_the_host() -> None:
    found = seconds(on_device(1.0, 0.2, 1.0, code=CodeTimes(python=0.25)))
    assert found == pytest.approx({"compute": 0.2, "launch": 0.6, "Python": 0.2})
    loading = Loading(3.0, CodeTimes())
    found = seconds(on_device(1.0, 0.8, 1.0, loading=loading))
    assert found == pytest.approx({"decoding": 2.4, "launch": 0.8, "compute": 0.8})


def test_a_read_costs_what_the_device_would_not_be_idle_without_it() -> None:
    """Host 0.4 s and device 1.0 s follow each other, in place of side by side."""
    reads = {"loss (train.py:3)": 1.0}
    found = seconds(on_device(1.4, 1.0, 1.4, wait_s=1.0, reads=reads))
    assert found == pytest.approx({"compute": 1.0, "synchronisation": 0.4})
    # Where the host takes longer, it is the host that the device waits for.
    found = seconds(on_device(2.0, 0.5, 2.0, wait_s=0.5, reads=reads))
    assert found == pytest.approx({"compute": 0.5, "launch": 1.0, "synchronisation": 0.5})


def event(device: str, name: str, start: float, end: float, annotation: bool = False) -> Any:
    return SimpleNamespace(
        device_type=SimpleNamespace(name=device),
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        is_user_annotation=annotation,
    )


def test_what_runs_side_by_side_on_the_device_counts_once() -> None:
    found = device_times(
        [
            event("CPU", "aten::mm", 0, 1e6),
            event("CPU", "cudaStreamSynchronize", 1e6, 3e6),
            event("CUDA", "gemm", 1e6, 3e6),
            event("CUDA", "reduce", 2e6, 4e6),
            event("CUDA", "Memcpy HtoD (Pinned -> Device)", 3e6, 7e6),
            event("CUDA", "Optimizer.step#AdamW.step", 0, 100e6, annotation=True),
        ]
    )
    assert found == DeviceTimes(busy_s=6.0, copy_s=3.0, wait_s=2.0, kernels=2)


def test_an_exchange_that_nothing_hides_is_communication() -> None:
    found = device_times(
        [
            event("CUDA", "gemm", 0, 4e6),
            event("CUDA", "ncclDevKernel_AllReduce_Sum_f32_RING_LL", 3e6, 6e6),
            event("CUDA", "Memcpy HtoD (Pinned -> Device)", 5e6, 7e6),
        ]
    )
    # Alone are the exchange from 4 to 5 and the copy from 6 to 7.
    assert found == DeviceTimes(busy_s=7.0, copy_s=1.0, wait_s=0.0, kernels=1, exchange_s=1.0)
    device = Accelerator(host_s=1.0, busy_s=7.0, copy_s=1.0, exchange_s=1.0)
    measured = Measured(NO_LOADING, 7.0, 8, accelerator=device, communication_s=1.0, n_ranks=2)
    assert seconds(measured) == pytest.approx(
        {"transfer": 1.0, "communication": 1.0, "compute": 5.0}
    )


def test_communication_is_a_part_of_several_processes() -> None:
    figures: dict[str, Any] = {"operators": 100, "operator_s": 0.001, "fixed_s": 0.5}
    measured = Measured(
        NO_LOADING, 2.0, 8, CodeTimes(python=0.1), communication_s=0.75, n_ranks=2, **figures
    )
    found = seconds(measured)
    assert found == pytest.approx(
        {"communication": 0.75, "Python": 0.2, "launch": 0.5, "compute": 0.55}
    )
    [part] = [part for part in parts_of(measured) if part.name == "communication"]
    assert part.evidence == "gradients of 2 processes"
    assert "communication" not in {part.name for part in parts_of(Measured(NO_LOADING, 2.0, 8))}


def test_accumulation_shares_an_exchange() -> None:
    """3 s per step, of which 2 s are communication: 4 × 1 s + 2 s for four times the samples."""
    measured = Measured(NO_LOADING, 3.0, 8, communication_s=2.0, n_ranks=2)
    change = promises.with_accumulation(measured, 2, 4)
    assert change.expected == pytest.approx(4 * 3 / 6)
    assert change.choices == {"accumulate": 8}


def test_steps_that_lost_the_core_do_not_count() -> None:
    assert typical([1.0, 9.0, 1.2, 1.1, 8.0], [0, 2, 0, 0, 1]) == 1.1
    assert typical([9.0, 1.0, 8.0, 2.0, 7.0], [1, 1, 1, 1, 0]) == 2.0


# ---------------------------------------------------------------- promises


def loading_measured(read_s: float, cpu_s: float, step_s: float, workers: int = 0) -> Measured:
    wait_s = read_s if not workers else max(0.0, read_s / workers - step_s)
    loading = Loading(wait_s, workers=workers, read_s=read_s, read_cpu_s=cpu_s)
    return Measured(loading, step_s, 8)


def test_workers_that_compute_are_as_many_as_cores() -> None:
    measured = loading_measured(read_s=0.4, cpu_s=0.4, step_s=0.01)
    assert promises.workers_for(measured, cores=4) == 4
    change = promises.with_workers(measured, 4, cores=4, threads=1)
    assert change.expected == pytest.approx(0.41 / ((0.4 + 0.01) / 4))


def test_workers_that_wait_may_be_more_than_cores() -> None:
    measured = loading_measured(read_s=0.4, cpu_s=0.004, step_s=0.01)
    assert promises.workers_for(measured, cores=2) == 8
    # They compute now and then: more than two would wait for each other at each wake-up.
    some = loading_measured(read_s=0.4, cpu_s=0.04, step_s=0.01)
    assert promises.workers_for(some, cores=2) == 4
    change = promises.with_workers(measured, 8, cores=2, threads=1)
    assert change.expected == pytest.approx(0.41 / 0.05)
    # No more than the step needs: then the step is what takes the time.
    measured = loading_measured(read_s=0.04, cpu_s=0.004, step_s=0.02)
    assert promises.workers_for(measured, cores=8) == 2
    change = promises.with_workers(measured, 2, cores=8, threads=1)
    assert change.expected == pytest.approx(0.06 / 0.02)


def test_one_worker_reads_while_the_step_computes() -> None:
    measured = loading_measured(read_s=0.4, cpu_s=0.004, step_s=0.1, workers=1)
    change = promises.with_workers(measured, 4, cores=4, threads=1)
    assert change.expected == pytest.approx(4.0)


def test_a_larger_batch_shares_the_fixed_cost() -> None:
    measured = Measured(Loading(0.1, in_memory=True), 1.0, 8, evaluation_s=0.2)
    expected = promises.with_batch_size(measured, 8, 32, 0.01, 0.0)
    # 32 samples took 4 · 1.3 s, and take 0.1 + 1.0 + 0.24 s with 0.8 s of evaluation.
    assert expected == pytest.approx(5.2 / 2.14)
    assert promises.with_batch_size(measured, 8, 32, 1.0 / 8, 0.1 / 8) == pytest.approx(1.0)


def test_the_line_is_never_steeper_than_through_the_origin() -> None:
    assert promises.line_through({1: 1.0, 2: 5.0})[0] == pytest.approx(0.0)
    assert promises.line_through({1: 2.0, 2: 1.0}) == (1.5, 0.0)


def test_a_setting_makes_only_the_arithmetic_faster() -> None:
    measured = Measured(NO_LOADING, 1.0, 8, operators=1, operator_s=0.2)
    parts = parts_of(measured)
    change = promises.of_setting(measured, parts, "precision", "bf16", "cpu")
    assert change is not None
    assert change.expected == pytest.approx(1 / (0.2 + 0.8 / 1.9))
    assert promises.of_setting(measured, parts, "compile", "whole", "cpu") is None
    change = promises.with_threads(measured, parts, 1, 2)
    assert change.expected == pytest.approx(1 / (1 - 0.8 * 0.8 / 2))


def test_evaluations_get_a_tenth_of_the_time() -> None:
    measured = Measured(NO_LOADING, 1.0, 8, evaluation_s=9.0, steps_per_evaluation=2)
    change = promises.fewer_evaluations(measured)
    assert change.choices == {"evaluate_every": 162}
    assert change.expected == pytest.approx(9.0)
