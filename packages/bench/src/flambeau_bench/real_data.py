"""The folder of real data sets, named by ``FLAMBEAU_DATA``."""

from __future__ import annotations

import os
from pathlib import Path


def missing_reason(name: str) -> str:
    """Return why the data set ``name`` cannot be read here; empty if its folder exists."""
    if not os.environ.get("FLAMBEAU_DATA"):
        return f"FLAMBEAU_DATA is not set; set it to the folder that contains {name}"
    path = folder_of(name)
    return "" if path.is_dir() else f"the folder {path} does not exist"


def folder_of(name: str) -> Path:
    """Return the folder of the data set ``name``."""
    return Path(os.environ["FLAMBEAU_DATA"]) / name
