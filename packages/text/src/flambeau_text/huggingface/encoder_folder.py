"""``EncoderFolder``: a local folder with a pretrained encoder, from which a network starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from flambeau.artefact.export_format import ExportRecord
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.huggingface.encoder import ARCHITECTURE, check_encoder_config, position_limit
from flambeau_text.huggingface.folder import check_folder, read_config
from flambeau_text.huggingface.networks import config_as_json, config_from_json, weights_digest
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.encoder_tokenizer import EncoderTokenizer


@dataclass(frozen=True)
class EncoderFolder:
    """What a classifier or a tagger takes from the folder of a pretrained encoder.

    Attributes:
        folder: The folder; None for the encoder of an export, which has its own weights.
        sha256: Checksum of its settings and weights; None without a folder.
        config: The configuration of the network: "encoder" has the settings of transformers.
        tokenizer: The JSON values of its tokenizer.
    """

    architectures: ClassVar[tuple[str, ...]] = (ARCHITECTURE,)

    folder: Path | None
    sha256: str | None
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> EncoderFolder:
        """Read a local folder, as ``save_pretrained`` writes it; nothing is downloaded or run.

        Raises:
            InputError: A file is missing or damaged, or the model is no bidirectional encoder.
            MissingDependencyError: transformers is not installed.
        """
        path = check_folder(folder)
        config = read_config(path)
        check_encoder_config(config, str(path))
        tokenizer = EncoderTokenizer.from_folder(path)
        values = {"encoder": _kept(config_as_json(config))}
        return cls(path.resolve(), weights_digest(path), values, tokenizer.as_json())

    @classmethod
    def of_export(cls, record: ExportRecord) -> EncoderFolder | None:
        """Return the encoder of an export; None if its network is another one."""
        config: Mapping[str, Any] = record.model.arguments.get("config") or {}
        if record.model.builder != ARCHITECTURE or "encoder" not in config:
            return None
        values = cast("Mapping[str, Any]", record.preprocessor.arguments["tokenizer"])
        return cls(None, None, {"encoder": config["encoder"]}, values)

    def build_tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the encoder."""
        return tokenizer_from_json(self.tokenizer)

    def check_tokenizer(self, given: Any) -> None:
        """Raise an InputError if ``given`` is a tokenizer, but not that of the encoder."""
        if isinstance(given, Tokenizer) and given.as_json() != self.tokenizer:
            raise InputError(
                f"tokenizer={given!r:.60} cannot be combined with language_model={self.folder}: "
                "its ids stand for other tokens than those with which the model was trained. Omit "
                "tokenizer."
            )

    def network_config(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the network, with changes.

        Args:
            given: Fields of `EncoderConfig`; of "encoder" only the settings to change, such as
                ``{"encoder": {"attention_dropout": 0.0}}``.

        Raises:
            ArgumentError: The encoder has no such setting.
        """
        changes: Any = given.get("encoder", {})
        known = self.config["encoder"]
        if not isinstance(changes, Mapping):
            raise ArgumentError(
                f'"encoder" in model_config must be a mapping of settings, not {changes!r:.60}.'
            )
        for name in cast("Mapping[str, Any]", changes):
            if name not in known:
                raise ArgumentError(
                    f"The encoder has no setting {name!r}. {did_you_mean(str(name), known)}"
                )
        changed = {**known, **changes}
        return {**self.config, **given, "encoder": changed}

    def as_facts(self) -> dict[str, Any]:
        """Return what the plan's rules read, as JSON values."""
        config = config_from_json(self.config["encoder"])
        return {
            "architectures": [ARCHITECTURE],
            "layers": "All layers but the head",
            "folder": None if self.folder is None else str(self.folder),
            "sha256": self.sha256,
            "config": dict(self.config),
            "tokens": len(self.build_tokenizer()),
            "kind": config.model_type,
            "limit": position_limit(config),
        }

    def weights_for(self, tokenizer: Tokenizer | None = None) -> dict[str, Any] | None:
        """Return the builder's argument "weights"."""
        if self.folder is None:
            return None
        return {"folder": str(self.folder), "sha256": self.sha256}


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those of the head with which the model was published."""
    of_head = ("architectures", "id2label", "label2id", "problem_type", "task_specific_params")
    return {name: value for name, value in values.items() if name not in of_head}
