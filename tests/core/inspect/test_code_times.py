"""Which code the time of a block is spent in, and what the host reads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flambeau.data import batch as data_batch
from flambeau.inspect import host_reads
from flambeau.inspect.code_times import CodeTimer, code_times, is_library
from flambeau.inspect.host_reads import OperatorCounter
from flambeau.training import loop as training_loop

USER, TORCH, BUILTIN, IO = (
    ("/home/me/train.py", 3, "transform"),
    (str(Path(torch.__file__).parent / "nn/modules/module.py"), 1, "forward"),
    ("~", 0, "<built-in method builtins.len>"),
    ("~", 0, "<method 'read' of '_io.BufferedReader' objects>"),
)
SLEEP = ("~", 0, "<built-in method time.sleep>")
JSON = (json.decoder.__file__, 1, "decode")


def test_the_interpreter_works_for_its_callers() -> None:
    """``len`` is called for 3 s by the user and for 1 s by torch; json by the user alone."""
    stats = {
        USER: (1, 1, 2.0, 10.0, {}),
        TORCH: (1, 1, 1.0, 2.0, {}),
        BUILTIN: (2, 2, 4.0, 4.0, {USER: (1, 1, 3.0, 3.0), TORCH: (1, 1, 1.0, 1.0)}),
        JSON: (1, 1, 1.0, 1.0, {USER: (1, 1, 1.0, 1.0)}),
        IO: (1, 1, 1.0, 1.0, {USER: (1, 1, 1.0, 1.0)}),
        SLEEP: (1, 1, 1.0, 1.0, {USER: (1, 1, 1.0, 1.0)}),
    }
    found = code_times(stats)
    assert found.python == pytest.approx((2 + 3 + 1) / 10)
    assert found.files == pytest.approx(1 / 10)
    assert found.slowest == "transform (train.py:3)"
    assert found.slowest_share == pytest.approx((2 + 3 + 1 + 1 + 1) / 10)


def test_the_cost_of_the_profiler_is_subtracted() -> None:
    stats = {USER: (5, 5, 3.0, 3.0, {}), SLEEP: (1, 1, 1.0, 1.0, {USER: (1, 1, 1.0, 1.0)})}
    assert code_times(stats, call_s=0.4).python == pytest.approx(1.0 / 1.6)
    assert code_times({}).python == 0.0


def counting_loop() -> int:
    return sum(number % 7 for number in range(100_000))


def test_a_python_loop_and_a_sleep_are_told_apart() -> None:
    timer = CodeTimer()
    with timer.timed():
        counting_loop()
    assert timer.times().python > 0.9
    assert timer.times().slowest.startswith(("counting_loop (test_", "<genexpr> (test_"))
    timer = CodeTimer()
    with timer.timed():
        time.sleep(0.05)
    assert timer.times().python < 0.1


def test_torch_is_a_library_and_this_file_is_not() -> None:
    assert is_library(nn.modules.linear.__file__)
    assert is_library(np.lib.__file__)
    assert is_library(host_reads.__file__)
    assert not is_library(__file__)
    assert not is_library("/home/me/flambeau/train.py")


def test_operators_and_reads_are_counted() -> None:
    counter = OperatorCounter(torch.device("cpu"))
    x = torch.ones(3)
    with counter.counting():
        y = x + 1
        reads_a_sum(y)
        reads_a_sum(y)
    assert counter.operators == 5
    [(place, count)] = counter.reads.items()
    line = reads_a_sum.__code__.co_firstlineno + 1
    assert place == f"reads_a_sum (test_code_times.py:{line})"
    assert count == 2
    assert counter.wait_s > 0


def reads_a_sum(x: torch.Tensor) -> float:
    return float(x.sum())


def test_backward_operators_are_counted() -> None:
    counter = OperatorCounter(torch.device("cpu"))
    loss = nn.Linear(3, 1)(torch.ones(2, 3)).sum()
    with counter.counting():
        loss.backward()
    assert counter.operators > 2
    assert not counter.reads


def test_values_of_another_device_are_not_read() -> None:
    counter = OperatorCounter(torch.device("cuda"))
    with counter.counting():
        reads_a_sum(torch.ones(3))
    assert not counter.reads


def frame(file: str, module: str, name: str, back: Any) -> Any:
    code = SimpleNamespace(co_filename=file, co_name=name)
    return SimpleNamespace(f_code=code, f_globals={"__name__": module}, f_lineno=7, f_back=back)


def test_the_place_of_a_read_is_the_nearest_code_of_the_user() -> None:
    loop = frame(training_loop.__file__, "flambeau.training.loop", "train_epoch", None)
    user = frame("/home/me/net.py", "net", "forward", loop)
    inner = frame(nn.modules.linear.__file__, "torch.nn.modules.linear", "forward", user)
    assert host_reads.place_of(inner) == "forward (net.py:7)"
    batch = frame(data_batch.__file__, "flambeau.data.batch", "sample_count", loop)
    counter = frame(host_reads.__file__, "flambeau.inspect.host_reads", "call", batch)
    assert host_reads.place_of(counter) == "flambeau: sample_count (batch.py:7)"
    above = frame("/home/me/train.py", "train", "main", None)
    loop.f_back = above
    assert host_reads.place_of(counter) == "flambeau: sample_count (batch.py:7)"
