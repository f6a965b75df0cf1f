"""The Trainer of Hugging Face transformers; fast is fused, without bar, logs and checkpoints.

It requires a data set, which it reads through its ``DataLoader``; the elements of the data
set are ready batches.
"""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch.nn.functional as F
    from torch import nn
    from transformers import Trainer, TrainingArguments

from flambeau_bench.side.torch_tiny import ReadyBatches, TinyTask

NAMES = ("x", "labels")


class WithLoss(nn.Module):
    """A model for the Trainer returns its loss when it is given labels."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, labels=None):
        logits = self.model(x)
        return {"loss": F.mse_loss(logits, labels), "logits": logits}


class TrainerOfUserLoaders(Trainer):
    def __init__(self, task, **arguments):
        super().__init__(**arguments)
        self.task = task

    def get_train_dataloader(self):
        return self.accelerator.prepare(self.task.loader(NAMES))

    def get_eval_dataloader(self, eval_dataset=None):
        return self.accelerator.prepare(self.task.valid_loader(NAMES))


def build(task):
    fast = {"disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no"}
    arguments = TrainingArguments(
        output_dir="trainer_output",
        num_train_epochs=1,
        per_device_train_batch_size=1,  # elements of the data set are batches
        per_device_eval_batch_size=1,
        train_sampling_strategy="sequential",
        eval_strategy="epoch",
        optim="sgd",
        learning_rate=task.lr,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to="none",
        **(fast if task.fast else {}),
    )
    model, optimizer = WithLoss(task.model), None
    if task.fast or task.user_optimizer:
        optimizer = task.optimizer(model.parameters())
    trainer = (TrainerOfUserLoaders if task.user_loader else Trainer)(
        **({"task": task} if task.user_loader else {}),
        model=model,
        args=arguments,
        train_dataset=ReadyBatches(task.batches, NAMES),
        eval_dataset=ReadyBatches(task.valid_batches, NAMES),
        data_collator=lambda batches: batches[0],
        optimizers=(optimizer, None),
    )
    return trainer.train


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch", "transformers", "accelerate"])
