"""Two processes over gloo against one: the same steps, scores, stops and files.

The tolerance of 1e-12 in fp64 is rounding: sums are taken in another order, which is 2e-16 relative
a step, and a few steps of a small network multiply it by less than 1e3. One start of two processes
takes seconds, so that all scenarios of this page run in one.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
TOLERANCE = 1e-12
BATCH_SIZE = 8

STEPS = (
    "sgd",
    "adamw",
    "accumulation",
    "by_steps",
    "logged",
    "logged_by_a_step",
    "rate",
    "single_last",
    "single_last_accumulated",
    "unknown_weights",
    "average_and_clipping",
    "two_phases",
    "own_step",
    "own_step_around_ours",
    "scores",
    "calibrated",
    "own_evaluation",
    "adapted",
)
OTHERS = (
    "samples",
    "stops",
    "dropout",
    "not_finite",
    "files",
    "statistics",
    "decided",
    "gap",
    "loaders",
    "images",
    "different_data",
    "interrupted",
)


def module(name: str) -> ModuleType:
    """A file of this folder, which is no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


runner = module("scenario_runner")
scenarios = module("scenarios")
Outcomes = dict[str, list[dict[str, Any]]]


def alone(name: str, folder: Path) -> dict[str, Any]:
    before = torch.get_rng_state()
    found: dict[str, Any] = getattr(scenarios, name)(folder)
    torch.set_rng_state(before)
    return found


def differences(left: Any, right: Any, where: str = "") -> list[str]:
    """Every place where two outcomes differ by more than rounding."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [d for key in left for d in differences(left[key], right[key], f"{where}.{key}")]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}[{i}]")]
    if isinstance(left, torch.Tensor):
        same = torch.allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    elif isinstance(left, float) and isinstance(right, float):
        both_nan = math.isnan(left) and math.isnan(right)
        same = both_nan or math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    else:
        same = left == right
    return [] if same else [f"{where}: {left} and {right}"]


def test_two_processes_match_one(tmp_path: Path) -> None:
    """The quick one: weights, every step's loss, the history, the scores and the stages."""
    names = ("sgd", "stages", "task_parameters", "ignored_targets", "combined_targets", "closed")
    found = runner.run(tmp_path, *names)
    one, (first, second) = alone("sgd", tmp_path), found["sgd"]
    assert differences(one, first) == []
    assert differences(first["weights"], second["weights"]) == []
    assert len(one["losses"]) == 12  # two epochs of 43 samples in batches of 8
    assert one["rows"][0]["train_loss"] > one["rows"][1]["train_loss"]
    stages = ["train", "train", "valid"] * 2 + ["evaluate", "predict"]
    assert [each["seen"] for each in found["stages"]] == [stages, stages]
    one, (first, second) = alone("task_parameters", tmp_path), found["task_parameters"]
    assert differences(one, first) == differences(first, second) == []
    assert float(one["scale"]) != 0.5
    one, (first, second) = alone("ignored_targets", tmp_path), found["ignored_targets"]
    for name, weights in one["weights"].items():
        # float64 sums in another order
        torch.testing.assert_close(first["weights"][name], weights, rtol=1e-12, atol=1e-14)
        assert torch.equal(first["weights"][name], second["weights"][name])
    one, (first, second) = alone("combined_targets", tmp_path), found["combined_targets"]
    assert differences(one, first) == differences(first, second) == []
    assert len(one["losses"]) == 4
    assert one["rows"][0]["train_loss"] == one["losses"][0]
    # A thread of gloo that still runs when the interpreter exits can abort the process.
    assert not [name for each in found["closed"] for name in each["threads"] if "gloo" in name]


@pytest.mark.slow
def test_ranks_skip_the_same_steps_as_one_process(tmp_path: Path) -> None:
    one, shared = alone("skipped_steps", tmp_path), runner.run(tmp_path, "skipped_steps")
    for found in shared["skipped_steps"]:
        assert differences(one, found) == []
    for each in one.values():
        skipped = sum(map(math.isnan, each["losses"]))
        assert skipped == sum(row["steps_without_targets"] for row in each["rows"]) >= 2


