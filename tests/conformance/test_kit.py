"""Each check of the kit is proved by a toy domain that is broken in just that way."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from flambeau import domain as domains
from flambeau.errors import ArgumentError, ConformanceError
from flambeau.testing import CHECKS, Check, Report, Subject, check_domain, name_of
from flambeau.testing.__main__ import main

TOYS = Path(__file__).with_name("toys")
SLOW = {"check_import_is_light"}  # it starts a process; it has tests of its own below
QUICK = [check for check in CHECKS if name_of(check) not in SLOW]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(TOYS)
    monkeypatch.setattr(domains, "_used", {})
    import toydomain

    domains.load("toydomain:DOMAIN")
    yield toydomain
    del sys.modules["toydomain"]


def failing(**options: object) -> dict[str, str]:
    """The quick checks that fail on the toy as it is now, with their messages."""
    subject = Subject("toy", **options)  # type: ignore[arg-type]
    found = {}
    for check in QUICK:
        try:
            check(subject)
        except ConformanceError as error:
            found[name_of(check)] = str(error)
        except Exception as error:  # noqa: BLE001 - as check_domain does
            found[name_of(check)] = f"crash: {error!r}"
    return found


def test_the_whole_toy_passes(toy: ModuleType) -> None:
    assert failing(models=["toy_wide"]) == {}


FACTS = "check_facts_repeat"
FITTED = "check_preprocessor_sees_train_only"
BATCHES = "check_batches_are_as_declared"
MOVE = "check_batches_move"
ORDER = "check_order"
START = "check_loader_starts_anywhere"
DOCTOR = "check_doctor_is_silent"
LOSS = "check_loss_is_finite"
GRADIENT = "check_every_parameter_gets_a_gradient"
EXPORT = "check_export_answers_the_same"
PREDICT = "check_predicting_equals_validating"

# Flaw → the check that must find it, words of its message, and checks that trip over it as well.
FLAWS: dict[str, tuple[str, str, set[str]]] = {
    "facts tell the time": (FACTS, "facts differ in made", {FITTED}),
    "facts are no JSON": (FACTS, "what JSON does not have", {FITTED}),
    "demo draws anew": (FACTS, "different first batches|facts differ", set()),
    "split draws anew": (FACTS, "facts differ in .*split", set()),
    "facts of all rows": (FITTED, "facts differ in mean", set()),
    "shift of all rows": (FITTED, "preprocessor arguments differ in shift", set()),
    "scale of all rows": (FITTED, "tensor 'scale' changes", set()),
    "labels of all rows": (FITTED, r"task_arguments\(values\) differ in labels", set()),
    "no subset": (FITTED, "ToyData has no subset", set()),
    "encode has another dtype": (
        BATCHES,
        r"encode\(raw items\) gives .*float64",
        {EXPORT, PREDICT},
    ),
    "encode has another name": (BATCHES, "encode.*input 'z'", {EXPORT, PREDICT}),
    "a target is missing": (
        BATCHES,
        "8 samples has 7 rows of target 'y'",
        {LOSS, GRADIENT, EXPORT, DOCTOR},
    ),
    "the last batch is of another kind": (BATCHES, "int32.*first train batch", set()),
    "no indices": (BATCHES, "indices of a train batch is None", {MOVE, ORDER}),
    "indices count from 0": (BATCHES, "hold the samples.*the split has", {ORDER}),
    "weight is a tensor": (BATCHES, r"weight of a train batch is tensor", set()),
    "weight is 0": (BATCHES, r"weight of a train batch is 0\.0", set()),
    "no targets": (BATCHES, "has no targets", {LOSS, GRADIENT, EXPORT, DOCTOR}),
    "a sample is lost": (BATCHES, "hold the samples", {ORDER, PREDICT}),
    "raw lacks an item": (BATCHES, r'raw\("valid"\) has 12 items, the split 13', {PREDICT}),
    "batches stay": (MOVE, "input 'x', target 'y' are where they should not be", set()),
    "indices move": (MOVE, "indices are where they should not be", set()),
    "moving forgets the weight": (MOVE, "changes weight, epoch or lr_scale", set()),
    "train is not shuffled": (ORDER, "same order in epochs 0 and 1", set()),
    "one order for all epochs": (ORDER, "same order in epochs 0 and 1", set()),
    "order depends on the loader": (ORDER, "another order for the same epoch", {START}),
    "valid is shuffled": (ORDER, "Valid batches come as", {PREDICT}),
    "valid is sorted": (ORDER, "the split has", {PREDICT}),
    "start_step is ignored": (START, "train batches.1, start_step=2. differ", set()),
    "noise from a running generator": (START, "differ from what is left", {FACTS, PREDICT}),
    "one step too many": (START, "says 6 steps an epoch and gives 5", set()),
    "loss is nan": (LOSS, "is nan", {GRADIENT, EXPORT, DOCTOR}),
    "loss weighs nothing": (LOSS, r"weight 0\.0", {GRADIENT, EXPORT, DOCTOR}),
    "loss is not summed": (LOSS, "not a 0-d tensor", {GRADIENT, EXPORT, DOCTOR}),
    "a parameter is unused": (GRADIENT, r"1 parameters get no gradient \(spare\)", {DOCTOR}),
    "detached": (GRADIENT, "does not depend on the parameters", {EXPORT, DOCTOR}),
    "gradients are nan": (GRADIENT, r"not finite \(first", {EXPORT}),
    "the second model is broken": (GRADIENT, "toy_wide: 1 parameters", set()),
    "a check crashes": (DOCTOR, "toy could not run: KeyError: 'gone'", set()),
    "a check warns of clean data": (DOCTOR, "The doctor finds toy in the demo data", set()),
    "state is no buffer": (EXPORT, "gives other outputs than the model did", set()),
    "an argument is lost": (EXPORT, "gives other outputs than the model did", set()),
    "labels are lost": (EXPORT, "decodes the same outputs to other answers", set()),
    "code in the arguments": (EXPORT, "which is code", {FITTED}),
    "encode rounds": (PREDICT, "valid batch 0 gives other outputs than the valid loader", set()),
    "statistics of the batch": (PREDICT, "valid item 0 gives outputs that differ by", set()),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_flaw_is_found(toy: ModuleType, monkeypatch: pytest.MonkeyPatch, flaw: str) -> None:
    check, message, also = FLAWS[flaw]
    monkeypatch.setattr(toy, "FLAW", flaw)
    found = failing(models=["toy_wide"])
    assert check in found, found
    with pytest.raises(ConformanceError, match=f"(?s){message}"):
        raise ConformanceError(found[check])
    assert "Why it matters:" in found[check]
    assert "Fix:" in found[check]
    # A flaw is found where it is, not everywhere.
    assert set(found) - {check} <= also, found


def test_every_check_has_a_flaw() -> None:
    proved = {check for check, _, _ in FLAWS.values()}
    by_hand = SLOW | {"check_record_is_found_from_its_data"}
    assert proved | by_hand == {name_of(check) for check in CHECKS}


# ---------------------------------------------------------------- the record and its import


def run(name: str, subject: Subject) -> None:
    next(check for check in CHECKS if name_of(check) == name)(subject)


def test_a_data_class_that_names_another_record(toy: ModuleType) -> None:
    other = replace(toy.DOMAIN)  # equal, but not the one that the data class names
    with pytest.raises(
        ConformanceError, match=r"ToyData\.domain is 'toydomain:DOMAIN', which is not"
    ):
        run("check_record_is_found_from_its_data", Subject(other))
    with pytest.raises(ConformanceError, match="lacks data_classes, models or tasks"):
        run("check_record_is_found_from_its_data", Subject(replace(toy.DOMAIN, models={})))


def test_a_domain_without_demo(toy: ModuleType) -> None:
    with pytest.raises(ConformanceError, match="has no demo"):
        run(FACTS, Subject(replace(toy.DOMAIN, demo=None)))


@pytest.fixture
def importing(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], None]:
    """Runs the check on a domain whose module consists of the given lines."""
    # Without torch as the base, a process starts in milliseconds.
    monkeypatch.setattr("flambeau.testing.checks_import._BASE", "json")
    monkeypatch.syspath_prepend(tmp_path)

    def check(lines: str) -> None:
        (tmp_path / "ownpackage").mkdir()
        (tmp_path / "ownpackage" / "__init__.py").write_text("")
        (tmp_path / "ownpackage" / "record.py").write_text(lines)

        class OwnData(toy.ToyData):  # type: ignore[name-defined]
            domain = "ownpackage.record:DOMAIN"

        record = replace(toy.DOMAIN, data_classes={"OwnData": OwnData})
        run("check_import_is_light", Subject(record))

    return check


def test_a_light_import(importing: Callable[[str], None]) -> None:
    importing("import ast")


def test_a_heavy_import(importing: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "PIL.py").write_text("")
    with pytest.raises(ConformanceError, match=r"Importing ownpackage\.record loads PIL\."):
        importing("import PIL")


def test_a_heavy_import_inside_a_function(importing: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "PIL.py").write_text("")
    importing("def f():\n    import PIL")


def test_an_import_of_another_domain(importing: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "otherdomain.py").write_text("")
    info = tmp_path / "otherdomain-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherdomain\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flambeau.domains]\nother = otherdomain:DOMAIN\n")
    with pytest.raises(ConformanceError, match="loads the domain package otherdomain"):
        importing("import otherdomain")


def test_an_import_that_works_only_after_another(importing: Callable[[str], None]) -> None:
    with pytest.raises(ConformanceError, match=r"(?s)fresh process fails.*ImportError: too early"):
        importing("import sys\nif 'pytest' not in sys.modules: raise ImportError('too early')")


# ---------------------------------------------------------------- the report


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> tuple[Check, ...]:
    """The kit without the check that starts a process."""
    checks = tuple(QUICK)
    monkeypatch.setattr("flambeau.testing.kit.CHECKS", checks)
    return checks


@pytest.mark.usefixtures("quick")
def test_all_failures_are_reported(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "FLAW", "loss is nan")
    report = check_domain("toydomain:DOMAIN", models=["toy_wide"])
    assert {outcome.check for outcome in report.failures} == {LOSS, GRADIENT, EXPORT, DOCTOR}
    assert len(report.outcomes) == len(QUICK)
    text = str(report)
    assert text.startswith("Domain 'toy': 4 of 12 checks failed.")
    assert "Models built: toy, toy_wide; not built: toy_huge" in text
    assert "  failed   check_loss_is_finite\n" in text
    assert "Fix: look at normalisation" in text
    with pytest.raises(ConformanceError, match=r"4 of 12 checks failed"):
        report.raise_if_failed()


@pytest.mark.usefixtures("quick")
def test_a_domain_that_raises_does_not_stop_the_others(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr(toy.ToyTask, "loss", crash)
    report = check_domain(toy.DOMAIN)
    found = {outcome.check: outcome.message for outcome in report.failures}
    assert found.keys() == {LOSS, GRADIENT, EXPORT, DOCTOR}
    assert "KeyError: 'gone'" in found[LOSS]
    monkeypatch.setattr(toy.ToyData, "facts", crash)
    assert len(check_domain(toy.DOMAIN).failures) > 5


@pytest.mark.usefixtures("quick")
def test_expected_failures_are_strict(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "this toy reads a stream, whose order is fixed"
    monkeypatch.setattr(toy, "FLAW", "train is not shuffled")
    report = check_domain(toy.DOMAIN, expected={ORDER: reason})
    assert report.ok
    assert reason in str(report)
    report.raise_if_failed()
    monkeypatch.setattr(toy, "FLAW", "")
    report = check_domain(toy.DOMAIN, expected={ORDER: reason})
    assert [outcome.check for outcome in report.failures] == [ORDER]
    assert "take it out of expected" in str(report)


def test_unknown_names(toy: ModuleType) -> None:
    with pytest.raises(ArgumentError, match=r"no check 'check_ordre'.*'check_order'"):
        check_domain(toy.DOMAIN, expected={"check_ordre": "why"})
    with pytest.raises(ArgumentError, match="needs a reason"):
        check_domain(toy.DOMAIN, expected={ORDER: " "})
    with pytest.raises(ArgumentError, match=r"'toy_wied' is no model .*'toy_wide'"):
        check_domain(toy.DOMAIN, models=["toy_wied"])


@pytest.mark.usefixtures("quick")
def test_the_command_line(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toydomain:DOMAIN", "--model", "toy_wide", "--samples", "50"]) == 0
    assert "every check holds" in capsys.readouterr().out
    monkeypatch.setattr(toy, "FLAW", "loss is nan")
    assert main(["toydomain:DOMAIN"]) == 1
    assert "checks failed" in capsys.readouterr().out
    assert main(["no_such_domain"]) == 2
    assert "No domain is named 'no_such_domain'" in capsys.readouterr().err


def test_an_empty_report_is_no_failure() -> None:
    assert Report("x", ()).ok
