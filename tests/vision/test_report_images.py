"""How reports show a sample of ``ImageData``."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau import Learner
from flambeau_vision import ImageData


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 50)):
        (tmp_path / name).mkdir()
        for index in range(10):
            pixels = random.normal(level, 20, (60, 90, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{name} <{index}>.png")
    return tmp_path


def test_a_file_is_shown_small_with_its_name(photos: Path) -> None:
    data = ImageData.from_folder(photos)
    for row in (0, 19):
        picture = data.preview(row)
        path = Path(data.samples["image"][row])
        assert picture.caption == f"{path.name}\n{path}"
        with Image.open(io.BytesIO(picture.image)) as image:
            assert image.size == (200, 133), "the aspect ratio is kept"
            level = np.asarray(image.convert("L")).mean()
        assert (level > 120) == picture.caption.startswith("bright")
        assert len(picture.image) < 40_000


def test_an_array_is_shown_with_its_row_number() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    picture = ImageData.from_arrays(images, ["a", "b"] * 10).preview(7)
    assert picture.caption == "image 7"
    assert picture.image.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(picture.image)) as image:
        pixels = np.asarray(image.convert("L"))
    # 8 pixels enlarged to 200: each is a square of 25.
    assert np.abs(pixels[12::25, 12::25].astype(int) - images[7]).max() <= 1


def test_the_report_shows_the_images_of_the_highest_losses(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = ImageData.from_folder(photos, size=16)
    learner = Learner(data, choices={"batch_size": 8}, quiet=True)
    learner.fit(1)
    found = learner.interpret()
    html = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == len(found) == 4
    worst = data.preview(found.top_losses(1)[0].id).caption.partition("\n")[2]
    assert worst.startswith(str(photos))
    assert worst.replace("<", "&lt;").replace(">", "&gt;") in html
    assert "majority class" in html
