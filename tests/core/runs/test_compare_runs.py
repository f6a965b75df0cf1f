"""Comparisons: choices that differ, which test was used, and when runs are not comparable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flambeau import Learner, TensorData
from flambeau.errors import ArgumentError, InputError
from flambeau.report.stored_predictions import load_predictions, predictions_path
from flambeau.runs import compare_runs
from flambeau.runs.comparison_text import sparkline

Train = Callable[..., Learner]


def edit_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "run.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def make_seeds(root: Path, name: str, count: int) -> list[Path]:
    """Return copies of a run with other seeds, each with an accuracy 0.001 above the last one."""
    folders = [root / f"{name}-{seed}" for seed in range(10, 10 + count)]
    for seed, folder in enumerate(folders, 10):
        shutil.copytree(root / name, folder)
        edit_record(folder, lambda content, seed=seed: content.update(seed=seed))
        history = folder / "history.csv"
        lines = history.read_text().splitlines()
        column = lines[0].split(",").index("valid_accuracy")
        cells = lines[-1].split(",")
        cells[column] = str(float(cells[column]) + 0.001 * seed)
        history.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    return folders


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs, tmp_path / "runs")
    return tmp_path / "runs"


def test_two_runs_are_compared_over_samples(runs: Path) -> None:
    found = compare_runs(runs / "bad", runs / "good")
    (difference,) = [each for each in found.differences if not each.is_of_machine]
    assert (difference.key, difference.values) == ("lr", ("1e-05", "0.02"))
    assert difference.is_of_user
    (pair,) = found.pairs
    assert (pair.method, pair.verdict, pair.decisive) == ("samples", "better", "accuracy")
    scores = {each.name: each for each in pair.scores}
    one, other = (
        load_predictions(predictions_path(runs / name, "valid")).predictions
        for name in ("bad", "good")
    )
    correct = [each.predicted == each.targets for each in (one, other)]  # type: ignore[union-attr]
    gain = float(correct[1].double().mean() - correct[0].double().mean())
    assert scores["accuracy"].difference == pytest.approx(gain)
    assert scores["loss"].verdict == "better"
    # A slow loop over resamples of the same samples for both models.
    difference_of_rows = (correct[1].double() - correct[0].double()).numpy()
    random = np.random.default_rng(0)
    means = [random.choice(difference_of_rows, len(difference_of_rows)).mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    # Both ends are random figures of 1,000 and 2,000 resamples.
    assert scores["accuracy"].low == pytest.approx(low, abs=0.02)
    assert scores["accuracy"].high == pytest.approx(high, abs=0.02)
    text = str(found)
    order = ["Choices that differ", "Curves", "Is B better than A? Yes, by accuracy"]
    assert sorted(order, key=text.index) == order
    assert "because 1 run and 1 run are too few for a test over seeds" in text
    reverse = compare_runs(runs / "good", runs / "bad").pairs[0]
    assert reverse.verdict == "worse"


def test_runs_of_one_plan_are_a_group(runs: Path) -> None:
    found = compare_runs(runs / "bad", runs / "good", runs / "again")
    assert [len(group) for group in found.groups] == [1, 2]
    assert "2 runs with seeds 0, 1" in str(found)
    accuracy = next(each for each in found.pairs[0].scores if each.name == "accuracy")
    assert len(accuracy.second) == 2
    alone = compare_runs(runs / "good", runs / "again")
    assert [len(group) for group in alone.groups] == [1, 1]
    assert [each.key for each in alone.differences] == ["seed"]


def test_equal_predictions_are_a_tie(copied: Path) -> None:
    shutil.copytree(copied / "good", copied / "same")
    edit_record(copied / "same", lambda content: content.update(seed=5))
    (pair,) = compare_runs(copied / "good", copied / "same").pairs
    assert pair.verdict == "tie"
    assert {each.verdict for each in pair.scores} == {"tie"}
    # The same plan and seed twice: once is enough.
    shutil.copytree(copied / "good", copied / "twice")
    found = compare_runs(copied / "bad", copied / "good", copied / "twice")
    assert [len(group) for group in found.groups] == [1, 1]
    assert "twice is left out: it has the same plan and seed" in str(found)


def test_enough_seeds_are_compared_over_seeds(copied: Path) -> None:
    folders = make_seeds(copied, "bad", 5) + make_seeds(copied, "good", 5)
    for folder in folders:
        predictions_path(folder, "valid").unlink()
    (pair,) = compare_runs(*folders).pairs
    assert (pair.method, pair.verdict) == ("seeds", "better")
    accuracy = next(each for each in pair.scores if each.name == "accuracy")
    assert accuracy.p == pytest.approx(2 / 252)  # 252 orders of five and five runs
    assert len(accuracy.first) == 5
    assert "5 and 5 runs with different seeds" in pair.why
    three = [folder for folder in folders if folder.name.endswith(("10", "11", "12"))]
    (few,) = compare_runs(*three).pairs
    assert (few.method, few.verdict) == (None, "unknown")
    assert "--save" in few.why


def test_seeds_are_used_only_if_they_can_show_a_difference_at_the_shared_level(
    copied: Path, train: Train
) -> None:
    train(copied / "third", lr=0.005, epochs=1)
    folders = [each for name in ("bad", "good", "third") for each in make_seeds(copied, name, 4)]
    # The least p-value of four and four runs is 2 / 70 = 0.029, above 0.05 / 2.
    pair = compare_runs(*folders).pairs[0]
    assert (pair.method, pair.verdict) == ("samples", "better")
    assert "4 runs and 4 runs are too few for a test over seeds, for which 5 of each" in pair.why
    assert any("train 5 runs of each plan" in note for note in pair.notes)
    for folder in folders:
        predictions_path(folder, "valid").unlink()
    pair = compare_runs(*folders).pairs[0]
    assert (pair.method, pair.verdict) == (None, "unknown")
    assert "too few runs for a test over seeds, for which 5 of each" in pair.why
    assert compare_runs(*folders[:8]).pairs[0].method == "seeds"


def test_seeds_without_test_predictions_are_not_compared_on_test(copied: Path) -> None:
    folders = make_seeds(copied, "bad", 4) + make_seeds(copied, "good", 4)
    (pair,) = compare_runs(*folders, part="test").pairs
    assert (pair.method, pair.verdict, pair.scores) == (None, "unknown", ())
    assert "--part test --save" in pair.why
    assert "test over seeds" not in pair.why  # there are enough


def test_runs_on_other_samples_are_not_compared(copied: Path, train: Train) -> None:
    x = torch.randn(900, 4, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()
    for number, other in enumerate(
        (
            TensorData.from_tensors(x, y, valid=200),  # another validation part
            TensorData.from_tensors(x, y, valid=300, test=200),  # other content
        )
    ):
        train(copied / f"other-{number}", data=other, epochs=1)
        (pair,) = compare_runs(copied / "good", copied / f"other-{number}").pairs
        assert pair.verdict == "incomparable"
        assert pair.scores == ()
        assert "The scores are not compared: they have other" in pair.why
        assert "Is B better than A? The runs cannot be compared." in str(
            compare_runs(copied / "good", copied / f"other-{number}")
        )


def test_other_train_samples_with_the_same_validation_samples_are_compared(copied: Path) -> None:
    edit_record(copied / "good", lambda content: content["data"].update({"train rows": "9"}))
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    assert pair.verdict == "better"
    assert any("trained on other samples" in note for note in pair.notes)
    edit_record(copied / "good", lambda content: content["data"].update({"class_counts": [9]}))
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    assert pair.verdict == "better"  # the stored predictions show that the samples are the same
    predictions_path(copied / "good", "valid").unlink()
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    assert pair.verdict == "incomparable"


def test_a_run_without_known_data_is_not_compared(copied: Path) -> None:
    (copied / "good" / "run.json").unlink()
    predictions_path(copied / "good", "valid").unlink()
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    assert pair.verdict == "incomparable"
    assert "not recorded" in pair.why


def test_equal_scores_without_a_test_are_no_tie(copied: Path) -> None:
    shutil.copytree(copied / "good", copied / "same")
    edit_record(copied / "same", lambda content: content.update(seed=5))
    for name in ("good", "same"):
        predictions_path(copied / name, "valid").unlink()
    found = compare_runs(copied / "good", copied / "same")
    (pair,) = found.pairs
    assert (pair.method, pair.verdict) == (None, "unknown")
    assert {each.verdict for each in pair.scores} == {"unknown"}
    assert "tie" not in str(found)
    assert "--save" in pair.why


def test_a_paired_test_that_did_not_run_is_not_claimed(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flambeau.runs.noise.score_differences", lambda *_: [])
    (pair,) = compare_runs(copied / "good", copied / "bad").pairs
    assert (pair.method, pair.verdict) == (None, "unknown")
    assert "there is no paired test over the 300 valid samples" in pair.why
    assert "4 of each plan are enough" in pair.why


def test_a_loss_of_a_run_without_record_is_not_called_another_one(copied: Path) -> None:
    (copied / "good" / "run.json").unlink()
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    notes = " ".join(pair.notes)
    assert "other losses" not in notes
    assert "The task is not recorded in" in notes
    assert "loss" in {each.name for each in pair.scores}


def test_a_plan_or_model_that_is_not_known_is_no_difference(copied: Path) -> None:
    edit_record(copied / "good", lambda content: content.update(plan="damaged", model=None))
    for state in (copied / "good").glob("checkpoints/*/state.json"):
        state.unlink()
    (copied / "good" / "plan.json").unlink(missing_ok=True)
    found = compare_runs(copied / "bad", copied / "good")
    assert found.groups[1].first.plan is None
    assert "Not known, because the plan of B is not known" in str(found)
    assert "model" not in {each.key for each in found.differences}


def test_scores_of_another_direction_or_definition_are_left_out(copied: Path) -> None:
    edit_record(copied / "good", lambda content: content["modes"].update(valid_accuracy="min"))
    edit_record(copied / "good", lambda content: content.update(task="OtherTask"))
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    names = {each.name for each in pair.scores}
    assert "accuracy" not in names
    assert "loss" not in names
    notes = " ".join(pair.notes)
    assert "accuracy is not compared: in A larger values are better, in B smaller ones" in notes
    assert "The loss is not compared" in notes


def test_damaged_predictions_are_named_and_never_used(copied: Path) -> None:
    path = predictions_path(copied / "good", "valid")
    path.write_bytes(path.read_bytes()[:100])
    found = compare_runs(copied / "bad", copied / "good")
    (pair,) = found.pairs
    assert (pair.method, pair.verdict) == (None, "unknown")
    assert "predictions-valid.safetensors" in str(found)
    assert pair.scores  # from the histories


def test_several_comparisons_share_the_level(copied: Path, train: Train) -> None:
    train(copied / "third", lr=0.005, epochs=1)
    found = compare_runs(copied / "bad", copied / "good", copied / "third")
    assert [(pair.first, pair.second) for pair in found.pairs] == [("A", "B"), ("A", "C")]
    assert all("97.5%" in pair.why for pair in found.pairs)
    wide = next(each for each in found.pairs[0].scores if each.name == "loss")
    narrow = compare_runs(copied / "bad", copied / "good").pairs[0]
    alone = next(each for each in narrow.scores if each.name == "loss")
    assert wide.low is not None
    assert alone.low is not None
    assert wide.low < alone.low


def test_the_page_is_self_contained_and_the_json_complete(runs: Path, tmp_path: Path) -> None:
    found = compare_runs(runs / "bad", runs / "good")
    text = found.save(tmp_path / "page.html").read_text()
    for part in ("In short", "Choices that differ", "Curves", "B against A", "Runs"):
        assert f"{part}</h2>" in text
    assert text.count("<svg") == 4
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    content = json.loads(json.dumps(found.to_json()))
    assert content["pairs"][0]["verdict"] == "better"
    assert content["groups"][1]["runs"][0]["plan"]["lr"] == 0.02
    markdown = found.save(tmp_path / "page.md").read_text()
    assert "| lr | 1e-05 |" in markdown


def test_models_and_options_outside_the_plan_are_differences(tmp_path: Path, data: Any) -> None:
    from flambeau import EMA, TrainingOptions

    for name, act, options in (
        ("a", nn.ReLU(), TrainingOptions()),
        ("b", nn.Tanh(), TrainingOptions(average=EMA())),
    ):
        net = nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 2))
        choices = {"probe": "off", "lr": 0.01}
        Learner(
            data, net, choices=choices, training=options, folder=tmp_path / name, quiet=True
        ).fit(1)
    found = {each.key for each in compare_runs(tmp_path / "a", tmp_path / "b").differences}
    assert {"option average", "model"} <= found


def test_regression_and_a_custom_metric(tmp_path: Path, data: Any) -> None:
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    numbers = TensorData.from_tensors(x, x[:, 0] * 2 + 0.1 * torch.randn(300), valid=100)
    for name, lr in (("slow", 1e-5), ("fast", 0.05)):
        choices = {"batch_size": 20, "probe": "off", "lr": lr}
        learner = Learner(numbers, choices=choices, folder=tmp_path / name, quiet=True)
        learner.fit(2)
        learner.interpret("valid").save(tmp_path / name)
    (pair,) = compare_runs(tmp_path / "slow", tmp_path / "fast").pairs
    verdicts = {each.name: each.verdict for each in pair.scores}
    assert verdicts["mae"] == verdicts["rmse"] == verdicts["r2"] == "better"


def test_a_score_with_a_test_decides_if_the_watched_one_has_none(copied: Path) -> None:
    from dataclasses import replace

    for name in ("bad", "good"):
        path = predictions_path(copied / name, "valid")
        stored = load_predictions(path)
        scores = {**stored.predictions.scores, "auroc": 0.5}
        replace(stored, predictions=replace(stored.predictions, scores=scores)).save(copied / name)
        plan = json.loads((copied / name / "run.json").read_text())["plan"]
        for choice in plan["choices"]:
            if choice["key"] == "keep_best":
                choice["value"] = "valid_auroc"
        edit_record(copied / name, lambda content, plan=plan: content.update(plan=plan))
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    assert {each.name: each.verdict for each in pair.scores}["auroc"] == "unknown"
    scores = load_predictions(predictions_path(copied / "good", "valid"))
    changed = {**scores.predictions.scores, "auroc": 0.7}
    replace(scores, predictions=replace(scores.predictions, scores=changed)).save(copied / "good")
    (pair,) = compare_runs(copied / "bad", copied / "good").pairs
    assert {each.name: each.verdict for each in pair.scores}["auroc"] == "unknown"
    assert (pair.decisive, pair.verdict) == ("accuracy", "better")


def test_wrong_arguments_are_explained(runs: Path) -> None:
    with pytest.raises(InputError, match=r"all paths are the same run, .*good"):
        compare_runs(runs / "good", runs / ".." / runs.name / "good")
    with pytest.raises(InputError, match="good alone was given"):
        compare_runs(runs / "good")
    with pytest.raises(ArgumentError, match=r"compare_runs\(\*folders\)"):
        compare_runs([runs / "good", runs / "bad"])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="must be one of valid, test"):
        compare_runs(runs / "good", runs / "bad", part="train")
    with pytest.raises(InputError, match="does not exist"):
        compare_runs(runs / "good", runs / "nothing")
    (pair,) = compare_runs(runs / "good", runs / "bad", part="test").pairs
    assert pair.verdict == "unknown"


def test_a_sparkline_has_at_most_24_bars_and_marks_what_is_not_finite() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 0, 7) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, float("nan"), 7.0], 0, 7) == "▁×█"
    assert len(sparkline(list(range(1000)), 0, 999)) == 24


def test_epochs_of_earlier_fits_are_a_difference(tmp_path: Path, train: Train) -> None:
    """The plan has the epochs of the last fit, so the plans of both runs are equal."""
    train(tmp_path / "one", epochs=1)
    train(tmp_path / "twice", epochs=2).fit(1)
    found = compare_runs(tmp_path / "one", tmp_path / "twice")
    assert not any(group.repeated for group in found.groups)
    differences = {each.key: each for each in found.differences}
    assert differences["epochs before"].values == ("0", "2")
    assert "epochs" not in differences