@pytest.mark.slow
def test_own_weights_train_as_in_one_big_batch(tmp_path: Path) -> None:
    """Token counts, sample weights and class weights; alone, accumulated, and in two processes."""
    one = alone("own_weight_runs", tmp_path)
    accumulated = alone("own_weight_accumulated", tmp_path)
    shared = runner.run(tmp_path, "own_weight_runs", "own_weight_accumulated")
    for found in (accumulated, *shared["own_weight_runs"], *shared["own_weight_accumulated"]):
        assert differences(one, found) == []
    first, last = one["tokens"]["losses"][0], one["tokens"]["losses"][-1]
    assert last < 0.9 * first < 1.5


def test_stops_buffers_and_weights_that_only_a_loss_knows(tmp_path: Path) -> None:
    """The quick one for what one rank knows and the others must hear."""
    unknown = ("unknown_weights", "own_step_of_unknown_weights")
    found = runner.run(tmp_path, *unknown, "stops", "running_statistics", "closure")
    for name in unknown:
        one, (first, second) = alone(name, tmp_path), found[name]
        assert differences(one, first) == differences(first, second) == []
    first, second = found["stops"]
    assert first == second
    steps = {name: each["steps"] for name, each in first.items()}
    assert steps == {"in the epoch": 4, "at its last step": 6, "between epochs": 6}
    first, second = found["running_statistics"]
    assert differences(first["weights"], second["weights"]) == []
    for each in found["closure"]:
        assert each["error"].startswith("LBFGS computes the loss several times in a step")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> Outcomes:
    found: Outcomes = runner.run(folder, *STEPS, *OTHERS)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_steps_losses_and_scores_are_those_of_one_process(
    name: str, outcomes: Outcomes, folder: Path
) -> None:
    one, (first, second) = alone(name, folder), outcomes[name]
    assert differences(one, first) == []
    assert differences(first, second) == []


@pytest.mark.slow
def test_batches_match_those_of_one_process(outcomes: Outcomes, folder: Path) -> None:
    one, shares = alone("samples", folder), outcomes["samples"]
    for epoch in (0, 1):
        batches = [
            torch.cat(parts) for parts in zip(*(s["train"][epoch] for s in shares), strict=True)
        ]
        assert [b.tolist() for b in batches] == [b.tolist() for b in one["train"][epoch]]
        assert sorted(torch.cat(batches).tolist()) == list(range(41))
    seen = torch.cat([torch.cat(share["valid"]) for share in shares])
    assert sorted(seen.tolist()) == list(range(41, 60))
    assert [len(batch) for batch in shares[0]["train"][0]] == [4, 4, 4, 4, 4, 0]


@pytest.mark.slow
def test_augmentation_does_not_depend_on_the_rank(outcomes: Outcomes, folder: Path) -> None:
    pytest.importorskip("flambeau_vision")
    one, (first, second) = alone("images", folder)["pictures"], outcomes["images"]
    assert not first["pictures"].keys() & second["pictures"].keys()
    assert first["changed"]
    assert second["changed"]
    both = first["pictures"] | second["pictures"]
    assert both.keys() == one.keys()
    assert all(torch.equal(both[number], one[number]) for number in one)


@pytest.mark.slow
def test_a_stop_on_one_rank_ends_all_at_the_same_step(outcomes: Outcomes) -> None:
    first, second = outcomes["stops"]
    assert first == second
    assert first["in the epoch"] == {"steps": 4, "reason": "process 1 has seen enough"}
    assert first["at its last step"] == {"steps": 6, "reason": "process 1 has seen enough"}
    assert first["between epochs"]["steps"] == 6


@pytest.mark.slow
def test_ctrl_c_on_one_rank_ends_all_and_saves_once(outcomes: Outcomes) -> None:
    first, second = outcomes["interrupted"]
    assert first["steps"] == second["steps"] == 4
    assert any("A checkpoint of step 4 is in" in note for note in first["notes"])
    assert second["notes"] == ["The model has the weights after step 4."]


@pytest.mark.slow
def test_models_draw_different_numbers_on_each_rank(outcomes: Outcomes, folder: Path) -> None:
    one, (first, second) = alone("dropout", folder), outcomes["dropout"]
    assert one["drawn"] == first["drawn"]
    assert not set(first["drawn"]) & set(second["drawn"])


