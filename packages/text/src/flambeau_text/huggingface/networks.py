"""Load networks of transformers from local folders, and rebuild them from their settings."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flambeau.errors import ArtefactError, InputError
from flambeau_text.huggingface.check_network import check_loaded
from flambeau_text.optional_libraries import transformers

_OMITTED = ("transformers_version", "auto_map", "_name_or_path")
_POOLER = "pooler."  # a layer that is not used; it is often missing


def load_network(
    head: str,
    path: Path,
    *,
    config: Mapping[str, Any] | None = None,
    attention: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Load a network from a local folder; nothing is downloaded and no code of it is run.

    Args:
        head: Name of the class of transformers that loads it: "AutoModel", "AutoModelForCausalLM".
        path: The folder.
        config: The settings of the network, with "model_type"; None takes those of the folder.
        attention: Implementation of attention; None lets transformers choose.
        dtype: Dtype of the weights.

    Raises:
        InputError: It cannot be loaded, or lacks weights.
        MissingDependencyError: transformers is not installed.

    Warns:
        FlambeauWarning: [unused-weights] The network has no place for some of the weights.
    """
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if config is not None:
        options["config"] = config_from_json(config)
    library = transformers()
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)  # a report of layers that are not used; missing ones are refused
    try:
        network, info = getattr(library, head).from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"The model in {path} cannot be loaded: {error!s:.300}.") from error
    finally:
        log.setLevel(level)
    pooler = [name for name in info["missing_keys"] if _POOLER in name]
    info["missing_keys"] = [name for name in info["missing_keys"] if name not in pooler]
    if head == "AutoModel":
        info["unexpected_keys"] = ()  # the head with which the encoder was published
    check_loaded(path, network, info)
    return network


def network_from_config(head: str, config: Mapping[str, Any], attention: str | None = None) -> Any:
    """Return a network with new weights from its settings, as an export stores them.

    Args:
        head: As for `load_network`.
        config: The settings, with "model_type".
        attention: As for `load_network`.

    Raises:
        InputError: transformers has no model of this type.
    """
    library = transformers()
    options = {} if attention is None else {"attn_implementation": attention}
    return getattr(library, head).from_config(
        config_from_json(config), trust_remote_code=False, **options
    )


def config_from_json(values: Mapping[str, Any]) -> Any:
    """Return the settings of a model as an object of transformers.

    Raises:
        InputError: transformers has no model of this type.
    """
    given = dict(values)
    kind = given.pop("model_type", None)
    try:
        return transformers().AutoConfig.for_model(kind, **given)
    except ValueError as error:
        raise InputError(
            f"transformers has no model of the type {kind!r}: {error!s:.200}"
        ) from error


def config_as_json(config: Any) -> dict[str, Any]:
    """Return the settings of a model as JSON values."""
    values = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in values.items() if name not in _OMITTED}


def groups_of(model: nn.Module, network: Any) -> dict[str, list[nn.Parameter]]:
    """Return the parameters by layer group: embedding, each block, and the rest as the output.

    Args:
        model: Has the parameters.
        network: The model of transformers in it, whose blocks are looked for.
    """
    blocks = _blocks_of(network)
    group_of = {
        id(parameter): f"block_{index}"
        for index, block in enumerate(blocks)
        for parameter in block.parameters()
    }
    groups: dict[str, list[nn.Parameter]] = {"embedding": []}
    groups |= {f"block_{index}": [] for index in range(len(blocks))} | {"output": []}
    reached = False
    for parameter in model.parameters():
        name = group_of.get(id(parameter))
        reached = reached or name is not None
        groups[name or ("output" if reached else "embedding")].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def _blocks_of(network: Any) -> Sequence[nn.Module]:
    """Return the blocks of a network: its list of as many modules as the settings say."""
    n = getattr(network.config, "num_hidden_layers", 0)
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n:
            return list(module)
    return []


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of the settings and the weights in a folder."""
    files = (path / "config.json", *sorted(path.glob("*.safetensors")))
    stats = [(file, file.stat()) for file in files]
    return _digest(tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@lru_cache(maxsize=8)  # reading the weights of a large model takes seconds
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    found = hashlib.sha256()
    for file, _, _ in files:
        found.update(file.name.encode())
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def check_digest(path: Path, sha256: str) -> None:
    """Raise an ArtefactError if a folder is not the one with which the data were made."""
    if not (path / "config.json").is_file() or weights_digest(path) != sha256:
        raise ArtefactError(
            f"The model in {path} is missing, or differs from the one with which the data were "
            "made. Restore it, or create the data anew with language_model=…."
        )
