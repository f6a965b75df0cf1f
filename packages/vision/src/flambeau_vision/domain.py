"""The vision domain's record, through which core finds this package."""

from __future__ import annotations

import itertools
import os
from functools import partial
from pathlib import Path

from flambeau.data.tables import read_csv
from flambeau.domain import CliOption, Domain
from flambeau.task import Classification, MultiLabel, Regression
from flambeau_vision.checks import CHECKS
from flambeau_vision.data import ImageData
from flambeau_vision.demo import glyph_data
from flambeau_vision.folder import IMAGE_EXTENSIONS
from flambeau_vision.models import BACKBONE_NAMES, backbone, small_cnn
from flambeau_vision.preprocess import ImagePreprocessor
from flambeau_vision.rules import RULES
from flambeau_vision.sources import guess_columns

# Files inspected before a folder is judged: a sufficient sample, and quick on any disk.
_MAX_FILES = 2_000


def recognise(path: Path) -> float:
    """Return the confidence, 0 to 1, that ``path`` contains labelled images.

    The share of images among the files in sub-folders, up to 0.95; 0.9 for a CSV file with a
    column of image paths; 0.1 for a folder with images but no class folders, and for a single
    image: neither can be used for training, and the error says why.
    """
    if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file():
        return 0.1
    if path.is_file():
        return 0.9 if path.suffix.lower() == ".csv" and _has_image_column(path) else 0.0
    files = itertools.islice(
        (
            (directory != str(path), Path(name).suffix.lower() in IMAGE_EXTENSIONS)
            for directory, folders, names in os.walk(path)
            for name in names
            if not name.startswith(".")
        ),
        _MAX_FILES,
    )
    found = list(files)
    n_in_subfolders = sum(is_image for in_subfolder, is_image in found if in_subfolder)
    n_at_top = sum(is_image for in_subfolder, is_image in found if not in_subfolder)
    if n_in_subfolders:
        return 0.95 * n_in_subfolders / max(1, len(found) - n_at_top)
    return 0.1 if n_at_top else 0.0


def _has_image_column(path: Path) -> bool:
    try:
        return guess_columns(read_csv(path, rows=20))[0] is not None
    except (ValueError, OSError):  # not text, or not a table
        return False


CLI_OPTIONS = (
    CliOption("size", int, "Height and width of the images in pixels.", "image_size"),
    CliOption("channels", int, "Channels of the images: 1 for grey, 3 for colour.", "channels"),
    CliOption("valid", float, "Share of the images for validation.", "valid"),
    CliOption("test", float, "Share of the images for the final test.", "test"),
    CliOption(
        "calibration", float, "Share of the images for calibration after training.", "calibration"
    ),
    CliOption(
        "unreadable",
        str,
        "What to do with files that cannot be read: 'raise' or 'skip'.",
        "unreadable",
    ),
    CliOption("file", str, "Column of a CSV file with the image paths.", "file"),
    CliOption("label", str, "Column of a CSV file with the labels.", "label"),
    CliOption("split", str, "Column of a CSV file with train, valid, test …", "split"),
    CliOption(
        "root",
        str,
        "Folder that relative paths in a CSV file start from; by default the file's folder.",
        "root",
    ),
    CliOption(
        "task",
        str,
        "classification, multi_label or regression; by default inferred from the labels.",
        "task",
    ),
    CliOption("sep", str, "Separator between several labels of one image.", "sep"),
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
    preprocessors={ImagePreprocessor.builder: ImagePreprocessor},
    recognise=recognise,
    cli_options=CLI_OPTIONS,
    demo=glyph_data,
)
