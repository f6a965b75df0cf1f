"""flambeau: a ``Learner`` on the user's batches; fast is without guard and doctor."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    from flambeau import Learner, TensorData, TrainingOptions

from flambeau_bench.side.torch_tiny import TinyTask


def build(task):
    train, valid = task.batches, task.valid_batches
    if task.user_loader:
        train, valid = task.loader(), task.valid_loader()
    choices = {"lr": task.lr, "schedule": "constant", "epochs": 1, "precision": "fp32"}
    options = {}
    if task.user_optimizer:
        options["optimizer"] = lambda model, values: {"main": task.optimizer(model.parameters())}
    else:
        choices |= {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    if task.fast:
        options["nonfinite"] = "off"
    if task.fast or task.watched:  # the doctor looks at a batch, which is not a step
        options["doctor"] = False
    data = TensorData.from_loaders(train, valid, task="regression")
    learner = Learner(data, task.model, choices=choices, training=TrainingOptions(**options))
    return learner.fit


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch", "flambeau"])
