"""The command line from raw files to predictions, as a new user would use it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from flambeau import Learner, Plan, TensorData
from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.artefact.predictor import Predictor
from flambeau.cli.app import build_app
from flambeau.cli.data_arguments import option_texts, parse_options
from flambeau.domain import get_domain
from flambeau.errors import FlambeauError
from flambeau.inspect.watch.layer_record import load_record

SMALL = ("--set", "batch_size=8", "--size", "16", "--epochs", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 bright and 20 dark images."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 50)):
        (folder / name).mkdir()
        for index in range(20):
            pixels = random.normal(level, 20, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished ``flambeau fit``."""
    folder = tmp_path_factory.mktemp("run") / "mine"
    result = call("fit", photos, *SMALL, "--epochs", "8", "--out", folder)
    assert "bright 20, dark 20" in result or "40" in result
    assert f"flambeau predict {folder / 'model'}" in result
    return folder


def call(*words: object) -> str:
    """Return what a command prints; its exception is raised unchanged."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_task_and_target_are_options_of_every_data_command(photos: Path, tmp_path: Path) -> None:
    rows = [
        f"{photos}/{name}/{n:02}.png,{number},{name}"
        for n in range(20)
        for number, name in enumerate(("bright", "dark"))
    ]
    table = tmp_path / "photos.csv"
    table.write_text("file,number,name\n" + "\n".join(rows) + "\n")

    def choices(*words: str) -> dict[str, tuple[object, str]]:
        found = json.loads(call("plan", table, "--json", *words))["choices"]
        return {each["key"]: (each["value"], each["source"]) for each in found}

    with pytest.raises(FlambeauError, match=r"which column .*labels.*--target"):
        call("plan", table)
    assert choices("--target", "name")["task"][0] == "classification"
    assert choices("--target", "number", "--task", "regression")["task"] == ("regression", "user")
    call("doctor", table, "--target", "name", "--size", "16", "--set", "batch_size=8")
    out = tmp_path / "run"
    call("fit", table, *SMALL, "--target", "name", "--task", "classification", "--out", out)
    text = call("evaluate", out / "model", table, "--target", "name", "--json")
    scores = json.loads(text[text.index("{") :])  # after the notes, which go to stderr
    assert scores["samples"] == 40


def test_two_domains_that_read_a_path_are_named(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("en,de\na.png,b c d\n")
    with pytest.raises(FlambeauError) as raised:
        call("plan", table)
    assert "translate: Its columns 'en' and 'de' are language codes." in str(raised.value)
    assert "vision: Its column 'en' has image files (a.png)." in str(raised.value)
    assert "--domain translate or --domain vision" in str(raised.value)
    with pytest.raises(FlambeauError, match=r"a\.png"):
        call("plan", table, "--domain", "vision")


def test_option_texts_are_read_for_any_domain() -> None:
    words = ["--size", "16", "--lowercase", "--sep=;", "--shift", "-1", "--last"]
    expected = {"size": "16", "lowercase": "true", "sep": ";", "shift": "-1", "last": "true"}
    assert option_texts(words) == expected


def test_a_recipe_by_name(photos: Path, tmp_path: Path) -> None:
    call("fit", photos, *SMALL, "--recipe", "fine_tune", "--out", tmp_path / "run")
    with open(tmp_path / "run" / "history.csv", encoding="utf-8") as file:
        assert [row["phase"] for row in csv.DictReader(file)] == ["head", "all"]
    with pytest.raises(FlambeauError, match=r"--recipe finetune.*'fine_tune'"):
        call("fit", photos, "--recipe", "finetune")


def test_help_lists_commands_and_options() -> None:
    text = call("--help")
    for command in ("demo", "plan", "fit", "evaluate", "predict", "domains"):
        assert command in text
    assert "--resume" in call("fit", "--help")


def test_help_lists_the_options_of_each_kind_of_data() -> None:
    text = call("fit", "--help")
    assert "Options for the domain vision:" in text
    assert "--source-language" in text
    assert "--source-language" not in call("predict", "--help")
    assert "--beam" in call("predict", "--help")
    assert "--beam" not in text


def test_bool_options_need_no_value() -> None:
    domain = get_domain("translate")
    for words, expected in (
        (["--lowercase"], {"lowercase": True}),
        (["--lowercase", "--valid", "0.2"], {"lowercase": True, "valid": "0.2"}),
        (["--lowercase", "false"], {"lowercase": False}),
        (["--lowercase=True"], {"lowercase": True}),
    ):
        assert parse_options(domain, "fit", words) == expected
    with pytest.raises(FlambeauError, match=r"Invalid value 'maybe' for --lowercase.*true or"):
        parse_options(domain, "fit", ["--lowercase", "maybe"])


def test_domains_lists_domains_and_options() -> None:
    assert "ImageData" in call("domains")
    commands = "fit, plan, doctor, step, profile, evaluate"
    assert re.search(rf"--size +{commands} +Side of", call("domains", "vision"))
    assert re.search(r"--beam +predict +Size", call("domains", "translate"))
    with pytest.raises(FlambeauError, match="Did you mean 'vision'"):
        call("domains", "visoin")


def test_plan_shows_choices_without_training(photos: Path) -> None:
    text = call("plan", photos, "--size", "16", "--set", "batch_size=8")
    assert "small_cnn" in text
    choices = json.loads(call("plan", photos, "--set", "batch_size=8", "--json"))["choices"]
    [size] = [choice for choice in choices if choice["key"] == "batch_size"]
    assert (size["value"], size["source"]) == (8, "user")
    for choice in choices:  # the table shows all of them
        assert re.search(rf"^{choice['key']}  ", text, re.MULTILINE), choice["key"]


def test_a_strict_plan_lists_what_to_set(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("plan", photos, "--strict")
    monkeypatch.setattr("flambeau.plan.table.LOW_CONFIDENCE", 0.85)
    with pytest.raises(
        FlambeauError, match=r'(?s)architecture, .*choices=\{"architecture": '
    ) as error:
        call("plan", photos, "--strict")
    unsure = re.findall(r"^  (\w+) = ", str(error.value), re.MULTILINE)
    assert "batch_size" in unsure
    keep = {c["key"]: c["value"] for c in json.loads(call("plan", photos, "--json"))["choices"]}
    given = [f"--set={key}={json.dumps(keep[key])}" for key in unsure]
    assert "small_cnn" in call("plan", photos, "--strict", *given)


def test_fit_writes_plan_history_and_model(run: Path) -> None:
    assert (run / "plan.json").exists()
    assert (run / "history.csv").exists()
    assert {"flambeau.json", "model.safetensors"} <= {p.name for p in (run / "model").iterdir()}


def test_evaluate_scores_the_export(run: Path, photos: Path) -> None:
    scores = json.loads(call("evaluate", run / "model", photos, "--json"))
    assert scores["samples"] == 40
    assert scores["accuracy"] > 0.9
    assert "8 samples (valid)" in call("evaluate", run / "model", photos, "--part", "valid")


def test_predict_prints_a_table_json_and_csv(run: Path, photos: Path) -> None:
    files = [photos / "bright" / "00.png", photos / "dark" / "01.png"]
    records = json.loads(call("predict", run / "model", *files, "--format", "json"))
    assert [record["file"] for record in records] == [str(file) for file in files]
    assert [record["label"] for record in records] == ["bright", "dark"]
    assert records[0]["bright"] + records[0]["dark"] == pytest.approx(1.0)
    rows = list(
        csv.DictReader(io.StringIO(call("predict", run / "model", *files, "--format", "csv")))
    )
    assert [row["label"] for row in rows] == ["bright", "dark"]
    assert "probability" in call("predict", run / "model", *files)


def test_predict_refuses_options_of_other_commands(run: Path, photos: Path) -> None:
    image = photos / "bright" / "00.png"
    for words in ((image, "--size", "16"), ("--size", "16", image)):
        with pytest.raises(FlambeauError, match=r"Unknown option '--size' for vision.*predict --h"):
            call("predict", run / "model", *words)
    with pytest.raises(FlambeauError, match="MODEL is missing before '--beam'"):
        call("predict", "--beam", "3", run / "model", image)


def test_predict_writes_columns_to_a_file(run: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    files = [photos / "bright" / "00.png", tmp_path / "broken.png", photos / "dark" / "01.png"]
    expected = [
        json.loads(call("predict", run / "model", file, "--format", "json"))[0]
        for file in (files[0], files[2])
    ]
    for out in (tmp_path / "p.jsonl", tmp_path / "p.csv"):
        words = [str(word) for word in ("predict", run / "model", *files, "--out", out)]
        result = CliRunner().invoke(build_app(), words)
        assert result.exit_code == 1
        assert f"Wrote 3 predictions to {out} (1 errors)." in result.output
    records = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [records[0], records[2]] == expected
    assert "cannot be read as an image" in records[1]["error"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text(encoding="utf-8"))))
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert [row["label"] for row in rows] == ["bright", "", "dark"]
    assert float(rows[2]["dark"]) == expected[1]["dark"]
    with pytest.raises(
        FlambeauError, match=r"--out .*p\.txt must end in \.csv .*\.jsonl .* or \.parquet"
    ):
        call("predict", run / "model", files[0], "--out", tmp_path / "p.txt")
    with pytest.raises(FlambeauError, match=r"Cannot write .*gone.*Choose another file"):
        call("predict", run / "model", files[0], "--out", tmp_path / "gone" / "p.csv")


def test_an_unreadable_file_does_not_affect_the_others(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    files = [str(each) for each in (photos / "bright" / "00.png", broken, photos / "dark/01.png")]
    words = ["predict", str(run / "model"), *files, "--format", "json"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 1
    records = json.loads(result.output)
    assert [record["file"] for record in records] == files
    assert [record.get("label") for record in records] == ["bright", None, "dark"]
    assert "cannot be read as an image" in records[1]["error"]


def test_a_missing_file_has_its_error_beside_the_other_predictions(run: Path, photos: Path) -> None:
    files = [str(photos / name) for name in ("bright/00.png", "bright/77.png", "dark/01.png")]
    result = CliRunner().invoke(
        build_app(), ["predict", str(run / "model"), *files, "--format", "json"]
    )
    assert result.exit_code == 1
    records = json.loads(result.output)
    assert [record["file"] for record in records] == files
    assert [record.get("label") for record in records] == ["bright", None, "dark"]
    assert "77.png does not exist" in records[1]["error"]


def test_predict_walks_a_folder_and_takes_the_folder_of_a_run(run: Path, photos: Path) -> None:
    records = json.loads(call("predict", run, photos, "--format", "json"))
    assert [record["file"] for record in records] == [str(f) for f in sorted(photos.rglob("*.png"))]
    image = photos / "dark" / "00.png"
    [record] = json.loads(call("predict", run / "model", image, "--format", "json"))
    assert records[20]["dark"] == pytest.approx(record["dark"], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "nowhere"), "nowhere does not exist"),
        (("plan", "PHOTOS", "--sise", "16"), "Did you mean"),
        (("plan", "PHOTOS", "--size", "big"), "Invalid value 'big' for --size"),
        (("plan", "PHOTOS", "--size"), "--size needs a value"),
        (("plan", "PHOTOS", "--set", "batch_size"), "key=value"),
        (("plan", "PHOTOS", "--set", "batchsize=4"), "batch_size"),
        (("fit", "PHOTOS", "--resume", "nowhere"), "no checkpoint in nowhere"),
        (("predict", "PHOTOS", "x.png"), "flambeau.json"),
    ],
)
def test_errors_name_the_fix(words: tuple[str, ...], message: str, photos: Path) -> None:
    with pytest.raises(FlambeauError, match=message):
        call(*(str(photos) if word == "PHOTOS" else word for word in words))


def test_an_expected_error_is_one_line_without_a_traceback() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from flambeau.cli import main; main()", "plan", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: nowhere does not exist")
    assert "Traceback" not in result.stderr


def test_ctrl_c_saves_and_prints_how_to_continue(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["fit", str(photos), *SMALL, "--epochs", "2000", "--out", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from flambeau.cli import main; main()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (folder / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert f"flambeau fit {photos} --size 16 --seed 0 --resume {folder}" in errors
    assert "Traceback" not in errors
    saved = latest_checkpoint(folder)
    assert saved is not None


def test_a_run_stopped_by_ctrl_c_is_finished_by_resume(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flambeau.training.interrupt import Interrupt

    folder = tmp_path / "run"
    # The signal is tested above; here its flag is set from the start.
    with monkeypatch.context() as patch:
        patch.setattr("flambeau.training.interrupt.Interrupt", lambda: Interrupt(pending=True))
        result = CliRunner().invoke(
            build_app(), ["fit", str(photos), *SMALL, "--epochs", "3", "--out", str(folder)]
        )
    assert result.exit_code == 130
    before = (folder / "history.csv").read_bytes()
    for option, value, message in (
        ("--epochs", 4, "--epochs is 4, but the run in .* has 3"),
        ("--steps", 4, "--steps is 4, but the run in .* has None"),
        ("--evaluate-every", 4, "--evaluate-every is 4, but the run in .* has None"),
        ("--lr", 0.5, "--lr is 0.5, but the run in .* has 0"),
        ("--set", "lr=0.5", "--lr is 0.5, but the run"),
        ("--model", "resnet18", "--model is resnet18, but the run in .* has small_cnn"),
        ("--recipe", "one_cycle", "--recipe one_cycle cannot be used with --resume"),
        ("--minutes", 1, "--minutes 1.0 cannot be used with --resume"),
        ("--start", "export", "--start export cannot be used"),
        ("--out", tmp_path / "new", "--out .*new cannot be used"),
    ):
        with pytest.raises(FlambeauError, match=message):
            call("fit", photos, *SMALL[:-2], option, value, "--resume", folder)
    assert (folder / "history.csv").read_bytes() == before
    # Options that equal those of the run are accepted.
    text = call("fit", photos, *SMALL, "--epochs", 3, "--model", "small_cnn", "--resume", folder)
    assert str(folder / "model") in text
    with (folder / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_a_calibration_part_calibrates_the_export(photos: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"  # every fifth label is wrong, so that no model is right everywhere
    for index, file in enumerate(sorted(photos.rglob("*.png"))):
        names = ("bright", "dark")
        label = names[(file.parent.name == "dark") != (index % 5 == 0)]
        (mixed / label).mkdir(parents=True, exist_ok=True)
        (mixed / label / f"{index}.png").write_bytes(file.read_bytes())
    model = tmp_path / "run" / "model"
    # At the usual rate so few steps may end with a model that is worse than chance.
    words = [*SMALL, "--calibration", "0.4", "--set", "lr=0.001", "--out", tmp_path / "run"]
    text = call("fit", mixed, *words, "--epochs", "8")
    values = Predictor.load(model).task.calibration
    fitted = f"temperature {values['temperature']:.4g}, intervals of classes"
    assert f"{fitted}; fitted on 16 calibration samples" in text
    options = ["--size", "16", "--calibration", "0.4", "--part", "calibration", "--json"]
    assert json.loads(call("evaluate", model, mixed, *options))["samples"] == 16


def test_a_model_that_is_always_right_is_exported_without_calibration(
    photos: Path, tmp_path: Path
) -> None:
    words = [*SMALL, "--calibration", "0.2", "--epochs", "8", "--out", tmp_path / "run"]
    assert "The model is not calibrated: The outputs are right for each" in call(
        "fit", photos, *words
    )
    assert not Predictor.load(tmp_path / "run" / "model").task.calibration


def test_steps_and_evaluate_every(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = SMALL[:-2]
    words = ["--steps", 7, "--evaluate-every", 3, "--out", folder]
    text = call("fit", photos, *small, *words)
    assert "evaluate_every" in text
    with (folder / "history.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6", "7"]
    for options, message in (
        (("--steps", 7, "--epochs", 2), "--steps 7 and --epochs 2 both set"),
        (("--steps", 7, "--minutes", 2), "--steps 7 and --minutes 2 both set"),
        (("--evaluate-every", 7, "--minutes", 2), "cannot be used with --minutes"),
    ):
        with pytest.raises(FlambeauError, match=message):
            call("fit", photos, *small, *options, "--out", tmp_path / "other")


def test_inspect_every_prints_verdicts_and_writes_a_page(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    text = call("fit", photos, *SMALL[:-2], "--steps", 4, "--inspect-every", 1, "--out", folder)
    assert "layers watched in 4 steps" in text
    assert load_record(folder).steps == [0, 1, 2, 3]
    assert ">Layers<" in (folder / "layers.html").read_text()
    for options, message in (
        (("--inspect-every", 0), "--inspect-every must be a whole number of steps"),
        (("--inspect-every", 5, "--folds", 2), "--inspect-every 5 cannot be used with --folds"),
    ):
        with pytest.raises(FlambeauError, match=message):
            call("fit", photos, *SMALL, *options, "--out", tmp_path / "other")


def test_minutes_runs_fit_auto(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    text = call("fit", photos, *SMALL, "--epochs", "3", "--minutes", "2", "--out", folder)
    assert "fit_auto: " in text
    assert "ms per step" in " ".join(text.split())
    plan = json.loads((folder / "plan.json").read_text())
    realised = next(choice for choice in plan["choices"] if choice["key"] == "auto")
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(segment[3] for segment in realised["value"]["segments"]) == len(rows)
    assert (folder / "model" / "model.safetensors").exists()


def test_a_run_is_not_overwritten(run: Path, photos: Path) -> None:
    with pytest.raises(FlambeauError, match=f"already contains a run.*--resume {run}"):
        call("fit", photos, *SMALL, "--out", run)


def test_the_run_of_a_learner_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    features = torch.arange(40.0).reshape(20, 2)
    data = TensorData.from_tensors(features, features[:, 0])
    Learner(data, folder=tmp_path, quiet=True).fit(1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for command in (("fit", photos, *SMALL), ("demo", "vision", "--samples", 40)):
        with pytest.raises(FlambeauError, match=r"already contains a run .checkpoints/step-"):
            call(*command, "--out", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_unknown_model_and_an_empty_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(FlambeauError, match=r"--model smal_cnn.*Did you mean 'small_cnn'"):
        call("plan", photos, "--model", "smal_cnn")
    with pytest.raises(FlambeauError, match="contains no files"):
        call("plan", tmp_path)


def test_an_export_is_trained_further(photos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    call("fit", photos, *SMALL, "--epochs", "1", "--out", first)
    call("fit", photos, *SMALL, "--epochs", "1", "--out", second, "--start", first / "model")
    assert "including its head" in Plan.load(second / "plan.json")["start"].reason
    plan = Plan.load(second / "plan.json").values
    assert plan["start"]["export"] == str(first / "model")
    assert plan["start"]["head"] == "kept"


def test_data_are_read_like_an_export(photos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    call("fit", photos, *SMALL, "--out", first)
    words = ("--set", "batch_size=8", "--epochs", "1", "--like", first / "model")
    call("fit", photos, *words, "--out", second)
    plan = Plan.load(second / "plan.json").values
    assert (plan["image_size"], plan["start"]["model"]) == (16, None)
    preprocessors = [
        json.loads((folder / "model" / "flambeau.json").read_text())["preprocessor"]
        for folder in (first, second)
    ]
    assert preprocessors[0] == preprocessors[1]
    with pytest.raises(FlambeauError, match=r"size is 32, but in the export .* 16.*--like"):
        call("plan", photos, "--size", "32", "--like", first / "model")
    with pytest.raises(FlambeauError, match="size is 32"):
        call("doctor", photos, "--size", "32", "--like", first / "model")
    assert "checks" in call("doctor", photos, "--set", "batch_size=8", "--like", first / "model")
    # The export names the domain and the ending, which ids alone do not tell.
    table = tmp_path / "ids.csv"
    files = sorted(photos.rglob("*.png"))
    rows = [f"{file.relative_to(photos).with_suffix('')},{file.parent.name}" for file in files]
    table.write_text("id,label\n" + "\n".join(rows) + "\n")
    given = ("--root", photos, "--file", "id", "--suffix", ".png")
    epoch = ("--set", "batch_size=8", "--epochs", "1")
    call("fit", table, *given, *epoch, "--out", tmp_path / "ids")
    ids = tmp_path / "ids" / "model"
    assert "As in the export" in call("plan", table, "--root", photos, "--like", ids)
    words = (*given, *epoch, "--start", ids, "--out", tmp_path / "more")
    call("fit", table, *words)
    assert "including its head" in Plan.load(tmp_path / "more" / "plan.json")["start"].reason
