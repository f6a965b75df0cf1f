"""Lightning Fabric: a custom loop with its set-up; fast is torch's fused optimizer."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    import torch.nn.functional as F
    from lightning_fabric import Fabric

from flambeau_bench.side.torch_tiny import TinyTask


def build(task):
    fabric = Fabric()
    model, optimizer = fabric.setup(task.model, task.optimizer())
    train, valid = task.batches, task.valid_batches
    if task.user_loader:
        train, valid = fabric.setup_dataloaders(task.loader(), task.valid_loader())

    def fit():
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            fabric.backward(loss)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            return sum(F.mse_loss(model(x), y).item() for x, y in valid) / len(valid)

    return fit


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch", "lightning-fabric"])
