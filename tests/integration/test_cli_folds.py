"""``flambeau fit --folds``: scores, held-out predictions, and an ensemble that predicts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flambeau import Learner, Predictor
from flambeau.cli.app import build_app
from flambeau.errors import ArtefactError, FlambeauError

N = 150
OPTIONS = ("--target", "pay", "--test", "0.2", "--epochs", "2", "--set", "hidden=[16]")


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("table") / "people.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "job", "pay"])
        for age, job in zip(draws.normal(40, 9, N), draws.choice(["a", "b"], N), strict=True):
            writer.writerow([f"{age:.2f}", job, f"{900 * age + 9_000 * (job == 'a'):.0f}"])
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("run") / "mine"
    words = ("fit", table, *OPTIONS, "--folds", 3, "--seeds", 2, "--out", folder)
    return folder, call(*words)


def held_out(folder: Path) -> list[dict[str, str]]:
    with open(folder / "out_of_fold.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_scores_and_held_out_predictions_are_printed_and_written(run: Any) -> None:
    folder, text = run
    assert "Predictions for held-out rows by 3 folds with 2 seeds each" in text
    assert f"flambeau predict {folder / 'model'}" in text
    rows = held_out(folder)
    assert [int(row["row"]) for row in rows] == sorted({int(row["row"]) for row in rows})
    assert len(rows) == N - 30
    assert sorted({row["fold"] for row in rows}) == ["1", "2", "3"]
    assert sorted(each.name for each in folder.glob("fold-*")) == [
        f"fold-{fold}-seed-{seed}" for fold in (1, 2, 3) for seed in (0, 1)
    ]


def test_the_ensemble_predicts_and_is_evaluated(run: Any, table: Path, tmp_path: Path) -> None:
    folder, text = run
    model = folder / "model"
    out = tmp_path / "found.csv"
    call("predict", model, table, "--interval", "0.8", "--out", out)
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(table, encoding="utf-8") as file:
        items = [{"age": float(row["age"]), "job": row["job"]} for row in csv.DictReader(file)]
    expected = Predictor.load(folder).predict(items)
    assert [float(row["pay"]) for row in rows] == pytest.approx([each.value for each in expected])
    assert all(float(row["low"]) < float(row["pay"]) < float(row["high"]) for row in rows)
    # The test rows are drawn again from the same file with the same seed.
    found = call("evaluate", model, table, "--test", "0.2", "--part", "test", "--json")
    scores = json.loads(found[found.index("{") :])
    assert scores["samples"] == 30
    assert f"{scores['rmse']:.4f}" in text


def test_an_interrupted_run_continues(
    run: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, calls = Learner.fit, []

    def interrupted(self: Learner, *arguments: Any, **named: Any) -> Any:
        calls.append(self)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fit(self, *arguments, **named)

    folder = tmp_path / "run"
    monkeypatch.setattr(Learner, "fit", interrupted)
    words = ("fit", table, *OPTIONS, "--folds", 3, "--seeds", 2, "--out", folder)
    text = call(*words, code=130)
    command = f"flambeau fit {table} --test 0.2 --seed 0 --resume {folder} --target pay"
    assert command in text
    assert not (folder / "out_of_fold.csv").exists()
    call(*command.split()[1:])
    assert len(calls) == 4 + 3
    assert held_out(folder) == held_out(run[0])


def test_images_too(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 50)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for at in range(12):
            pixels = draws.normal(level, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{at}.png")
    small = ("--size", 16, "--set", "batch_size=8", "--steps", 4)
    out = tmp_path / "run"
    call("fit", tmp_path / "photos", *small, "--folds", 2, "--out", out, "--recipe", "one_cycle")
    assert len(held_out(out)) == 24
    found = json.loads(
        call("predict", out / "model", tmp_path / "photos", "--format", "json").split("\n", 0)[0]
    )
    assert len(found) == 24
    # Both folds normalise alike, so an image is decoded once.
    record = json.loads((out / "model" / "flambeau.json").read_text())
    assert len(record["preprocessor"]["arguments"]["members"]) in (1, 2)
    text = call("evaluate", out / "model", tmp_path / "photos", "--json")
    assert json.loads(text[text.index("{") :])["samples"] == 24


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", 2), "--seeds 2 is the number of models for each fold"),
        (("--fold-workers", 2), "--fold-workers 2 is the number of processes"),
        (("--folds", 2, "--minutes", 1), "--minutes 1 cannot be used with --folds"),
        (("--folds", 1), "k=1 folds are too few"),
        (("--folds", 2, "--seeds", 0), "number of models for each fold"),
        (("--folds", 2, "--resume", "RUN"), "--folds 2 cannot be used with --resume"),
        (
            ("--resume", "RUN", "--inspect-every", 5),
            "--inspect-every 5 cannot be used with --folds",
        ),
        (("--start", "RUN/model"), "is an ensemble of 6 models"),
        (("--like", "RUN/model"), "is an ensemble of 6 models"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    run: Any, table: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    words = tuple(str(word).replace("RUN", str(run[0])) for word in words)
    out = () if "--resume" in words else ("--out", tmp_path / "run")
    with pytest.raises((FlambeauError, ArtefactError), match=message):
        call("fit", table, "--target", "pay", *words, *out)
    assert not (tmp_path / "run").exists()