@pytest.mark.slow
def test_a_non_finite_step_on_one_rank_ends_all(
    outcomes: Outcomes,
) -> None:
    first, second = outcomes["not_finite"]
    assert first["type"] == "NonFiniteError"
    assert "the loss, although the output of the model is finite" in first["message"]
    assert first["message"] == second["message"]
    assert differences(first["weights"], second["weights"]) == []
    assert all(value.isfinite().all() for value in first["weights"].values())


@pytest.mark.slow
def test_files_are_written_once_without_ddp_names(outcomes: Outcomes) -> None:
    first, second = outcomes["files"]
    assert first == second
    assert first["type"] == "Net"
    assert first["names"] == sorted(scenarios.Net().state_dict())
    assert first["written"] == ["checkpoints", "history.csv", "run.json"]


@pytest.mark.slow
def test_batch_norm_warns_once_and_ranks_agree(
    outcomes: Outcomes,
) -> None:
    first, second = outcomes["statistics"]
    assert any("convert_sync_batchnorm" in text for text in first["warnings"])
    assert second["warnings"] == []
    assert differences(first["weights"], second["weights"]) == []
    assert differences(first["rows"], second["rows"]) == []


@pytest.mark.slow
def test_the_batch_norm_policy_uses_all_ranks(outcomes: Outcomes, folder: Path) -> None:
    one, (first, second) = alone("decided", folder), outcomes["decided"]
    assert differences(first, second) == []
    # The distance is that of all samples; batches of half the size are rougher.
    assert first["evidence"]["distance_nats"] == one["evidence"]["distance_nats"]
    assert first["evidence"]["noise_nats"] > one["evidence"]["noise_nats"]
    assert first["value"] == "adapt"


@pytest.mark.slow
def test_one_rank_reports_the_batch_norm_gap(
    outcomes: Outcomes,
) -> None:
    first, second = outcomes["gap"]
    assert len(first["warnings"]) == 1
    assert second["warnings"] == []


@pytest.mark.slow
def test_a_user_train_loader_must_be_sharded(outcomes: Outcomes, folder: Path) -> None:
    one, (first, second) = alone("loaders", folder), outcomes["loaders"]
    assert "without" not in one
    assert first["without"].startswith(
        "InputError: The train loader yields the same samples on all 2"
    )
    assert "DistributedSampler" in first["without"]
    assert "num_replicas=3, but the run has 2" in first["other number"]
    assert first["steps"] == second["steps"] == one["steps"] == 3
    assert first["scores"]["valid_loss"] == second["scores"]["valid_loss"]
    numbers = torch.cat([torch.cat(each["seen"]) for each in (first, second)])
    assert sorted(numbers.tolist()) == list(range(24))


@pytest.mark.slow
def test_different_data_on_the_ranks_raise(outcomes: Outcomes) -> None:
    messages = [each["message"] for each in outcomes["different_data"]]
    assert all("different data: n_train is" in message for message in messages)


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_processes(tmp_path: Path) -> None:
    unbroken = alone("unbroken", tmp_path)
    assert "checkpoints" in alone("begun", tmp_path)["files"]
    begun_alone = runner.run(tmp_path, "resumed", "begun")
    for each in begun_alone["resumed"]:
        assert differences(unbroken, each) == []
    begun_together = alone("resumed", tmp_path)
    assert differences(unbroken, begun_together) == []


@pytest.mark.slow
def test_each_rank_resumes_with_the_state_of_its_objects(tmp_path: Path) -> None:
    unbroken = runner.run(tmp_path, "rank_states")["rank_states"]
    assert unbroken[0]["seen"] != unbroken[1]["seen"]
    assert [each["total"] for each in unbroken] == [3, 6]
    runner.run(tmp_path, "rank_states_begun")
    resumed = runner.run(tmp_path, "rank_states_resumed")["rank_states_resumed"]
    for before, after in zip(unbroken, resumed, strict=True):
        assert after.pop("warned") == []
        assert after == before


