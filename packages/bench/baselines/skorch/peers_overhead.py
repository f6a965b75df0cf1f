"""skorch: a ``NeuralNetRegressor``; fast is torch's fused optimizer and no callbacks.

It requires a data set and a loader of it, so ready batches are read through a ``DataLoader`` that
passes them on.
"""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    from skorch import NeuralNetRegressor
    from skorch.helper import predefined_split
    from torch.utils.data import DataLoader

from flambeau_bench.side.torch_tiny import ReadyBatches, TinyTask, UserRows
from flambeau_bench.side.user_optimizer import ForLoopAdam


def ready_batches(dataset, batch_size):
    """A ``DataLoader`` of a data set whose elements are batches."""
    return DataLoader(dataset, batch_size=None)


def build(task):
    rows, iterator = (UserRows, DataLoader) if task.user_loader else (ReadyBatches, ready_batches)
    options = {"callbacks": "disable", "optimizer__fused": True} if task.fast else {}
    net = NeuralNetRegressor(
        task.model,
        criterion=torch.nn.MSELoss,
        optimizer=ForLoopAdam if task.user_optimizer else torch.optim.SGD,
        lr=task.lr,
        max_epochs=1,
        batch_size=32,
        iterator_train=iterator,
        iterator_valid=iterator,
        train_split=predefined_split(rows(task.valid_batches)),
        **options,
    )
    train = rows(task.batches)
    return lambda: net.fit(train, y=None)


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch", "skorch", "scikit-learn"])
