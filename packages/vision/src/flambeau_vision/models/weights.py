"""Starting weights: where they come from, what they were trained on, how they are read safely.

Nothing here runs code from a file (``weights_only=True`` or safetensors) and nothing waits for
ever: a download that gets no answer within `TIMEOUT_S` ends with an error that says what to do.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flambeau.errors import InputError
from flambeau.torch_internals import COMPILED_PREFIX

__all__ = ["WeightsRecord", "adapt_channels", "load_checked", "read_weights", "weights_record"]

TIMEOUT_S = 10.0
# Training scripts save more than the weights; the two names under which they keep them.
NESTED_UNDER = ("model", "state_dict")
# Wrappers that put their name before every key: DistributedDataParallel, torch.compile, Lightning.
WRAPPER_PREFIXES = ("module.", COMPILED_PREFIX, "model.")


@dataclass(frozen=True)
class WeightsRecord:
    """What published weights say about the pictures they expect.

    Attributes:
        name: ``"ResNet18_Weights.IMAGENET1K_V1"``.
        mean: One number a channel (red, green, blue), for pixels in [0, 1].
        std: One number a channel, for pixels in [0, 1].
        size: Side of the picture that the network sees, in pixels.
        resize: The short side is brought to this many pixels, then the centre is cut out.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        crop: ``size / resize``.
        num_params: Parameters of the published network, its head included.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize: int
    interpolation: str
    crop: float
    num_params: int


def weights_record(name: str, weights: str | None) -> WeightsRecord | None:
    """Return the record of ``weights`` for the backbone ``name``, or None where there is none.

    A local file is recognised by the file name under which torchvision publishes it
    (``resnet18-f37072fd.pth``); any other file comes without a record, and the statistics of the
    train split have to do.

    Args:
        name: A backbone's name, ``"resnet18"``.
        weights: None, a torchvision name such as ``"IMAGENET1K_V1"`` or ``"DEFAULT"``, or a path.
    """
    if weights is None:
        return None
    entry = _published(name, weights)
    if entry is None:
        return None
    transforms = entry.transforms()
    size, resize = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    return WeightsRecord(
        name=str(entry),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        size=size,
        resize=resize,
        interpolation=transforms.interpolation.value,
        crop=size / resize,
        num_params=int(entry.meta["num_params"]),
    )


def read_weights(name: str, weights: str) -> dict[str, torch.Tensor]:
    """Return the tensors of ``weights`` by their keys, wrappers' prefixes taken off.

    Args:
        name: A backbone's name, ``"resnet18"``.
        weights: A torchvision name (downloaded once, then read from torch's hub folder) or the
            path of a ``.pth`` / ``.pt`` / ``.safetensors`` file.

    Raises:
        InputError: The name is unknown and no such file exists, the download failed, or the file
            holds something else than tensors.
    """
    entry = None if Path(weights).is_file() else _published(name, weights)
    if Path(weights).is_file():
        path = Path(weights)
    elif entry is not None:
        path = _downloaded(entry.url)
    else:
        from torchvision.models import get_model_weights

        known = ", ".join(get_model_weights(name).__members__)
        raise InputError(
            f"weights={weights!r} is neither a file nor published weights of {name}. "
            f"Published: {known}. Give one of these, the path of a file, or None (from scratch)."
        )
    return _unwrapped(_read_file(path), path)


def adapt_channels(weight: torch.Tensor, in_channels: int) -> torch.Tensor:
    """Return a first convolution's weight for another number of input channels.

    One channel gets the sum over the colours, so that a grey picture gives what the same picture
    in three equal channels gave. Other counts repeat the three kernels and scale by
    3 / in_channels, which keeps the size of the sum and leaves no channel dead.

    Args:
        weight: (out_channels, 3, kernel height, kernel width), or already with ``in_channels``.
        in_channels: Channels wanted.

    Raises:
        InputError: The weight has neither 3 nor ``in_channels`` input channels.

    Source:
        ``adapt_input_conv`` in timm (https://github.com/huggingface/pytorch-image-models).
    """
    given = weight.shape[1]
    if given == in_channels:
        return weight
    if given != 3:
        raise InputError(
            f"The first convolution in the weights takes {given} channels and the data have "
            f"{in_channels}. Only weights for 3 channels can be adapted; convert the pictures to "
            f"{given} channels or start from scratch with weights=None."
        )
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // 3)  # rounded up
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (3 / in_channels)


def load_checked(module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copy ``state`` into ``module``; every key and every shape has to fit.

    Raises:
        InputError: Keys are missing or left over, or shapes differ; the message names them.
    """
    own = module.state_dict()
    # Old files lack these counters, and nothing in a network with a fixed momentum reads them.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}"
        for what, keys in (
            ("missing", missing),
            ("unknown", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise InputError(
            f"The weights in {source} do not fit this network. Keys {'; keys '.join(problems)}. "
            "Give the file of the same architecture, or start from scratch with weights=None."
        )
    module.load_state_dict(dict(state), strict=False)


def _published(name: str, weights: str) -> Any:
    """Return torchvision's enum entry called ``weights`` or published as that file, else None."""
    from torchvision.models import get_model_weights

    entries = get_model_weights(name)
    if weights in entries.__members__:
        return entries[weights]
    matching = (entry for entry in entries if Path(entry.url).name == Path(weights).name)
    return next(matching, None) if Path(weights).is_file() else None


def _downloaded(url: str) -> Path:
    """Return the file of ``url`` in torch's hub folder, fetched first where it is not there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(url).name
    if path.is_file():
        return path
    expected = path.stem.rsplit("-", 1)[-1]  # torchvision's names end in the hash's first digits
    digest = hashlib.sha256()
    part: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            # torch.hub's own download has no timeout and waits for ever behind some firewalls.
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer,
            tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file,
        ):
            part = file.name
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if not digest.hexdigest().startswith(expected):
            raise OSError(f"the hash is {digest.hexdigest()[:8]}, not {expected}")
        os.replace(part, path)
    except OSError as error:  # URLError and timeouts are OSErrors too
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise InputError(
            f"The weights at {url} could not be fetched ({error}). Put the file at {path}, give "
            "the path of a local copy as weights=, or start from scratch with weights=None."
        ) from error
    return path


def _read_file(path: Path) -> object:
    """Return what the file holds; safetensors by the ending, a ``weights_only`` pickle else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise InputError(
            f"{path} could not be read as weights: {first_line} Expected is a state_dict saved "
            "with torch.save or safetensors; whole pickled models are refused, since loading one "
            "runs the code inside it."
        ) from error


def _unwrapped(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Return the flat state_dict inside ``content``, wrappers' prefixes taken off the keys."""
    for name in NESTED_UNDER:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path} holds a {type(content).__name__}, not a state_dict with tensors.")
    strange = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise InputError(
            f"{path} holds values that are no tensors: {', '.join(strange[:5])}. Save the model's "
            "state_dict() alone, or under the key 'model' or 'state_dict'."
        )
    state = {str(key): value for key, value in content.items()}
    for prefix in WRAPPER_PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
