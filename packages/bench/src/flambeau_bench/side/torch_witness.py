"""``Witness``: observes what a torch model is trained on, whatever library trains it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from flambeau_bench.side.array_hash import ArrayHash, of_arrays


class Witness:
    """Hooks on a model that record which batches it sees, in which mode and precision.

    Hashing costs some 10 µs per batch of a tiny model, so a run in which steps take that long is
    not timed while it is watched; the timed runs are compared with it by their final weights.

    Args:
        model: The model; whatever wraps it, its own forward pass is observed.
        hashes: Whether to hash the batches.

    Attributes:
        steps: Batches seen in training mode with gradients.
        samples: Samples in these batches.
        final_evaluations: Batches seen in evaluation mode since the last training batch.
        types: Types of the outputs in training.
    """

    def __init__(self, model: nn.Module, *, hashes: bool = True) -> None:
        self.steps = self.samples = self.final_evaluations = 0
        self.types: set[str] = set()
        self._batches, self._hashes = ArrayHash(), hashes
        self._hook = model.register_forward_hook(self._seen)

    def close(self) -> None:
        """Stop observing."""
        self._hook.remove()

    @property
    def order_hash(self) -> str:
        """Hash of all training batches so far, in order."""
        return self._batches.text()

    def _seen(self, model: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        x: Tensor = inputs[0]
        if not model.training:
            self.final_evaluations += 1
            return
        if not torch.is_grad_enabled():
            return
        self.steps += 1
        self.samples += len(x)
        self.final_evaluations = 0
        self.types.add(str(output.dtype).removeprefix("torch."))
        if not self._hashes:
            return
        # As float32, so that a batch counts as the same in any precision that holds its values.
        self._batches.add(x.detach().float().contiguous().cpu().numpy())


def weights_hash(model: nn.Module) -> str:
    """Return a hash of all parameters in order."""
    return of_arrays(parameter.detach().cpu().float().numpy() for parameter in model.parameters())


def parameter_types(model: nn.Module) -> set[str]:
    """Return the types of the parameters, such as {"float32"}."""
    return {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}


def devices_of(tensors: Iterable[Tensor]) -> str:
    """Return the types of the devices on which tensors are, such as "cpu"."""
    return ", ".join(sorted({tensor.device.type for tensor in tensors}))


def torch_settings() -> dict[str, Any]:
    """Return the version of torch, and its switches that change speed or results."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
