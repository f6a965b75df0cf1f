"""The record of a domain and how it is found, with entry points made by the tests."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, Predictor
from flambeau.data.data import Data
from flambeau.doctor import Check
from flambeau.domain import (
    CliOption,
    Domain,
    FromPath,
    Recognition,
    check_record,
    discovery,
    domain_of,
    get_domain,
    installed_domains,
    load_domain,
    recognise_domain,
    rules_of,
)
from flambeau.errors import DomainError, PlanError
from flambeau.plan import CORE_RULES, Choice, Rule, combine
from flambeau.task import Accuracy, Classification, ConfusionMatrix
from flambeau.tensors.data import TensorData
from flambeau.tensors.domain import DOMAIN as TENSORS

RULE = Rule("size", (), lambda facts, values: Choice("size", 1, "Made."))
OPTION = CliOption("size", int, "Pixels.", "size")
CHECK = Check("leak", "leaks", lambda subject: None)
GOOD = Domain(name="toy", data_classes={"ToyData": TensorData}, models={"net": dict}, tasks={})

Register = Callable[..., None]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test starts without loaded domains, and its own are removed after it."""
    monkeypatch.setattr(discovery, "_loaded", {})
    installed_domains.cache_clear()
    yield
    installed_domains.cache_clear()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Register:
    """Return ``register(("dist", "name", record or text of a module), …)``: make packages."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(*packages: tuple[str, str, Any]) -> None:
        entries = []
        for distribution, name, content in packages:
            module = f"made_{distribution}_{name}"
            text = content if isinstance(content, str) else "from made_records import RECORDS\n"
            if not isinstance(content, str):
                text += f"DOMAIN = RECORDS[{module!r}]\n"
                records[module] = content
            (tmp_path / f"{module}.py").write_text(text)
            monkeypatch.delitem(sys.modules, module, raising=False)
            entry = EntryPoint(name, f"{module}:DOMAIN", discovery.ENTRY_POINT_GROUP)
            info = tmp_path / f"{distribution}-1.0.dist-info"
            info.mkdir(exist_ok=True)
            (info / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
            vars(entry).update(dist=importlib.metadata.PathDistribution(info))
            entries.append(entry)
        monkeypatch.setattr(discovery, "entry_points", lambda group: entries)
        installed_domains.cache_clear()

    records: dict[str, Any] = {}
    holder = type(sys)("made_records")
    vars(holder)["RECORDS"] = records
    monkeypatch.setitem(sys.modules, "made_records", holder)
    install()
    return install


def named(name: str, **changes: Any) -> Domain:
    return replace(GOOD, name=name, **changes)


# ---------------------------------------------------------------- finding


def test_installed_domains_are_found_by_name(register: Register) -> None:
    register(("flambeau-toy", "toy", GOOD), ("other", "words", named("words")))
    assert sorted(installed_domains()) == ["tensors", "toy", "words"]
    assert get_domain("toy") is GOOD
    entry = installed_domains()["toy"]
    assert (entry.distribution, entry.error) == ("flambeau-toy", None)
    assert entry.reference == "made_flambeau-toy_toy:DOMAIN"


def test_cores_own_domain_is_listed_too(register: Register) -> None:
    assert get_domain("tensors") is TENSORS
    assert installed_domains()["tensors"].distribution == "flambeau"


def test_the_entry_points_are_read_once_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def entry_points(group: str) -> list[EntryPoint]:
        calls.append(group)
        return []

    monkeypatch.setattr(discovery, "entry_points", entry_points)
    assert calls == []
    installed_domains()
    installed_domains()
    assert calls == ["flambeau.domains"]


def test_importing_reads_no_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(group: str) -> None:
        raise RuntimeError("entry points were read")

    monkeypatch.setattr(importlib.metadata, "entry_points", scan)
    # A second copy of the module, so that the imported one is unchanged.
    spec = importlib.util.spec_from_file_location("copy_of_discovery", discovery.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "copy_of_discovery", copy)
    spec.loader.exec_module(copy)
    with pytest.raises(RuntimeError, match="entry points were read"):
        copy.installed_domains()


def test_an_unknown_name_suggests_name_and_package(register: Register) -> None:
    register(("flambeau-toy", "toy", GOOD))
    with pytest.raises(
        DomainError,
        match=r"Unknown domain 'toys'\. Did you mean 'toy'\?.*install the package that provides it",
    ):
        get_domain("toys")


def test_the_name_of_a_package_names_its_domains(register: Register) -> None:
    register(("flambeau-audio", "toy", GOOD))
    with pytest.raises(DomainError, match="The package flambeau-audio provides toy"):
        get_domain("audio")


def test_two_packages_with_one_name_are_both_named(register: Register) -> None:
    register(("first", "toy", GOOD), ("second", "toy", GOOD), ("third", "words", named("words")))
    with pytest.raises(DomainError, match=r"'toy'.*first \(made_first_toy.*second \(made_second"):
        get_domain("toy")
    assert get_domain("words").name == "words"
    assert installed_domains()["toy"].distribution == "first, second"
    assert installed_domains()["toy"].domain is None


def test_a_package_cannot_take_the_name_of_cores_domain(register: Register) -> None:
    register(("foreign", "tensors", named("tensors")))
    with pytest.raises(DomainError, match=r"'tensors'.*flambeau \(.*foreign \("):
        get_domain("tensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import not_installed_anywhere", "ModuleNotFoundError: No module named"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("DOMAINS = 1", "AttributeError: .*has no attribute 'DOMAIN'"),
        ("DOMAIN = 3", "is a int, not a flambeau.domain.Domain"),
    ],
)
def test_an_invalid_domain_does_not_affect_others(
    register: Register, content: str, words: str
) -> None:
    register(("broken", "bad", content), ("flambeau-toy", "toy", GOOD))
    assert get_domain("toy") is GOOD
    assert installed_domains()["bad"].domain is None
    with pytest.raises(DomainError, match=rf"made_broken_bad:DOMAIN.*{words}"):
        get_domain("bad")


def test_entry_point_and_record_need_the_same_name(register: Register) -> None:
    register(("flambeau-toy", "plaything", GOOD))
    with pytest.raises(DomainError, match=r"flambeau-toy registers .* as 'plaything'.*is 'toy'"):
        get_domain("plaything")


# ---------------------------------------------------------------- by reference


class ToyData(TensorData):
    domain = "made_here_toy:DOMAIN"


def toy_data(reference: Any) -> Data:
    made = object.__new__(type("Made", (ToyData,), {"domain": reference}))
    assert isinstance(made, Data)
    return made


def test_a_data_class_refers_to_its_domain(register: Register) -> None:
    assert domain_of(TENSORS.demo(20, 0)) is TENSORS  # type: ignore[misc]
    register(("here", "toy", GOOD))
    assert domain_of(toy_data("made_here_toy:DOMAIN")) is GOOD


def test_a_loaded_domain_need_not_be_installed(register: Register) -> None:
    register(("here", "toy", GOOD))
    reference = installed_domains()["toy"].reference
    register()
    discovery._loaded.clear()
    with pytest.raises(DomainError, match="Unknown domain 'toy'"):
        get_domain("toy")
    domain_of(toy_data(reference))
    assert get_domain("toy") is GOOD
    assert "toy" not in installed_domains()


def test_two_loaded_domains_with_one_name_are_refused(register: Register) -> None:
    register(("a", "toy", GOOD), ("b", "toy", named("toy", models={"net": list})))
    load_domain("made_a_toy:DOMAIN")
    load_domain("made_b_toy:DOMAIN")
    with pytest.raises(DomainError, match="made_a_toy:DOMAIN, made_b_toy:DOMAIN"):
        get_domain("toy")


@pytest.mark.parametrize("reference", ["toy", "a:", ":b", ""])
def test_a_reference_has_a_module_and_a_name(reference: str) -> None:
    with pytest.raises(DomainError, match=r"Write 'package\.module:DOMAIN'"):
        load_domain(reference)


def test_a_data_class_without_a_reference_is_refused() -> None:
    with pytest.raises(DomainError, match=r"Made\.domain is None.*domain = \"package"):
        domain_of(toy_data(None))


def test_a_record_that_is_defined_again_replaces_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notebook = type(sys)("made_notebook")
    monkeypatch.setitem(sys.modules, "made_notebook", notebook)
    vars(notebook)["MINE"] = first = named("mine")
    assert load_domain("made_notebook:MINE") is first
    vars(notebook)["MINE"] = second = named("mine", rules=(RULE,))
    assert load_domain("made_notebook:MINE") is second
    vars(notebook)["MINE"] = 3
    with pytest.raises(DomainError, match="is a int"):
        load_domain("made_notebook:MINE")


def test_variants_of_a_domain_export_and_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variants = type(sys)("made_variants")
    monkeypatch.setitem(sys.modules, "made_variants", variants)
    x, y = torch.randn(40, 3), torch.arange(40) % 2
    learners = []
    for name in ("A", "B"):
        vars(variants)[name] = replace(TENSORS, rules=TENSORS.rules)
        kind = type(name, (TensorData,), {"domain": f"made_variants:{name}"})
        data = TensorData.from_tensors(x, y)
        monkeypatch.setattr(type(data), "domain", kind.domain)
        learners.append(Learner(data, quiet=True))
    for learner in learners:
        path = learner.export(tmp_path / str(id(learner)))
        assert Predictor.load(path, device="cpu").task.kind == "classification"


# ---------------------------------------------------------------- recognising a path


def recognises(certainty: str, reason: str = "It has x.") -> Callable[..., Recognition]:
    return lambda path, options: Recognition(certainty, reason)  # type: ignore[arg-type]


def test_a_sure_domain_is_chosen_before_possible_ones(register: Register, tmp_path: Path) -> None:
    calls: list[tuple[Path, Any]] = []

    def possible(path: Path, options: Any) -> Recognition:
        calls.append((path, options))
        return Recognition("possible", "It has x.")

    register(
        ("a", "one", named("one", recognise=possible)),
        ("b", "two", named("two", recognise=recognises("possible"))),
        ("c", "certain", named("certain", recognise=recognises("sure"))),
    )
    assert recognise_domain(tmp_path).name == "certain"
    assert recognise_domain(str(tmp_path), {"size": "3"}).name == "certain"
    assert calls == [(tmp_path, {}), (tmp_path, {"size": "3"})]


def test_the_only_possible_domain_is_chosen(register: Register, tmp_path: Path) -> None:
    register(("a", "one", named("one", recognise=recognises("possible"))), ("b", "toy", GOOD))
    assert recognise_domain(tmp_path).name == "one"


def test_a_path_that_no_domain_recognises(register: Register, tmp_path: Path) -> None:
    register(("flambeau-toy", "toy", GOOD), ("broken", "bad", "1 / 0"))
    with pytest.raises(
        DomainError,
        match=r"No installed domain.*read paths: none\..*--domain NAME.*bad: Cannot load",
    ):
        recognise_domain(tmp_path)


@pytest.mark.parametrize("certainty", ["sure", "possible"])
def test_two_equal_answers_ask(register: Register, tmp_path: Path, certainty: str) -> None:
    register(
        ("a", "one", named("one", recognise=recognises(certainty, "It has a."))),
        ("b", "two", named("two", recognise=recognises(certainty, "It has b."))),
        ("c", "toy", GOOD),
    )
    with pytest.raises(DomainError) as raised:
        recognise_domain(tmp_path)
    assert str(raised.value) == (
        f"2 domains can read {tmp_path}:\n  one: It has a.\n  two: It has b.\nChoose one: "
        "--domain one or --domain two. In Python, use the data class of that domain."
    )


@pytest.mark.parametrize("answer", [0.9, True, "sure", Recognition("likely", "x")])  # type: ignore[arg-type]
def test_another_answer_is_refused(register: Register, tmp_path: Path, answer: Any) -> None:
    register(("a", "one", named("one", recognise=lambda path, options: answer)))
    with pytest.raises(DomainError, match=r"domain 'one' returned .*Recognition\("):
        recognise_domain(tmp_path)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match=r"photos does not exist"):
        recognise_domain(tmp_path / "photos")


# ---------------------------------------------------------------- validating a record


def test_a_valid_record_passes() -> None:
    check_record(GOOD, "package:DOMAIN")
    check_record(TENSORS, "package:DOMAIN")


def test_fields_may_share_a_name_and_repeat_cores() -> None:
    shared = {field: {"net": dict} for field in ("tasks", "losses", "metrics", "preprocessors")}
    check_record(replace(GOOD, **shared), "package:DOMAIN")
    cores = {"tasks": {"classification": Classification}, "metrics": {"accuracy": Accuracy}}
    check_record(replace(GOOD, **cores), "package:DOMAIN")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "my toy"}, "'name' is 'my toy'"),
        ({"name": 3}, "'name' is 3"),
        ({"data_classes": [TensorData]}, "'data_classes' is a list"),
        ({"data_classes": {"ToyData": dict}}, "'data_classes' has 'ToyData'.*not a subclass"),
        ({"models": {"net": "MLP"}}, "'models' has 'net': 'MLP', which cannot be called"),
        ({"models": {3: dict}}, "'models' has the key 3"),
        ({"losses": {"own": 1}}, "'losses' has 'own': 1, which cannot be called"),
        ({"metrics": [dict]}, "'metrics' is a list; it must be a mapping"),
        (
            {"tasks": {"regression": Classification}},
            "'tasks' has 'regression': Classification, but core has 'regression': Regression",
        ),
        (
            {"losses": {"huber": ConfusionMatrix}},
            "'losses' has 'huber': ConfusionMatrix, but core has 'huber': .*task 'regression'",
        ),
        (
            {"metrics": {"accuracy": ConfusionMatrix}},
            "'metrics' has 'accuracy': ConfusionMatrix, but core has 'accuracy': Accuracy",
        ),
        ({"rules": [RULE]}, "'rules' is a list; it must be a tuple"),
        ({"rules": ("lr",)}, "'rules' contains 'lr', which is not a Rule"),
        ({"rules": (RULE, RULE)}, "'rules' contains 'size' more than once"),
        ({"checks": [1]}, "'checks' is a list"),
        ({"checks": ("leak",)}, "'checks' contains 'leak', which is not a Check"),
        ({"checks": (CHECK, CHECK)}, "'checks' contains 'leak' more than once"),
        (
            {"cli_options": (OPTION,)},
            "'cli_options' is a tuple; it must be a mapping",
        ),
        ({"cli_options": {"fit": [OPTION]}}, "'cli_options' of the command 'fit' is a list"),
        ({"cli_options": {"fit": ({"name": "size"},)}}, "'fit' contains .*not a CliOption"),
        ({"cli_options": {"plan": (OPTION, OPTION)}}, "'plan' contains 'size' more than once"),
        ({"cli_options": {"predcit": ()}}, "command 'predcit'.*Did you mean 'predict'"),
        ({"recognise": 0.5}, "'recognise' is 0.5"),
        ({"demo": 3}, "'demo' is 3"),
        ({"attributions": 3}, "'attributions' is 3"),
        ({"api": 0}, "version 0 .*reads version 1. Upgrade that package"),
        ({"api": 2}, "version 2 .*Upgrade flambeau"),
        ({"api": "x"}, "version 'x'"),
    ],
)
def test_a_fault_names_the_reference_and_the_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DomainError, match=rf"^package:DOMAIN.*{words}"):
        check_record(replace(GOOD, **changes), "package:DOMAIN")


# ---------------------------------------------------------------- rules of a domain


def test_rules_are_those_of_core_and_the_domain() -> None:
    keys = [rule.key for rule in rules_of(named("toy", rules=(RULE,)))]
    assert "size" in keys
    assert {"task", "lr", "batch_size"} <= set(keys)
    assert len(keys) == len(set(keys))
    combined = combine(CORE_RULES, TENSORS.rules)
    assert [rule.key for rule in rules_of(TENSORS)] == [rule.key for rule in combined]


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ({"net": dict}, "The only architecture of the domain 'toy'."),
        ({"net": dict, "wide": dict}, "The first architecture of the 2 that the domain 'toy' has."),
    ],
)
def test_the_first_model_is_used_without_a_rule(models: Any, reason: str) -> None:
    [rule] = [r for r in rules_of(named("toy", models=models)) if r.key == "architecture"]
    choice = rule.decide({}, {})
    assert (choice.value, choice.reason, choice.source) == ("net", reason, "default")
    assert choice.alternatives == tuple(models)[1:]


def test_the_first_task_is_used_where_core_knows_none() -> None:
    [rule] = [r for r in rules_of(named("toy", tasks={"reviews": dict})) if r.key == "task"]
    choice = rule.decide({}, {})
    assert (choice.value, choice.source) == ("reviews", "default")
    also = {"reviews": dict, "classification": Classification}
    [rule] = [r for r in rules_of(named("toy", tasks=also)) if r.key == "task"]
    facts = {"target_dtype": "int64", "n_train": 9, "target_distinct": 2}
    assert rule.decide(facts, {}).value == "classification"


def test_a_domain_without_models_has_no_architecture() -> None:
    [rule] = [r for r in rules_of(named("toy", models={})) if r.key == "architecture"]
    with pytest.raises(PlanError, match="No rule chooses an architecture"):
        rule.decide({}, {})


def test_from_path_is_a_protocol() -> None:
    class Readable:
        @classmethod
        def from_path(cls, path: Path, options: Any) -> None: ...

    assert isinstance(Readable, FromPath)
    assert not isinstance(TensorData, FromPath)
