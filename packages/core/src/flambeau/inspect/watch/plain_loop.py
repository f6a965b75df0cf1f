"""``inspect``: watch the layers of a model in a training loop that flambeau does not run."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from flambeau.errors import InputError
from flambeau.inspect.watch.inspection import Inspection
from flambeau.inspect.watch.layer_watch import LayerWatch
from flambeau.training.optim.clip import optimized_parameters


class ModelInspection(Inspection):
    """An ``Inspection`` of a plain PyTorch loop; a context manager around the loop.

    A step ends when all optimizers that update parameters of the model have made their ``step()``.
    In the first step these are the ones whose parameters have gradients; after it, those of the
    step before. An optimizer that follows the first step belongs to it; its part is not recorded.
    A step also ends before an optimizer makes its ``step()`` a second time. Calls of the model
    without gradients, such as an evaluation within the loop, are not watched.

    Args:
        model: The model that the loop calls.
        every: As for ``Inspection``.
    """

    def __init__(self, model: nn.Module, every: int | None = None) -> None:
        super().__init__(every)
        self._model = model
        self._step = 0
        self._handles: list[RemovableHandle] = []
        self._known: dict[int, tuple[Optimizer, bool]] = {}
        self._optimizers: dict[int, Optimizer] = {}
        self._stepped: set[int] = set()  # optimizers that have updated weights in this step
        self._together: frozenset[int] = frozenset()  # those of the step before
        self._values: dict[str, float] = {}
        self._has_gradients = False

    def __enter__(self) -> Self:
        if self._handles:
            raise InputError("This inspection is already in use. Call inspect(model) again.")
        lazy = [name for name, value in self._model.named_parameters() if is_lazy(value)]
        if lazy:
            raise InputError(
                f"{lazy[0]!r} has no shape yet, so it cannot be watched. Call the model once on a "
                "batch before the block: model(inputs[:2])."
            )
        self.use(LayerWatch(self._model))
        self._handles = [
            register_optimizer_step_pre_hook(self._before_update),
            register_optimizer_step_post_hook(self._after_update),
        ]
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        watch = self._watch
        if watch is not None:
            if error is None and self._stepped:
                self._end()
            watch.cancel()
            if error is None and self._step and not watch.layers:
                watch.notes.append(
                    "No call of the model was seen, so only its weights were watched. If the loop "
                    "calls torch.compile(model), pass that object."
                )
            if error is None and not self._step:
                watch.notes.append(
                    "No optimizer that has parameters of the model made a step inside the block, "
                    "so nothing was recorded. Put the whole loop inside it."
                )
        self.release()

    def _start(self) -> None:
        """Start the next step, if it is watched."""
        self._has_gradients = False
        if self._watch is not None and self.watches(self._step):
            self._watch.start_step(self._step, in_user_loop=True)

    def _end(self) -> None:
        """End the step, and start the next one."""
        if self._watch is not None:
            self._watch.end_step(self._optimizers.values(), self._values)
            self.thin_out_unread()
        self._together = frozenset(self._stepped)
        self._stepped.clear()
        self._step += 1
        self._start()

    def _before_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._watch is None or not self._is_of_model(optimizer):
            return
        if id(optimizer) in self._stepped:
            self._end()
        # An optimizer with a closure computes its gradients later.
        self._has_gradients = any(p.grad is not None for p in optimized_parameters([optimizer]))
        if self._has_gradients:
            self._watch.gradients_ready(updated=optimized_parameters([optimizer]))

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        watch = self._watch
        if watch is None or not self._is_of_model(optimizer):
            return
        if not self._has_gradients:
            watch.gradients_ready(updated=optimized_parameters([optimizer]))
        is_new = id(optimizer) not in self._optimizers
        self._optimizers.setdefault(id(optimizer), optimizer)
        lr: object = optimizer.param_groups[-1]["lr"]
        # A tensor is not read: the host would wait for the device.
        self._values = {"lr": lr} if isinstance(lr, float) else {}
        if is_new and self._step and not self._stepped:
            # The step before ended too early: this optimizer belongs to it. Both its parts would
            # be incomplete as a step of their own, so this one is left out.
            watch.cancel()
            self._together |= {id(optimizer)}
            self._start()
            return
        self._stepped.add(id(optimizer))
        if self._all_have_stepped():
            self._end()

    def _all_have_stepped(self) -> bool:
        """Return whether no further optimizer is expected to update weights in this step.

        In the first step this must be known before the next batch: its outputs would be counted.
        """
        if self._together:
            return self._together <= self._stepped
        updated = set(map(id, optimized_parameters(self._optimizers.values())))
        return all(p.grad is None or id(p) in updated for p in self._model.parameters())

    def _is_of_model(self, optimizer: Optimizer) -> bool:
        known = self._known.get(id(optimizer))
        if known is None:
            own = set(map(id, self._model.parameters()))
            known = optimizer, any(id(p) in own for p in optimized_parameters([optimizer]))
            self._known[id(optimizer)] = known
        return known[1]


def inspect(model: nn.Module, *, every: int | None = None) -> ModelInspection:
    """Return a context manager that watches the layers of a model in a plain PyTorch loop.

    In the watched steps it computes, on the device, statistics of the outputs, gradients, weights
    and updates of every layer. It changes nothing, and reads nothing from the device before the end
    of the block. ``learner.inspect`` does the same for ``fit``.

    Gradients of weights are those that the optimizer gets: after clipping, if the loop clips them.
    With a ``GradScaler`` the gradients of outputs include the scale of the loss.

    Args:
        model: Any module. Its functions such as ``F.relu`` are watched, too, but nothing inside a
            region of ``torch.compile``.
        every: Watch every ``every``-th step; None watches the first ten steps, every tenth step up
            to 100, and every hundredth step after that.

    Raises:
        ArgumentError: ``every`` is not a number.
        InputError: ``every`` is less than 1, or a lazy layer of the model has no weights yet.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with inspect(model) as watch:
        ...     for _ in range(5):
        ...         model(torch.ones(16, 4)).mean().backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        >>> list(watch.record.layers)
        ['(input)', '0', '1', '2']
    """
    return ModelInspection(model, every)
