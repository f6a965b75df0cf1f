"""``Subject``: a domain under test, with its made data and all that a plan makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from flambeau import domain as domains
from flambeau.artefact.predictor import Predictor
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain
from flambeau.errors import ArgumentError, nearest
from flambeau.plan import Plan
from flambeau.task.task import StepContext, Task
from flambeau.testing.report import broken


class Subject:
    """Everything that the checks look at, made once and only through core's public API.

    Args:
        domain: A record, its name, or where it stands (``"package.module:DOMAIN"``).
        models: Further architectures to build, besides the one that the plan chooses. Name those
            that build in a second or two.
        n_samples: Size of the made data, which ``domain.demo(n_samples, seed)`` gives.
        seed: Of the made data and of every draw.
        batch_size: Samples in a batch; small, so that there are several.
    """

    def __init__(
        self,
        domain: Domain | str,
        *,
        models: Sequence[str] = (),
        n_samples: int = 64,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        if isinstance(domain, str):
            domain = domains.load(domain) if ":" in domain else domains.get(domain)
        self.domain = domain
        self.n_samples = n_samples
        self.seed = seed
        self.batch_size = batch_size
        for name in models:
            if name not in domain.models:
                raise ArgumentError(
                    f"{name!r} is no model of the domain {domain.name!r}. "
                    f"{nearest(name, domain.models)}"
                )
        self._named = tuple(models)

    def make_data(self) -> Data:
        """The demo data, made anew."""
        if self.domain.demo is None:
            raise broken(
                f"The domain {self.domain.name!r} has no demo.",
                "without data there is nothing to check, and `flambeau demo` has nothing to show",
                "give the record demo=function(n_samples, seed) -> Data that makes a small set",
            )
        return self.domain.demo(self.n_samples, self.seed)

    @cached_property
    def data(self) -> Data:
        """The demo data."""
        return self.make_data()

    def values_of(self, data: Data, architecture: str | None = None) -> Mapping[str, Any]:
        """The plan's values for ``data`` on the CPU."""
        user = {**data.choices, "device": "cpu", "precision": "fp32"}
        if architecture is not None:
            user["architecture"] = architecture
        return dict(Plan.derive(domains.rules_of(self.domain), data.facts(), user).values)

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The plan's values for the demo data."""
        return self.values_of(self.data)

    @property
    def models(self) -> tuple[str, ...]:
        """Architectures that are built: the plan's own, then those that were named."""
        return tuple(dict.fromkeys((self.values["architecture"], *self._named)))

    @cached_property
    def preprocessor(self) -> Preprocessor:
        """Fitted on the demo data."""
        return self.data.preprocessor(self.values)

    @cached_property
    def task(self) -> Task:
        """The plan's task."""
        return self.domain.tasks[self.values["task"]](**self.data.task_arguments(self.values))

    def loader(self, part: str, *, shuffle: bool = False) -> Loader:
        """A fresh loader over a part."""
        options = LoaderOptions(self.batch_size, shuffle=shuffle, seed=self.seed)
        return self.data.dataset(part, self.preprocessor, self.values).loader(options)

    def model_spec(self, name: str) -> dict[str, Any]:
        """Builder and arguments of an architecture, as an export keeps them."""
        values = self.values_of(self.data, name)
        return {"builder": name, "arguments": dict(self.data.model_arguments(values))}

    def build(self, name: str) -> nn.Module:
        """The architecture with weights that depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(self.seed)  # pyright: ignore[reportUnknownMemberType]
            return self.domain.models[name](**self.model_spec(name)["arguments"])

    def predictor(self, model: nn.Module) -> Predictor:
        """A predictor with the data's preprocessor and task."""
        return Predictor(self.preprocessor, model, self.task, batch_size=self.batch_size)

    def training_batches(self, n: int) -> Iterator[Batch]:
        """The first batches of an epoch as the loop would see them: augmented, then on device."""
        transforms = self.data.transforms(self.values)
        loader = self.loader("train", shuffle=True)
        for batch, _ in zip(loader.batches(0), range(n), strict=False):
            changed = batch
            for transform in transforms:
                changed = transform(changed, self.seed)
            yield self.preprocessor.on_device(changed)

    def training_loss(self, model: nn.Module, batch: Batch) -> tuple[Any, Any]:
        """``(sum, weight)`` of a training batch, with torch's generator seeded and put back."""
        context = StepContext(training=True, values=dict(self.task.values), seed=self.seed)
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(self.seed)  # pyright: ignore[reportUnknownMemberType]
            return self.task.loss(self.task.forward(model, batch, context), batch)


def named_tensors(batch: Batch) -> dict[str, Tensor]:
    """Every tensor of a batch but the indices, by kind and name."""
    kinds = (("input", batch.inputs), ("target", batch.targets), ("mask", batch.masks))
    return {f"{kind} {name!r}": value for kind, part in kinds for name, value in part.items()}


def indices_of(batches: Iterable[Batch]) -> list[int]:
    """The sample numbers of all batches, in their order."""
    found: list[int] = []
    for batch in batches:
        if batch.indices is not None:
            found.extend(int(index) for index in batch.indices)
    return found
