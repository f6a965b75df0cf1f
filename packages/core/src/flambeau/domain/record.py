"""``Domain``: the record in which a package describes a kind of data to core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

from torch import nn

from flambeau.data.data import Data
from flambeau.data.preprocess import Preprocessor
from flambeau.plan import CORE_RULES, Choice, Rule, combine
from flambeau.plan.order import check_extended, check_needs
from flambeau.plan.rules_task import metrics_rule
from flambeau.task.metrics import Metric
from flambeau.task.named_losses import LOSSES, Loss
from flambeau.task.task import Task

if TYPE_CHECKING:
    from flambeau.data.attributions import Attributions
    from flambeau.doctor.check import Check

API_VERSION = 1
"""The version of ``Domain`` that this release of core reads."""


@runtime_checkable
class FromPath(Protocol):
    """A data class that ``flambeau fit PATH`` can build: the first of a domain's data classes."""

    @classmethod
    def from_path(cls, path: Path, options: Mapping[str, Any]) -> Data:
        """Return the data at ``path``.

        Args:
            path: The file or folder on the command line.
            options: The options that were given: those of the domain by ``CliOption.key``, and
                those of core: "target" (name of the column or file of the targets), "task" (value
                of the plan's key) and "like" (folder of an export: the data are read as its train
                data were read). ``flambeau evaluate`` gives "like" (the folder of the
                model), "task", "classes" (the model's class names in their order, which replace
                those found in the data) and "evaluate" (the part to score: "auto", "all" or a
                name). Data with "evaluate" are only scored: no sample is left out because it is
                unfit for training, and with "auto" and "all" no part is drawn at random
                (``SplitRequest(scored=…)``).
        """
        ...


DATA_COMMANDS = ("fit", "plan", "doctor", "step", "profile", "evaluate")
"""The commands that build the data of a domain with ``from_path``."""

COMMANDS = (*DATA_COMMANDS, "predict")
"""The commands to which a domain can add options."""


@dataclass(frozen=True)
class CliOption:
    """A command-line option that the domain adds to a command.

    Attributes:
        name: Without dashes: ``"size"`` for ``--size 64``.
        type: int, float, str or bool, or a function that returns the value of a text and raises a
            ValueError if it is invalid. A bool option without a value is True.
        help: One sentence for ``--help``.
        key: The name in the options of ``from_path``, for example a key of the plan; "path" if the
            option can replace the argument PATH (``--source a.en``). For ``predict`` the name in
            the options of ``Task.for_prediction``; "prompt" if the value is an input itself, whose
            prediction is printed as it is generated (``flambeau.artefact.streaming``).
    """

    name: str
    type: type[int] | type[float] | type[str] | type[bool] | Callable[[str], Any]
    help: str
    key: str


@dataclass(frozen=True)
class Recognition:
    """What a domain's ``recognise`` found out about a path.

    Attributes:
        certainty: "sure" if the content can hardly be meant for another domain (a column of image
            paths, a folder with images by class), else "possible". "no" if the domain cannot read
            the path and knows why.
        reason: What was found, as a sentence without the path: "The column 'file' has image files."
            It is shown if several domains recognise the path, or if none does.
    """

    certainty: Literal["sure", "possible", "no"]
    reason: str


