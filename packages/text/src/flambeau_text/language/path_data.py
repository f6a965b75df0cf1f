"""``PathData``: running text or instruction data, by what a path on the command line has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flambeau.data.data import Data
from flambeau_text.instructions.data import InstructionData
from flambeau_text.instructions.recognise import reads_instructions
from flambeau_text.language.data import LanguageModelData


class PathData(LanguageModelData):
    """What ``flambeau fit PATH`` reads: `LanguageModelData`, or `InstructionData`."""

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], options: Mapping[str, Any]) -> Data:
        """Read prompts with completions, and conversations, as `InstructionData`.

        Other paths are read as `LanguageModelData`; see `reads_instructions`.
        """
        if reads_instructions(Path(path), options):
            return InstructionData.from_path(path, options)
        return LanguageModelData.from_path(path, options)
