"""Peers: planted faults of a side void its rounds, and a missing peer is absent, never slow."""

from __future__ import annotations

import ast
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from flambeau.errors import ArgumentError, InputError
from flambeau_bench import suites
from flambeau_bench.case import Criterion, Size
from flambeau_bench.cases import CASES
from flambeau_bench.cases.peers_overhead import ROWS, PeersOverhead
from flambeau_bench.comparison import compare_runs
from flambeau_bench.measurement import Measurement
from flambeau_bench.peers import peer_run
from flambeau_bench.peers.environment import (
    install_estimate,
    locked_wheels,
    sync_command,
)
from flambeau_bench.peers.live_side import LiveSide, SideError, environment_of
from flambeau_bench.peers.peer import FLAMBEAU, PLAIN, Peer, choose_peers, known_peers
from flambeau_bench.peers.peer_case import Row
from flambeau_bench.peers.peer_run import PeerOptions, run_peer_case
from flambeau_bench.peers.rounds import measure_row, order_of_round
from flambeau_bench.records import header
from flambeau_bench.side import protocol
from flambeau_bench.side.protocol import Job
from flambeau_bench.side.torch_tiny import TinyTask
from flambeau_bench.timing import frozen_heap
from flambeau_bench.user_cases import with_user_cases
from flambeau_bench.verdict import Outcome, judge

# The loader of the user does not shuffle, so that all sides have the same batches.
pytestmark = pytest.mark.filterwarnings("ignore:.train-not-shuffled")

BASELINES = Path(__file__).parents[2] / "packages" / "bench" / "baselines"
SIZE = Size("quick", {"steps": 3}, pairs=2, floor_pairs=2)
PLANTED_S = 50e-6
MINE = BASELINES / "flambeau" / "peers_overhead.py"


def program_of(peer: str, case: str = "peers_overhead") -> ModuleType:
    """Return the module of a side's program."""
    path = BASELINES / peer / f"{case}.py"
    spec = importlib.util.spec_from_file_location(f"{case}_of_{peer}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> Iterator[None]:
    """Collect new objects only: a full collection of what pytest has loaded takes 0.3 s."""
    with frozen_heap():
        yield


plain, of_flambeau = program_of("plain"), program_of("flambeau")
Make = Callable[[Job, dict[str, Any]], Any]


class SideHere(LiveSide):
    """A side in this process: what a program would answer, without starting an interpreter."""

    def __init__(self, job: Job, build: protocol.Build, make: Make) -> None:
        self._job, self._build, self._make = job, build, make
        self._watched = {}
        imports = {"import_s": 0.0, "import_cpu_s": 0.0, "modules": 0.0}
        self.ready = {"versions": {"torch": torch.__version__}, "imports": imports}

    def run(self, request: Any) -> dict[str, Any]:
        answer = protocol._measured(self._build, self._make(self._job, request))
        return json.loads(json.dumps(answer))

    def close(self) -> None:
        """End nothing."""


class OverheadHere(PeersOverhead):
    """The case with sides in this process; ``faulty`` is the program of the peer "faulty"."""

    def __init__(self, build: protocol.Build = plain.build, make: Make = TinyTask) -> None:
        self.builds = {PLAIN: plain.build, FLAMBEAU: of_flambeau.build, "faulty": build}
        self.make = make

    def start(self, peer: Peer, row: Row, size: Size, folder: Path) -> LiveSide:
        make = self.make if peer.name == "faulty" else TinyTask
        return SideHere(self.job(row, size), self.builds[peer.name], make)


def peer(name: str) -> Peer:
    return Peer(name, BASELINES / "flambeau")  # its programs run in this interpreter


OTHERS = {PLAIN: peer(PLAIN), FLAMBEAU: peer(FLAMBEAU)}


def outcomes(case: OverheadHere, row: Row = ROWS[0], size: Size = SIZE) -> tuple[Outcome, Outcome]:
    """Return the first outcome of the peer over plain PyTorch, and of flambeau against it."""
    overhead, against = measure_row(case, row, size, peer("faulty"), OTHERS, lambda line: None)
    return judge(case, overhead)[0], judge(case, against)[0]


@pytest.mark.parametrize("name", sorted(known_peers()))
def test_a_loader_is_made_only_in_the_row_of_user_loaders(name: str) -> None:
    """Else a peer would read its ready batches through a ``DataLoader``, and flambeau a list."""
    tree = ast.parse((BASELINES / name / "peers_overhead.py").read_text(encoding="utf-8"))
    guarded = {
        id(call)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "task.user_loader"
        for part in node.body
        for call in ast.walk(part)
    }
    names = {"task.loader", "task.valid_loader"}
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]
    assert [ast.unparse(call) for call in calls if id(call) not in guarded] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_without_a_fault_all_rounds_are_valid(row: Row) -> None:
    for outcome in outcomes(OverheadHere(), row):
        assert outcome.invalid_pairs == {}
        assert outcome.gate.passed, outcome.gate.reason
        assert outcome.interval is not None


