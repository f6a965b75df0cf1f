"""Cache probe results by machine, model and shapes, in the user's cache folder.

Errors while reading or writing the cache are ignored.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from flambeau.atomic_write import replace_text
from flambeau.cache_folder import default_folder
from flambeau.data.batch import Batch
from flambeau.device import usable_cores
from flambeau.machine import processor
from flambeau.tuning.probe import ProbeResult

_VERSION = 1
_MAX_ENTRIES = 500  # of about 1 kB; the oldest are removed


def cache_file(folder: Path | None = None) -> Path:
    """Return the path of the cache file."""
    return (folder or default_folder()) / "probes.json"


def machine(device: torch.device) -> dict[str, Any]:
    """Return the properties of the machine that affect the speed of a step."""
    made: dict[str, Any] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "processor": processor(),
        "cores": usable_cores(),
        "device": device.type,
    }
    if device.type == "cuda" and torch.cuda.is_available():
        made["card"] = torch.cuda.get_device_name(device)
    return made


def key_of(
    model: nn.Module, batch: Batch, device: torch.device, settings: Mapping[str, Any]
) -> str:
    """Return the cache key of a step: equal for equal machine, layers, shapes and settings.

    Args:
        model: The model; its layers with their settings and the names, shapes and dtypes of its
            tensors are part of the key.
        batch: A batch; the shapes and dtypes of its tensors are part of the key.
        device: Device of the step.
        settings: Other settings: optimizer, task, alternatives.
    """
    # extra_repr contains no memory addresses, unlike the repr of some attributes.
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    layers = [(name, type(part).__qualname__, part.extra_repr()) for name, part in modules]
    tensors = {
        name: (list(value.shape), str(value.dtype)) for name, value in model.state_dict().items()
    }
    shapes = {
        name: (list(value.shape), str(value.dtype))
        for name, value in (*batch.inputs.items(), *batch.targets.items())
    }
    learns = [name for name, value in model.named_parameters() if value.requires_grad]
    content = [machine(device), layers, tensors, learns, shapes, dict(settings)]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def lookup(key: str, folder: Path | None = None) -> ProbeResult | None:
    """Return the result under ``key``; None if there is none or it cannot be read."""
    entry = _entries(cache_file(folder)).get(key)
    with suppress(TypeError, KeyError, ValueError, AttributeError):
        return None if entry is None else ProbeResult.from_json(cast("Mapping[str, Any]", entry))
    return None


def store(key: str, outcome: ProbeResult, folder: Path | None = None) -> None:
    """Store the result under ``key``; the file is replaced atomically."""
    path = cache_file(folder)
    entries = {name: value for name, value in _entries(path).items() if name != key}
    kept = dict(list(entries.items())[-(_MAX_ENTRIES - 1) :])
    kept[key] = outcome.as_json()
    content = json.dumps({"version": _VERSION, "outcomes": kept}, indent=1)
    with suppress(OSError):
        replace_text(path, content)


def _entries(path: Path) -> dict[str, Any]:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    made = cast("dict[str, Any]", content)
    outcomes: object = made.get("outcomes")
    if made.get("version") != _VERSION or not isinstance(outcomes, dict):
        return {}
    return cast("dict[str, Any]", outcomes)
