"""PyTorch Lightning's Trainer.

Fast is bf16 where the processor has it, channels last, fused AdamW and one cycle, without logger,
checkpoints and bar.
"""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader

from flambeau_bench.side.torch_fashion import FashionImages, FashionTask


class Classifier(pl.LightningModule):
    def __init__(self, task):
        super().__init__()
        self.model, self.task = task.model, task

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        accuracy = (self.model(x).argmax(1) == y).float().mean()
        self.log("valid_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self):
        fused = True if self.task.fast else None
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.task.lr, fused=fused)
        if not self.task.fast:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.task.lr, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def build(task):
    options = {}
    if task.fast:
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        task.model.to(memory_format=torch.channels_last)
        options["precision"] = "bf16-mixed" if task.bf16 else "32-true"
    trainer = pl.Trainer(max_epochs=task.epochs, **options)
    train = FashionImages(task.train_images, task.train_labels)
    valid = FashionImages(task.valid_images, task.valid_labels)
    train = DataLoader(train, batch_size=task.batch_size, shuffle=True)
    valid = DataLoader(valid, batch_size=task.batch_size)
    return lambda: trainer.fit(Classifier(task), train, valid)


if __name__ == "__main__":
    serve(build, FashionTask, imports, ["torch", "pytorch-lightning"])