def skip_a_batch(task: TinyTask) -> Callable[[], object]:
    task.batches = task.batches[:-1]
    return plain.build(task)


def skip_a_batch_when_timed(task: TinyTask) -> Callable[[], object]:
    return plain.build(task) if task.watched else skip_a_batch(task)


def train_in_bf16(task: TinyTask) -> Callable[[], object]:
    fit = plain.build(task)

    def in_bf16() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return fit()

    return in_bf16


def leave_the_evaluation_out(task: TinyTask) -> Callable[[], object]:
    model, optimizer = task.model, task.optimizer()

    def fit() -> None:
        model.train()
        for x, y in task.batches:
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return fit


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (skip_a_batch, "skipped steps (15 and 14)"),
        (skip_a_batch_when_timed, "differ in timed as observed: True and False"),
        (train_in_bf16, "differ in precision: float32 and bfloat16, float32"),
        (leave_the_evaluation_out, "differ in final_evaluations: 1 and 0"),
    ],
)
def test_a_fault_of_a_peer_voids_its_rounds(
    fault: Callable[[TinyTask], Callable[[], object]], reason: str
) -> None:
    over_plain, against = outcomes(OverheadHere(fault))
    assert over_plain.verdict == against.verdict == "INVALID"
    assert over_plain.interval is None
    assert against.interval is None
    assert reason in over_plain.invalid_pairs[0]


def test_another_seed_voids_the_rounds() -> None:
    def other_seed(job: Job, request: dict[str, Any]) -> TinyTask:
        return TinyTask(replace(job, seed=job.seed + 1), request)

    over_plain, against = outcomes(OverheadHere(make=other_seed))
    assert over_plain.verdict == against.verdict == "INVALID"
    for what in ("initial weights differ", "batches differ", "settings differ in seed: 0 and 1"):
        assert what in over_plain.invalid_pairs[0]


def test_another_torch_voids_the_rounds() -> None:
    class OtherTorch(TinyTask):
        def facts(self) -> protocol.Facts:
            facts = super().facts()
            return replace(facts, settings={**facts.settings, "torch": "2.14.0"})

    over_plain, _ = outcomes(OverheadHere(make=OtherTorch))
    assert "settings differ in torch" in over_plain.invalid_pairs[0]


def test_another_device_voids_the_rounds() -> None:
    class OtherDevice(TinyTask):
        def facts(self) -> protocol.Facts:
            facts = super().facts()
            assert facts.settings["device"] == "cpu"
            return replace(facts, settings={**facts.settings, "device": "cuda"})

    over_plain, against = outcomes(OverheadHere(make=OtherDevice))
    assert over_plain.verdict == against.verdict == "INVALID"
    assert "settings differ in device: cpu and cuda" in over_plain.invalid_pairs[0]


def test_a_side_on_the_cpu_sees_no_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    case, size = PeersOverhead(), replace(SIZE, device="cuda")
    for chosen, visible in ((SIZE, ""), (size, "0")):
        job = case.job(ROWS[0], chosen)
        variables = environment_of(peer("mine"), job, tmp_path)
        assert variables["CUDA_VISIBLE_DEVICES"] == visible


def wait_in_each_step(task: TinyTask) -> Callable[[], object]:
    def wait(model: nn.Module, inputs: object) -> None:
        # A clock of CPU time does not see a sleep.
        end = time.process_time() + PLANTED_S
        while model.training and time.process_time() < end:
            pass

    task.model.register_forward_pre_hook(wait)
    return plain.build(task)


@pytest.mark.slow
def test_a_planted_wait_of_50_microseconds_is_seen() -> None:
    within_noise = Criterion("slope_us", "difference", "µs/step", within_floor=True)
    row = replace(ROWS[0], overhead=(within_noise,), against=(within_noise,))
    size = replace(SIZE, counts={"steps": 20}, pairs=61, floor_pairs=61)
    waiting, _ = outcomes(OverheadHere(wait_in_each_step), row, size)
    assert waiting.gate.passed
    assert waiting.verdict == "MISSED", waiting
    assert waiting.interval is not None
    assert 30.0 < waiting.interval.median < 80.0
    same, _ = outcomes(OverheadHere(), row, size)
    assert same.verdict == "met", same


def test_each_side_is_at_each_place_equally_often() -> None:
    names = ["a", "b", "c", "d"]
    rounds = [order_of_round(names, number) for number in range(8)]
    for place in range(4):
        assert sorted(order[place] for order in rounds) == sorted(names * 2)


