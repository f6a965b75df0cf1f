"""A small complete domain; the tests set ``FLAW`` to the name of a flaw.

Raw inputs are lists of three numbers. The preprocessor standardises them with train statistics.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import LoaderOptions, count_steps, epoch_order
from flambeau.data.preprocess import Preprocessor
from flambeau.data.split import Split
from flambeau.doctor import Check, Finding
from flambeau.domain import Domain
from flambeau.plan import Choice, Rule
from flambeau.task.metric_choice import fresh_metrics
from flambeau.task.metrics import Metric, SumMetric
from flambeau.task.task import StepContext, Task

FLAW = ""
_calls = itertools.count()


class ToyPreprocessor(Preprocessor):
    builder = "toy_preprocessor"

    def __init__(self, columns: Sequence[str], shift: float, scale: Tensor) -> None:
        self.columns, self.shift, self.scale = list(columns), shift, scale

    def encode(self, items: Sequence[Any]) -> Batch:
        x = torch.tensor(items, dtype=torch.float32)
        if FLAW == "encode has another dtype":
            x = x.double()
        if FLAW == "encode rounds":
            x = (x * 100).round() / 100
        if FLAW == "encode has another name":
            return Batch({"z": x})
        return Batch({"x": x})

    def on_device(self, batch: Batch) -> Batch:
        if FLAW == "batch statistics":
            return batch.map(lambda v: v - v.mean(0) if v.is_floating_point() else v)
        x = batch.inputs["x"]
        return replace(batch, inputs={"x": (x - self.shift) / self.scale})

    def collect(self, items: Any, outputs: Sequence[Any]) -> Any:
        if FLAW == "collect drops an output":
            return list(outputs)[1:]
        found = super().collect(items, outputs)
        if FLAW == "collect drops the index" and not isinstance(found, list):
            return found.reset_index(drop=True)
        if FLAW == "collect returns a list":
            return list(outputs)
        return found

    def arguments(self) -> Mapping[str, Any]:
        shift = 0.0 if FLAW == "an argument is dropped" else self.shift
        columns: Any = (lambda: 0) if FLAW == "code in the arguments" else self.columns
        return {"columns": columns, "shift": shift}

    def tensors(self) -> Mapping[str, Tensor]:
        return {"scale": self.scale}


class FlawedBatch(Batch):
    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        if FLAW == "batches do not move":
            return self
        if FLAW == "indices move":
            moved = self.map(lambda value: value.to(device))
            return replace(moved, indices=self.indices.to(device))
        if FLAW == "moving drops the weight":
            return replace(self.map(lambda value: value.to(device)), weight=None)
        return super().to(device, non_blocking=non_blocking)


class ToyDataset:
    def __init__(self, x: Tensor, y: Tensor, ids: Tensor) -> None:
        self.x, self.y, self.ids = x, y, ids

    def __len__(self) -> int:
        return len(self.ids)

    def loader(self, options: LoaderOptions) -> "ToyLoader":
        return ToyLoader(self, options)


class ToyLoader:
    def __init__(self, data: ToyDataset, options: LoaderOptions) -> None:
        self.data, self.options, self.number = data, options, next(_calls)

    @property
    def steps_per_epoch(self) -> int:
        steps = count_steps(len(self.data), self.options)
        return steps + 1 if FLAW == "one step too many" else steps

    def order(self, epoch: int) -> Tensor:
        options, n = self.options, len(self.data)
        if options.shuffle and FLAW == "train is not shuffled":
            options = replace(options, shuffle=False)
        if options.shuffle and FLAW == "one order for all epochs":
            epoch = 0
        if options.shuffle and FLAW == "order depends on the loader":
            epoch = epoch + 1000 * self.number
        if not options.shuffle and FLAW == "valid is shuffled":
            options = replace(options, shuffle=True)
        if not options.shuffle and FLAW == "valid is sorted":
            return self.data.x[:, 0].argsort()
        order = epoch_order(n, options, epoch)
        return order[:-1] if FLAW == "a sample is missing" else order

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        if FLAW == "start_step is ignored":
            start_step = 0
        noise = torch.Generator().manual_seed(self.number)
        for step, rows in enumerate(self.order(epoch).split(self.options.batch_size)):
            if step < start_step:
                continue
            x, y = self.data.x[rows], self.data.y[rows]
            if FLAW == "noise from one generator":
                x = x + 0.01 * torch.randn(x.shape, generator=noise)
            if FLAW == "a target is missing":
                y = y[1:]
            if FLAW == "the last batch has another dtype" and len(rows) < self.options.batch_size:
                y = y.int()
            ids: Any = self.data.ids[rows]
            ids = {"no indices": None, "indices count from 0": rows}.get(FLAW, ids)
            weight: Any = float(len(rows))
            weight = {"weight is a tensor": torch.tensor(weight), "weight is 0": 0.0}.get(
                FLAW, weight
            )
            targets = {} if FLAW == "no targets" else {"y": y}
            yield FlawedBatch({"x": x}, targets, weight=weight, indices=ids, epoch=epoch)


@dataclass(frozen=True)
class ToyData(Data):
    x: Tensor
    y: Tensor
    rows: Split
    domain = "toydomain:DOMAIN"

    @property
    def split(self) -> Split:
        return self.rows

    @property
    def choices(self) -> Mapping[str, Any]:
        return {}

    def facts(self) -> Mapping[str, Any]:
        train = self.x[self.rows.train.tolist()]
        facts: dict[str, Any] = {
            "n_train": len(train),
            "n_valid": len(self.rows.valid),
            "split": self.rows.describe(),
            "largest": float(train.max()),
        }
        if FLAW == "facts have a counter":
            facts["counter"] = next(_calls)
        if FLAW == "facts are not JSON":
            facts["shape"] = self.x.shape, {1, 2}
        if FLAW == "facts of all rows":
            facts["mean"] = float(self.x[list(self.rows.train) + list(self.rows.valid)].mean())
        return facts

    def preprocessor(self, values: Mapping[str, Any]) -> ToyPreprocessor:
        rows = list(self.rows.train)
        if FLAW in ("shift of all rows", "scale of all rows"):
            rows += list(self.rows.valid)
        train = self.rows.train.tolist()
        shift = float(self.x[rows if FLAW == "shift of all rows" else train].mean())
        scale = self.x[rows if FLAW == "scale of all rows" else train].std(0)
        return ToyPreprocessor("abc", shift, scale)

    def dataset(self, part: str, preprocessor: Any, values: Mapping[str, Any]) -> ToyDataset:
        rows = torch.tensor(self.rows.part(part).tolist())
        return ToyDataset(self.x[rows], self.y[rows], rows)

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {"width": 3}

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if FLAW == "labels of all rows":
            return {"labels": ["no", f"yes ({int(self.y[self.rows.valid.tolist()].sum())})"]}
        return {"labels": ["no", "yes"]}

    def raw(self, part: str) -> Sequence[Any]:
        items = self.x[self.rows.part(part).tolist()].tolist()
        return items[1:] if FLAW == "raw lacks an input" else items

    def subset(self, rows: Mapping[str, Sequence[int]]) -> Data:
        if FLAW == "no subset":
            return super().subset(rows)
        split = Split.from_indices(rows["train"], rows["valid"], rows.get("test", ()))
        return replace(self, rows=split)


class ToyModel(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(width, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.drop = nn.Dropout(0.1)
        if FLAW == "a parameter is unused":
            self.spare = nn.Parameter(torch.zeros(3))
        self.offset = torch.zeros(2)  # state outside parameters and buffers
        if FLAW == "state is not a buffer":
            self.offset = torch.full((2,), float(next(_calls)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.first(x)).relu())
        if FLAW == "gradients are nan":
            x = x + (self.first.weight.sum() * 0).sqrt()
        if FLAW == "detached":
            x = self.head(x).detach()
            return x
        return self.head(x) + self.offset


class WideModel(ToyModel):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        if FLAW == "the second model has a fault":
            self.spare = nn.Parameter(torch.zeros(3))


class ToyMetric(SumMetric):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        self.add("factor", torch.tensor(self.factor))

    def compute(self) -> float:
        return float(self.sums["factor"])

    def arguments(self) -> Mapping[str, Any]:
        return {} if FLAW == "a metric drops an argument" else {"factor": self.factor}


class ToyTask(Task):
    builder = "toy_task"

    def __init__(self, labels: Sequence[str], metrics: Mapping[str, Metric] | None = None) -> None:
        self.labels = list(labels)
        self.own = {"own": ToyMetric(2)} if metrics is None else metrics

    def metrics(self) -> Mapping[str, Metric]:
        return fresh_metrics(self.own, {})

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        return model(batch.input)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Any, Any]:
        total: Any = F.cross_entropy(outputs, batch.target, reduction="sum")
        if FLAW == "loss is nan":
            total = total / 0 * 0
        if FLAW == "loss is not summed":
            total = F.cross_entropy(outputs, batch.target, reduction="none")
        return total, 0 if FLAW == "loss has weight 0" else len(batch)

    def decode(self, outputs: Tensor) -> list[Any]:
        return [self.labels[i] for i in outputs.argmax(1).tolist()]

    def arguments(self) -> Mapping[str, Any]:
        labels = ["a", "b"] if FLAW == "labels are dropped" else self.labels
        return {"labels": labels, "metrics": {} if FLAW == "metrics are dropped" else self.own}


def demo(n_samples: int, seed: int) -> Data:
    if FLAW == "demo ignores the seed":
        seed = next(_calls)
    x = torch.randn(n_samples, 3, generator=keyed.generator(seed, "toy")) * 2 + 1
    split_seed = next(_calls) if FLAW == "split ignores the seed" else seed
    split = Split.random(n_samples, valid=0.2, test=0.2, seed=split_seed)
    return ToyData(x, (x.sum(1) > 3).long(), split)


def _fixed(key: str, value: Any) -> Rule:
    return Rule(key, (), lambda facts, values: Choice(key, value, "Fixed in the toy."))


def _find_toy(subject: Any) -> Any:
    if FLAW == "a check raises":
        raise KeyError("gone")
    if FLAW == "a check has a false alarm":
        return Finding("toy", "A false alarm.", {}, "Nothing to fix.")
    return None


DOMAIN = Domain(
    name="toy",
    data_classes={"ToyData": ToyData},
    models={"toy": ToyModel, "toy_wide": WideModel, "toy_huge": ToyModel},
    tasks={"toy_task": ToyTask},
    metrics={"toy_metric": ToyMetric},
    preprocessors={"toy_preprocessor": ToyPreprocessor},
    rules=tuple(
        _fixed(key, value)
        for key, value in {
            "architecture": "toy", "task": "toy_task", "loss": "cross_entropy", "metrics": [],
            "targets": "one", "lr": 0.1, "normalisation": "standard", "batch_size": 8,
            "num_workers": 0, "epochs": 1,
        }.items()
    ),
    checks=(Check("toy", "flaws set by the tests", _find_toy),),
    demo=demo,
)  # fmt: skip