def _recognise_nothing(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Return None: the domain reads no paths."""
    return None


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Everything that core needs to know about a kind of data.

    The names in ``models``, ``tasks``, ``losses``, ``metrics`` and ``preprocessors`` are stored in
    exports and are therefore part of the file format: a name is kept once it is published. The
    same name may be used in two of these fields. Core's names of tasks, losses and metrics cannot
    be used for other constructors.

    Attributes:
        name: Name in exports, on the command line and of the entry point.
        api: Version of this record for which the package was written.
        data_classes: Data classes by name; the first one has ``from_path`` (see ``FromPath``) if
            ``recognise`` claims paths.
        models: Model builders, called with ``data.model_arguments(preprocessor, values)`` as
            keyword arguments; each returns an ``nn.Module``.
        tasks: Task builders, called with ``data.task_arguments(preprocessor, values)`` likewise.
            For a subclass of one of core's tasks whose constructor takes ``metrics``, the plan
            chooses the metrics as for core's task.
        losses: Constructors of loss objects that a task has among its ``arguments()``:
            ``builder(**loss.arguments())`` returns a function of outputs and targets.
        metrics: Constructors of metrics, called likewise, in addition to core's metrics. For core's
            tasks, the plan's key "metrics" can name those that need no arguments.
        rules: Rules of the plan; one with the key of a core rule replaces it. Without a rule for
            ``architecture`` the first of ``models`` is used.
        checks: Checks for the doctor; one with the code of a core check replaces it.
        preprocessors: Preprocessor builders, ``builder(**arguments, **tensors)``.
        recognise: ``recognise(path, options)`` returns a ``Recognition`` that says whether the
            domain can read an existing path, and why, or None if it cannot. It is called for every
            path on the command line, so it should read only names and a few lines. ``options`` has
            the options of the command by name, as text ("true" for an option without a value).
        cli_options: Options that the domain adds, by command (a name in ``COMMANDS``). To add
            options to all commands that read data: ``dict.fromkeys(DATA_COMMANDS, options)``.
        refused_options: Options that the domain does not have, but that users may expect, by name
            without dashes, with what to use instead.
        demo: ``demo(n_samples, seed) -> Data``, a small synthetic data set for ``flambeau demo
            NAME`` and the conformance kit; downloads nothing.
        attributions: ``attributions(predictor, item, output, background)`` returns how much each
            part of a raw input moves an output of the model (None: the highest one), for
            ``learner.explain``; ``background`` has about 100 raw train samples to compare with.
            ``flambeau.artefact.input_gradients`` helps with inputs of real numbers. An
            ArgumentError says why the parts are not known. None names the elements of the inputs.
    """

    name: str
    api: int = API_VERSION
    data_classes: Mapping[str, type[Data]]
    models: Mapping[str, Callable[..., nn.Module]]
    tasks: Mapping[str, Callable[..., Task]]
    losses: Mapping[str, Callable[..., Loss]] = field(default_factory=dict[str, Any])
    metrics: Mapping[str, Callable[..., Metric]] = field(default_factory=dict[str, Any])
    rules: tuple[Rule, ...] = ()
    checks: tuple[Check, ...] = ()
    preprocessors: Mapping[str, Callable[..., Preprocessor]] = field(default_factory=dict[str, Any])
    recognise: Callable[[Path, Mapping[str, str]], Recognition | None] = _recognise_nothing
    cli_options: Mapping[str, tuple[CliOption, ...]] = field(default_factory=dict[str, Any])
    refused_options: Mapping[str, str] = field(default_factory=dict[str, str])
    demo: Callable[[int, int], Data] | None = None
    attributions: Callable[[Any, Any, str | None, Sequence[Any]], Attributions] | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that needs or extends a key which has no rule.

        Raises:
            PlanError: There is such a rule; the message names it and the nearest key.
        """
        rules = [rule for rule in self.rules if isinstance(cast(object, rule), Rule)]
        known = [rule.key for rule in CORE_RULES]
        check_needs(rules, known)
        check_extended(rules, known)


def rules_of(domain: Domain) -> tuple[Rule, ...]:
    """Return the rules from which plans of the domain are derived: core's and the domain's.

    Without a rule for "architecture" the first of ``models`` is used; without one for "task" the
    first of ``tasks``, unless core's rule can choose one of them.
    """
    own = domain.rules
    decided = {rule.key for rule in own}
    if domain.models and "architecture" not in decided:
        choose_module = "Learner(data, module) with any nn.Module"
        own = (_first("architecture", domain.name, tuple(domain.models), choose_module), *own)
    if domain.tasks and "task" not in decided and not LOSSES.keys() & domain.tasks.keys():
        choose_task = "Learner(data, task=...) with any Task"
        own = (_first("task", domain.name, tuple(domain.tasks), choose_task), *own)
    metrics = metrics_rule(tuple(domain.metrics), domain.tasks)
    core = tuple(metrics if rule.key == metrics.key else rule for rule in CORE_RULES)
    return combine(core, own)


def _first(key: str, domain: str, names: tuple[str, ...], override: str) -> Rule:
    """Return a rule that chooses the first of the domain's builders ``names`` for ``key``."""
    first, *others = names
    reason = f"The only {key} of the domain {domain!r}."
    if others:
        reason = f"The first {key} of the {len(names)} that the domain {domain!r} has."
    choice = Choice(
        key, first, reason, alternatives=tuple(others), override=override, source="default"
    )
    return Rule(key, (), lambda facts, values: choice)
