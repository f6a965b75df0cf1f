"""Plain PyTorch: the training loop as tutorials write it."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    import torch.nn.functional as F

from flambeau_bench.side.torch_tiny import TinyTask


def build(task):
    model, train, valid = task.model, task.batches, task.valid_batches
    if task.user_loader:
        train, valid = task.loader(), task.valid_loader()
    optimizer = task.optimizer()  # the fast setting is its fused form

    def fit():
        model.train()
        for x, y in train:
            loss = F.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            return sum(F.mse_loss(model(x), y).item() for x, y in valid) / len(valid)

    return fit


if __name__ == "__main__":
    serve(build, TinyTask, imports, ["torch"])
