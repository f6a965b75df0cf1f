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


# ---------------------------------------------------------------- encoders

_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
ENCODERS = ("bert", "distilbert", "roberta", "modernbert")


def encoder_tokenizer(kind: str, *, template: bool = True) -> Any:
    """A tokenizer with the special tokens and the pairs of an encoder, trained on the texts."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = _ROBERTA if kind == "roberta" else _BERT
    if kind in ("bert", "distilbert"):
        inner: Any = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        inner.normalizer = normalizers.BertNormalizer(lowercase=True)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=90, special_tokens=list(special), show_progress=False
        )
    else:
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    inner.train_from_iterator(TEXTS, trainer)
    if kind == "roberta":
        names = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"),
                         special, strict=True))  # fmt: skip
        found: Any = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    else:
        names = dict(zip(_NAMES, special, strict=True))
        found = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1"
            if kind != "modernbert"
            else "[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    if template:
        inner.post_processor = found
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def encoder_config(kind: str, vocab_size: int) -> Any:
    import transformers

    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 48,
        "pad_token_id": 0,
    }
    if kind == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=vocab_size, dim=32, n_layers=2, n_heads=2, hidden_dim=48,
            max_position_embeddings=48, pad_token_id=0,
        )  # fmt: skip
    if kind == "roberta":
        own = {"pad_token_id": 1, "max_position_embeddings": 50, "type_vocab_size": 1}
        return transformers.RobertaConfig(**{**sizes, **own})
    if kind == "modernbert":
        own = {"local_attention": 8, "global_attn_every_n_layers": 2, "num_hidden_layers": 3,
               "cls_token_id": 2, "sep_token_id": 3,
               "bos_token_id": 2, "eos_token_id": 3}  # fmt: skip
        return transformers.ModernBertConfig(**{**sizes, **own})
    return transformers.BertConfig(**sizes)


def save_encoder(folder: Path, kind: str = "bert", *, template: bool = True) -> Path:
    """Write an encoder with random weights and its tokenizer, as its ``ForMaskedLM`` class."""
    import transformers

    tokens = encoder_tokenizer(kind, template=template)
    torch.manual_seed(0)
    model = transformers.AutoModelForMaskedLM.from_config(encoder_config(kind, len(tokens)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
