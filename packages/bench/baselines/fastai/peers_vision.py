"""fastai: ``fit_one_cycle``; fast is channels last, fused, no bar (its bf16 is for CUDA only)."""

from functools import partial

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    from fastai.vision.all import *

from flambeau_bench.side.torch_fashion import FashionImages, FashionTask


def build(task):
    train = FashionImages(task.train_images, task.train_labels)
    valid = FashionImages(task.valid_images, task.valid_labels)
    if task.fp32:  # all sides train on all images; fastai drops the last, smaller batch else
        train = DataLoader(train, bs=task.batch_size, shuffle=True, drop_last=False)
        dls = DataLoaders(train, DataLoader(valid, bs=task.batch_size))
    else:
        dls = DataLoaders.from_dsets(train, valid, bs=task.batch_size)
    opt_func = Adam
    if task.fast:
        opt_func = partial(OptimWrapper, opt=partial(torch.optim.AdamW, fused=True))
    learn = Learner(
        dls, task.model, loss_func=CrossEntropyLossFlat(), opt_func=opt_func, metrics=accuracy
    )

    def fit():
        learn.fit_one_cycle(task.epochs, task.lr)

    def fit_fast():
        learn.to_channelslast(use_amp=False)
        with learn.no_bar():
            learn.fit_one_cycle(task.epochs, task.lr)

    return fit_fast if task.fast else fit


if __name__ == "__main__":
    serve(build, FashionTask, imports, ["torch", "fastai", "fastcore"])
