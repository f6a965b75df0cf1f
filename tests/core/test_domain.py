"""The domain record and how it is found, with made entry points."""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from flambeau import domain as domains
from flambeau.data.data import Data
from flambeau.doctor import Check
from flambeau.domain import CliOption, Domain, FromPath, check_record, rules_of
from flambeau.errors import DomainError, PlanError
from flambeau.plan import CORE_RULES, Choice, Rule, combine
from flambeau.tensors.data import TensorData
from flambeau.tensors.domain import DOMAIN as TENSORS

RULE = Rule("size", (), lambda facts, values: Choice("size", 1, "Made."))
CHECK = Check("leak", "leaks", lambda subject: None)
GOOD = Domain(name="toy", data_classes={"ToyData": TensorData}, models={"net": dict}, tasks={})

Register = Callable[..., None]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is found or in use when a test starts, and what it found is forgotten after it."""
    monkeypatch.setattr(domains, "_used", {})
    domains.discover.cache_clear()
    yield
    domains.discover.cache_clear()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Register:
    """Make packages: ``register(("dist", "name", record or text of the module), …)``."""
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
            entry = EntryPoint(name, f"{module}:DOMAIN", domains.GROUP)
            info = tmp_path / f"{distribution}-1.0.dist-info"
            info.mkdir(exist_ok=True)
            (info / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
            vars(entry).update(dist=importlib.metadata.PathDistribution(info))
            entries.append(entry)
        monkeypatch.setattr(domains, "entry_points", lambda group: entries)
        domains.discover.cache_clear()

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
    assert sorted(domains.discover()) == ["tensors", "toy", "words"]
    assert domains.get("toy") is GOOD
    entry = domains.discover()["toy"]
    assert (entry.distribution, entry.error) == ("flambeau-toy", None)
    assert entry.reference == "made_flambeau-toy_toy:DOMAIN"


def test_cores_own_domain_stands_beside_the_others(register: Register) -> None:
    assert domains.get("tensors") is TENSORS
    assert domains.discover()["tensors"].distribution == "flambeau"


def test_the_entry_points_are_read_once_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def entry_points(group: str) -> list[EntryPoint]:
        calls.append(group)
        return []

    monkeypatch.setattr(domains, "entry_points", entry_points)
    assert calls == []
    domains.discover()
    domains.discover()
    assert calls == ["flambeau.domains"]


def test_importing_scans_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(group: str) -> None:
        raise RuntimeError("scanned")

    monkeypatch.setattr(importlib.metadata, "entry_points", scan)
    # A second copy of the module, so that the one in use stays as it is.
    spec = importlib.util.spec_from_file_location("copy_of_domain", domains.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "copy_of_domain", copy)
    spec.loader.exec_module(copy)
    with pytest.raises(RuntimeError, match="scanned"):
        copy.discover()


def test_an_unknown_name_says_what_is_installed(register: Register) -> None:
    register(("flambeau-toy", "toy", GOOD))
    with pytest.raises(
        DomainError,
        match=r"named 'toys'\. Did you mean 'toy'\?.*tensors, toy.*install flambeau-toys",
    ):
        domains.get("toys")


def test_two_packages_with_one_name_are_an_error_naming_both(register: Register) -> None:
    register(("first", "toy", GOOD), ("second", "toy", GOOD), ("third", "words", named("words")))
    with pytest.raises(DomainError, match=r"'toy'.*first \(made_first_toy.*second \(made_second"):
        domains.get("toy")
    assert domains.get("words").name == "words"
    assert domains.discover()["toy"].distribution == "first, second"
    assert domains.discover()["toy"].domain is None


def test_a_package_cannot_take_the_name_of_cores_domain(register: Register) -> None:
    register(("foreign", "tensors", named("tensors")))
    with pytest.raises(DomainError, match=r"'tensors'.*flambeau \(.*foreign \("):
        domains.get("tensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import not_installed_anywhere", "ModuleNotFoundError: No module named"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("DOMAINS = 1", "AttributeError: .*has no attribute 'DOMAIN'"),
        ("DOMAIN = 3", "is a int, not a flambeau.domain.Domain"),
    ],
)
def test_a_broken_domain_harms_no_other(register: Register, content: str, words: str) -> None:
    register(("broken", "bad", content), ("flambeau-toy", "toy", GOOD))
    assert domains.get("toy") is GOOD
    assert domains.discover()["bad"].domain is None
    with pytest.raises(DomainError, match=rf"made_broken_bad:DOMAIN .*{words}"):
        domains.get("bad")


def test_the_entry_points_name_is_the_records(register: Register) -> None:
    register(("flambeau-toy", "plaything", GOOD))
    with pytest.raises(DomainError, match=r"flambeau-toy registers .* as 'plaything'.*is 'toy'"):
        domains.get("plaything")


# ---------------------------------------------------------------- by reference


class ToyData(TensorData):
    domain = "made_here_toy:DOMAIN"


def toy_data(reference: Any) -> Data:
    made = object.__new__(type("Made", (ToyData,), {"domain": reference}))
    assert isinstance(made, Data)
    return made


def test_of_reads_the_reference_in_the_data_class(register: Register) -> None:
    assert domains.of(TENSORS.demo(20, 0)) is TENSORS  # type: ignore[misc]
    register(("here", "toy", GOOD))
    assert domains.of(toy_data("made_here_toy:DOMAIN")) is GOOD


def test_a_domain_in_use_need_not_be_installed(register: Register) -> None:
    register(("here", "toy", GOOD))
    reference = domains.discover()["toy"].reference
    register()
    domains._used.clear()
    with pytest.raises(DomainError, match="No domain is named 'toy'"):
        domains.get("toy")
    domains.of(toy_data(reference))
    assert domains.get("toy") is GOOD
    assert "toy" not in domains.discover()


def test_two_domains_in_use_under_one_name_are_refused(register: Register) -> None:
    register(("a", "toy", GOOD), ("b", "toy", named("toy")))
    domains.load("made_a_toy:DOMAIN")
    domains.load("made_b_toy:DOMAIN")
    with pytest.raises(DomainError, match="made_a_toy:DOMAIN, made_b_toy:DOMAIN"):
        domains.get("toy")


@pytest.mark.parametrize("reference", ["toy", "a:", ":b", ""])
def test_a_reference_has_a_module_and_a_name(reference: str) -> None:
    with pytest.raises(DomainError, match=r"Write 'package\.module:DOMAIN'"):
        domains.load(reference)


def test_a_data_class_without_a_reference_is_told_what_to_write() -> None:
    with pytest.raises(DomainError, match=r"Made\.domain is None.*domain = \"package"):
        domains.of(toy_data(None))


# ---------------------------------------------------------------- recognising a path


def test_the_surest_domain_takes_a_path(register: Register, tmp_path: Path) -> None:
    asked: list[Path] = []

    def half(path: Path) -> float:
        asked.append(path)
        return 0.5

    register(
        ("a", "half", named("half", recognise=half)),
        ("b", "sure", named("sure", recognise=lambda path: 0.9)),
    )
    assert domains.recognise(tmp_path).name == "sure"
    assert domains.recognise(str(tmp_path)).name == "sure"
    assert asked == [tmp_path, tmp_path]


def test_nobody_claims_a_path(register: Register, tmp_path: Path) -> None:
    register(("flambeau-toy", "toy", GOOD), ("broken", "bad", "1 / 0"))
    with pytest.raises(
        DomainError, match=r"No installed domain.*tensors 0\.00, toy 0\.00.*broken: bad: The domain"
    ):
        domains.recognise(tmp_path)


def test_equally_sure_domains_are_named(register: Register, tmp_path: Path) -> None:
    register(
        ("a", "one", named("one", recognise=lambda path: 0.5)),
        ("b", "two", named("two", recognise=lambda path: 0.5)),
    )
    with pytest.raises(DomainError, match=r"equally sure.*one 0\.50, tensors 0\.00, two 0\.50"):
        domains.recognise(tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match=r"photos does not exist"):
        domains.recognise(tmp_path / "photos")


# ---------------------------------------------------------------- checking a record


def test_a_good_record_passes() -> None:
    check_record(GOOD, "package:DOMAIN")
    check_record(TENSORS, "package:DOMAIN")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "my toy"}, "'name' is 'my toy'"),
        ({"name": 3}, "'name' is 3"),
        ({"data_classes": [TensorData]}, "'data_classes' is a list"),
        ({"data_classes": {"ToyData": dict}}, "'data_classes' has 'ToyData'.*no subclass"),
        ({"models": {"net": "MLP"}}, "'models' has 'net': 'MLP', which cannot be called"),
        ({"models": {3: dict}}, "'models' has the key 3"),
        ({"builders": {"net": dict}}, "'builders' has 'net', which is in 'models' as well"),
        ({"tasks": {"net": dict}}, "'tasks' has 'net', which is in 'models' as well"),
        ({"rules": [RULE]}, "'rules' is a list; it must be a tuple"),
        ({"rules": ("lr",)}, "'rules' holds 'lr', which is no Rule"),
        ({"rules": (RULE, RULE)}, "'rules' has 'size' more than once"),
        ({"checks": [1]}, "'checks' is a list"),
        ({"checks": ("leak",)}, "'checks' holds 'leak', which is no Check"),
        ({"checks": (CHECK, CHECK)}, "'checks' has 'leak' more than once"),
        ({"cli_options": ({"name": "size"},)}, "'cli_options' holds .*no CliOption"),
        ({"cli_options": (CliOption("size", int, "Px.", "a"),) * 2}, "'size' more than once"),
        ({"recognise": 0.5}, "'recognise' is 0.5"),
        ({"demo": 3}, "'demo' is 3"),
        ({"api": 0}, "version 0 .*reads version 1. Upgrade that package"),
        ({"api": 2}, "version 2 .*Upgrade flambeau"),
        ({"api": "x"}, "version 'x'"),
    ],
)
def test_a_fault_names_the_place_and_the_field(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DomainError, match=rf"^package:DOMAIN.*{words}"):
        check_record(replace(GOOD, **changes), "package:DOMAIN")


# ---------------------------------------------------------------- its rules


def test_cores_rules_and_the_domains_make_one_plan() -> None:
    keys = [rule.key for rule in rules_of(named("toy", rules=(RULE,)))]
    assert "size" in keys
    assert {"task", "lr", "batch_size"} <= set(keys)
    assert len(keys) == len(set(keys))
    assert list(rules_of(TENSORS)) == list(combine(CORE_RULES, TENSORS.rules))


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ({"net": dict}, "The only architecture of the domain 'toy'."),
        ({"net": dict, "wide": dict}, "The first of the 2 architectures of the domain 'toy'."),
    ],
)
def test_the_first_model_is_taken_where_no_rule_chooses(models: Any, reason: str) -> None:
    [rule] = [r for r in rules_of(named("toy", models=models)) if r.key == "architecture"]
    choice = rule.decide({}, {})
    assert (choice.value, choice.reason, choice.source) == ("net", reason, "default")
    assert choice.alternatives == tuple(models)[1:]


def test_a_domain_without_models_has_none_to_take() -> None:
    [rule] = [r for r in rules_of(named("toy", models={})) if r.key == "architecture"]
    with pytest.raises(PlanError, match="No rule chooses an architecture"):
        rule.decide({}, {})


def test_from_path_is_a_protocol() -> None:
    class Readable:
        @classmethod
        def from_path(cls, path: Path, options: Any) -> None: ...

    assert isinstance(Readable, FromPath)
    assert not isinstance(TensorData, FromPath)
