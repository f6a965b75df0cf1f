"""``InstructionPreprocessor``: converts conversations to tokens, for training and for prompts."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import FlambeauWarning, InputError
from flambeau_text.instructions.conversations import USER, checked_messages, messages_of
from flambeau_text.instructions.template import ConversationEncoder
from flambeau_text.language.preprocess import padded_prompts, prompt_of
from flambeau_text.prediction_items import items_in
from flambeau_text.tokenization import HFTokenizer, tokenizer_from_json

if TYPE_CHECKING:
    from flambeau_text.language.packed import PackedTexts


class InstructionPreprocessor(Preprocessor):
    """The tokenizer and the chat template of a model that answers prompts.

    Args:
        tokenizer: The tokenizer, or its JSON values; the template is a part of it.
        form: "chat" or "plain", see `InstructionOptions`.
    """

    def __init__(self, *, tokenizer: HFTokenizer | Mapping[str, Any], form: str = "chat") -> None:
        found = tokenizer_from_json(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
        if not isinstance(found, HFTokenizer):
            raise InputError(f"The tokenizer {found.kind!r} is not one of a pretrained model.")
        self.tokenizer = found
        self.form = form
        self._encoder = ConversationEncoder(found, form)

    @property
    def builder(self) -> str:
        return "instruction_preprocessor"

    def texts(
        self, texts: Sequence[str], locations: Sequence[str], length: int, part: str
    ) -> PackedTexts:
        """Return the tokens of conversations, those that are too long cut at the end.

        Args:
            texts: The JSON of the messages of each conversation.
            locations: Where each was found.
            length: Maximum number of tokens that the model reads.
            part: Name of the part, for the warning.

        Raises:
            InputError: No token of a conversation is learned, also after it is cut.

        Warns:
            FlambeauWarning: [truncated] Conversations are longer than ``length``.
        """
        read: list[int] = []
        targets: list[int] = []
        mask: list[bool] = []
        starts = [0]
        cut = 0
        for text, where in zip(texts, locations, strict=True):
            found = self._encoder.encode(messages_of(text), where)
            # The last token is only a target.
            ids, learned = found.ids[: length + 1], found.is_target[: length + 1]
            if len(found.ids) > length + 1:
                cut += 1
                if not any(learned[1:]):
                    raise InputError(
                        f"{where} has {len(found.ids):,} tokens; cut to the row length of "
                        f"{length:,} it has no token to learn. Use longer rows, "
                        'choices={"row_length": …}, or drop it.'
                    )
            pairs = list(pairwise(ids))
            read += [before for before, _ in pairs]
            targets += [after for _, after in pairs]
            mask += learned[1:]
            starts.append(len(read))
        if cut:
            warnings.warn(
                f"[truncated] {cut:,} of {len(texts):,} {part} conversations are longer than the "
                f"row length of {length:,} tokens and were cut at the end, so the model does not "
                'learn to end them. Use longer rows: choices={"row_length": …}.',
                FlambeauWarning,
                stacklevel=3,
            )
        from flambeau_text.language.packed import PackedTexts

        return PackedTexts(
            torch.tensor(read, dtype=torch.int32),
            torch.tensor(targets, dtype=torch.int32),
            torch.tensor(mask),
            torch.tensor(starts),
        )

    def encode(self, items: Sequence[Any]) -> Batch:
        """Encode prompts: texts, lists of messages, or mappings with "prompt" or "messages".

        A path is that of a file with a prompt.

        Raises:
            InputError: An item has another form; the message has its index.
        """
        rows = [
            self._encoder.encode_prompt(self._messages(item, f"Item {at}"), f"Item {at}")
            for at, item in enumerate(items)
        ]
        return padded_prompts(rows, self.tokenizer.special.padding)

    def _messages(self, item: Any, where: str) -> list[dict[str, str]]:
        if isinstance(item, Mapping) and "messages" in item:
            item = item["messages"]
        if isinstance(item, str | Mapping | PathLike):
            return [{"role": USER, "content": prompt_of(item, where)}]
        return checked_messages(item, where)

    def is_single(self, item: Any) -> bool:
        """Return whether a value is one prompt: a list of messages is one conversation."""
        if isinstance(item, list | tuple):
            return bool(item) and all(isinstance(each, Mapping) and "role" in each for each in item)
        return True

    def expand(self, item: Any) -> Sequence[Any] | None:
        """Return the inputs in an array, a data set or a frame; see `items_in`."""
        return items_in(item)

    def vocabulary_digest(self) -> str:
        """Return a hash of tokenizer and template; weights are valid only with equal ones."""
        content = json.dumps(self.arguments(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def arguments(self) -> Mapping[str, Any]:
        return {"tokenizer": self.tokenizer.as_json(), "form": self.form}
