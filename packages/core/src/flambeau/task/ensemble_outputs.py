"""``EnsembleOutputs``: the outputs of the members of an ensemble that trains as one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from flambeau.data.batch import Batch

SumAndWeight = tuple[Tensor, Tensor | float]


@dataclass(frozen=True)
class EnsembleOutputs:
    """The outputs of several members for the same batch, which a model returns in train mode.

    A task's loss is then the mean of the losses of the members, not the loss of their mean: each
    member learns to predict by itself. A sample counts once, however many members there are. In
    eval mode the model averages the predictions of its members and returns a tensor, from which
    metrics and predictions are computed.

    Attributes:
        members: ``(batch, members, …)``: what the members would return, along the second axis.

    Source:
        Gorishniy et al., "TabM: Advancing Tabular Deep Learning with Parameter-Efficient
        Ensembling", 2025 (arXiv 2410.24210), section 3.

    Example:
        >>> import torch
        >>> from flambeau.task import Regression
        >>> outputs = EnsembleOutputs(torch.tensor([[[0.0], [2.0]]]))  # one sample, two members
        >>> batch = Batch({"x": torch.zeros(1, 3)}, {"y": torch.tensor([1.0])})
        >>> Regression().loss(outputs, batch)
        (tensor(1.), 1.0)
    """

    members: Tensor

    def mean_loss(
        self, loss: Callable[[Tensor, Batch], SumAndWeight], batch: Batch
    ) -> SumAndWeight:
        """Return the mean over the members of the summed loss, and the weight of one member.

        Args:
            loss: Returns the summed loss and the weight of outputs ``(samples, …)`` and a batch of
                as many samples. It is called once, with all members one after another.
            batch: The batch that all members share.
        """
        n_members = self.members.shape[1]
        total, weight = loss(self.members.flatten(0, 1), _repeated(batch, n_members))
        return total / n_members, weight / n_members


def _repeated(batch: Batch, n: int) -> Batch:
    """Return a batch in which each sample occurs ``n`` times in succession."""
    repeated = replace(batch, extras={}).map(lambda value: value.repeat_interleave(n, dim=0))
    repeated.extras = {
        name: [value for value in values for _ in range(n)] for name, values in batch.extras.items()
    }
    repeated.indices = None if batch.indices is None else batch.indices.repeat_interleave(n)
    repeated.weight = None if batch.weight is None else batch.weight * n
    return repeated
