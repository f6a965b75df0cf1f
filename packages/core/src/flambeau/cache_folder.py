"""The folder in which decoded images and measured training speeds are cached."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_folder() -> Path:
    """Return the default cache folder: ``FLAMBEAU_CACHE``, else the user's cache folder."""
    named = os.environ.get("FLAMBEAU_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "flambeau" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "flambeau"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flambeau"
