"""Each conformance check detects a toy domain with the corresponding flaw."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from flambeau.domain import discovery, load_domain
from flambeau.errors import ArgumentError, ConformanceError
from flambeau.testing import (
    CHECKS,
    ConformanceCheck,
    ConformanceReport,
    DomainUnderTest,
    check_domain,
    check_name,
)
from flambeau.testing.__main__ import main

TOYS = Path(__file__).with_name("toys")
SLOW = {"check_import_is_light"}  # it starts a process and has separate tests below
QUICK = [check for check in CHECKS if check_name(check) not in SLOW]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(TOYS)
    monkeypatch.setattr(discovery, "_loaded", {})
    import toydomain

    load_domain("toydomain:DOMAIN")
    yield toydomain
    del sys.modules["toydomain"]


def failing(**options: object) -> dict[str, str]:
    """Return the quick checks that fail on the toy with the current flaw, and their messages."""
    tested = DomainUnderTest("toy", **options)  # type: ignore[arg-type]
    found = {}
    for check in QUICK:
        try:
            check(tested)
        except ConformanceError as error:
            found[check_name(check)] = str(error)
        except Exception as error:  # noqa: BLE001 - as check_domain does
            found[check_name(check)] = f"error: {error!r}"
    return found


def test_the_toy_without_flaw_passes(toy: ModuleType) -> None:
    assert failing(models=["toy_wide"]) == {}


FACTS = "check_facts_are_deterministic"
FITTED = "check_preprocessor_is_fitted_on_train_only"
BATCHES = "check_batches_are_valid"
MOVE = "check_batches_move_to_a_device"
ORDER = "check_order_of_batches"
START = "check_loader_resumes_inside_an_epoch"
DOCTOR = "check_doctor_finds_nothing"
LOSS = "check_loss_is_finite"
GRADIENT = "check_every_parameter_gets_a_gradient"
EXPORT = "check_export_gives_equal_outputs"
COLLECT = "check_collect_keeps_the_index"
PREDICT = "check_predictor_equals_valid_loader"

# Flaw → the check that must detect it, a pattern of its message, and other checks that fail.
FLAWS: dict[str, tuple[str, str, set[str]]] = {
    "facts have a counter": (FACTS, "facts differ in counter", {FITTED}),
    "facts are not JSON": (FACTS, "that JSON cannot represent", {FITTED}),
    "demo ignores the seed": (FACTS, "different first batches|facts differ", set()),
    "split ignores the seed": (FACTS, "facts differ in .*split", set()),
    "facts of all rows": (FITTED, "facts differ in mean", set()),
    "shift of all rows": (FITTED, "preprocessor arguments differ in shift", set()),
    "scale of all rows": (FITTED, "tensor 'scale' changes", set()),
    "labels of all rows": (FITTED, r"task_arguments differ in labels", set()),
    "no subset": (FITTED, "ToyData does not implement subset", set()),
    "encode has another dtype": (
        BATCHES,
        r"encode\(raw inputs\) returns .*float64",
        {EXPORT, PREDICT, COLLECT},
    ),
    "encode has another name": (BATCHES, "encode.*input 'z'", {EXPORT, PREDICT, COLLECT}),
    "a target is missing": (
        BATCHES,
        "8 samples has 7 rows of target 'y'",
        {LOSS, GRADIENT, EXPORT, DOCTOR},
    ),
    "the last batch has another dtype": (BATCHES, "int32.*first train batch", set()),
    "no indices": (BATCHES, "indices of a train batch is None", {MOVE, ORDER}),
    "indices count from 0": (BATCHES, "contain the samples.*the split has", {ORDER}),
    "weight is a tensor": (BATCHES, r"weight of a train batch is tensor", set()),
    "weight is 0": (BATCHES, r"weight of a train batch is 0\.0", set()),
    "no targets": (BATCHES, "has no targets", {LOSS, GRADIENT, EXPORT, DOCTOR}),
    "a sample is missing": (BATCHES, "contain the samples", {ORDER, PREDICT}),
    "raw lacks an input": (
        BATCHES,
        r'raw\("valid"\) has 12 inputs, but the split has 13',
        {PREDICT},
    ),
    "batches do not move": (MOVE, "on a wrong device: input 'x', target 'y'", set()),
    "indices move": (MOVE, "on a wrong device: indices", set()),
    "moving drops the weight": (MOVE, "changes weight, epoch or lr_scale", set()),
    "train is not shuffled": (ORDER, "same order in epochs 0 and 1", set()),
    "one order for all epochs": (ORDER, "same order in epochs 0 and 1", set()),
    "order depends on the loader": (ORDER, "another order for the same epoch", {START}),
    "valid is shuffled": (ORDER, "The order of validation batches is", {PREDICT}),
    "valid is sorted": (ORDER, "the split has", {PREDICT}),
    "start_step is ignored": (START, "train batches.1, start_step=2. differ", set()),
    "noise from one generator": (START, "differ from the rest", {FACTS, PREDICT}),
    "one step too many": (START, "steps_per_epoch=6, but gives 5", set()),
    "loss is nan": (LOSS, "is nan", {GRADIENT, EXPORT, DOCTOR}),
    "loss has weight 0": (LOSS, r"weight 0\.0", {GRADIENT, EXPORT, DOCTOR}),
    "loss is not summed": (LOSS, "not a 0-d tensor", {GRADIENT, EXPORT, DOCTOR}),
    "a parameter is unused": (GRADIENT, r"1 parameters get no gradient \(spare\)", {DOCTOR}),
    "detached": (GRADIENT, "does not depend on the parameters", {EXPORT, DOCTOR}),
    "gradients are nan": (GRADIENT, r"not finite \(first", {EXPORT}),
    "the second model has a fault": (GRADIENT, "toy_wide: 1 parameters", set()),
    "a check raises": (DOCTOR, "raises an error .*KeyError: 'gone'", set()),
    "a check has a false alarm": (DOCTOR, "The doctor reports toy for the demo data", set()),
    "state is not a buffer": (EXPORT, "outputs of the loaded export differ", set()),
    "an argument is dropped": (EXPORT, "outputs of the loaded export differ", set()),
    "labels are dropped": (EXPORT, "decodes equal outputs to other predictions", set()),
    "metrics are dropped": (EXPORT, r"has the metrics \['own'\]", set()),
    "a metric drops an argument": (
        EXPORT,
        r"metric builder 'toy_metric' does not accept the saved arguments \(none\)",
        set(),
    ),
    "code in the arguments": (EXPORT, "which is code", {FITTED}),
    "collect drops an output": (COLLECT, "a list of length 12 for a list of 13 inputs", set()),
    "collect drops the index": (COLLECT, r"a DataFrame with the index \[0, 1, 2\]", set()),
    "collect returns a list": (COLLECT, "a list with no index for a series", set()),
    "encode rounds": (PREDICT, "inputs of validation batch 0 differ from", set()),
    "batch statistics": (PREDICT, "input 0 of the validation part, predicted alone", set()),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_flaw_is_detected(toy: ModuleType, monkeypatch: pytest.MonkeyPatch, flaw: str) -> None:
    check, message, also = FLAWS[flaw]
    monkeypatch.setattr(toy, "FLAW", flaw)
    found = failing(models=["toy_wide"])
    assert check in found, found
    with pytest.raises(ConformanceError, match=f"(?s){message}"):
        raise ConformanceError(found[check])
    assert "Why it matters:" in found[check]
    assert "Fix:" in found[check]
    # Only the checks concerned detect the flaw.
    assert set(found) - {check} <= also, found


def test_every_check_has_a_flaw() -> None:
    tested = {check for check, _, _ in FLAWS.values()}
    separately = SLOW | {"check_data_classes_refer_to_the_record"}
    assert tested | separately == {check_name(check) for check in CHECKS}


# ---------------------------------------------------------------- the record and its import


def run(name: str, tested: DomainUnderTest) -> None:
    next(check for check in CHECKS if check_name(check) == name)(tested)


def test_a_data_class_with_another_record_is_refused(toy: ModuleType) -> None:
    other = replace(toy.DOMAIN)  # equal, but not the record that the data class refers to
    with pytest.raises(
        ConformanceError, match=r"ToyData\.domain is 'toydomain:DOMAIN', which is not the"
    ):
        run("check_data_classes_refer_to_the_record", DomainUnderTest(other))
    with pytest.raises(ConformanceError, match="lacks data_classes, models or tasks"):
        run(
            "check_data_classes_refer_to_the_record",
            DomainUnderTest(replace(toy.DOMAIN, models={})),
        )


def test_a_second_data_class_may_refer_to_a_variant_with_other_rules(toy: ModuleType) -> None:
    check = "check_data_classes_refer_to_the_record"

    class OtherData(toy.ToyData):
        domain = "toydomain:VARIANT"

    classes = {**toy.DOMAIN.data_classes, "OtherData": OtherData}
    toy.DOMAIN = replace(toy.DOMAIN, data_classes=classes)
    toy.VARIANT = replace(toy.DOMAIN, rules=())
    run(check, DomainUnderTest(load_domain("toydomain:DOMAIN")))
    # Exports of a record with other builders could not be loaded.
    toy.VARIANT = replace(toy.VARIANT, models={})
    with pytest.raises(ConformanceError, match=r"OtherData\.domain is 'toydomain:VARIANT'"):
        run(check, DomainUnderTest(load_domain("toydomain:DOMAIN")))


def test_a_domain_without_demo_is_refused(toy: ModuleType) -> None:
    with pytest.raises(ConformanceError, match="has no demo"):
        run(FACTS, DomainUnderTest(replace(toy.DOMAIN, demo=None)))


@pytest.fixture
def importing(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], None]:
    """Return a function that checks a domain whose module has the given lines."""
    # Without torch a process starts in milliseconds.
    monkeypatch.setattr("flambeau.testing.conformance_import._BASE", "json")
    monkeypatch.syspath_prepend(tmp_path)

    def check(lines: str) -> None:
        (tmp_path / "ownpackage").mkdir()
        (tmp_path / "ownpackage" / "__init__.py").write_text("")
        (tmp_path / "ownpackage" / "record.py").write_text(lines)

        class OwnData(toy.ToyData):  # type: ignore[name-defined]
            domain = "ownpackage.record:DOMAIN"

        record = replace(toy.DOMAIN, data_classes={"OwnData": OwnData})
        run("check_import_is_light", DomainUnderTest(record))

    return check


def test_a_light_import_passes(importing: Callable[[str], None]) -> None:
    importing("import ast")


def test_a_large_library_is_refused(importing: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "PIL.py").write_text("")
    with pytest.raises(ConformanceError, match=r"Importing ownpackage\.record loads PIL\."):
        importing("import PIL")


def test_an_import_in_a_function_passes(importing: Callable[[str], None], tmp_path: Path) -> None:
    (tmp_path / "PIL.py").write_text("")
    importing("def f():\n    import PIL")


def test_importing_other_domains_is_refused(
    importing: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "otherdomain.py").write_text("")
    info = tmp_path / "otherdomain-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherdomain\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flambeau.domains]\nother = otherdomain:DOMAIN\n")
    with pytest.raises(ConformanceError, match="loads the domain package otherdomain"):
        importing("import otherdomain")


def test_an_import_that_depends_on_another_is_refused(importing: Callable[[str], None]) -> None:
    with pytest.raises(ConformanceError, match=r"(?s)new process fails.*ImportError: too early"):
        importing("import sys\nif 'pytest' not in sys.modules: raise ImportError('too early')")


# ---------------------------------------------------------------- the report


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> tuple[ConformanceCheck, ...]:
    """Return the checks without the one that starts a process."""
    checks = tuple(QUICK)
    monkeypatch.setattr("flambeau.testing.conformance.CHECKS", checks)
    return checks


@pytest.mark.usefixtures("quick")
def test_all_failures_are_reported(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "FLAW", "loss is nan")
    report = check_domain("toydomain:DOMAIN", models=["toy_wide"])
    assert {result.check for result in report.failures} == {LOSS, GRADIENT, EXPORT, DOCTOR}
    assert len(report.results) == len(QUICK)
    text = str(report)
    assert text.startswith("Domain 'toy': 4 of 13 checks failed.")
    assert "Models built: toy, toy_wide; not built: toy_huge" in text
    assert "  failed   check_loss_is_finite\n" in text
    assert "Fix: check normalisation" in text
    with pytest.raises(ConformanceError, match=r"4 of 13 checks failed"):
        report.raise_if_failed()


@pytest.mark.usefixtures("quick")
def test_an_error_does_not_stop_the_other_checks(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr(toy.ToyTask, "loss", fail)
    report = check_domain(toy.DOMAIN)
    found = {result.check: result.message for result in report.failures}
    assert found.keys() == {LOSS, GRADIENT, EXPORT, DOCTOR}
    assert "KeyError: 'gone'" in found[LOSS]
    monkeypatch.setattr(toy.ToyData, "facts", fail)
    assert len(check_domain(toy.DOMAIN).failures) > 5


@pytest.mark.usefixtures("quick")
def test_an_expected_failure_must_fail(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "this toy reads a stream, whose order is fixed"
    monkeypatch.setattr(toy, "FLAW", "train is not shuffled")
    report = check_domain(toy.DOMAIN, expected={ORDER: reason})
    assert report.ok
    assert reason in str(report)
    report.raise_if_failed()
    monkeypatch.setattr(toy, "FLAW", "")
    report = check_domain(toy.DOMAIN, expected={ORDER: reason})
    assert [result.check for result in report.failures] == [ORDER]
    assert "remove it from expected" in str(report)


def test_unknown_names_are_refused(toy: ModuleType) -> None:
    with pytest.raises(ArgumentError, match=r"Unknown check 'check_ordre'.*'check_order"):
        check_domain(toy.DOMAIN, expected={"check_ordre": "why"})
    with pytest.raises(ArgumentError, match="is empty"):
        check_domain(toy.DOMAIN, expected={ORDER: " "})
    with pytest.raises(ArgumentError, match=r"Unknown architecture 'toy_wied' .*'toy_wide'"):
        check_domain(toy.DOMAIN, models=["toy_wied"])


@pytest.mark.usefixtures("quick")
def test_the_command_line(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toydomain:DOMAIN", "--model", "toy_wide", "--samples", "50"]) == 0
    assert "all checks passed" in capsys.readouterr().out
    monkeypatch.setattr(toy, "FLAW", "loss is nan")
    assert main(["toydomain:DOMAIN"]) == 1
    assert "checks failed" in capsys.readouterr().out
    assert main(["no_such_domain"]) == 2
    assert "Unknown domain 'no_such_domain'" in capsys.readouterr().err


def test_an_empty_report_is_ok() -> None:
    assert ConformanceReport("x", ()).ok
