"""flambeau: ``Learner(data, net)``; fast is the same, as its plan is fast by default."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    from flambeau import Learner, TrainingOptions
    from flambeau_vision import ImageData

from flambeau_bench.side.torch_fashion import FashionTask


def build(task):
    data = ImageData.from_arrays(
        task.train_images, task.train_labels, valid=(task.valid_images, task.valid_labels)
    )
    choices, options = {"batch_size": task.batch_size}, TrainingOptions()
    if task.fp32:  # and no batch but those of three epochs, which are counted
        choices |= {"precision": "fp32", "probe": "off"}
        options = TrainingOptions(doctor=False)
    learner = Learner(data, task.model, choices=choices, training=options, seed=task.seed)
    return lambda: learner.fit(task.epochs)


if __name__ == "__main__":
    serve(build, FashionTask, imports, ["torch", "flambeau", "flambeau-vision"])
