"""``InstructionOptions``: which fields of a record are read, and with which tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flambeau.errors import ArgumentError, explains_arguments
from flambeau_text.tokenization.pretrained import HFTokenizer

Form = Literal["chat", "plain"]
"""How prompt and completion become one text: by the chat template, or one after the other."""


@explains_arguments()
@dataclass(frozen=True)
class InstructionOptions:
    """How records are read, for the constructors of ``InstructionData``.

    Attributes:
        tokenizer: That of the model: ``CausalLM.from_hf(folder).tokenizer``.
        messages: Field with a list of messages, each with "role" and "content".
        prompt: Field with the prompt, used if a record has no messages.
        completion: Field with the text that follows the prompt.
        form: "chat" uses the chat template of the tokenizer; "plain" joins prompt and completion
            as they are. None is "chat" if the tokenizer has a template.

    Raises:
        ArgumentError: The tokenizer is not one of a pretrained model, or has no chat template.
    """

    tokenizer: HFTokenizer
    messages: str = "messages"
    prompt: str = "prompt"
    completion: str = "completion"
    form: Form | None = None

    def __post_init__(self) -> None:
        given: object = self.tokenizer
        if not isinstance(given, HFTokenizer):
            raise ArgumentError(
                f"tokenizer is {given!r:.60}. Instruction data need the tokenizer of a pretrained "
                "model: CausalLM.from_hf(folder).tokenizer."
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