# ---------------------------------------------------------------- the whole run


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plain PyTorch and flambeau run in this process, and nothing else be known."""
    monkeypatch.setattr(peer_run, "known_peers", lambda: OTHERS)


def run(
    case: PeersOverhead, tmp_path: Path, program: Path = MINE, **changes: Any
) -> list[dict[str, Any]]:
    size = replace(SIZE, pairs=1, floor_pairs=1)
    head = header("1", case, size) | {"git_sha": "a", "dirty": False} | changes
    options = PeerOptions((str(program),))
    return run_peer_case(case, size, head, tmp_path, options, variants=["user loader"])


class Failing(OverheadHere):
    """Starts flambeau, and fails to start any other peer."""

    def start(self, peer: Peer, row: Row, size: Size, folder: Path) -> LiveSide:
        if peer.name not in self.builds:
            raise SideError("it ended with exit code 1: no module", peer.name)
        return super().start(peer, row, size, folder)


def test_a_peer_that_fails_is_absent(here: None, tmp_path: Path) -> None:
    records = run(Failing(), tmp_path)
    [absent] = [record for record in records if record["kind"] == "skipped"]
    assert absent["reason"] == "peers_overhead is absent: it ended with exit code 1: no module"
    assert absent["variant"] == "user loader: peers_overhead"
    results = [record["variant"] for record in records if record["kind"] == "result"]
    assert results == ["user loader: flambeau"]
    runs = [record for record in records if record["kind"] == "run"]
    assert {record["side"] for record in runs} == {PLAIN, FLAMBEAU}
    assert all(record["versions"] == {"torch": torch.__version__} for record in runs)


class FailingOwn(OverheadHere):
    """Fails to start one of the two sides that take part in every row."""

    def __init__(self, failing: str) -> None:
        super().__init__()
        self.failing = failing

    def start(self, peer: Peer, row: Row, size: Size, folder: Path) -> LiveSide:
        if peer.name == self.failing:
            raise SideError("no module", peer.name)
        return super().start(peer, row, size, folder)


@pytest.mark.parametrize("side", [PLAIN, FLAMBEAU])
def test_a_failure_of_flambeau_or_plain_is_an_error(here: None, tmp_path: Path, side: str) -> None:
    with pytest.raises(SideError, match=f"{side} failed: no module"):
        run(FailingOwn(side), tmp_path)


def test_the_report_has_a_line_per_library(here: None, tmp_path: Path) -> None:
    case = OverheadHere()
    case.builds["peers_overhead"] = plain.build
    records = run(case, tmp_path)
    text = case.section([*records, *run(Failing(), tmp_path / "other")], tmp_path)
    assert "### user loader" in text
    assert f"| peers_overhead | torch {torch.__version__} |" in text
    assert "it ended with exit code 1" in text
    [line] = [
        line for line in text.splitlines() if line.startswith("| flambeau | ") and "(" in line
    ]
    assert line.endswith("| – |")  # nothing against itself


def test_finished_rows_are_kept(here: None, tmp_path: Path) -> None:
    case = OverheadHere()
    case.builds["peers_overhead"] = plain.build
    first = run(case, tmp_path)
    kept = run(case, tmp_path, run_id="2")
    assert kept == [json.loads(json.dumps(record)) for record in first]
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    assert {r["run_id"] for r in run(case, tmp_path, run_id="3", git_sha="b")} == {"3"}
    assert {r["run_id"] for r in run(case, tmp_path, run_id="4", dirty=True)} == {"4"}


def test_a_row_of_changed_programs_is_measured_anew(here: None, tmp_path: Path) -> None:
    """The commit does not say what a program outside of the repository does."""
    program, out = tmp_path / "peers_overhead.py", tmp_path / "out"
    case = OverheadHere()
    case.builds["peers_overhead"] = plain.build

    def measured(run_id: str) -> set[str]:
        records = run(case, out, program, run_id=run_id)
        return {r["run_id"] for r in records if r.get("variant") == "user loader: peers_overhead"}

    program.write_text("x = 1")
    assert measured("1") == {"1"}
    assert measured("2") == {"1"}
    program.write_text("x = 2")
    assert measured("3") == {"3"}
    program.with_name("peers_vision.json").write_text("{}")
    assert measured("4") == {"4"}


def test_compare_reads_the_rows_of_peers(here: None, tmp_path: Path) -> None:
    case = OverheadHere()
    case.builds["peers_overhead"] = plain.build
    records = run(case, tmp_path)
    found = {change.variant for change in compare_runs(records, records)}
    assert "user loader: flambeau against peers_overhead" in found


def test_a_wheel_says_that_peers_need_a_checkout(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flambeau_bench.peers.peer.BASELINES", tmp_path / "none")
    [record] = run(OverheadHere(), tmp_path)
    assert record["kind"] == "skipped"
    assert "they need a checkout" in record["reason"]
    assert known_peers() == {}


def test_a_suite_leaves_peers_out() -> None:
    names = [case.name for case, _ in suites.select_cases("quick", CASES)]
    assert "loop-overhead" in names
    assert "peers-overhead" not in names
    [(case, size)] = suites.select_cases("cpu", CASES, only=["peers-overhead"])
    assert (case.name, size.name) == ("peers-overhead", "cpu")
    with pytest.raises(ArgumentError, match="--case chooses from a suite"):
        suites.select_cases("loaders", CASES, only=["peers-overhead"])


CASE = """
from dataclasses import dataclass

