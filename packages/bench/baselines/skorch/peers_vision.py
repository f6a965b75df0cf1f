"""skorch: a ``NeuralNetClassifier``; fast is channels last, fused, one cycle, no printing."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    from skorch import NeuralNetClassifier
    from skorch.callbacks import LRScheduler
    from skorch.helper import predefined_split

from flambeau_bench.side.torch_fashion import FashionImages, FashionTask


def build(task):
    train = FashionImages(task.train_images, task.train_labels)
    valid = FashionImages(task.valid_images, task.valid_labels)
    options = {}
    if task.fast:
        steps = -(-len(train) // task.batch_size) * task.epochs
        one_cycle = LRScheduler(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=task.lr,
            total_steps=steps,
            step_every="batch",
        )
        options = {"callbacks": [one_cycle], "callbacks__print_log": None}
        options["optimizer__fused"] = True
        task.model.to(memory_format=torch.channels_last)
    net = NeuralNetClassifier(
        task.model,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=task.lr,
        max_epochs=task.epochs,
        batch_size=task.batch_size,
        iterator_train__shuffle=True,
        train_split=predefined_split(valid),
        classes=list(range(10)),
        **options,
    )
    return lambda: net.fit(train, y=None)


if __name__ == "__main__":
    serve(build, FashionTask, imports, ["torch", "skorch", "scikit-learn"])
