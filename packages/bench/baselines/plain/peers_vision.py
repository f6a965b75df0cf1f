"""Plain PyTorch: the usual program; fast is a loop tuned by hand for data in memory."""

from flambeau_bench.side.protocol import ImportTimer, serve

with ImportTimer() as imports:
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader

from flambeau_bench.side.torch_fashion import FashionImages, FashionTask, normalised


def build(task):
    return build_tuned(task) if task.fast else build_usual(task)


def build_usual(task):
    model, batch_size = task.model, task.batch_size
    train = FashionImages(task.train_images, task.train_labels)
    train = DataLoader(train, batch_size=batch_size, shuffle=True)
    valid = DataLoader(FashionImages(task.valid_images, task.valid_labels), batch_size=batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.lr)

    def fit():
        for _ in range(task.epochs):
            model.train()
            for x, y in train:
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                correct = sum((model(x).argmax(1) == y).sum().item() for x, y in valid)
            print(f"accuracy {correct / len(task.valid_labels):.4f}")

    return fit


def build_tuned(task):
    """Gather whole batches, fused AdamW, one cycle, channels last, bf16 where it is fast."""
    model = task.model.to(memory_format=torch.channels_last)
    x, valid_x = (torch.from_numpy(images) for images in (task.train_images, task.valid_images))
    y, valid_y = (torch.from_numpy(labels) for labels in (task.train_labels, task.valid_labels))
    steps = -(-len(x) // task.batch_size) * task.epochs
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=task.lr, total_steps=steps)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=task.bf16)

    def fit():
        for _ in range(task.epochs):
            model.train()
            for rows in torch.randperm(len(x)).split(task.batch_size):
                with autocast:
                    logits = model(normalised(x.index_select(0, rows)))
                loss = F.cross_entropy(logits.float(), y.index_select(0, rows))
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            model.eval()
            with torch.no_grad(), autocast:
                batches = zip(valid_x.split(1_000), valid_y.split(1_000), strict=True)
                correct = sum((model(normalised(a)).argmax(1) == b).sum() for a, b in batches)
            print(f"accuracy {int(correct) / len(valid_y):.4f}")

    return fit


if __name__ == "__main__":
    serve(build, FashionTask, imports, ["torch"])
