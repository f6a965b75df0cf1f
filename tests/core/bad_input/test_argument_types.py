"""Numbers and flags of every type: read as what they are, or refused with the value."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from flambeau import (
    Classification,
    EarlyStopping,
    Learner,
    Plan,
    Predictor,
    TensorData,
    TrainingOptions,
)
from flambeau.artefact.combine import combine
from flambeau.callbacks import Checkpointing
from flambeau.checked_arguments import as_plain, checked_count, checked_flag, checked_number
from flambeau.data.collate import BatchLayout
from flambeau.data.split import Split
from flambeau.domain import recognise_domain
from flambeau.errors import ArgumentError, ArtefactError, FlambeauError, InputError
from flambeau.inspect.watch.inspection import Inspection
from flambeau.inspect.watch.layer_record import load_record
from flambeau.phases import Phase, Schedule, recipes
from flambeau.phases.torch_schedule import torch_schedule
from flambeau.task import Regression, SklearnMetric
from flambeau.task.classification_metrics import TopKAccuracy
from flambeau.training import EMA, SWA, ReduceOnPlateau

_VALUES = {"epochs": 2, "steps": None, "lr": 0.1, "bn": "train", "schedule": "constant"}
_GROUPS = ["stem", "head"]

_COUNTS: dict[str, Callable[[Any], Any]] = {
    "EarlyStopping.patience": lambda n: EarlyStopping(patience=n).patience,
    "ReduceOnPlateau.patience": lambda n: ReduceOnPlateau(patience=n).patience,
    "ReduceOnPlateau.cooldown": lambda n: ReduceOnPlateau(cooldown=n).cooldown,
    "Phase.epochs": lambda n: Phase(n).epochs,
    "Phase.steps": lambda n: Phase(steps=n).steps,
    "Phase.evaluate_every": lambda n: Phase(1, evaluate_every=n).evaluate_every,
    "accumulate": lambda n: TrainingOptions(accumulate=n).accumulate,
    "Checkpointing.keep": lambda n: Checkpointing(keep=n).keep,
    "n_inputs": lambda n: BatchLayout(n).n_inputs,
    "freeze_epochs": lambda n: recipes.fine_tune(_VALUES, _GROUPS, freeze_epochs=n)[0].epochs,
    "cycles": lambda n: len(recipes.sgdr(_VALUES, cycles=n)),
    "length": lambda n: torch_schedule(lambda o: StepLR(o, 1), n, 0.1) and n,
    "k": lambda n: TopKAccuracy(n).k,
}
_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "EarlyStopping.min_delta": lambda x: EarlyStopping(min_delta=x).min_delta,
    "factor": lambda x: ReduceOnPlateau(factor=x).factor,
    "threshold": lambda x: ReduceOnPlateau(threshold=x).threshold,
    "min_value": lambda x: ReduceOnPlateau(min_value=x).min_value,
    "peak": lambda x: Schedule("constant", x).peak,
    "lr_scales": lambda x: Phase(1, lr_scales={"head": x}).lr_scales["head"],
    "clip_norm": lambda x: TrainingOptions(clip_norm=x).clip_norm,
    "EMA": lambda x: EMA(x).decay,
    "SWA": lambda x: SWA(x).start,
    "every_s": lambda x: Checkpointing(every_s=x).every_s,
    "layer_decay": lambda x: recipes.layerwise_lr_scales(_GROUPS, x)["stem"],
    "label_smoothing": lambda x: Classification(["a", "b"], label_smoothing=x).label_smoothing,
}
_WHOLE = [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), Fraction(3)]
_QUARTERS = [
    0.25,
    np.float32(0.25),
    np.array(0.25),
    torch.tensor(0.25),
    Fraction(1, 4),
    Decimal("0.25"),
]


@pytest.mark.parametrize("make", _COUNTS.values(), ids=_COUNTS)
def test_whole_numbers_of_every_type_are_counts(make: Callable[[Any], Any]) -> None:
    for value in _WHOLE:
        found = make(value)
        assert found == 3
        assert type(as_plain(found)) is int


@pytest.mark.parametrize("make", _COUNTS.values(), ids=_COUNTS)
@pytest.mark.parametrize(
    "value",
    [1.5, True, "3", None, [3], float("nan"), float("inf"), -1, Fraction(3, 2), 3.0, np.ones(1)],
    ids=repr,
)
def test_other_values_are_no_counts(make: Callable[[Any], Any], value: Any) -> None:
    if make in (_COUNTS["n_inputs"], _COUNTS["Phase.evaluate_every"]) and value is None:
        return  # not given
    with pytest.raises((InputError, ArgumentError), match=r"must be a whole number|Give exactly"):
        make(value)


@pytest.mark.parametrize("make", _NUMBERS.values(), ids=_NUMBERS)
def test_numbers_of_every_type_are_floats(make: Callable[[Any], Any]) -> None:
    for value in _QUARTERS:
        found = make(value)
        assert found == 0.25
        assert type(found) is float


@pytest.mark.parametrize("make", _NUMBERS.values(), ids=_NUMBERS)
@pytest.mark.parametrize(
    "value", ["1e-3", True, [0.1], float("nan"), float("inf"), 1j, np.ones(2)], ids=repr
)
def test_other_values_are_no_numbers(make: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises((InputError, ArgumentError), match="must be a finite number"):
        make(value)


@pytest.mark.parametrize("value", [1, 0, "no", "False", None], ids=repr)
def test_flags_are_true_or_false(value: Any) -> None:
    for make in (
        lambda: EarlyStopping(restore_best=value),
        lambda: TrainingOptions(doctor=value),
        lambda: EMA(warmup=value),
    ):
        with pytest.raises(ArgumentError, match="must be True or False"):
            make()
    assert checked_flag(np.True_, "flag") is True
    assert checked_flag(torch.tensor(False), "flag") is False


def test_a_monitor_is_the_name_of_a_column() -> None:
    for value in (None, True, 0):
        for kind in (EarlyStopping, ReduceOnPlateau):
            with pytest.raises(ArgumentError, match="give a column of the history"):
                kind(monitor=value)


def test_bounds_are_part_of_the_message() -> None:
    with pytest.raises(InputError, match=r"x must be a finite number, at least 0 and below 1, not"):
        checked_number(1, "x", at_least=0, below=1)
    with pytest.raises(InputError, match=r"n must be a whole number of rows, at least 2, not 1\."):
        checked_count(1, "n", at_least=2, unit="rows")


def _learner(**choices: Any) -> Learner:
    data = TensorData.from_tensors(torch.randn(20, 2), torch.arange(20) % 2)
    return Learner(data, quiet=True, choices={"probe": "off", **choices})


def test_the_plan_reads_scalars_of_every_type() -> None:
    for value in _WHOLE:
        assert _learner(batch_size=value).plan["batch_size"].value == 3
        assert len(_learner(bn="train", lr=0.1).fit(value).rows) == 3
    for value in _QUARTERS:
        assert _learner(lr=value).plan["lr"].value == 0.25
        learner = _learner(epochs=1)
        learner.fit(lr=value)
        assert learner.plan["lr"].value == 0.25


@pytest.mark.parametrize("value", [True, "1", 1.5, float("nan"), np.ones(2), [1]], ids=repr)
def test_wrong_lengths_of_a_fit_are_refused(value: Any) -> None:
    for name in ("epochs", "steps", "evaluate_every"):
        with pytest.raises(FlambeauError, match=name):
            _learner(lr=0.1).fit(**{name: value})
    with pytest.raises(FlambeauError, match="minutes must be"):
        _learner(lr=0.1).fit_auto(-1 if type(value) is float else value)
    with pytest.raises(FlambeauError, match="max_steps must be"):
        learner().lr_find(max_steps=value)


def test_seeds_of_every_type_are_one_seed() -> None:
    wanted = Split.random(50, 0.2, seed=3).valid.tolist()
    for value in _WHOLE:
        assert Split.random(50, 0.2, seed=value).valid.tolist() == wanted
        data = TensorData.from_tensors(torch.randn(50, 2), torch.randn(50), seed=value)
        assert data.split.valid.tolist() == wanted
    for value in (True, "3", 3.0, None, [3]):
        with pytest.raises(ArgumentError, match="seed is"):
            Split.random(50, 0.2, seed=value)
        with pytest.raises(ArgumentError, match="seed is"):
            TensorData.from_tensors(torch.randn(50, 2), torch.randn(50), seed=value)


def test_sizes_of_parts_of_every_type() -> None:
    x, y = torch.randn(40, 2), torch.randn(40)
    for value in _WHOLE:
        assert len(TensorData.from_tensors(x, y, valid=value, test=value).split.test) == 3
    for value in _QUARTERS:
        assert len(TensorData.from_tensors(x, y, valid=value, test=value).split.test) == 10
    for value in (True, "0.2", float("nan"), 1.5, Fraction(3, 2), -1, [0.2]):
        with pytest.raises(FlambeauError, match="valid"):
            TensorData.from_tensors(x, y, valid=value)


_FLAGS: dict[str, Callable[[Any], Any]] = {
    "quiet": lambda flag: learner(quiet=flag),
    "momentum": lambda flag: learner().fit_one_cycle(1, lr=0.1, momentum=flag),
    "resume": lambda flag: learner().fit_folds(2, resume=flag),
    "doctor": lambda flag: TrainingOptions(doctor=flag),
    "difference": lambda flag: learner().export("none", difference=flag),
    "ignore_nan": lambda flag: Regression(["y"], ignore_nan=flag),
    "at_epoch_end": lambda flag: Checkpointing(at_epoch_end=flag),
    "higher_is_better": lambda flag: SklearnMetric(len, "labels", higher_is_better=flag),
}


def learner(**arguments: Any) -> Learner:
    data = TensorData.from_tensors(torch.randn(20, 2), torch.arange(20) % 2)
    return Learner(data, torch.nn.Linear(2, 2), **{"quiet": True, **arguments})


@pytest.mark.parametrize("name", _FLAGS)
@pytest.mark.parametrize("value", ["no", 1, torch.tensor([True])])
def test_flags_of_public_functions_are_checked(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name} must be True or False, not "):
        _FLAGS[name](value)


def test_flags_of_every_type_are_read() -> None:
    assert TrainingOptions(doctor=np.bool_(False)).doctor is False
    assert (
        SklearnMetric(len, "labels", higher_is_better=torch.tensor(True)).higher_is_better is True
    )


@pytest.mark.parametrize("method", ["export", "save", "load"])
@pytest.mark.parametrize("value", [None, 3, np.zeros(2), b"model", ["model"]])
def test_paths_of_other_types_are_refused(method: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match="must be a path \\(text or Path\\), not"):
        getattr(learner(), method)(value)


def save_plan(value: Any) -> None:
    learner().plan.save(value)


@pytest.mark.parametrize("value", [None, 3, np.zeros(2), b"model", ["model"]])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        (r"exports\[1\]", lambda value: combine(["a", value], "b")),
        ("folder", lambda value: combine(["a", "b"], value)),
        ("path", Predictor.load),
        ("path", Plan.load),
        ("path", load_record),
        ("path", recognise_domain),
        ("path", save_plan),
        ("path", Inspection().save),
    ],
)
def test_paths_of_functions_are_checked(name: str, call: Any, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{name} must be a path \(text or Path\), not"):
        call(value)


@pytest.mark.parametrize("value", [None, 3, "model", {"a": "b"}, iter(["a", "b"]), ["a"]])
def test_combined_exports_are_a_list(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"exports is .*; give a list of at least two folders"):
        combine(value, "b")


def test_optional_paths_may_be_absent() -> None:
    with pytest.raises(ArtefactError, match="no-such-model"):
        Predictor.load("no-such-model", base=None)
    with pytest.raises(ArgumentError, match="base must be a path"):
        Predictor.load("no-such-model", base=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match=r"Predictor.load has no argument 'bs'.*'batch_size'"):
        Predictor.load("model", bs=3)  # type: ignore[call-arg]


def test_values_without_names_are_counted() -> None:
    own, x = learner(), np.zeros((4, 3))
    with pytest.raises(ArgumentError, match=r"Learner.fit was given 2 values .* only epochs. Name"):
        own.fit(x, x)
    with pytest.raises(ArgumentError, match=r"Learner.fit was given epochs twice"):
        own.fit(3, epochs=3)  # type: ignore[misc]
    with pytest.raises(ArgumentError, match=r"Learner needs data"):
        Learner()  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match=r"Learner.predict needs items"):
        own.predict()  # type: ignore[call-arg]
    with pytest.raises(ArgumentError, match=r"Learner.unfreeze was given 1 value without"):
        own.unfreeze(3)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", ["head", None, 1.5, -4, 9, np.zeros(2)])
def test_groups_are_frozen_to_an_index(value: Any) -> None:
    with pytest.raises(FlambeauError):
        learner().freeze_to(value)


@pytest.mark.parametrize("value", [None, 3, np.zeros(2), ["valid"]])
def test_parts_of_other_types_are_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="A part is given by its name"):
        learner().evaluate(value)
