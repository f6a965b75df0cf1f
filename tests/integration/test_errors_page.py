"""Every row of ``docs/errors.md``: its code gives the message, as an error of flambeau."""

from __future__ import annotations

import re
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from flambeau import FlambeauError, FlambeauWarning, Learner, TensorData
from flambeau.cli.app import run as run_command

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \|$", re.MULTILINE)
ROWS = [(code, message) for code, message in ROW.findall(PAGE)]


def make_images(folder: Path) -> None:
    draws = np.random.default_rng(0)
    for name, level in (("cat", 170), ("dog", 60)):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(12):
            pixels = draws.normal(level, 20, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{index:02}.jpg")
    (folder / "empty").mkdir()
    shutil.copytree(folder / "photos" / "cat", folder / "one_class" / "cat")
    shutil.copytree(folder / "photos" / "cat", folder / "unsorted")
    shutil.copytree(folder / "photos", folder / "empty_class")
    (folder / "empty_class" / "bird").mkdir()
    shutil.copytree(folder / "photos", folder / "corrupt")
    (folder / "corrupt" / "dog" / "00.jpg").write_bytes(b"no image")


def make_tables(folder: Path) -> None:
    files = [str(each.relative_to(folder)) for each in sorted(folder.glob("photos/*/*.jpg"))]
    table = pd.DataFrame({"image": files, "class": [Path(each).parent.name for each in files]})
    table.to_csv(folder / "no_header.csv", header=False, index=False)
    table["part"] = ["train", "valdi"] * 12
    table.to_csv(folder / "labels.csv", index=False)
    prices = [f"{index},5" for index in range(24)]
    pd.DataFrame({"image": files, "price": prices}).to_csv(folder / "prices.csv", index=False)


def make_text(folder: Path) -> None:
    english = [f"this is house number {index} ." for index in range(40)]
    german = [f"das ist schönes haus nummer {index} ." for index in range(40)]
    (folder / "train.en").write_text("\n".join(english), encoding="utf-8")
    (folder / "train.de").write_text("\n".join(german), encoding="utf-8")
    (folder / "short.de").write_text("\n".join(german[:-1]), encoding="utf-8")
    (folder / "latin1.de").write_bytes("\n".join(german).encode("latin-1"))
    pairs = pd.DataFrame({"en": english, "de": german})
    pairs.to_csv(folder / "pairs.csv", index=False)
    (folder / "notes.txt").write_text("notes", encoding="utf-8")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the code blocks of the page define, and ``folder`` with the files."""
    folder = tmp_path_factory.mktemp("page")
    make_images(folder)
    make_tables(folder)
    make_text(folder)
    names: dict[str, Any] = {"__name__": "errors_page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, names)
    data: TensorData = names["data"]
    model: nn.Module = names["net"]()
    torch.save(model.state_dict(), folder / "weights.pth")
    learner = Learner(data, model, folder=folder / "run", quiet=True)
    learner.fit(1)
    learner.save(folder / "weights.safetensors")
    learner.export(folder / "model")
    return {**names, "folder": folder}


def run_code(code: str, names: dict[str, Any]) -> list[str]:
    """Return the messages that the code gives: of its error, else of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FlambeauWarning)
        try:
            exec(code, dict(names))
        except FlambeauError as error:
            return [str(error)]
    return [str(each.message) for each in caught if each.category is FlambeauWarning]


def run_line(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            run_command()
    message = capsys.readouterr().err
    assert ended.value.code == 2, message
    assert "Traceback" not in message
    return [message]


@pytest.mark.parametrize(("code", "message"), ROWS, ids=[code for code, _ in ROWS])
def test_the_slip_gives_the_message_of_the_page(
    code: str,
    message: str,
    names: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(names["folder"])
    given = run_line(code, capsys) if code.startswith("flambeau ") else run_code(code, names)
    pattern = r"\s*.*?\s*".join(re.escape(part.strip()) for part in message.split("…"))
    # Where the console wraps a message, a line break replaces a space.
    found = [each for each in given if re.search(pattern, " ".join(each.split()), re.DOTALL)]
    assert found, "\n".join(given) or "no message"


def test_the_page_has_at_least_forty_rows() -> None:
    assert len(ROWS) >= 40
    assert len(ROWS) == PAGE.count("\n| `")
    assert len({code for code, _ in ROWS}) == len(ROWS)
