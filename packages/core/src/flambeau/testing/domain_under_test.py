"""``DomainUnderTest``: a domain with its demo data and the objects that a plan builds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.artefact.predictor import Predictor
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.data.preprocess import Preprocessor
from flambeau.domain import Domain, get_domain, load_domain, rules_of
from flambeau.errors import ArgumentError, did_you_mean
from flambeau.plan import Plan
from flambeau.task.task import StepContext, Task
from flambeau.testing.conformance_report import conformance_error


class DomainUnderTest:
    """The objects that conformance checks read, each built once through core's public API.

    Args:
        domain: A record, its name, or its reference (``"package.module:DOMAIN"``).
        models: Architectures to build in addition to the one in the plan; choose architectures
            that are built in a few seconds.
        n_samples: Size of the demo data, ``domain.demo(n_samples, seed)``.
        seed: Seed of the demo data and of all random numbers.
        batch_size: Samples per batch; small, so that there are several batches.
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
            domain = load_domain(domain) if ":" in domain else get_domain(domain)
        self.domain = domain
        self.n_samples = n_samples
        self.seed = seed
        self.batch_size = batch_size
        for name in models:
            if name not in domain.models:
                raise ArgumentError(
                    f"Unknown architecture {name!r} for the domain {domain.name!r}. "
                    f"{did_you_mean(name, domain.models)}"
                )
        self._named = tuple(models)

    def make_data(self) -> Data:
        """Create the demo data."""
        if self.domain.demo is None:
            raise conformance_error(
                f"The domain {self.domain.name!r} has no demo.",
                "the checks and `flambeau demo` need data",
                "set demo=function(n_samples, seed) -> Data in the record; it creates a small "
                "synthetic data set",
            )
        return self.domain.demo(self.n_samples, self.seed)

    @cached_property
    def data(self) -> Data:
        """The demo data."""
        return self.make_data()

    def values_of(self, data: Data, architecture: str | None = None) -> Mapping[str, Any]:
        """Return the values of a plan for ``data`` on the CPU in fp32."""
        user = {**data.choices, "device": "cpu", "precision": "fp32"}
        if architecture is not None:
            user["architecture"] = architecture
        return dict(Plan.derive(rules_of(self.domain), data.facts(), user).values)

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The values of the plan for the demo data."""
        return self.values_of(self.data)

    @property
    def models(self) -> tuple[str, ...]:
        """The architectures that the checks build: the plan's, then the ones given by name."""
        return tuple(dict.fromkeys((self.values["architecture"], *self._named)))

    @cached_property
    def preprocessor(self) -> Preprocessor:
        """The preprocessor, fitted on the demo data."""
        return self.data.preprocessor(self.values)

    @cached_property
    def task(self) -> Task:
        """The task of the plan."""
        arguments = self.data.task_arguments(self.preprocessor, self.values)
        return self.domain.tasks[self.values["task"]](**arguments)

    def loader(self, part: str, *, shuffle: bool = False) -> Loader:
        """Return a new loader for a part of the data."""
        options = LoaderOptions(self.batch_size, shuffle=shuffle, seed=self.seed)
        return self.data.dataset(part, self.preprocessor, self.values).loader(options)

    def model_spec(self, name: str) -> dict[str, Any]:
        """Return builder and arguments of an architecture, as an export stores them."""
        values = self.values_of(self.data, name)
        arguments = self.data.model_arguments(self.data.preprocessor(values), values)
        return {"builder": name, "arguments": dict(arguments)}

    def build(self, name: str) -> nn.Module:
        """Build an architecture with initial weights that depend only on the seed."""
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(self.seed)  # pyright: ignore[reportUnknownMemberType]
            return self.domain.models[name](**self.model_spec(name)["arguments"])

    def predictor(self, model: nn.Module) -> Predictor:
        """Return a predictor with the preprocessor and the task of the data."""
        return Predictor(self.preprocessor, model, self.task, batch_size=self.batch_size)

    def training_batches(self, n: int) -> Iterator[Batch]:
        """Yield the first ``n`` training batches of an epoch, augmented and after ``on_device``."""
        transforms = self.data.transforms(self.values)
        loader = self.loader("train", shuffle=True)
        for batch, _ in zip(loader.batches(0), range(n), strict=False):
            transformed = batch
            for transform in transforms:
                transformed = transform(transformed, self.seed)
            yield self.preprocessor.on_device(transformed)

    def training_loss(self, model: nn.Module, batch: Batch) -> tuple[Any, Any]:
        """Return ``(sum, weight)`` of a training batch, with torch's generator seeded."""
        context = StepContext("train", values=dict(self.task.values), seed=self.seed)
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.manual_seed(self.seed)  # pyright: ignore[reportUnknownMemberType]
            return self.task.loss(self.task.forward(model, batch, context), batch)


def named_tensors(batch: Batch) -> dict[str, Tensor]:
    """Return all tensors of a batch except the indices, by kind and name."""
    kinds = (
        ("input", batch.inputs),
        ("target", batch.targets),
        ("mask", batch.masks),
        ("task input", batch.task_inputs),
    )
    found = {f"{kind} {name!r}": value for kind, part in kinds for name, value in part.items()}
    weights = batch.sample_weight
    return found if weights is None else found | {"sample_weight": weights}


def indices_of(batches: Iterable[Batch]) -> list[int]:
    """Return the sample indices of all batches, in order."""
    found: list[int] = []
    for batch in batches:
        if batch.indices is not None:
            found.extend(int(index) for index in batch.indices)
    return found
