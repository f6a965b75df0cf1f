"""Hugging Face Accelerate: the usual program with ``prepare``.

Fast is bf16 where the processor has it, channels last, fused AdamW and one cycle.
"""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    import torch.nn.functional as F
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

from flambeau_bench.side.torch_fashion import FashionImages, FashionTask


def build(task):
    train = FashionImages(task.train_images, task.train_labels)
    train = DataLoader(train, batch_size=task.batch_size, shuffle=True)
    valid = FashionImages(task.valid_images, task.valid_labels)
    valid = DataLoader(valid, batch_size=task.batch_size)
    fused = True if task.fast else None
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=task.lr, fused=fused)
    schedule = None
    if task.fast:
        task.model.to(memory_format=torch.channels_last)
        steps = len(train) * task.epochs
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.lr, total_steps=steps)
    accelerator = Accelerator(mixed_precision="bf16" if task.bf16 else "no")
    model, optimizer, train, valid = accelerator.prepare(task.model, optimizer, train, valid)

    def fit():
        for _ in range(task.epochs):
            model.train()
            for x, y in train:
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                if schedule is not None:
                    schedule.step()
            model.eval()
            with torch.no_grad():
                correct = sum((model(x).argmax(1) == y).sum().item() for x, y in valid)
            print(f"accuracy {correct / len(task.valid_labels):.4f}")

    return fit


if __name__ == "__main__":
    serve(build, FashionTask, imports, ["torch", "accelerate"])
