"""``WeightWatch``: norms of weights, gradients and updates, and embedding rows without updates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.inspect.watch.layer_statistics import norm_of
from flambeau.inspect.watch.watched_layer import WatchedWeight, watched_weights
from flambeau.training.optim.clip import optimized_parameters
from flambeau.training.optim.fused_step import with_inner

WEIGHT_COLUMNS = ("norm", "gradient_norm", "update_norm", "unused_rows")
"""Of a weight in a step: its norm before the update, that of the gradient before clipping (in
a loop of the user: as the optimizer gets it), that of
the update (new weight minus old weight), and, of an embedding, the rows that were never updated."""

NO_GRADIENT, FROZEN, NO_OPTIMIZER = -1.0, -2.0, -3.0
"""Values of ``gradient_norm`` of a weight without a gradient, of one that needs none, and of one
that has a gradient but no optimizer."""

_COLINEAR = 1e-6


class WeightWatch:
    """Computes ``WEIGHT_COLUMNS`` of each parameter in the watched steps.

    The weights are copied at the start of a watched step, and the copies are freed at its end.

    Args:
        trained: The model, together with the parameters of the task if it has any.

    Attributes:
        weights: The parameters by name.
    """

    def __init__(self, trained: nn.Module) -> None:
        self.weights: dict[str, WatchedWeight] = watched_weights(trained)
        self._trained = trained
        self._parameters: dict[str, nn.Parameter] = {}
        self._optimizers: tuple[Optimizer, ...] = ()
        self._before: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}
        self.first: dict[str, Tensor] = {}  # initial embeddings, if no optimizer tells unused rows

    def start(self) -> None:
        """Copy the weights before a step."""
        self._parameters = dict(self._trained.named_parameters())
        if self._parameters.keys() != self.weights.keys():
            self.weights |= watched_weights(self._trained)
        self._gradients = {}
        self._before = {
            name: value.detach().clone()
            for name, value in self._parameters.items()
            if value.requires_grad
        }

    def gradients_ready(self, updated: Collection[nn.Parameter] | None = None) -> None:
        """Compute the norms of the gradients; called before they are clipped.

        Args:
            updated: The parameters that are updated next; None for all. A step may update several
                optimizers, one after the other.
        """
        chosen = None if updated is None else set(map(id, updated))
        for name, value in self._parameters.items():
            if chosen is not None and id(value) not in chosen:
                continue
            if value.grad is not None and value.grad.layout is torch.strided:
                self._gradients[name] = norm_of(value.grad)

    def end(self, optimizers: Iterable[Optimizer]) -> dict[str, Tensor]:
        """Return ``WEIGHT_COLUMNS`` of each weight, float32 ``(4,)``, on its device."""
        self._optimizers = tuple(each for made in optimizers for each in with_inner(made))
        optimized = set(map(id, optimized_parameters(self._optimizers)))
        found: dict[str, Tensor] = {}
        for name, value in self._parameters.items():
            before = self._before.get(name)
            now = value.detach()
            gradient = self._gradients.get(name)
            if before is None:
                gradient = now.new_full((), FROZEN, dtype=torch.float32)
            elif id(value) not in optimized:
                gradient = now.new_full((), NO_OPTIMIZER, dtype=torch.float32)
            elif gradient is None:
                sparse = value.grad is not None and value.grad.layout is not torch.strided
                missing = torch.nan if sparse else NO_GRADIENT
                gradient = now.new_full((), missing, dtype=torch.float32)
            zero = torch.zeros_like(gradient)
            old = now if before is None else before
            update = zero if before is None else norm_of(now - before)
            unused = self._unused_rows(name, value, old) if before is not None else None
            unused = zero + torch.nan if unused is None else unused
            found[name] = torch.stack([norm_of(old), gradient, update, unused])
        self.release()
        return found

    def release(self) -> None:
        """Free the copies."""
        self._before, self._gradients, self._optimizers, self._parameters = {}, {}, (), {}

    def _unused_rows(self, name: str, value: nn.Parameter, old: Tensor) -> Tensor | None:
        """Return the number of rows of an embedding that no step has updated, 0-d.

        Adam's second moments of such rows are 0. Without them, unused rows equal the initial ones;
        if no row does, because weight decay shrinks all of them, they are colinear with them.
        """
        if not self.weights[name].is_embedding:
            return None
        moments = self._second_moments(value)
        if moments is not None:
            return (moments.flatten(1).amax(1) == 0).sum().float()
        first = self.first.setdefault(name, old)
        now = value.detach()
        product = (now * first).sum(1, keepdim=True).float()
        residual = now.float() - first.float() * product / first.float().square().sum(
            1, keepdim=True
        ).clamp(min=1e-30)
        size = now.float().square().sum(1).clamp(min=1e-30)
        colinear = residual.square().sum(1) <= _COLINEAR**2 * size
        equal = (now == first).all(1)
        return torch.where(equal.any(), equal, colinear).sum().float()

    def _second_moments(self, value: nn.Parameter) -> Tensor | None:
        for optimizer in self._optimizers:
            state: Mapping[str, object] = optimizer.state.get(value, {})
            found = state.get("exp_avg_sq")
            if isinstance(found, Tensor) and found.shape == value.shape:
                return found
        return None
