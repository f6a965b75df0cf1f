"""Tiny pretrained models with random weights, and a tokenizer, as folders of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXTS = [
    f"The {colour} {animal} sees {n} {fruit}.\nIt eats {n} of them."
    for colour in ("red", "green", "blue")
    for animal in ("dog", "cat", "bird")
    for n, fruit in ((2, "apples"), (7, "pears"))
]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>"
    "{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(*, padding: str | None = "<pad>", begin: str | None = "<s>") -> Any:
    """A byte-level BPE tokenizer, trained on the texts."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    inner: Any = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|user|>", "<|assistant|>", "<|system|>", "</s>"]
    special += [each for each in (padding, begin) if each]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=begin, eos_token="</s>", pad_token=padding
    )
    found.chat_template = CHAT_TEMPLATE
    return found


def config_of(kind: str, vocab_size: int, **changes: Any) -> Any:
    import transformers

    shared = {"vocab_size": vocab_size, "tie_word_embeddings": kind != "llama"}
    if kind == "gpt2":
        sizes = {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "bos_token_id": 5,
            "eos_token_id": 3,
        }
        dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
        return transformers.GPT2Config(**{**shared, **sizes, **dropout, **changes})
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    kinds = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}
    return kinds[kind](**{**shared, **sizes, **changes})


def network(kind: str, vocab_size: int, **changes: Any) -> Any:
    """A model whose weights are large enough that every part of it matters."""
    import transformers

    torch.manual_seed(0)
    found = transformers.AutoModelForCausalLM.from_config(
        config_of(kind, vocab_size, **changes), attn_implementation="sdpa"
    )
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return found


def save_model(
    folder: Path, kind: str = "llama", *, head_scale: float = 1.0, **options: Any
) -> Path:
    """Write a model and its tokenizer, as ``save_pretrained`` writes them.

    Features are normalised, so the scale of the output layer limits how certain a model with a
    frozen output layer can become.
    """
    of_tokenizer = {name: options.pop(name) for name in ("padding", "begin") if name in options}
    tokens = tokenizer(**of_tokenizer)
    model = network(kind, len(tokens), **options)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokens.eos_token_id
    model.config.bos_token_id = model.generation_config.bos_token_id = tokens.bos_token_id
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(head_scale)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
