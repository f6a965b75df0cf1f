"""Errors on the command line: one message, exit code 2, no traceback, no files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner, TensorData
from flambeau.cli.app import run as run_command

SMALL = ("--size", "16", "--set", "batch_size=8", "--epochs", "1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/, one/ (one class), broken/, and run/, the folder of a finished fit."""
    folder = tmp_path_factory.mktemp("workspace")
    draws = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 50)):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(20):
            pixels = draws.normal(level, 20, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{index:02}.png")
    shutil.copytree(folder / "photos" / "bright", folder / "one" / "bright")
    shutil.copytree(folder / "photos", folder / "broken")
    (folder / "broken" / "dark" / "00.png").write_bytes(b"no picture")
    (folder / "text.txt").write_text("text")
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call(patch, "fit", "photos", *SMALL, "--out", "run")
    model = Path(shutil.copytree(folder / "run" / "model", folder / "cut"))
    (model / "model.safetensors").write_bytes(b"half")
    model = Path(shutil.copytree(folder / "run" / "model", folder / "unknown"))
    record = (model / "flambeau.json").read_text().replace("small_cnn", "small_cmm")
    (model / "flambeau.json").write_text(record)
    for name, text in (("damaged", "{"), ("other", None)):
        copy = Path(shutil.copytree(folder / "run", folder / name))
        if text is not None:
            (copy / "plan.json").write_text(text)
    for state in (folder / "other").glob("checkpoints/*/state.json"):
        state.write_text("{")
    return folder


def call(patch: pytest.MonkeyPatch, *words: str) -> None:
    """Run the command as a shell does; an expected error is a SystemExit."""
    patch.setattr("sys.argv", ["flambeau", *words])
    with pytest.raises(SystemExit) as ended:
        run_command()
    if ended.value.code:
        raise ended.value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "empty"), "contains no files"),
        (("plan", "one"), "single class"),
        (("plan", "text.txt"), "No installed domain recognises text.txt"),
        (("plan", "broken"), "cannot be read as an image"),
        (("plan", "nowhere"), "nowhere does not exist"),
        (("plan", "photos", "--set", "lr=fast"), "lr is 'fast'"),
        (("plan", "photos", "--domain", "visoin"), "Did you mean 'vision'"),
        (("plan", "photos", "--target", "a", "--target=b"), "--target is given several times"),
        (("plan", "photos", "--valid", "3", "--valid", "4"), "--valid is given several times"),
        (("plan", "photos", "--valid", "1.0"), "valid=1.0 is invalid"),
        (("plan", "photos", "--valid", "many"), "Share (0.2) or number (40) of images"),
        (("fit", "photos", "--epochs", "0"), "epochs is 0"),
        (("fit", "photos", "--epochs", "x"), "not a valid|Invalid value"),
        (("fit", "photos", "--lr", "nan"), "lr is nan"),
        (("fit", "photos", "--lr", "-1"), "lr is -1.0"),
        (("fit", "photos", "--set", "batch_size=0"), "batch_size is 0"),
        (("fit", "photos", "--set", "device=nothing"), "device is 'nothing'"),
        (("fit", "photos", "--size", "-4", "--epochs", "1"), "size='-4' is not a size"),
        (("fit", "photos", "--size", "1000000", "--epochs", "1"), "emory|nable to alloc"),
        (("fit", "photos", "--size", "16", "--resume", "nowhere"), "no checkpoint in nowhere"),
        (("fit", "photos", "--size", "16", "--resume", "damaged"), "plan.json is not a plan"),
        (("fit", "photos", "--size", "16", "--resume", "other"), "are damaged"),
        (
            ("fit", "photos", "--size", "16", "--set", "batch_size=4", "--resume", "run"),
            "batch_size is 4 in this learner",
        ),
        (("predict", "run/model", "nofile.png"), "nofile.png does not exist"),
        (("predict", "run/model", "text.txt"), "text.txt cannot be read as an image"),
        (("predict", "nowhere", "text.txt"), "nowhere is not an export: it does not exist"),
        (("predict", "cut", "text.txt"), "damaged or was replaced"),
        (("predict", "unknown", "text.txt"), "Did you mean 'small_cnn'"),
        (("evaluate", "run/model", "empty"), "contains no files"),
        (("evaluate", "run/model", "one", "--part", "test"), "has no test samples"),
        (("evaluate", "cut", "photos"), "damaged or was replaced"),
    ],
)
def test_one_message_and_exit_code_2(
    words: tuple[str, ...],
    message: str,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workspace)
    before = sorted(workspace.iterdir())
    out = ("--out", "mine") if words[0] == "fit" and "--resume" not in words else ()
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *words, *out)
    message_shown = capsys.readouterr().err
    assert ended.value.code == 2, message_shown
    assert any(part in message_shown for part in message.split("|")) or pytest.fail(message_shown)
    assert "Traceback" not in message_shown
    assert sorted(workspace.iterdir()) == before


@pytest.mark.parametrize(
    ("given", "is_text"), [("my cat.png", False), ("a fine day", True), ("Good. I like it", True)]
)
def test_the_hint_about_texts_is_not_for_names_of_files(
    given: str,
    is_text: bool,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workspace)
    with pytest.raises(SystemExit):
        call(monkeypatch, "predict", "run/model", given)
    shown = capsys.readouterr().err
    assert f"{given} does not exist" in shown
    assert ("Texts are read from files" in shown) is is_text


def test_a_domain_that_reads_no_paths_is_not_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    learner = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
    learner.export("model")
    np.save("x.npy", x.numpy())
    Path("x.csv").write_text("a,b\n1,2\n3,4\n")
    refusal = "The domain 'tensors' cannot read x"
    for words, message in (
        (("plan", "x.csv", "--domain", "tensors"), refusal),
        (("fit", "x.csv", "--domain", "tensors"), refusal),
        (("evaluate", "model", "x.npy"), refusal),
        (
            ("plan", "x.npy"),
            "Domains that read paths: language, tabular, tags, text, translate, vision.",
        ),
        (("plan", "x.csv", "--domain", "foo"), "install the package that provides it"),
    ):
        with pytest.raises(SystemExit) as ended:
            call(monkeypatch, *words)
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert message in error
        assert "pip install" not in error


def test_an_unknown_column_names_the_option(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    table = workspace / "columns.csv"
    table.write_text("file,label\nphotos/dark/01.png,a\nphotos/bright/01.png,b\n")
    for option in ("target", "file"):
        with pytest.raises(SystemExit):
            call(monkeypatch, "plan", str(table), f"--{option}", "nope")
        assert "no column 'nope'" in (error := capsys.readouterr().err)
        assert f"--{option}" in error


def test_a_part_can_have_a_number_of_images(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("sys.argv", ["flambeau", "plan", "photos", "--valid", "10", "--test", "4"])
    with pytest.raises(SystemExit) as ended:
        run_command()
    assert ended.value.code in (0, None)
    assert "26 train, 10 valid, 4 test rows" in capsys.readouterr().out
