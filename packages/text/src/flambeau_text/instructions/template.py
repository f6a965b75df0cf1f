"""Render conversations with a chat template, and find the tokens of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flambeau.errors import InputError
from flambeau_text.instructions.conversations import ASSISTANT, USER, Message
from flambeau_text.tokenization.pretrained import HFTokenizer


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens.

    Attributes:
        ids: The token ids.
        is_target: Whether each token is learned: those of the answers, stop tokens included.
    """

    ids: list[int]
    is_target: list[bool]


class ConversationEncoder:
    """Converts conversations to tokens, in the same way for training and for generation.

    With the form "chat" the template renders the conversation up to each answer, with the words
    that precede an answer (the generation prompt), and then with the answer. What the answer adds
    is learned, to its last stop token. Prompts and answers are tokenized separately, because a
    prompt is alone when the model is used. The template writes the begin token; none is added.

    Args:
        tokenizer: The tokenizer, with its template.
        form: "chat" or "plain".
    """

    def __init__(self, tokenizer: HFTokenizer, form: str) -> None:
        self.tokenizer, self.form = tokenizer, form

    def encode(self, messages: Sequence[Message], where: str) -> Encoded:
        """Return the tokens of a conversation.

        Args:
            messages: The messages.
            where: Where they were found, for messages of errors.

        Raises:
            InputError: No token is learned, or the template cannot be used.
        """
        self._check_content(messages, where)
        found = (
            self._plain(messages, where) if self.form == "plain" else self._chat(messages, where)
        )
        if not any(found.is_target):
            raise InputError(f"{where} has no token to learn: its answer is empty. Drop it.")
        return found

    def encode_prompt(self, messages: Sequence[Message], where: str) -> list[int]:
        """Return the tokens after which the model answers.

        Raises:
            InputError: The template cannot be used.
        """
        self._check_content(messages, where)
        if self.form == "plain":
            prompt, _ = self._pair([*messages, {"role": ASSISTANT, "content": ""}], where)
            return [self.tokenizer.special.start, *self.tokenizer.encode(prompt)]
        return self._ids(self._render(messages, where, prompt=True))

    def _plain(self, messages: Sequence[Message], where: str) -> Encoded:
        prompt, answer = self._pair(messages, where)
        special = self.tokenizer.special
        before = [special.start, *self.tokenizer.encode(prompt)]
        after = [*self.tokenizer.encode(answer), special.end] if answer else []
        return Encoded([*before, *after], [False] * len(before) + [True] * len(after))

    def _pair(self, messages: Sequence[Message], where: str) -> tuple[str, str]:
        if [each["role"] for each in messages] != [USER, ASSISTANT]:
            raise InputError(
                f'{where}: the form "plain" takes one message of the {USER} and one of the '
                f"{ASSISTANT}, not {', '.join(each['role'] for each in messages)}. Use the form "
                '"chat" with a chat template.'
            )
        return messages[0]["content"], messages[1]["content"]

    def _chat(self, messages: Sequence[Message], where: str) -> Encoded:
        ids: list[int] = []
        is_target: list[bool] = []
        done = ""
        for index, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            before = self._render(messages[:index], where, prompt=True)
            after = self._render(messages[: index + 1], where)
            if not before.startswith(done) or not after.startswith(before):
                raise InputError(
                    f"{where}: the chat template changes earlier messages when an answer is added, "
                    "so the tokens of the answers cannot be found. Give conversations with one "
                    "answer each, or another template."
                )
            context, answer = self._ids(before[len(done) :]), self._ids(after[len(before) :])
            done = after
            stops = [at for at, token in enumerate(answer) if token in self.tokenizer.stop]
            if not stops:
                raise InputError(
                    f"{where}: the chat template ends the answer {message['content']!r:.40} "
                    "without a stop token, so the model would not learn to stop. Its stop tokens "
                    f"are {', '.join(self.tokenizer.ids_to_tokens(self.tokenizer.stop))}; set "
                    "eos_token_id of the model to the token with which the template ends."
                )
            ids += [*context, *answer]
            is_target += [False] * len(context)
            # What follows the stop token is never generated.
            is_target += [at <= stops[-1] for at in range(len(answer))]
        return Encoded(ids, is_target)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode_rendered(text)

    def _render(self, messages: Sequence[Message], where: str, *, prompt: bool = False) -> str:
        try:
            return self._transformers.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt
            )
        except Exception as error:  # a template raises what it wants
            raise InputError(
                f"{where}: the chat template refuses the conversation "
                f"({', '.join(each['role'] for each in messages) or 'no message'}): {error!s:.150}"
            ) from error

    @cached_property
    def _transformers(self) -> Any:
        return self.tokenizer.as_transformers()

    def _check_content(self, messages: Sequence[Message], where: str) -> None:
        """Refuse messages with special tokens, which a template could not tell from its own."""
        if self.form == "plain":
            return  # texts are encoded without special tokens
        for message in messages:
            for token in self.tokenizer.special_texts:
                if token in message["content"]:
                    raise InputError(
                        f"{where}: a message of the {message['role']} has the text {token!r}, a "
                        "special token of the model, with which it could end a message. Write it "
                        "differently."
                    )
