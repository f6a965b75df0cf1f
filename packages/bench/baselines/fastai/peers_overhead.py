"""fastai: a ``Learner`` on the user's batches; fast is torch's fused optimizer and no bar."""

from functools import partial

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    from fastai.basics import *

from flambeau_bench.side.torch_tiny import TinyTask
from flambeau_bench.side.user_optimizer import ForLoopAdam


def build(task):
    if task.user_optimizer:
        opt_func = partial(OptimWrapper, opt=ForLoopAdam)
    elif task.fast:
        opt_func = partial(OptimWrapper, opt=partial(torch.optim.SGD, fused=True))
    else:
        opt_func = SGD
    train, valid = task.batches, task.valid_batches
    if task.user_loader:
        train, valid = task.loader(), task.valid_loader()
    learn = Learner(
        DataLoaders(train, valid), task.model, loss_func=nn.MSELoss(), opt_func=opt_func
    )

    def fit():
        learn.fit(1, lr=task.lr)

    def fit_without_bar():
        with learn.no_bar():
            learn.fit(1, lr=task.lr)

    return fit_without_bar if task.fast else fit


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch", "fastai", "fastcore"])
