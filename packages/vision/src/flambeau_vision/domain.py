"""Describe the vision domain, so that flambeau can find this package."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambeau.data.split_request import parse_part_size
from flambeau.domain import DATA_COMMANDS, CliOption, Domain, Recognition
from flambeau.task import Classification, MultiLabel, Regression
from flambeau_vision.checks import CHECKS
from flambeau_vision.data import ImageData
from flambeau_vision.demo import glyph_data
from flambeau_vision.foreign_files import (
    describe_foreign_file,
    describe_foreign_folder,
    describe_other_file,
)
from flambeau_vision.image_files import IMAGE_EXTENSIONS
from flambeau_vision.models import BACKBONE_NAMES, backbone, small_cnn
from flambeau_vision.preprocess import ImagePreprocessor
from flambeau_vision.resize import parse_size
from flambeau_vision.rules import RULES
from flambeau_vision.table_columns import (
    guess_columns,
    has_image_paths,
    read_image_csv,
    single_column_hint,
)

if TYPE_CHECKING:
    from flambeau.data.attributions import Attributions

# Files inspected before a folder is judged: a sufficient sample, and quick on any disk.
_MAX_FILES = 2_000
_TABLES = (".csv", ".tsv")


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise folders of images by class, and CSV files with a column of image paths.

    "sure": most files in the sub-folders are images, or it is known which columns of a CSV file
    have the paths and the labels. "possible": a folder without class folders, or a single image;
    neither can be used for training, and the error raised when it is read says why. "no", with the
    cause: an archive, or a table that cannot be read or has no image paths.
    """
    if path.is_file():
        if path.suffix.lower() in IMAGE_EXTENSIONS:
            return Recognition("possible", "It is an image.")
        if (cause := describe_foreign_file(path)) is not None:
            return Recognition("no", cause)
        is_table = any(kind in _TABLES for kind in path.suffixes)
        if is_table:
            return _recognise_table(path, options)
        return Recognition("no", describe_other_file(path))
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
        n = len(found) - n_at_top
        certainty = "sure" if 2 * n_in_subfolders >= n else "possible"
        return Recognition(certainty, f"Its sub-folders have images ({n_in_subfolders} of {n}).")
    if n_at_top:
        return Recognition("possible", "It has images, but no class folders.")
    cause = describe_foreign_folder(path)
    return None if cause is None else Recognition("no", cause)


def _recognise_table(path: Path, options: Mapping[str, str]) -> Recognition | None:
    try:
        columns = read_image_csv(path, rows=20)
    except (ValueError, OSError) as error:  # not text, or not a table
        return Recognition("no", str(error))
    named = options.get("file")
    if named in columns:
        return Recognition("sure", f"--file says that its column {named!r} has the image paths.")
    file, label = guess_columns(columns)
    if file is None:
        several = [name for name in columns.names if has_image_paths(columns.column(name))]
        if several:
            which = f"Several of its columns have image paths: {', '.join(several)}."
        else:
            which = f"None of its columns ({', '.join(columns.names)}) has image paths."
        hint = "Name the column with --file; if it has ids without an extension, add --suffix .jpg."
        return Recognition("no", f"{which} {single_column_hint(columns) or hint}")
    reason = f"Its column {file!r} has image files ({columns.column(file)[0]})."
    if label is None and options.get("target") not in columns:
        return Recognition("possible", f"{reason} Name the column of the labels with --target.")
    return Recognition("sure", reason)


DATA_OPTIONS = (
    CliOption(
        "size",
        parse_size,
        "Side of the images in pixels, or height and width: --size 224x160.",
        "image_size",
    ),
    CliOption("channels", int, "Channels of the images: 1 for grey, 3 for colour.", "channels"),
    CliOption("bits", int, "Number of significant bits of 16-bit images: 8 to 16.", "bits"),
    CliOption(
        "valid", parse_part_size, "Share (0.2) or number (40) of images for validation.", "valid"
    ),
    CliOption("test", parse_part_size, "Share or number of images for the final test.", "test"),
    CliOption(
        "calibration",
        parse_part_size,
        "Share or number of images for calibration after training.",
        "calibration",
    ),
    CliOption(
        "unreadable",
        str,
        "What to do with files that cannot be read: 'raise' or 'skip'.",
        "unreadable",
    ),
    CliOption(
        "verify", bool, "Decode all files before training, which finds all damaged ones.", "verify"
    ),
    CliOption("file", str, "Column of a CSV file with the image paths.", "file"),
    CliOption("weight", str, "Column of a CSV file with the weight of each image.", "weight"),
    CliOption(
        "group",
        str,
        "Column of a CSV file, or regular expression for the paths in a folder, with the group of "
        "each image (patient, film): each group is in one part.",
        "group",
    ),
    CliOption(
        "split",
        str,
        "Column of a CSV file with train, valid, test …; none for a random split.",
        "split",
    ),
    CliOption(
        "root",
        str,
        "Folder that relative paths in a CSV file start from; by default the file's folder.",
        "root",
    ),
    CliOption(
        "classes",
        str,
        "The classes to use, separated by commas: --classes ant,bee.",
        "classes",
    ),
    CliOption(
        "parts",
        str,
        "Folders that are parts: --parts training=train,holdout=test; '' if no folder is a part.",
        "parts",
    ),
    CliOption(
        "suffix",
        str,
        "Extension to add to the ids in a CSV file that has ids instead of paths: --suffix .jpg.",
        "suffix",
    ),
    CliOption(
        "pattern",
        str,
        "Regular expression for file names in a folder of images; its first group is the label.",
        "pattern",
    ),
    CliOption(
        "resize",
        str,
        "How images are brought to the size: crop (the centre), squash or pad.",
        "resize",
    ),
    CliOption("sep", str, "Separator between several labels of one image.", "sep"),
)

# The classes are those of the model.
EVALUATE_OPTIONS = (
    *(option for option in DATA_OPTIONS if option.name != "classes"),
    CliOption(
        "unknown",
        str,
        "What to do with images of a class that the model does not know: 'raise' or 'skip'.",
        "unknown",
    ),
)


def _attributions(
    predictor: Any, item: Any, output: str | None, background: Sequence[Any]
) -> Attributions:
    """Return how much each pixel of an image moves an output."""
    from flambeau_vision.attributions import pixel_attributions  # needed by explain alone

    return pixel_attributions(predictor, item, output, background)


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
    preprocessors={"image_preprocessor": ImagePreprocessor},
    recognise=recognise,
    cli_options={**dict.fromkeys(DATA_COMMANDS, DATA_OPTIONS), "evaluate": EVALUATE_OPTIONS},
    demo=glyph_data,
    attributions=_attributions,
)
