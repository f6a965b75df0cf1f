"""Every Python block of the README and the docs runs, page by page, in the order of the page."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from flambeau.domain import discovery

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def make_photos(folder: Path) -> None:
    """Bright cats and dark dogs, so that a page's short training has something to find."""
    random = np.random.default_rng(0)
    for name, level in (("cat", 170), ("dog", 60)):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(24):
            pixels = random.normal(level, 40, (32, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{index}.jpg")
    Image.open(folder / "photos" / "cat" / "0.jpg").save(folder / "cat.jpg")


def make_pretrained_models(folder: Path) -> None:
    """Tiny random models in the format of transformers, with their tokenizers."""
    spec = spec_from_file_location("pretrained", ROOT / "tests" / "text" / "pretrained.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.save_model(folder / "model", "llama")
    module.save_encoder(folder / "bert", "bert")


def blocks(page: Path) -> list[tuple[int, str]]:
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start()].count("\n") + 1, m.group(1)) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.stem)
def test_the_code_of_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path)
    if page.stem == "huggingface":
        pytest.importorskip("peft", reason='needs the extra "flambeau-text[hf]"')
        make_pretrained_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = ModuleType(page.stem)
    # A page may define what is found by the name of its module: a domain's record, a dataclass.
    monkeypatch.setitem(sys.modules, page.stem, module)
    monkeypatch.setattr(discovery, "_loaded", {})
    names = vars(module)
    for line, code in blocks(page):
        # Blank lines before the block make a traceback point into the page.
        exec(compile("\n" * line + code, str(page), "exec"), names)


def test_links_to_files_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken
