"""Describe files and folders that cannot be read as image data, and say what to do about them."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

from flambeau_vision.image_files import IMAGE_EXTENSIONS

# Files looked at before a folder is described.
_MAX_FILES = 2_000


def describe_foreign_file(path: Path) -> str | None:
    """Return why a file is neither an image nor a table as text; None if it may be a table."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return (
            "It is a Parquet file. In Python: ImageData.from_df(pandas.read_parquet(path)); for "
            "the command line convert it to CSV."
        )
    is_workbook = path.suffix.lower() in (".xlsx", ".xlsm", ".ods")
    if is_workbook:
        return "It is a workbook. Save the sheet as CSV (UTF-8)."
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        return "It is an archive. Unpack it, and pass the folder."
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "It is UTF-16 text. Save it as UTF-8."
    return None


def describe_foreign_folder(folder: Path) -> str | None:
    """Return which files are in the sub-folders of a folder without images; None for no files."""
    kinds: Counter[str] = Counter()
    for directory, _, names in os.walk(folder):
        if Path(directory) != folder:
            kinds.update(Path(name).suffix.lower() or "no extension" for name in names)
        if kinds.total() >= _MAX_FILES:
            break
    if not kinds:
        return None
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    known = " ".join(sorted(IMAGE_EXTENSIONS))
    return (
        f"Its sub-folders have files, but none with an image extension: {shown}. Rename image "
        f"files to one of the known extensions: {known}."
    )
