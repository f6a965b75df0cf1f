"""``DecoderFolder``: a local folder with a pretrained decoder, which a learner fine-tunes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flambeau.artefact.export_format import RECORD_FILE, export_folder
from flambeau.errors import InputError
from flambeau_text.huggingface.adapters import LoRA
from flambeau_text.huggingface.check_network import window_of
from flambeau_text.huggingface.folder import check_folder, read_config
from flambeau_text.huggingface.networks import config_as_json, weights_digest
from flambeau_text.optional_libraries import transformers
from flambeau_text.tokenization.pretrained import HFTokenizer

WITH_ADAPTERS = "causal_lm_lora"
PRETRAINED = ("causal_lm", WITH_ADAPTERS)
"""Architectures that are models of Hugging Face, with all weights or adapters trained."""


@dataclass(frozen=True)
class DecoderFolder:
    """What a language model takes from the folder of a pretrained decoder.

    Attributes:
        folder: The folder.
        sha256: Checksum of its settings and weights.
        config: The settings of the decoder in transformers.
        limit: Number of tokens that it can read; None without a limit.
        tokenizer: Its tokenizer.
    """

    architectures: ClassVar[tuple[str, ...]] = PRETRAINED

    folder: Path
    sha256: str
    config: Mapping[str, Any]
    limit: int | None
    tokenizer: HFTokenizer

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> DecoderFolder:
        """Read a local folder, as ``save_pretrained`` writes it; nothing is downloaded or run.

        Raises:
            InputError: A file is missing or damaged, or the model is no decoder.
            MissingDependencyError: transformers is not installed.
        """
        path = check_folder(folder)
        config = read_config(path)
        _check_decoder_config(config, path)
        tokenizer = HFTokenizer.from_folder(path, stop=stop_ids(config, _generation(path)))
        limits = [getattr(config, "max_position_embeddings", None), window_of(config)]
        limit = min((each for each in limits if each is not None), default=None)
        digest = weights_digest(path)
        return cls(path.resolve(), digest, config_as_json(config), limit, tokenizer)

    def as_facts(self) -> dict[str, Any]:
        """Return what the plan's rules read, as JSON values."""
        return {
            "architectures": list(PRETRAINED),
            "layers": "All layers",
            "folder": str(self.folder),
            "sha256": self.sha256,
            "tokens": len(self.tokenizer),
            "kind": self.config["model_type"],
            "limit": self.limit,
        }

    def arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the builder `causal_lm` for the values of a plan."""
        adapter = None
        if values["architecture"] == WITH_ADAPTERS:
            adapter = LoRA(**values["model_config"]).as_json()
        weights = {"folder": str(self.folder), "sha256": self.sha256}
        return {
            "config": dict(self.config),
            "adapter": adapter,
            "vocab_size": len(self.tokenizer),
            "weights": None if values.get("weights") is None else weights,
        }


def read_decoder(folder: str | os.PathLike[str]) -> DecoderFolder:
    """Read the folder of a pretrained decoder; see `DecoderFolder.read`.

    Raises:
        InputError: The folder is an export of flambeau, or cannot be read.
    """
    if (export_folder(folder) / RECORD_FILE).is_file():
        raise InputError(
            f"language_model={os.fspath(folder)!r} is an export of flambeau, which is trained "
            "further with start=: Learner(data, start=FOLDER), on the command line --start FOLDER."
        )
    return DecoderFolder.read(folder)


def stop_ids(*configs: Any) -> list[int]:
    """Return the ids with which a pretrained model ends its output.

    Args:
        configs: Its settings, and those of generation; None if there are none.
    """
    found: list[int] = []
    for config in configs:
        ids = getattr(config, "eos_token_id", None)
        found += [ids] if isinstance(ids, int) else list(ids or ())
    return found


def _generation(path: Path) -> Any:
    """Return the settings of generation in a folder; None without them."""
    file = path / "generation_config.json"
    if not file.is_file():
        return None
    try:
        return transformers().GenerationConfig.from_dict(json.loads(file.read_text("utf-8")))
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error!s:.150}.") from error


def _check_decoder_config(config: Any, path: Path) -> None:
    library = transformers()
    is_encoder = type(config) in library.MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder
    known = type(config) in library.MODEL_FOR_CAUSAL_LM_MAPPING
    if config.is_encoder_decoder or is_encoder or not known:
        raise InputError(
            f"{path} has a model of the type {config.model_type!r}, which is no decoder. A "
            "language model starts from one such as Llama, Qwen or GPT-2; an encoder such as BERT "
            "is for labels and tags: TextOptions(language_model=…), TagOptions(language_model=…)."
        )
