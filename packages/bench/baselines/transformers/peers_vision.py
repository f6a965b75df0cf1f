"""The Trainer of transformers, whose defaults are fused AdamW and a linear schedule.

Fast is bf16 where the processor has it and channels last, without bar, logs and checkpoints.
"""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import Dataset
    from transformers import Trainer, TrainingArguments

from flambeau_bench.side.torch_fashion import FashionImages, FashionTask


class Samples(Dataset):
    """The Trainer takes samples as dicts."""

    def __init__(self, images, labels):
        self.pairs = FashionImages(images, labels)

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        image, label = self.pairs[index]
        return {"x": image, "labels": label}


class WithLoss(nn.Module):
    """A model for the Trainer returns its loss when it is given labels."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, labels=None):
        logits = self.model(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def accuracy(predictions):
    return {"accuracy": float((predictions.predictions.argmax(1) == predictions.label_ids).mean())}


def build(task):
    fast = {"disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no"}
    arguments = TrainingArguments(
        output_dir="trainer_output",
        use_cpu=True,
        num_train_epochs=task.epochs,
        per_device_train_batch_size=task.batch_size,
        per_device_eval_batch_size=task.batch_size,
        learning_rate=task.lr,
        eval_strategy="epoch",
        report_to="none",
        bf16=task.bf16,
        **(fast if task.fast else {}),
    )
    if task.fast:
        task.model.to(memory_format=torch.channels_last)
    trainer = Trainer(
        model=WithLoss(task.model),
        args=arguments,
        train_dataset=Samples(task.train_images, task.train_labels),
        eval_dataset=Samples(task.valid_images, task.valid_labels),
        compute_metrics=accuracy,
    )
    return trainer.train


if __name__ == "__main__":
    serve(build, FashionTask, imports, ["torch", "transformers", "accelerate"])
