"""Hugging Face Accelerate: a custom loop with ``prepare``; fast is torch's fused optimizer."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    import torch.nn.functional as F
    from accelerate import Accelerator

from flambeau_bench.side.torch_tiny import TinyTask


def build(task):
    accelerator = Accelerator()
    model, optimizer = accelerator.prepare(task.model, task.optimizer())
    train, valid = task.batches, task.valid_batches
    if task.user_loader:
        train, valid = accelerator.prepare(task.loader(), task.valid_loader())

    def fit():
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            return sum(F.mse_loss(model(x), y).item() for x, y in valid) / len(valid)

    return fit


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch", "accelerate"])
