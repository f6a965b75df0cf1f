"""The record by which core knows pictures."""

from __future__ import annotations

import itertools
import os
from functools import partial
from pathlib import Path

from flambeau.domain import CliOption, Domain
from flambeau.task import Classification, MultiLabel, Regression
from flambeau_vision.checks import CHECKS
from flambeau_vision.data import ImageData
from flambeau_vision.demo import glyph_data
from flambeau_vision.entries import guess_columns, read_csv
from flambeau_vision.files import ENDINGS
from flambeau_vision.models import BACKBONE_NAMES, backbone, small_cnn
from flambeau_vision.preprocess import ImagePreprocessor
from flambeau_vision.rules import RULES

# Files that are looked at before a folder is judged: enough for a verdict, quick on any disk.
_LOOKED_AT = 2_000


def recognise(path: Path) -> float:
    """How sure it is that ``path`` holds labelled pictures, 0 to 1.

    The share of pictures among the files of sub-folders, up to 0.95; 0.9 for a CSV file with a
    column of picture names; 0.1 for a folder whose pictures have no class folders, and for one
    picture: training can use neither, but says why.
    """
    if path.suffix.lower() in ENDINGS and path.is_file():
        return 0.1
    if path.is_file():
        return 0.9 if path.suffix.lower() == ".csv" and _names_pictures(path) else 0.0
    files = itertools.islice(
        (
            (place != str(path), Path(name).suffix.lower() in ENDINGS)
            for place, folders, names in os.walk(path)
            for name in names
            if not name.startswith(".")
        ),
        _LOOKED_AT,
    )
    seen = list(files)
    below = sum(picture for nested, picture in seen if nested)
    loose = sum(picture for nested, picture in seen if not nested)
    if below:
        return 0.95 * below / max(1, len(seen) - loose)
    return 0.1 if loose else 0.0


def _names_pictures(path: Path) -> bool:
    try:
        return guess_columns(read_csv(path, rows=20))[0] is not None
    except (ValueError, OSError):  # no text, or no table
        return False


CLI_OPTIONS = (
    CliOption("size", int, "Height and width of the pictures in pixels.", "image_size"),
    CliOption("channels", int, "1 for grey, 3 for colour.", "channels"),
    CliOption("valid", float, "Share of the pictures that validate.", "valid"),
    CliOption("test", float, "Share of the pictures that are looked at once, at the end.", "test"),
    CliOption(
        "unreadable", str, "'raise' at a file that cannot be read, or 'skip' it.", "unreadable"
    ),
    CliOption("file", str, "Column of a CSV file with the picture's path.", "file"),
    CliOption("label", str, "Column of a CSV file with the label.", "label"),
    CliOption("split", str, "Column of a CSV file that says train, valid or test.", "split"),
    CliOption(
        "root", str, "Folder that a CSV file's paths start from; by default its own.", "root"
    ),
    CliOption(
        "task", str, "classification, multi_label or regression, if the labels mislead.", "task"
    ),
    CliOption("sep", str, "What stands between several labels of one picture.", "sep"),
)

DOMAIN = Domain(
    name="vision",
    data_classes={"ImageData": ImageData},
    models={
        "small_cnn": small_cnn,
        **{name: partial(backbone, name=name) for name in BACKBONE_NAMES},
    },
    tasks={
        "classification": Classification,
        "multi_label": MultiLabel,
        "regression": Regression,
    },
    rules=RULES,
    checks=CHECKS,
    builders={ImagePreprocessor.builder: ImagePreprocessor},
    recognise=recognise,
    cli_options=CLI_OPTIONS,
    demo=glyph_data,
)
