"""``LoRA``: low-rank adapters on the linear layers of a pretrained model."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flambeau.errors import ArgumentError, ArtefactError, InputError
from flambeau.wording import name_some
from flambeau_text.optional_libraries import peft
from flambeau_text.tokenization.tokenizer import Tokenizer

ADAPTER_CONFIG = "adapter_config.json"
BASE_FILE = "flambeau_base.json"
"""File in the folder of an adapter that tells its model from others; see `weights_record`."""

_SAMPLED = 64  # values of each parameter


@dataclass(frozen=True)
class LoRA:
    """Adapters: to the frozen weight of each layer the product of two small matrices is added.

    One of the two starts at zero, so that a new adapter does not change the model.

    Attributes:
        rank: Rank of the product.
        alpha: The product is multiplied by ``alpha / rank``; None is twice the rank.
        dropout: Dropout probability of the adapter's inputs.
        dora: Also train the norm of each weight column (DoRA).
        targets: "all-linear" for all linear layers but the output layer, or endings of the names of
            layers.

    Raises:
        ArgumentError: A value is invalid.

    Source:
        Hu et al., "LoRA" (arXiv 2106.09685); on all layers, which matters more than the rank:
        Dettmers et al., "QLoRA" (arXiv 2305.14314); Liu et al., "DoRA" (arXiv 2402.09353).
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    dora: bool = False
    targets: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ArgumentError(f"rank={self.rank!r} is invalid. Give a whole number from 1 on.")
        alpha: Any = self.alpha
        if alpha is not None and not (_is_number(alpha) and 0 < alpha < math.inf):
            raise ArgumentError(f"alpha={self.alpha!r} is invalid. Give a number above 0.")
        if not (_is_number(self.dropout) and 0.0 <= self.dropout < 1.0):
            raise ArgumentError(
                f"dropout={self.dropout!r} is invalid. A probability is at least 0 and less than 1."
            )
        if not isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(self.targets))

    def as_json(self) -> dict[str, Any]:
        """Return JSON values from which the constructor rebuilds the settings."""
        values = asdict(self)
        if isinstance(self.targets, tuple):
            values["targets"] = list(self.targets)
        return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_adapter(network: Any, settings: LoRA, new_tokens: Sequence[int] = ()) -> nn.Module:
    """Return the network with new adapters; all other parameters are frozen.

    Args:
        network: A model of transformers.
        settings: The adapters.
        new_tokens: Ids of tokens whose embeddings are trained, too: those added to the vocabulary.

    Raises:
        ArgumentError: No layer has one of the names in ``targets``.
    """
    library = peft()
    # GPT-2 has layers with transposed weights.
    transposed = any(type(module).__name__ == "Conv1D" for module in network.modules())
    targets = settings.targets
    config = library.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=2 * settings.rank if settings.alpha is None else settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=transposed,
        bias="none",
        trainable_token_indices=_trained_rows(network, new_tokens),
    )
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 asks transformers for an attribute that is deprecated in 5.24.
            warnings.simplefilter("ignore", FutureWarning)
            return library.get_peft_model(network, config)
    except ValueError as error:
        raise ArgumentError(
            f"The adapter cannot be added: {error!s:.200}. Give endings of the names of layers, "
            'such as targets=("q_proj", "v_proj"), or "all-linear".'
        ) from error


def _trained_rows(network: Any, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """Return the rows of the embeddings that are trained, by the name of the layer."""
    if not tokens:
        return None
    layers = [network.get_input_embeddings(), network.get_output_embeddings()]
    if layers[0].weight is layers[1].weight:
        layers.pop()  # PEFT ties its adapter to the same rows
    names = {id(module): name.rpartition(".")[2] for name, module in network.named_modules()}
    return {names[id(layer)]: list(tokens) for layer in layers}


def load_adapter(network: nn.Module, folder: str | os.PathLike[str]) -> tuple[nn.Module, LoRA]:
    """Return the network with the adapter that PEFT or `save_adapter` wrote, and its settings.

    Raises:
        InputError: The folder has no LoRA adapter, or that of another model.
    """
    path = Path(folder)
    if not (path / ADAPTER_CONFIG).is_file():
        raise InputError(
            f"{path} has no {ADAPTER_CONFIG}. Give the folder of an adapter, as PEFT's "
            "save_pretrained or CausalLM.save_adapter writes it."
        )
    _check_base(network, path)
    library = peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as in `with_adapter`
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error below
        try:
            found: Any = library.PeftModel.from_pretrained(network, str(path), is_trainable=True)
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f"{_other_model(path)}: {error!s:.200}.") from error
    config = found.peft_config["default"]
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise InputError(
            f"The adapter in {path} is of the kind {config.peft_type}; only LoRA is supported."
        )
    _check_keys(library, found, path)
    targets = config.target_modules
    settings = LoRA(
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        dora=bool(config.use_dora),
        targets=targets if isinstance(targets, str) else tuple(sorted(targets)),
    )
    return found, settings


