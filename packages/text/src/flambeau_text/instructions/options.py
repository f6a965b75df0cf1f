"""``InstructionOptions``: which fields of a record are read, and with which tokenizer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal, get_args

from flambeau.errors import ArgumentError, explains_arguments
from flambeau_text.huggingface.decoder_folder import DecoderFolder, read_decoder
from flambeau_text.tokenization.pretrained import HFTokenizer

Form = Literal["chat", "plain"]
"""How prompt and completion become one text: by the chat template, or one after the other."""


FIELDS = ("messages", "prompt", "completion")
"""Options that name a field of the records."""


@explains_arguments()
@dataclass(frozen=True)
class InstructionOptions:
    """How records are read, for the constructors of ``InstructionData``.

    Attributes:
        tokenizer: That of the model: ``CausalLM.from_hf(folder).tokenizer``; None with
            ``language_model``.
        messages: Field with a list of messages, each with "role" and "content".
        prompt: Field with the prompt, used if a record has no messages.
        completion: Field with the text that follows the prompt.
        form: "chat" uses the chat template of the tokenizer; "plain" joins prompt and completion
            as they are. None is "chat" if the tokenizer has a template.
        language_model: Local folder of the pretrained decoder of Hugging Face that a learner
            fine-tunes, with its tokenizer; in place of ``tokenizer``.
        decoder: What was read of ``language_model``; None without one.

    Raises:
        ArgumentError: The tokenizer is not one of a pretrained model, or has no chat template.
        InputError: The folder lacks a file, or has another kind of model.
        MissingDependencyError: A pretrained decoder needs transformers.
    """

    tokenizer: HFTokenizer = None  # type: ignore[assignment]  # set from language_model
    messages: str = "messages"
    prompt: str = "prompt"
    completion: str = "completion"
    form: Form | None = None
    language_model: str | os.PathLike[str] | None = None
    decoder: DecoderFolder | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.language_model is not None:
            if self.tokenizer is not None:  # pyright: ignore[reportUnnecessaryComparison]
                raise ArgumentError(
                    "tokenizer and language_model are both given, but a pretrained model has its "
                    "own tokenizer. Omit tokenizer."
                )
            decoder = read_decoder(self.language_model)
            object.__setattr__(self, "decoder", decoder)
            object.__setattr__(self, "tokenizer", decoder.tokenizer)
        given: object = self.tokenizer
        if not isinstance(given, HFTokenizer):
            raise ArgumentError(
                f"tokenizer is {given!r:.60}. Instruction data need the tokenizer of a pretrained "
                "model: CausalLM.from_hf(folder).tokenizer; or its folder: language_model=FOLDER, "
                "on the command line --language-model FOLDER."
            )
        template = self.tokenizer.chat_template
        if self.form is None:
            object.__setattr__(self, "form", "plain" if template is None else "chat")
        elif self.form not in get_args(Form):
            raise ArgumentError(f'form={self.form!r} is invalid. Use "chat" or "plain".')
        elif self.form == "chat" and template is None:
            raise ArgumentError(
                'The tokenizer has no chat template. Use form="plain", which joins prompt and '
                "completion, or a model that was tuned for chats."
            )
