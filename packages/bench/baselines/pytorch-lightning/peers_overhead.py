"""PyTorch Lightning: a ``LightningModule`` and a ``Trainer``; fast is ``barebones=True``."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import pytorch_lightning as pl
    import torch.nn.functional as F

from flambeau_bench.side.torch_tiny import TinyTask


class Batches:
    """Ready batches as an iterable; the Trainer takes a list as one of several loaders."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class Regressor(pl.LightningModule):
    def __init__(self, task):
        super().__init__()
        self.task = task
        self.model = task.model

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.mse_loss(self.model(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.mse_loss(self.model(x), y))

    def configure_optimizers(self):
        return self.task.optimizer()


class BareRegressor(Regressor):
    def log(self, *args, **kwargs):
        """Log nothing: a barebones trainer keeps nothing."""


def build(task):
    if task.fast:
        module, trainer = BareRegressor(task), pl.Trainer(max_epochs=1, barebones=True)
    else:
        module, trainer = Regressor(task), pl.Trainer(max_epochs=1)
    train, valid = Batches(task.batches), Batches(task.valid_batches)
    if task.user_loader:
        train, valid = task.loader(), task.valid_loader()
    return lambda: trainer.fit(module, train, valid)


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch", "pytorch-lightning"])