def _other_model(path: Path) -> str:
    return f"The adapter in {path} belongs to another model than that to which it is added"


def _check_keys(library: Any, network: Any, path: Path) -> None:
    """Check that each layer has the weights of its adapter, and each adapter its layer."""
    wanted = set(library.get_peft_model_state_dict(network, save_embedding_layers=False))
    saved = set(library.load_peft_weights(str(path), device="cpu"))
    if missing := sorted(wanted - saved):
        raise InputError(
            f"{_other_model(path)}: it lacks {len(missing):,} weights, for example {missing[0]}."
        )
    if left := sorted(name for name in saved - wanted if "lora_" in name):
        raise InputError(
            f"{_other_model(path)}, which has no layer for {len(left):,} of its weights, for "
            f"example {left[0]}."
        )


def weights_record(network: nn.Module) -> dict[str, str]:
    """Return the dtype of a network and a digest of some values of each of its parameters."""
    found = blake2b(digest_size=8)
    dtype = ""
    for parameter in network.parameters():
        dtype = dtype or str(parameter.dtype)
        values = parameter.detach().flatten()
        some = values[:: max(1, len(values) // _SAMPLED)].float().cpu()
        found.update(repr(tuple(parameter.shape)).encode() + some.numpy().tobytes())
    return {"dtype": dtype, "digest": found.hexdigest()}


def _check_base(network: nn.Module, path: Path) -> None:
    """Check that an adapter of `save_adapter` was trained on a network with the same weights.

    Equal shapes are not enough: a model and its variant for chats have them, too.
    """
    file = path / BASE_FILE
    if not file.is_file():  # written by PEFT
        return
    saved, own = json.loads(file.read_text(encoding="utf-8")), weights_record(network)
    if saved["dtype"] == own["dtype"] and saved["digest"] != own["digest"]:
        raise InputError(
            f"{_other_model(path)}: the weights differ from those with which it was trained. Give "
            f"the folder of its model; to add it all the same, delete {file}."
        )


def tokens_of_adapter(
    folder: str | os.PathLike[str], tokenizer: Tokenizer, given: Sequence[str]
) -> Sequence[str]:
    """Return the tokens that were added to the vocabulary for a saved adapter, in their order.

    Args:
        folder: The adapter, beside which its tokenizer is saved.
        tokenizer: The tokenizer of the model without the adapter.
        given: The tokens that the user wants to add.

    Raises:
        InputError: ``given`` are other tokens, or tokens that the adapter does not train.
    """
    added: list[str] = []
    file = Path(folder) / "tokenizer.json"
    if file.is_file():
        import tokenizers

        saved: Any = tokenizers.Tokenizer.from_file(str(file))
        added = [saved.id_to_token(each) for each in range(len(tokenizer), saved.get_vocab_size())]
    if given and not added and not _trains_embeddings(Path(folder)):
        raise InputError(
            f"The adapter in {folder} was trained without added tokens, so the embeddings of those "
            f"in tokens={list(given)!r:.80} would never be trained. Omit tokens, or add them with "
            "new adapters: adapter=LoRA()."
        )
    if given and added and list(given) != added:
        raise InputError(
            f"The adapter in {folder} was trained with the added tokens {name_some(added)}, but "
            f"tokens={list(given)!r:.80}. Omit tokens: those of the adapter are added."
        )
    return given or added


def _trains_embeddings(folder: Path) -> bool:
    """Return whether an adapter has rows of embeddings; PEFT alone writes no tokenizer."""
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        return True  # the error follows when the adapter is loaded
    config = json.loads(file.read_text(encoding="utf-8"))
    return bool(config.get("trainable_token_indices") or config.get("modules_to_save"))


def check_finite(network: nn.Module, what: str) -> None:
    """Check that all trained parameters are finite, before they are saved.

    Raises:
        ArtefactError: A parameter contains nan or infinity.
    """
    bad = [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all())
    ]
    if bad:
        raise ArtefactError(
            f"{what} is not saved: {name_some(bad, 3)} has values that are not finite. The "
            "training diverged; train again with a lower learning rate."
        )
