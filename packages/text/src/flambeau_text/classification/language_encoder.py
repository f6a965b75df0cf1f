"""``LanguageEncoder``: the export of a language model whose weights a classifier starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from flambeau.artefact.export_format import MODEL_FILE, export_folder
from flambeau.artefact.read_like import read_record
from flambeau.errors import ArtefactError
from flambeau_text.models.pretrained_encoder import encoder_config
from flambeau_text.models.vocabulary_transplant import row_sources
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json

ARCHITECTURE = "awd_lstm"
"""The architecture of language models and classifiers whose encoders are the same."""


@dataclass(frozen=True)
class LanguageEncoder:
    """What a classifier takes from the export of a language model.

    Attributes:
        folder: The export.
        sha256: Checksum of its weights.
        config: The sizes of its encoder.
        tokenizer: The JSON values of its tokenizer.
    """

    architectures: ClassVar[tuple[str, ...]] = (ARCHITECTURE,)

    folder: Path
    sha256: str
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> LanguageEncoder:
        """Read the export of a language model.

        Raises:
            ArtefactError: The export is missing or damaged, or is not that of an AWD-LSTM.
        """
        path = export_folder(folder)
        record = read_record(path, "language", "language_model")
        if record.model.builder != ARCHITECTURE:
            raise ArtefactError(
                f"language_model={os.fspath(folder)!r} is an export of the architecture "
                f"{record.model.builder!r}. Classifiers can start from an AWD-LSTM: "
                f'Learner(LanguageModelData…, "{ARCHITECTURE}").'
            )
        values = cast("Mapping[str, Any]", record.preprocessor.arguments["tokenizer"])
        return cls(path.resolve(), record.sha256[MODEL_FILE], encoder_config(record), values)

    def build_tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the language model."""
        return tokenizer_from_json(self.tokenizer)

    def network_config(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of the network: the encoder's sizes, changed by ``given``."""
        return {**self.config, **given}

    def as_facts(self) -> dict[str, Any]:
        """Return what the plan's rules read, as JSON values."""
        return {
            "architectures": [ARCHITECTURE],
            "kind": ARCHITECTURE,
            "layers": "Embedding and recurrent layers",
            "folder": str(self.folder),
            "sha256": self.sha256,
            "config": dict(self.config),
            "tokens": len(self.build_tokenizer()),
        }

    def weights_for(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return the builder's argument "weights" for a classifier with this tokenizer."""
        rows = None
        if tokenizer.as_json() != self.tokenizer:
            own, known = (
                each.ids_to_tokens(range(len(each))) for each in (tokenizer, self.build_tokenizer())
            )
            rows = row_sources(own, known)
        return {"folder": str(self.folder), "sha256": self.sha256, "rows": rows}
