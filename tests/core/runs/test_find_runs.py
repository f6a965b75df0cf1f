"""The list of runs: foreign, half-written, old and very many folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flambeau import Learner, TensorData
from flambeau.errors import InputError
from flambeau.runs import compare_runs, find_runs, read_run


def test_the_table_has_choices_data_scores_time_and_status(runs: Path) -> None:
    found = find_runs(runs)
    assert {run.name for run in found.runs} == {"good", "bad", "again"}
    started = [run.started or "" for run in found.runs]
    assert started == sorted(started)
    text = str(found)
    good = next(run for run in found.runs if run.name == "good")
    assert good.data_digest is not None
    for shown in ("good", "finished", "0.02", "accuracy", good.data_digest, "3 runs in"):
        assert shown in text
    content = found.to_json()
    one = next(run for run in content["runs"] if run["folder"] == str(runs / "good"))
    assert one["plan"]["lr"] == 0.02
    assert one["scores"]["accuracy"] == good.scores["accuracy"]
    json.dumps(content)


def test_nothing_is_lost_and_nothing_is_changed(runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "all"
    shutil.copytree(runs, root)
    # An older release wrote no record; the plan is in the checkpoint.
    (root / "bad" / "run.json").unlink()
    # Half-written: the record was cut off; history and checkpoint are intact.
    text = (root / "again" / "run.json").read_text()
    (root / "again" / "run.json").write_text(text[: len(text) // 2])
    (root / "photos" / "cats").mkdir(parents=True)
    (root / "photos" / "cats" / "1.jpg").write_bytes(b"x")
    (root / "empty").mkdir()
    (root / "other" / "run.json").parent.mkdir()
    (root / "other" / "run.json").write_text('{"format": "another-tool"}')
    (root / "future" / "run.json").parent.mkdir()
    (root / "future" / "run.json").write_text('{"format": "flambeau-run", "schema_version": 9}')
    (root / "cut" / "history.csv").parent.mkdir()
    (root / "cut" / "history.csv").write_text('epoch,valid_loss\n1,0.5\n2,"0.')
    (root / "deep" / "er" / "run").mkdir(parents=True)
    shutil.copytree(runs / "good", root / "deep" / "er" / "run", dirs_exist_ok=True)
    (root / "loop").symlink_to(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    found = find_runs(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before
    named = {str(run.folder.relative_to(root)): run for run in found.runs}
    assert set(named) == {"good", "bad", "again", "other", "future", "cut", "deep/er/run"}
    assert named["bad"].status == "finished"
    assert named["bad"].values["lr"] == 1e-5
    assert named["again"].values["lr"] == 0.02
    assert named["again"].scores
    assert {path.name for path in found.not_runs} >= {"photos", "empty"}
    text = str(found)
    for line in (
        "again/run.json cannot be read (JSONDecodeError",
        "other/run.json is not the record of a run",
        "future/run.json has version 9",
        "photos",
    ):
        assert line in text, line


def test_an_interrupted_run_of_an_earlier_release(tmp_path: Path, data: TensorData) -> None:
    learner = Learner(data, choices={"probe": "off"}, folder=tmp_path / "run", quiet=True)
    learner.fit(2)
    (tmp_path / "run" / "run.json").unlink()
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    assert read_run(tmp_path / "run").status == "interrupted"


def test_models_of_folds_are_one_run(tmp_path: Path, data: TensorData) -> None:
    learner = Learner(data, choices={"probe": "off"}, folder=tmp_path / "folds", quiet=True)
    learner.fit_folds(2, epochs=1)
    (run,) = find_runs(tmp_path).runs
    assert (run.members, run.status) == (2, "finished")
    models = [read_run(each) for each in sorted((tmp_path / "folds").glob("fold-*"))]
    mean = sum(each.scores["accuracy"] for each in models) / 2
    assert run.scores["accuracy"] == pytest.approx(mean)
    assert run.started == models[0].started
    text = str(find_runs(tmp_path))
    assert "2 models" in text
    assert f"accuracy {mean:.4g} (means over the folds)" in text
    shutil.rmtree(models[1].folder)
    assert read_run(tmp_path / "folds").status == "interrupted"


@pytest.mark.parametrize(
    "odd",
    [
        {"git": {"commit": 5, "changed_files": "many"}},
        {"model": {"digest": "x", "parameters": "many"}},
        {"options": {"keep_best": ["a"]}, "seed": ["a"]},
        {"fits": [{"started": 5, "status": 7, "reason": [1]}], "machine": {"host": 3}},
        {"fits": [{"status": "running", "process": 10**30}]},
    ],
)
def test_one_odd_value_costs_its_cell_only(runs: Path, tmp_path: Path, odd: dict[str, Any]) -> None:
    for name in ("good", "bad"):
        shutil.copytree(runs / name, tmp_path / name)
    path = tmp_path / "bad" / "run.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **odd}))
    found = find_runs(tmp_path)
    assert len(found.runs) == 2
    assert "2 runs" in str(found)
    json.dumps(found.to_json())
    assert "Choices that differ" in str(compare_runs(tmp_path / "good", tmp_path / "bad"))


def test_the_folder_of_one_run_lists_it(runs: Path) -> None:
    assert [run.name for run in find_runs(runs / "good").runs] == ["good"]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        find_runs(tmp_path / "missing")
    with pytest.raises(InputError, match="is not a run: it has no"):
        read_run(tmp_path)
    assert "0 runs in" in str(find_runs(tmp_path))


@pytest.mark.slow
def test_a_thousand_folders_are_listed(runs: Path, tmp_path: Path) -> None:
    for number in range(1000):
        shutil.copytree(
            runs / "good",
            tmp_path / f"run-{number}",
            ignore=shutil.ignore_patterns("checkpoints", "*.safetensors"),
        )
    found = find_runs(tmp_path)
    assert len(found) == 1000
    assert len(found.table(last=5).splitlines()) == 8