from flambeau_bench.cases.sync_count import SyncCount


@dataclass(frozen=True)
class Mine(SyncCount):
    name = "mine"


CASE = Mine()
"""


def test_a_case_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my_case.py"
    path.write_text(CASE)
    cases = with_user_cases(CASES, ["cpu", str(path)])
    [(case, _)] = suites.select_cases("quick", cases, only=["my_case"])
    assert case.name == "mine"
    path.write_text("x = 1")
    with pytest.raises(InputError, match="defines no CASE"):
        with_user_cases(CASES, [str(path)])
    with pytest.raises(InputError, match="does not exist"):
        with_user_cases(CASES, ["no.py"])


def test_peers_are_named_or_given_by_path(tmp_path: Path) -> None:
    assert {PLAIN, FLAMBEAU, "fastai", "pytorch-lightning"} <= set(known_peers())
    assert PLAIN not in [each.name for each in choose_peers([], "peers-overhead")]
    program = tmp_path / "mine.py"
    program.write_text("")
    [mine, fastai] = choose_peers([str(program), "fastai"], "peers-overhead")
    assert (mine.name, mine.program("any-case"), mine.is_project) == ("mine", program, False)
    assert fastai.is_project
    assert fastai.program("no-such-case") is None
    with pytest.raises(ArgumentError, match="Did you mean 'fastai'"):
        choose_peers(["fastia"], "peers-overhead")
    with pytest.raises(InputError, match="this folder or program does not exist"):
        choose_peers([str(tmp_path / "other.py")], "peers-overhead")


def test_without_names_those_with_a_program_take_part() -> None:
    assert "fastai" in {each.name for each in choose_peers([], "peers-overhead")}
    assert choose_peers([], "no-such-case") == []


@pytest.mark.parametrize(
    ("variants", "peers", "message"),
    [
        (["user laoder"], [], "Did you mean 'user loader'"),
        (["user loader", "user optimiser"], [], "Did you mean 'user optimizer'"),
        (["user loader: fastia"], [], "Did you mean 'user loader: fastai'"),
        (["user loader: skorch"], ["fastai"], "Unknown variant 'user loader: skorch'"),
        ([], ["fastia"], "Did you mean 'fastai'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_measured(
    tmp_path: Path, variants: list[str], peers: list[str], message: str
) -> None:
    case = PeersOverhead()
    with pytest.raises(ArgumentError, match=message):
        suites.run([(case, SIZE)], tmp_path, variants=variants, peers=PeerOptions(tuple(peers)))


def test_peers_without_a_case_for_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="none of the cases is compared with peers"):
        suites.run([(CASES["loaders"], SIZE)], tmp_path, peers=PeerOptions(("fastai",)))


def test_a_sync_keeps_the_packages_of_the_programs() -> None:
    """Else a run of peers would uninstall what the programs of "less code" need."""
    assert "--inexact" in sync_command("uv", BASELINES / "keras")


def test_the_size_of_an_installation_is_known_before() -> None:
    packages, size = locked_wheels(BASELINES / "plain" / "uv.lock")
    assert packages > 5
    assert size > 50e6  # torch alone is more on every system
    assert "on disk, about" in install_estimate(BASELINES / "plain" / "uv.lock")


@pytest.mark.baselines
@pytest.mark.parametrize("name", sorted(known_peers().keys() - {PLAIN}))
def test_a_real_peer_does_the_same_work(name: str, tmp_path: Path) -> None:
    """Installs the peer; minutes on the first run."""
    case, size = PeersOverhead(), replace(SIZE, pairs=1)
    head = header("1", case, size)
    records = run_peer_case(case, size, head, tmp_path, PeerOptions((name,)))
    results = [record for record in records if record["kind"] == "result"]
    assert results
    assert all(record["verdict"] not in {"INVALID", "GATE FAILED"} for record in results), results
    done = {record["variant"] for record in results} & {f"{row.name}: {name}" for row in ROWS}
    assert len(done) == (4 if name == "keras" else 5)  # Keras's fast setting compiles each model


def test_a_measurement_keeps_the_versions(work: Measurement) -> None:
    with_versions = replace(work, versions={"fastai": "2.8.12"})
    assert Measurement.from_json(json.loads(json.dumps(asdict(with_versions)))) == with_versions
