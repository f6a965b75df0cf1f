"""Download pretrained weights, read them safely, and look up their preprocessing.

No code in a file is executed (``weights_only=True`` or safetensors), and a download without a
response within `TIMEOUT_S` raises an error that says what to do.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from flambeau.errors import InputError
from flambeau.torch_internals import COMPILED_PREFIX
from flambeau.wording import first_line, name_some

__all__ = ["WeightsRecord", "adapt_channels", "load_checked", "read_weights", "weights_record"]

TIMEOUT_S = 10.0
# Keys under which training scripts save the weights beside other content.
NESTED_KEYS = ("model", "state_dict")
# Key prefixes added by wrappers: DistributedDataParallel, torch.compile, Lightning.
WRAPPER_PREFIXES = ("module.", COMPILED_PREFIX, "model.")


@dataclass(frozen=True)
class WeightsRecord:
    """The preprocessing and size of published weights.

    Attributes:
        name: ``"ResNet18_Weights.IMAGENET1K_V1"``.
        mean: One number per channel (red, green, blue), for pixels in [0, 1].
        std: One number per channel, for pixels in [0, 1].
        size: Side of the network's input in pixels.
        resize: The short side is resized to this many pixels, then the centre is cropped.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        crop: ``size / resize``.
        num_params: Number of parameters of the published network, including its head.
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
    """Return the preprocessing record of ``weights`` for the backbone ``name``; None if unknown.

    A local file is recognised by the file name under which torchvision publishes it
    (``resnet18-f37072fd.pth``). Other files have no record; the plan then normalises with the
    statistics of the train images.

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
    """Return key → tensor of ``weights``; prefixes that wrapper modules added are removed.

    Args:
        name: A backbone's name, ``"resnet18"``.
        weights: A torchvision name (downloaded once, then read from torch's hub folder) or the
            path of a ``.pth`` / ``.pt`` / ``.safetensors`` file.

    Raises:
        InputError: There are no weights or file of that name, the download failed, or the file
            contains anything other than tensors.
    """
    entry = None if Path(weights).is_file() else _published(name, weights)
    if Path(weights).is_file():
        path = Path(weights)
    elif entry is not None:
        path = _download(entry.url)
    else:
        from torchvision.models import get_model_weights

        known = ", ".join(get_model_weights(name).__members__)
        raise InputError(
            f"weights={weights!r} is neither a file nor published weights of {name}. "
            f"Published: {known}. Choose one of these, the path of a file, or None (from scratch)."
        )
    return _unwrap(_read_file(path), path)


def adapt_channels(weight: torch.Tensor, in_channels: int) -> torch.Tensor:
    """Return a first convolution's weight for another number of input channels.

    One channel gets the sum over the colours, so that a grey image has the same output as three
    equal channels. Other counts repeat the three kernels and scale them by 3 / in_channels, which
    keeps the magnitude of the sum and uses every channel.

    Args:
        weight: (out_channels, 3, kernel height, kernel width), or already with ``in_channels``.
        in_channels: Required number of channels.

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
            f"The first convolution in the weights has {given} channels and the data have "
            f"{in_channels}. Only weights for 3 channels can be adapted; convert the images to "
            f"{given} channels or train from scratch with weights=None."
        )
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = -(-in_channels // 3)  # rounded up
    return weight.repeat(1, repeats, 1, 1)[:, :in_channels] * (3 / in_channels)


def load_checked(module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copy ``state`` into ``module``; all keys and shapes have to match.

    Raises:
        InputError: Keys are missing or unexpected, or shapes differ; the message names them.
    """
    own = module.state_dict()
    # Old files lack these counters, which batch norm with a fixed momentum does not use.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {name_some(keys)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise InputError(
            f"The weights in {source} do not match this network. Keys {'; keys '.join(problems)}. "
            "Use weights of the same architecture, or train from scratch with weights=None."
        )
    module.load_state_dict(dict(state), strict=False)


def _published(name: str, weights: str) -> Any:
    """Return torchvision's enum entry whose name or file name is ``weights``, else None."""
    from torchvision.models import get_model_weights

    entries = get_model_weights(name)
    if weights in entries.__members__:
        return entries[weights]
    matching = (entry for entry in entries if Path(entry.url).name == Path(weights).name)
    return next(matching, None) if Path(weights).is_file() else None


def _download(url: str) -> Path:
    """Return the file of ``url`` in torch's hub folder; download it if it does not exist."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(url).name
    if path.is_file():
        return path
    expected = path.stem.rsplit("-", 1)[-1]  # file names end in the first digits of the hash
    digest = hashlib.sha256()
    part: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            # torch.hub's own download has no timeout and hangs behind some firewalls.
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as response,
            tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file,
        ):
            part = file.name
            while chunk := response.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if not digest.hexdigest().startswith(expected):
            raise OSError(f"the hash of the file is {digest.hexdigest()[:8]}, not {expected}")
        os.replace(part, path)
    except OSError as error:  # URLError and timeouts are OSErrors too
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise InputError(
            f"The weights at {url} could not be downloaded ({error}). Save the file as {path}, "
            "pass the path of a local copy as weights=, or train from scratch with weights=None."
        ) from error
    return path


def _read_file(path: Path) -> object:
    """Return the content of a safetensors file (by its extension), else of a safe pickle."""
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # of junk, torch's reader raises nearly any exception
        cause = first_line(error).rstrip(".")
        if isinstance(error, UnpicklingError):  # without torch's advice to trust the file
            cause = cause.partition(". ")[0]
        raise InputError(
            f"{path} could not be read as weights: {cause}. Use a state_dict saved with torch.save "
            "or safetensors; pickled models are refused because loading one executes code in the "
            "file."
        ) from error


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Return the flat state_dict in ``content``, without prefixes that wrapper modules added."""
    for name in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"{path} contains a {type(content).__name__}, not a state_dict with tensors. Save the "
            "model's state_dict()."
        )
    others = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise InputError(
            f"{path} contains values that are not tensors: {name_some(others)}. Save the model's "
            "state_dict() alone, or under the key 'model' or 'state_dict'."
        )
    state = {str(key): value for key, value in content.items()}
    for prefix in WRAPPER_PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
