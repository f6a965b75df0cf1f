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
_LINES_SEEN = 5

_BY_START = {
    b"PAR1": "It is a Parquet file. In Python: ImageData.from_df(pandas.read_parquet(path)); for "
    "the command line convert it to CSV.",
    b"ARROW1": "It is an Arrow file. In Python: ImageData.from_df(pandas.read_feather(path)); for "
    "the command line convert it to CSV.",
    b"\x89HDF": "It is an HDF5 file. Read its arrays with h5py, and pass them to "
    "ImageData.from_arrays(images, labels).",
    b"\xd0\xcf\x11\xe0": "It is a workbook. Save the sheet as CSV (UTF-8).",
    b"7z\xbc\xaf": "It is an archive. Unpack it, and pass the folder.",
    b"Rar!": "It is an archive. Unpack it, and pass the folder.",
}
_WORKBOOK = "It is a workbook. Save the sheet as CSV (UTF-8)."
_NUMPY = (
    "It has arrays of NumPy. In Python: ImageData.from_arrays(images, labels) with the arrays that "
    "numpy.load(path) returns."
)
_OBJECTS = (
    "It has objects of a program. Load them in Python, and pass arrays to "
    "ImageData.from_arrays(images, labels)."
)
_JSON = (
    "It is JSON. In Python: ImageData.from_df(pandas.read_json(path)); for the command line "
    "convert it to CSV."
)
_BY_EXTENSION = {
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods"), _WORKBOOK),
    **dict.fromkeys((".npy", ".npz"), _NUMPY),
    **dict.fromkeys((".pkl", ".pickle", ".mat", ".tfrecord"), _OBJECTS),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), _JSON),
}
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


def describe_foreign_file(path: Path) -> str | None:
    """Return why a file is neither an image nor a table as text; None if it may be a table."""
    with path.open("rb") as file:
        start = file.read(8)
    for beginning, cause in _BY_START.items():
        if start.startswith(beginning):
            return cause
    if (cause := _BY_EXTENSION.get(path.suffix.lower())) is not None:
        return cause
    # A text in Portuguese may be named .pt, too.
    if path.suffix.lower() in (".pt", ".pth") and start[:1] in (b"P", b"\x80"):
        return _OBJECTS
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        return "It is an archive. Unpack it, and pass the folder."
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "It is UTF-16 text. Save it as UTF-8."
    return None


def describe_other_file(path: Path) -> str:
    """Return what to do with a file whose name is not that of a table."""
    with path.open("rb") as file:
        lines = [
            file.readline(1_000).decode("utf-8", "replace").lower() for _ in range(_LINES_SEEN)
        ]
    if any(ending in line for line in lines for ending in IMAGE_EXTENSIONS):
        return (
            "Its lines have paths of images. To read it as a table, separate the columns by "
            "commas, and name the file .csv (or by tabs: .tsv)."
        )
    return (
        "Images are read from a folder with one sub-folder per class, or from a .csv or .tsv file "
        "with a column of image paths."
    )


def describe_foreign_folder(folder: Path) -> str | None:
    """Return which files are in a folder without images; None for no files."""
    inner: Counter[str] = Counter()
    direct: Counter[str] = Counter()
    for directory, _, names in os.walk(folder):
        kinds = direct if Path(directory) == folder else inner
        kinds.update(Path(name).suffix.lower() or "no extension" for name in names)
        if inner.total() >= _MAX_FILES:
            break
    if inner:
        known = " ".join(sorted(IMAGE_EXTENSIONS))
        return (
            f"Its sub-folders have files, but none with an image extension: {_shown(inner)}. "
            f"Rename image files to one of the known extensions: {known}."
        )
    if not direct:
        return None
    unpack = " Unpack the archives." if any(kind in _ARCHIVES for kind in direct) else ""
    return f"It has no sub-folders with images, and no images, but {_shown(direct)}.{unpack}"


def _shown(kinds: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
