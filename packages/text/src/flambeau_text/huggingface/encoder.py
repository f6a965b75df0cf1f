"""Pretrained encoders of transformers, for labels of texts and for tags of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError
from flambeau_text.huggingface.networks import (
    check_digest,
    groups_of,
    load_network,
    network_from_config,
)
from flambeau_text.models.config import config_from_values
from flambeau_text.models.text_classifier import TextClassifier, TextEncoder, valid_positions
from flambeau_text.optional_libraries import transformers

ARCHITECTURE = "hf_encoder"
"""Name of the architecture in text classification and in tagging."""

Pooling = Literal["first", "mean"]
"""The vector of a text: the features of its first token, or their mean over all tokens."""

_TOLERANCE = 1e-3  # of the largest feature; half precision has 1e-3
_PROBED = 4


@dataclass(frozen=True)
class EncoderConfig:
    """The configuration of a network with a pretrained encoder.

    Attributes:
        encoder: The settings of the encoder in transformers, with "model_type"; from the folder of
            the encoder.
        pooling: For labels of texts: "first" (the first token, such as ``[CLS]``) or "mean".
        dropout: Dropout probability in the head; that of the encoder is in its settings.
    """

    encoder: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pooling: Pooling = "first"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ArgumentError(f'pooling={self.pooling!r} is invalid. Use "first" or "mean".')
        if not 0.0 <= self.dropout < 1.0:
            raise ArgumentError(f"dropout={self.dropout!r} is invalid. It is from 0 to below 1.")


class PretrainedEncoder(nn.Module):
    """A bidirectional encoder of transformers: BERT, DistilBERT, RoBERTa, ModernBERT, ….

    Args:
        network: The network, as ``transformers.AutoModel`` loads it. Its pooling layer is removed.

    Attributes:
        width: Size of the features of each token.
        max_positions: Number of tokens that it can read; None without a limit.

    Raises:
        InputError: The network is no bidirectional encoder, or does not obey its mask.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # its parameters would have no gradients
        self.network = network
        self.width = int(network.config.hidden_size)
        self.max_positions = position_limit(network.config)
        self._padding = getattr(network.config, "pad_token_id", None) or 0
        self._has_types = (getattr(network.config, "type_vocab_size", None) or 0) > 1
        _check_encoder(self)

    def forward(self, tokens: Tensor, lengths: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Return the features of each token, ``(batch, positions, width)``.

        Args:
            tokens: Token ids, int64 ``(batch, positions)``; what is at or after the length of a
                text has no influence.
            lengths: Number of tokens of each text, at least 1, int64 ``(batch,)``.
            token_types: Number of the text of each token in a pair; None for single texts.
        """
        # Beyond the last position there is only padding.
        tokens = tokens[:, : self.max_positions]
        valid = valid_positions(tokens, lengths)
        types: dict[str, Tensor] = {}
        if token_types is not None and self._has_types:
            kinds = token_types[:, : self.max_positions]
            types["token_type_ids"] = kinds.masked_fill(~valid, 0)
        # RoBERTa counts positions by the ids that are not padding.
        ids = tokens.masked_fill(~valid, self._padding)
        return self.network(input_ids=ids, attention_mask=valid.long(), **types).last_hidden_state

    def layer_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Return the layer groups: embedding, each block, and the rest."""
        return groups_of(self, self.network)


class PretrainedTextEncoder(TextEncoder):
    """The features of a pretrained encoder, as one vector for a text or a pair of texts.

    Args:
        encoder: The encoder.
        pooling: "first" or "mean", see `EncoderConfig`.
    """

    def __init__(self, encoder: PretrainedEncoder, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.width = encoder.width

    @property
    def token_embedding(self) -> nn.Module:  # type: ignore[override]  # it belongs to the network
        return self.encoder.network.get_input_embeddings()

    def forward(self, tokens: Tensor, lengths: Tensor, token_types: Tensor | None = None) -> Tensor:
        features = self.encoder(tokens, lengths, token_types)
        if self.pooling == "first":
            return features[:, 0]
        valid = valid_positions(features, lengths).unsqueeze(2)
        return features.masked_fill(~valid, 0.0).sum(1) / lengths.unsqueeze(1)

    def layer_groups(self) -> Mapping[str, Sequence[Any]]:
        return self.encoder.layer_groups()


class PretrainedClassifier(TextClassifier):
    """Classifies texts or pairs of texts with a pretrained encoder and a linear layer."""

    def forward(self, tokens: Tensor, lengths: Tensor, token_types: Tensor | None = None) -> Tensor:
        """Return the outputs ``(batch, outputs)``; arguments as of `PretrainedEncoder.forward`."""
        return self.head(self.encoder(tokens, lengths, token_types))


class PretrainedTagger(nn.Module):
    """Predicts a tag for each word, from the features of its first token.

    Args:
        encoder: The encoder.
        n_outputs: Number of tags.
        dropout: Dropout probability before the linear layer.

    Source:
        Devlin et al., "BERT" (arXiv 1810.04805), section 5.3.
    """

    def __init__(self, encoder: PretrainedEncoder, n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = _head(encoder.width, n_outputs, dropout)

    def forward(self, tokens: Tensor, lengths: Tensor, starts: Tensor) -> Tensor:
        """Return logits ``(batch, tags, words)``; see `Tagger.forward`."""
        features = self.encoder(tokens, lengths)
        words = features.gather(1, starts.unsqueeze(2).expand(-1, -1, self.encoder.width))
        return self.head(words).transpose(1, 2)

    def layer_groups(self) -> Mapping[str, Sequence[Any]]:
        """Return the layer groups: those of the encoder, then the head."""
        return {**self.encoder.layer_groups(), "head": [self.head]}


def encoder_classifier(
    *,
    vocab_size: int,
    n_outputs: int,
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    n_texts: int = 1,
) -> PretrainedClassifier:
    """Build the classifier "hf_encoder" from plain values, as plan and artefact store them.

    Args:
        vocab_size: Number of tokens of the tokenizer.
        n_outputs: Number of outputs.
        config: Fields of `EncoderConfig`.
        weights: "folder" and "sha256" of the pretrained encoder; None starts from random weights.
        n_texts: It has no effect: a pair of texts is one row.

    Raises:
        ArgumentError: ``config`` lacks the encoder, or has an invalid value.
        ArtefactError: The folder was replaced.
        InputError: The network cannot be loaded, or does not fit the tokenizer.
    """
    chosen, encoder = _built(vocab_size, config, weights)
    head = _head(encoder.width, n_outputs, chosen.dropout)
    return PretrainedClassifier(PretrainedTextEncoder(encoder, chosen.pooling), head)


def encoder_tagger(
    *,
    vocab_size: int,
    n_outputs: int,
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
) -> PretrainedTagger:
    """Build the tagger "hf_encoder" from plain values; arguments as of `encoder_classifier`."""
    chosen, encoder = _built(vocab_size, config, weights)
    return PretrainedTagger(encoder, n_outputs, chosen.dropout)


def _head(width: int, n_outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_outputs))


def _built(
    vocab_size: int, config: Mapping[str, Any] | None, weights: Mapping[str, Any] | None
) -> tuple[EncoderConfig, PretrainedEncoder]:
    chosen = config_from_values(EncoderConfig, config, f"The architecture {ARCHITECTURE!r}")
    if not chosen.encoder:
        raise ArgumentError(
            f"The architecture {ARCHITECTURE!r} needs a pretrained encoder: name its folder with "
            "language_model=FOLDER in the options of the data (--language-model FOLDER)."
        )
    if weights is None:
        encoder = PretrainedEncoder(network_from_config("AutoModel", chosen.encoder))
    else:
        folder = Path(weights["folder"])
        check_digest(folder, weights["sha256"])
        encoder = PretrainedEncoder(load_network("AutoModel", folder, config=chosen.encoder))
    rows = len(encoder.network.get_input_embeddings().weight)
    if vocab_size > rows:
        raise InputError(
            f"The tokenizer has {vocab_size:,} tokens, but the encoder embeddings for {rows:,} "
            "only. The files belong to different models."
        )
    return chosen, encoder


def check_encoder_config(config: Any, where: str) -> None:
    """Raise an InputError if a model's settings are not those of a bidirectional encoder.

    Args:
        config: Settings of transformers.
        where: The folder, for the message.
    """
    kind = str(getattr(config, "model_type", "unknown"))
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{where} has an encoder–decoder model ({kind}). Classifiers and taggers start from "
            "an encoder such as BERT, RoBERTa or ModernBERT."
        )
    known: Any = transformers().MODEL_FOR_MASKED_LM_MAPPING
    if getattr(config, "is_decoder", False) or type(config) not in known:
        raise InputError(
            f"{where} has a model of the type {kind!r}, which is no bidirectional encoder. "
            "Classifiers and taggers start from one such as BERT, RoBERTa or ModernBERT; a decoder "
            "is fine-tuned as a language model: CausalLM.from_hf(folder)."
        )


# Models whose positions begin after the id of the padding token.
_AFTER_PADDING = ("camembert", "data2vec-text", "ibert", "mpnet", "roberta", "xlm-roberta",
                  "roberta-prelayernorm", "xlm-roberta-xl", "xmod")  # fmt: skip


def position_limit(config: Any) -> int | None:
    """Return the number of tokens that an encoder can read; None without a limit."""
    n = getattr(config, "max_position_embeddings", None)
    if n is None or n < 0:
        return None
    if config.model_type in _AFTER_PADDING:
        return int(n) - int(config.pad_token_id) - 1
    return int(n)


@torch.no_grad()
def _check_encoder(encoder: PretrainedEncoder) -> None:
    """Check that padding has no influence, that later tokens have one, and the last position.

    Raises:
        InputError: The network computes otherwise.
    """
    parameter = next(encoder.network.parameters())
    if parameter.is_meta:
        return
    name = type(encoder.network).__name__
    training = encoder.training
    encoder.eval()
    positions: list[int] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda _, given: positions.append(int(given[0].max())) if given else None
        )
        for module in encoder.network.modules()
        if isinstance(module, nn.Embedding)
        and module.num_embeddings == getattr(encoder.network.config, "max_position_embeddings", 0)
        and module is not encoder.network.get_input_embeddings()
    ]
    try:
        ids = [each for each in range(_PROBED + 4) if each != encoder.network.config.pad_token_id]
        tokens = torch.tensor([ids[:_PROBED]], device=parameter.device)
        lengths = torch.tensor([_PROBED], device=parameter.device)
        found = encoder(tokens, lengths)
        seen = max(positions, default=_PROBED - 1)
        changed = tokens.clone()
        changed[0, -1] = ids[_PROBED]
        other = encoder(changed, lengths)
        padded = encoder(torch.cat([tokens, tokens], 1), lengths)[:, :_PROBED]
    finally:
        for hook in hooks:
            hook.remove()
        encoder.train(training)
    scale = float(found.abs().max())
    if torch.equal(found[:, 0], other[:, 0]):
        raise InputError(
            f"{name} is no bidirectional encoder: its first token does not depend on later ones. "
            "A decoder is fine-tuned as a language model: CausalLM.from_hf(folder)."
        )
    if float((padded - found).abs().max()) > _TOLERANCE * max(scale, 1e-6):
        raise InputError(
            f"{name} is not supported: it does not obey a mask of attention, so that the other "
            "texts of a batch would change a prediction. BERT, DistilBERT, RoBERTa, ModernBERT and "
            "similar encoders are."
        )
    limit = encoder.max_positions
    skipped = seen - (_PROBED - 1)
    if limit is not None and limit > encoder.network.config.max_position_embeddings - skipped:
        raise InputError(
            f"{name} is not supported: its first token has the position {skipped}, so that it "
            f"cannot read {limit:,} tokens."
        )
