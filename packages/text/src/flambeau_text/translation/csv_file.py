"""A CSV or TSV file as columns of text by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flambeau.errors import InputError


def read_csv(path: str | os.PathLike[str], *, rows: int | None = None) -> Mapping[str, list[str]]:
    """Read the columns of a CSV or TSV file with a header, every cell as text.

    Args:
        path: The file.
        rows: Read only this many rows; None reads all.

    Raises:
        InputError: The file is missing, is not UTF-8, or is not a table.
    """
    import pandas as pd

    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file {path} (current folder: {Path.cwd()}). Check the path.")
    try:
        frame = pd.read_csv(
            path,
            sep="\t" if ".tsv" in path.suffixes else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8",
            nrows=rows,
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}. Save it as UTF-8.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is not a table with a header: {error}") from error
    return {str(name): frame[name].tolist() for name in frame.columns}
