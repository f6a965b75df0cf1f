"""The folder of real data sets that ``FLAMBEAU_DATA`` names."""

from __future__ import annotations

import os
from pathlib import Path


def why_missing(name: str) -> str:
    """Why the data set ``name`` cannot be read here; empty where its folder is there."""
    if not os.environ.get("FLAMBEAU_DATA"):
        return f"FLAMBEAU_DATA is unset: it names the folder that holds {name}"
    path = folder_of(name)
    return "" if path.is_dir() else f"there is no {path}"


def folder_of(name: str) -> Path:
    """Where the files of the data set ``name`` are."""
    return Path(os.environ["FLAMBEAU_DATA"]) / name
