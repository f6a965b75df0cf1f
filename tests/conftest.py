"""What every test shares: thread counts, and the opt-in to real data and to a GPU.

Nothing is seeded here: a test that draws says with which seed.
"""

import os
import resource
import signal
from collections.abc import Callable, Generator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau.device import usable_cores
from flambeau.torch_internals import names

DATA_VARIABLE = "FLAMBEAU_DATA"
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # one of several processes of `pytest -n`


def data_folder() -> Path | None:
    """The folder of real data sets, or None where the variable is unset or empty."""
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).resolve() if value else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: a worker a core, but no more than have use, as each imports torch (0.5 GB)."""
    return min(8, usable_cores())


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # So a shell starts what it runs in the background; the tests of Ctrl-C send it themselves.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if IS_WORKER:
        # What a test starts as a process of its own has one core too: two threads that wait for
        # each other where a neighbour computes are ten times slower than one.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = data_folder()
    if folder is not None and not folder.is_dir():
        raise pytest.UsageError(
            f"{DATA_VARIABLE} names {folder}, which is no folder. Unset it to skip the tests on "
            "real data, or point it at the folder that holds fashion_mnist, hymenoptera, …"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that ask for the `realdata` fixture, so that `-m realdata` finds them."""
    for item in items:
        if "realdata" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.realdata)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    marks = {mark.name for mark in item.iter_markers()}
    if "realdata" in marks and data_folder() is None:
        pytest.skip(f"{DATA_VARIABLE} is unset: it names the folder of real data sets")
    if "gpu" in marks and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    # Set before any fixture runs, and again for each test, so that a test that changes it cannot
    # reach the next one. One thread keeps small tests quick and their sums in one order on every
    # machine; the longer tests, whose figures have tolerances, may use two, if no other test runs.
    long = bool(marks & {"slow", "realdata", "baselines"})
    torch.set_num_threads(2 if long and not IS_WORKER else 1)


BUDGET_S = {
    "architecture": 35,
    "bench": 55,
    "conformance": 25,
    "core": 230,
    "integration": 110,
    "text": 65,
    "vision": 70,
}
"""CPU seconds of the quick tests by folder (two cores of 2.8 GHz). What does not fit is slow."""

CPU_SECONDS = "cpu_seconds"
CPU_BEFORE = pytest.StashKey[float]()


def cpu_seconds() -> float:
    """CPU seconds of this process and of the processes that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    item.stash[CPU_BEFORE] = cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add the CPU seconds of a test, with its fixtures, to its last report."""
    report = yield
    if report.when == "teardown":
        report.user_properties.append((CPU_SECONDS, cpu_seconds() - item.stash[CPU_BEFORE]))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the CPU seconds of each folder beside its budget."""
    used: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == CPU_SECONDS:
                    folder = report.nodeid.split("/")[1]
                    used[folder] = used.get(folder, 0.0) + value
    if set(used) >= {"core", "text", "vision"}:  # the whole suite ran
        terminalreporter.section("CPU seconds by folder", sep="-")
        for folder, seconds in sorted(used.items()):
            budget = BUDGET_S.get(folder)
            over = "" if budget is None or seconds <= budget else "  over the budget"
            terminalreporter.write_line(f"{folder:14}{seconds:6.0f} of {budget}{over}")


@pytest.fixture(autouse=True)
def without_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests without the mark run as on a machine without a GPU, their processes too.

    What they say of devices, memory and equal bits is said of the CPU.
    """
    if torch.cuda.is_available() and request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder named in FLAMBEAU_DATA; a test that asks for it is marked `realdata`."""
    folder = data_folder()
    if folder is None:
        pytest.skip(f"{DATA_VARIABLE} is unset: it names the folder of real data sets")
    return folder


STEP = "optimizers._step"

WITHOUT_NAME = {
    "torch._amp_foreach_non_finite_check_and_unscale_": ("adamw", "tensor_lists._flag_by_norm"),
    "torch._foreach_add_": ("adamw", "tensor_lists._add_to_each"),
    "torch._foreach_mul_": ("adamw", "tensor_lists._multiply_each"),
    "torch._foreach_norm": ("adamw", "tensor_lists.get_total_norm"),
    "torch._fused_adam_": ("adam", STEP),
    "torch._fused_adamw_": ("adamw", STEP),
    "torch._fused_sgd_": ("sgd", STEP),
    "torch.autograd.graph._engine_run_backward": ("adamw", "backward._backward_of_quotient"),
    "torch.optim.Optimizer._optimizer_step_post_hooks": ("adamw", STEP),
    "torch.optim.Optimizer._optimizer_step_pre_hooks": ("adamw", STEP),
    "torch.optim.Optimizer.step.__wrapped__": ("rmsprop", ""),
    "torch.optim.optimizer._global_optimizer_post_hooks": ("adamw", STEP),
    "torch.optim.optimizer._global_optimizer_pre_hooks": ("adamw", STEP),
}
"""Private names of a training step: an optimizer that uses it, the function that replaces it."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``private_name`` and ``optimizer`` with each name."""
    if "private_name" in metafunc.fixturenames:
        cases = [(name, optimizer) for name, (optimizer, _) in WITHOUT_NAME.items()]
        metafunc.parametrize(("private_name", "optimizer"), cases, ids=list(WITHOUT_NAME))


@pytest.fixture
def private_names() -> set[str]:
    """Those that ``private_name`` runs through."""
    return set(WITHOUT_NAME)


@pytest.fixture
def report_absent(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """``report_absent(name)``: flambeau finds no such private name, though torch has it.

    Returns a list that gets an entry for each call of the function that replaces it, or each look
    at the name where torch's own public function does.
    """

    def report(absent: str) -> list[str]:
        assert absent in names.FALLBACKS
        calls: list[str] = []
        counts_looks = not WITHOUT_NAME.get(absent, ("", ""))[1]
        for reader in ("lookup", "attribute"):
            original = getattr(names, reader)

            def read(*arguments: Any, original: Any = original) -> Any:
                if arguments[-1] != absent:
                    return original(*arguments)
                if counts_looks:
                    calls.append(absent)
                return None

            monkeypatch.setattr(names, reader, read)
        if not counts_looks:
            module_name, function_name = WITHOUT_NAME[absent][1].split(".")
            module = import_module(f"flambeau.torch_internals.{module_name}")
            function = getattr(module, function_name)

            def counted(*arguments: Any, **named: Any) -> Any:
                calls.append(function_name)
                return function(*arguments, **named)

            monkeypatch.setattr(module, function_name, counted)
        return calls

    return report