@pytest.mark.slow
def test_a_state_of_ranks_that_are_absent_is_named(tmp_path: Path) -> None:
    """Two ranks wrote the checkpoint and three continue: all have the state of rank 0."""
    runner.run(tmp_path, "rank_states_begun")
    resumed = runner.run(tmp_path, "rank_states_resumed", world_size=3)["rank_states_resumed"]
    [warned] = resumed[0]["warned"]
    assert "task, callbacks[0] (CountsEpochs) differ between the ranks" in warned
    assert "was written by 2 ranks" in warned


@pytest.mark.slow
def test_layers_are_watched_as_in_one_process(tmp_path: Path) -> None:
    one = alone("watched", tmp_path)
    shared = runner.run(tmp_path, "watched", "inspected")
    ranks = shared["watched"]
    assert len(one["steps"]) == 5
    for number, step in enumerate(one["steps"]):
        of_ranks = [rank["steps"][number] for rank in ranks]
        assert step["outputs"].keys() >= {"stem", "head"}
        for name, rms in step["outputs"].items():
            if math.isnan(rms):  # the input has no gradient
                continue
            # Each rank has half of the samples, with their part in the loss of the step.
            both = math.sqrt(sum(each["outputs"][name] ** 2 for each in of_ranks) / 2)
            assert both == pytest.approx(rms, rel=1e-5), name
        for each in of_ranks:
            assert each["weights"] == pytest.approx(step["weights"], rel=1e-5)
    whole = sum(norm**2 for norm in one["accumulated"][0]["weights"].values() if norm > 0)
    for rank in ranks:
        small, n = rank["own_square"], 4  # two micro-batches on each of two ranks
        expected = (n * whole - small) / (n - 1), (small - whole) / (1 - 1 / n)
        assert rank["accumulated"][0]["noise"] == pytest.approx(expected, rel=1e-4)
    for found in (one, *ranks):
        counted, uncounted = found["accumulated"][0], found["uncounted"][0]
        assert uncounted["noise"] == pytest.approx(counted["noise"], rel=1e-4)
    first, second = shared["inspected"]
    assert (first["steps"], second["steps"]) == ([0, 1, 2, 3, 4], [])  # rank 0 keeps the record
    assert differences(first["weights"], second["weights"]) == []
    assert first["updates"] == pytest.approx(alone("inspected", tmp_path)["updates"], rel=1e-5)


@pytest.mark.slow
def test_the_profile_is_that_of_the_slowest_rank(tmp_path: Path) -> None:
    names = ("profiled", "exchanging", "profile_fails", "adamw")
    shared = runner.run(tmp_path, *names)
    first, second = shared["profiled"]
    assert first["text"] == second["text"]
    found = first["found"]
    assert "This is rank 1 of 2, which works longest: " in found.notes[0]
    assert sum(part.share for part in found.parts) == pytest.approx(100)
    assert found.bottleneck != "communication"  # rank 0 waits, rank 1 does not
    assert BATCH_SIZE - 1 < found.samples <= BATCH_SIZE  # of both ranks; the last batch is smaller
    assert found.trace == tmp_path / "trace.json"
    assert found.trace.exists()
    for each in (first, second):  # the profile has changed nothing
        trained = {name: each[name] for name in ("weights", "losses", "rows")}
        assert differences(trained, shared["adamw"][0]) == []
    for each in shared["exchanging"]:
        found = each["found"]
        assert found.bottleneck == "communication"
        assert found.part("communication").seconds > 0.015
        [change] = found.changes
        assert (change.what, change.choices) == ("accumulate 1 → 4", {"accumulate": 4})
        assert 2 < change.expected < 4
        assert change.measured is None
    assert sorted(each["error"] for each in shared["profile_fails"])[0] == "RuntimeError: planted"
    others = [
        each["error"] for each in shared["profile_fails"] if "Runtime" not in each["error"][:7]
    ]
    assert len(others) == 1
    assert "failed: RuntimeError: planted" in others[0]


@pytest.mark.slow
def test_an_error_on_one_process_ends_the_others_at_once(tmp_path: Path) -> None:
    first, second = runner.run(tmp_path, "raises")["raises"]
    assert second == {"type": "ValueError", "message": "sample 7 is broken"}
    assert first["type"] == "TrainingError"
    assert "process 1 raised ValueError: sample 7 is broken" in first["message"]
