"""``CausalLM``: a pretrained decoder of transformers as a ``LanguageModel``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, check_path
from flambeau_text.huggingface.adapters import (
    BASE_FILE,
    LoRA,
    check_finite,
    load_adapter,
    tokens_of_adapter,
    weights_record,
    with_adapter,
)
from flambeau_text.huggingface.check_network import check_network, window_of
from flambeau_text.huggingface.decoder_folder import stop_ids
from flambeau_text.huggingface.folder import check_folder
from flambeau_text.huggingface.networks import (
    check_digest,
    config_as_json,
    groups_of,
    load_network,
    network_from_config,
)
from flambeau_text.models.language_model import LanguageFeatures, LanguageModel
from flambeau_text.models.packing import Packing
from flambeau_text.optional_libraries import transformers
from flambeau_text.tokenization.pretrained import HFTokenizer
from flambeau_text.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class CausalLMConfig:
    """The configuration of "causal_lm" in a plan: it has no settings, its layers are given."""


@dataclass
class CausalState:
    """What a `CausalLM` carries while it generates.

    Attributes:
        cache: The keys and values of transformers.
        documents: Document of each cached token, 0 for padding, int64 ``(batch, tokens)``; None
            without padding.
    """

    cache: Any
    documents: Tensor | None


class CausalLM(LanguageModel):
    """A pretrained decoder of transformers, trained whole or with adapters.

    Use `from_hf`. Attention is torch's ``scaled_dot_product_attention``, with which documents can
    be packed into rows on any device. Between batches nothing is carried: the learner's layout must
    be "packed".

    Args:
        network: A causal language model of transformers, or one with adapters of PEFT.
        tokenizer: Its tokenizer, None if it is not needed.
        adapter: The settings of the adapters; None without them.

    Raises:
        InputError: The network computes its logits in a way that the loss in chunks does not
            support.
    """

    reads_padding = True

    def __init__(
        self,
        network: nn.Module,
        tokenizer: HFTokenizer | None = None,
        adapter: LoRA | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.adapter = adapter
        self.base: Mapping[str, str] | None = None  # tells the model without adapters from others
        check_network(self)

    @classmethod
    def from_hf(
        cls,
        folder: str | os.PathLike[str],
        *,
        adapter: LoRA | str | os.PathLike[str] | None = None,
        tokens: Sequence[str] = (),
        dtype: torch.dtype = torch.float32,
    ) -> CausalLM:
        """Load a model from a local folder; nothing is downloaded and no code of it is run.

        Args:
            folder: A folder with ``config.json``, weights in safetensors, and a tokenizer.
            adapter: New adapters, or the folder of saved ones; None trains all weights. Tokens that
                were added for saved adapters are added again.
            tokens: Tokens to add to the vocabulary. Their embeddings start as the mean of all
                embeddings, and are trained with adapters too.
            dtype: Dtype of the weights. Weights in bfloat16 would lose the small updates of
                fine-tuning; use ``choices={"precision": "bf16"}`` for speed.

        Raises:
            InputError: A file or weight is missing or damaged, the model is not supported, or the
                adapter belongs to another model.
            MissingDependencyError: transformers or peft is not installed.

        Warns:
            FlambeauWarning: [unused-weights] The model has no place for some of the weights.
        """
        check_path(folder, "folder")
        if isinstance(tokens, str):
            raise ArgumentError(
                f"tokens={tokens!r} is one text. Give a list of tokens: tokens=[{tokens!r}]."
            )
        path = check_folder(folder)
        network = load_network("AutoModelForCausalLM", path, attention="sdpa", dtype=dtype)
        stop = stop_ids(network.config, getattr(network, "generation_config", None))
        tokenizer = HFTokenizer.from_folder(path, stop=stop)
        rows = len(network.get_input_embeddings().weight)
        if len(tokenizer) > rows:
            raise InputError(
                f"The tokenizer in {path} has {len(tokenizer):,} tokens, but the model embeddings "
                f"for {rows:,} only. The files belong to different models."
            )
        saved = None if isinstance(adapter, LoRA) else adapter
        tokens = tokens if saved is None else tokens_of_adapter(saved, tokenizer, tokens)
        new = _resized(network, tokenizer, tokens)
        tokenizer = tokenizer.with_tokens(tokens) if tokens else tokenizer
        base = weights_record(network)
        settings = adapter if isinstance(adapter, LoRA) else None
        if saved is not None:
            network, settings = load_adapter(network, saved)
        elif settings is not None:
            network = with_adapter(network, settings, new)
        found = cls(network, tokenizer, settings)
        found.base = base
        return found

    # ------------------------------------------------------------ the network

    @property
    def causal(self) -> Any:
        """The model of transformers, without PEFT's wrapper."""
        inner: Any = self.network
        return inner.get_base_model() if hasattr(inner, "get_base_model") else inner

    @property
    def output(self) -> nn.Module:  # type: ignore[override]  # it belongs to the network
        """The output layer."""
        return self.causal.get_output_embeddings()

    @property
    def max_positions(self) -> int | None:  # type: ignore[override]  # read from the settings
        """Number of positions for which the model was trained; None if it has no limit."""
        return getattr(self.causal.config, "max_position_embeddings", None)

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        own = self.tokenizer
        if own is None:
            return
        if (own.kind, len(own), own.special) != (tokenizer.kind, len(tokenizer), tokenizer.special):
            raise ArgumentError(
                f"The data have the tokenizer {tokenizer.kind!r} with {len(tokenizer):,} tokens, "
                f"but the model was trained with its own, which has {len(own):,}. Give that one "
                "to the data: LanguageOptions(tokenizer=model.tokenizer), or "
                "InstructionOptions(model.tokenizer)."
            )

    def features(self, tokens: Tensor, state: CausalState | None = None) -> LanguageFeatures:
        """Compute the features of the next token at each position.

        Args:
            tokens: int64 ``(batch, positions)``.
            state: The state after the tokens before. Without gradients a state is returned.

        Raises:
            InputError: There are more positions than the model has.
        """
        documents = None
        if state is not None and state.documents is not None:
            # The tokens continue the document of the last token.
            last = state.documents[:, -1:].expand(-1, tokens.shape[1])
            documents = torch.cat([state.documents, last], 1)
        return self._features(tokens, documents, state)

    def packed_features(self, tokens: Tensor, documents: Tensor) -> LanguageFeatures:
        return LanguageFeatures(self._features(tokens, documents, None, keep=False).features, None)

    def padded_features(self, tokens: Tensor, mask: Tensor) -> LanguageFeatures:
        return self._features(tokens, mask.long(), None)

    def _features(
        self,
        tokens: Tensor,
        documents: Tensor | None,
        state: CausalState | None,
        *,
        keep: bool = True,
    ) -> LanguageFeatures:
        n = tokens.shape[1]
        cache = None if state is None else state.cache
        total = n + (0 if cache is None else cache.get_seq_length())
        self._check_length(total, packed=documents is not None)
        keep = keep and not torch.is_grad_enabled()
        if keep and cache is None:
            cache = transformers().DynamicCache(config=self.causal.config)
        packing = None if documents is None else Packing.of(documents, n)
        found = self.causal.base_model(
            input_ids=tokens,
            attention_mask=None if packing is None else packing.mask,
            position_ids=None if packing is None else packing.positions,
            cache=cache,
            use_cache=keep,
        )
        after = CausalState(cache, documents) if keep else None
        return LanguageFeatures(found.last_hidden_state, after)

    def _check_length(self, total: int, *, packed: bool) -> None:
        limit = self.max_positions
        if limit is not None and total > limit:
            raise InputError(
                f"A text of {total:,} tokens is longer than the {limit:,} positions of the model. "
                'Use shorter rows (choices={"row_length": …}), prompts or outputs (max_tokens).'
            )
        window = window_of(self.causal.config)
        if packed and window is not None and total > window:
            raise InputError(
                f"Rows of {total:,} tokens are longer than the window of {window:,} tokens of the "
                f'model\'s attention. Use shorter rows: choices={{"row_length": {window}}}.'
            )

    # ------------------------------------------------------------ saving

    @property
    def builder(self) -> str:
        """Name of the builder that rebuilds the model from `arguments`."""
        return "causal_lm" if self.adapter is None else "causal_lm_lora"

    def arguments(self) -> Mapping[str, Any]:
        """Return JSON values from which `causal_lm` rebuilds the model, without its weights."""
        peft_config = getattr(self.network, "peft_config", None)
        rows = None if peft_config is None else peft_config["default"].trainable_token_indices
        new = next(iter(rows.values()), []) if rows else []
        return {
            "config": config_as_json(self.causal.config),
            "adapter": None if self.adapter is None else self.adapter.as_json(),
            "new_tokens": list(new),
        }

    def save_adapter(self, folder: str | os.PathLike[str]) -> Path:
        """Write the adapters alone, in the format of PEFT, and the tokenizer.

        Raises:
            ArgumentError: The model has no adapters.
            ArtefactError: A trained parameter is not finite.
        """
        check_path(folder, "folder")
        if self.adapter is None:
            raise ArgumentError(
                "The model has no adapters. Load it with adapter=LoRA(), or use save_hf(folder)."
            )
        check_finite(self.network, "The adapter")
        network: Any = self.network
        # The rows of added tokens are part of the adapter; the other embeddings are unchanged.
        network.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        if self.base is not None:
            (Path(folder) / BASE_FILE).write_text(json.dumps(self.base), encoding="utf-8")
        return self._with_tokenizer(folder)

    def save_hf(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model in the format of transformers, with adapters merged into its weights.

        Raises:
            ArtefactError: A trained parameter is not finite.
        """
        check_path(folder, "folder")
        check_finite(self.network, "The model")
        merged = self.merged().causal
        merged.save_pretrained(str(folder), safe_serialization=True)
        return self._with_tokenizer(folder)

    def _with_tokenizer(self, folder: str | os.PathLike[str]) -> Path:
        if self.tokenizer is not None:
            self.tokenizer.as_transformers().save_pretrained(str(folder))
        return Path(folder)

    def merged(self) -> CausalLM:
        """Return a copy whose weights include the adapters; the model itself is unchanged."""
        if self.adapter is None:
            return self
        from copy import deepcopy

        network: Any = deepcopy(self.network)
        return CausalLM(network.merge_and_unload(), self.tokenizer)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Return the layer groups: embedding, each block, and the rest as the output."""
        return groups_of(self, self.causal)


@torch.no_grad()
def _resized(network: Any, tokenizer: HFTokenizer, tokens: Sequence[str]) -> list[int]:
    """Add rows for new tokens to the embeddings, each the mean of the old ones; return their ids.

    A vocabulary is often padded: rows that no token uses are used first.
    """
    if not tokens:
        return []
    first = len(tokenizer)
    new = list(range(first, first + len(tokens)))
    layers = (network.get_input_embeddings(), network.get_output_embeddings())
    means = [layer.weight[:first].float().mean(0) for layer in layers]
    if new[-1] >= layers[0].weight.shape[0]:
        network.resize_token_embeddings(new[-1] + 1, mean_resizing=False)
    layers = (network.get_input_embeddings(), network.get_output_embeddings())
    for layer, mean in zip(layers, means, strict=True):
        layer.weight[new] = mean.to(layer.weight.dtype)
    return new


def causal_lm(
    *,
    config: Mapping[str, Any],
    adapter: Mapping[str, Any] | None = None,
    new_tokens: Sequence[int] = (),
    vocab_size: int | None = None,
    weights: Mapping[str, Any] | None = None,
) -> CausalLM:
    """Build a `CausalLM` from plain values, as the plan and an artefact store them.

    Args:
        config: The settings of the model in transformers, with "model_type".
        adapter: The settings of `LoRA`; None without adapters.
        new_tokens: Ids of added tokens, whose embeddings are trained beside adapters.
        vocab_size: Size of the tokenizer's vocabulary; it has no effect.
        weights: "folder" and "sha256" of the pretrained model; None starts from random weights.

    Raises:
        ArgumentError: ``config`` names no model.
        ArtefactError: The folder was replaced.
        InputError: transformers has no model of this type.
    """
    if config.get("model_type") is None:
        raise ArgumentError(
            "A pretrained model is named in the options of the data, language_model=FOLDER "
            "(--language-model FOLDER), or passed as an object: Learner(data, "
            "CausalLM.from_hf(folder))."
        )
    lora = None if adapter is None else LoRA(**cast("dict[str, Any]", dict(adapter)))
    if weights is not None:
        folder = Path(weights["folder"])
        check_digest(folder, weights["sha256"])
        return CausalLM.from_hf(folder, adapter=lora)
    network = network_from_config("AutoModelForCausalLM", config, "sdpa")
    if lora is None:
        return CausalLM(network)
    return CausalLM(with_adapter(network, lora, new_tokens), adapter=lora)
