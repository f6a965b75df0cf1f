"""A third-party domain (``examples/flambeau-toy``) from discovery to an installed wheel.

The quick tests use its source folder and an entry point made here; a slow test installs wheels in a
new environment.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from flambeau import Classification, Learner, Plan, Predictor
from flambeau.cli.app import build_app
from flambeau.domain import Domain, discovery, get_domain, recognise_domain
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau.learner.build import BuiltPlan, UserObjects
from flambeau.plan import Choice
from flambeau.task import TopKAccuracy
from flambeau.testing import CHECKS, ConformanceCheck, DomainUnderTest, check_name

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "examples" / "flambeau-toy" / "src"
MODULES = ("flambeau_toy", "flambeau_toy.data", "flambeau_toy.domain")
SEQUENCE = "ACGTTGCAAC" * 6


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[Domain]:
    """Make the example importable and give it an entry point, as if it were installed."""

    def found(group: str) -> list[EntryPoint]:
        own = [EntryPoint("dna", "flambeau_toy.domain:DOMAIN", group)]
        return [*entry_points(group=group), *(own if group == discovery.ENTRY_POINT_GROUP else [])]

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SOURCE)
        patch.setattr(discovery, "_loaded", {})
        patch.setattr(discovery, "entry_points", found)
        discovery.installed_domains.cache_clear()
        yield get_domain("dna")
    discovery.installed_domains.cache_clear()
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tested() -> DomainUnderTest:
    return DomainUnderTest("dna")


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
def test_it_passes_the_conformance_checks(tested: DomainUnderTest, check: ConformanceCheck) -> None:
    check(tested)


def write(path: Path, data: Any, times: int = 1) -> Path:
    pairs = list(zip(data.labels, data.sequences, strict=True)) * times
    path.write_text("".join(f"{label}\t{sequence}\n" for label, sequence in pairs))
    return path


def call(*words: object, expect: int = 0) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == expect, result.output
    return result.output


def test_its_files_rule_and_option_are_used(toy: Domain, tmp_path: Path) -> None:
    path = write(tmp_path / "genes.dna", toy.demo(60, 0))  # type: ignore[misc]
    assert recognise_domain(path) is toy
    choices = {c["key"]: c for c in json.loads(call("plan", path, "--json"))["choices"]}
    assert (choices["length"]["value"], choices["length"]["source"]) == (60, "rule")
    assert choices["architecture"]["value"] == "motif_net"
    assert "--length" in call("domains", "dna")
    choices = {
        c["key"]: c for c in json.loads(call("plan", path, "--length", 48, "--json"))["choices"]
    }
    assert (choices["length"]["value"], choices["length"]["source"]) == (48, "user")
    like = Learner(toy.demo(60, 0), quiet=True).export(tmp_path / "x")  # type: ignore[misc]
    with pytest.raises(ArgumentError, match=r"DnaData cannot be read like an export.*--like .*x"):
        call("plan", path, "--like", like)


def test_its_check_finds_a_leak(toy: Domain, tmp_path: Path) -> None:
    data = toy.demo(60, 0)  # type: ignore[misc]
    assert "37 checks, no findings" in call("doctor", write(tmp_path / "a.dna", data))
    text = call("doctor", write(tmp_path / "b.dna", data, times=2), expect=1)
    assert "error    dna-leak" in text
    # The reverse complement is the same molecule.
    flipped = [s.translate(str.maketrans("ACGT", "TGCA"))[::-1] for s in data.sequences]
    both = type(data)(data.sequences + flipped, data.labels * 2, data.split)
    assert Learner(both, quiet=True).doctor().ok  # the copies are in no part
    rows = {"train": data.split.train.tolist(), "valid": [60 + data.split.train[0]]}
    assert Learner(both.subset(rows), quiet=True).doctor().codes == ("dna-leak",)


def test_its_export_predicts_every_sequence_of_a_file(toy: Domain, tmp_path: Path) -> None:
    learner = Learner(toy.demo(60, 0), quiet=True, folder=tmp_path / "run")  # type: ignore[misc]
    model = learner.export(tmp_path / "model")
    path = tmp_path / "new.dna"
    path.write_text(f"{SEQUENCE}\n\npromoter\t{SEQUENCE[::-1]}\n")
    records = json.loads(call("predict", model, path, "--format", "json"))
    assert [(record["file"], record["item"]) for record in records] == [
        (str(path), 1),
        (str(path), 2),
    ]
    expected = [learner.predict(sequence) for sequence in (SEQUENCE, SEQUENCE[::-1])]
    assert [record["label"] for record in records] == [each.label for each in expected]
    alone = tmp_path / "one.dna"
    alone.write_text(SEQUENCE)
    [record] = json.loads(call("predict", model, alone, "--format", "json"))
    assert "item" not in record
    assert Predictor.load(model).predict(SEQUENCE).label == record["label"]


def test_its_metric_is_in_the_export(toy: Domain, tmp_path: Path) -> None:
    data = toy.demo(60, 0)  # type: ignore[misc]
    lowest = toy.metrics["lowest_recall"]()
    task = Classification(data.names, metrics={"lowest_recall": lowest, "top_1": TopKAccuracy(1)})
    learner = Learner(data, task=task, quiet=True, folder=tmp_path / "run")
    model = learner.export(tmp_path / "model")
    scores = json.loads(call("evaluate", model, write(tmp_path / "a.dna", data), "--json"))
    assert list(scores) == ["samples", "parts", "loss", "lowest_recall", "top_1"]
    # Logits for two samples of the first class and one of the second: 1 of 2 and 1 of 1 correct.
    lowest.update(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    assert lowest.compute() == 0.5


def test_one_sequence_is_scored(toy: Domain, tmp_path: Path) -> None:
    data = toy.demo(60, 0)  # type: ignore[misc]
    model = Learner(data, quiet=True, folder=tmp_path / "run").export(tmp_path / "model")
    (tmp_path / "one.dna").write_text(f"promoter\t{'ACGT' * 15}\n")
    assert call("evaluate", model, tmp_path / "one.dna").startswith("1 samples (all)\n")


def test_the_plan_can_name_its_metric(toy: Domain, tmp_path: Path) -> None:
    path = write(tmp_path / "a.dna", toy.demo(60, 0))  # type: ignore[misc]
    data = toy.demo(60, 0)  # type: ignore[misc]
    names = ["lowest_recall", "accuracy"]
    learner = Learner(data, choices={"metrics": names}, quiet=True, folder=tmp_path / "run")
    assert list(learner.evaluate()) == ["loss", *names]
    assert isinstance(learner.task.metrics()["lowest_recall"], toy.metrics["lowest_recall"])  # type: ignore[arg-type]
    model = learner.export(tmp_path / "model")
    scores = json.loads(call("evaluate", model, path, "--json"))
    assert list(scores) == ["samples", "parts", "loss", *names]
    again = Learner(data, plan=Plan.from_json(learner.plan.to_json()), quiet=True)
    assert list(again.task.metrics()) == names
    message = r"a list of accuracy, .*, lowest_recall, .* Did you mean 'lowest_recall'\?"
    with pytest.raises(PlanError, match=message):
        Learner(data, choices={"metrics": ["lowst_recall"]}, quiet=True)
    with pytest.raises(PlanError, match=r"a list of accuracy, .*Did you mean 'accuracy'\?"):
        Learner(data, choices={"metrics": ["acuracy"]}, quiet=True)
    with pytest.raises(PlanError, match=r"a list of accuracy.* 'classification'\.$"):
        Learner(data, choices={"metrics": "nothing"}, quiet=True)


def test_a_metric_with_arguments_is_passed_as_an_object(toy: Domain) -> None:
    class Above:
        def __init__(self, limit: float) -> None: ...

    other = replace(toy, metrics={"above": Above})
    data = toy.demo(60, 0)  # type: ignore[misc]
    learner = Learner(data, quiet=True)
    plan = learner.plan.override("metrics", ["accuracy"])
    built = BuiltPlan(data, other, plan, UserObjects(), 0)
    assert list(built.task.metrics()) == ["accuracy"]
    given = Plan.from_json(plan.to_json()).with_choice(Choice("metrics", ["above"], "Mine."))
    with pytest.raises(PlanError, match=r"'above' of the domain 'dna' .*'limit'.* to the task"):
        BuiltPlan(data, other, given, UserObjects(), 0)


def test_its_errors_name_line_and_input(toy: Domain, tmp_path: Path) -> None:
    path = tmp_path / "genes.dna"
    path.write_text(f"a\t{SEQUENCE}\nb\tHELLO\n")
    with pytest.raises(
        InputError, match=r"genes\.dna, line 2: 'HELLO' has other letters than ACGTN"
    ):
        call("plan", path)
    learner = Learner(toy.demo(60, 0), quiet=True)  # type: ignore[misc]
    with pytest.raises(InputError, match=r"Item 1.*'XYZ'"):
        learner.predict([SEQUENCE, "XYZ"])
    model = learner.export(tmp_path / "model")
    with pytest.raises(InputError, match=r"gone\.dna does not exist"):
        call("predict", model, tmp_path / "gone.dna")


def test_core_has_no_code_for_it() -> None:
    """No string in core names the package or its kind of data."""
    words = re.compile(r"flambeau[_-]toy|\bdna", re.IGNORECASE)
    found = [
        (path.name, node.value)
        for path in (ROOT / "packages" / "core" / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if words.search(node.value)
    ]
    assert not found


def definitions(text: str) -> dict[str, str]:
    """Return functions, classes and constants by name, without ``domain``, which differs."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            node.body = [part for part in node.body if not ast.unparse(part).startswith("domain =")]
        name = getattr(node, "name", None) or ast.unparse(getattr(node, "targets", [node])[0])
        found[name] = ast.unparse(node)
    return found


def test_the_page_shows_the_code_of_the_example() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = {name: code for block in blocks for name, code in definitions(block).items()}
    for module in ("data.py", "domain.py"):
        text = (SOURCE / "flambeau_toy" / module).read_text(encoding="utf-8")
        for name, code in definitions(text).items():
            if not code.startswith(("import", "from", '"', "'")):
                assert shown.get(name) == code, name


# ---------------------------------------------------------------- from wheels


@pytest.mark.slow
def test_from_wheels_in_a_new_environment(install: Callable[..., Any]) -> None:
    environment = install("flambeau-toy")
    ours = {name for name in environment.packages() if name.startswith("flambeau")}
    assert ours == {"flambeau", "flambeau-toy"}

    def flambeau(*words: object, expect: int = 0) -> str:
        return environment.call("flambeau", *map(str, words), expect=expect)

    environment.call(
        "python",
        "-c",
        "from flambeau_toy.domain import demo\n"
        "data = demo(300, 1)\n"
        "lines = [f'{a}\\t{b}\\n' for a, b in zip(data.labels, data.sequences)]\n"
        "open('genes.dna', 'w').writelines(lines)\n"
        "open('twice.dna', 'w').writelines(lines * 2)\n"
        "open('new.dna', 'w').writelines(line.split('\\t')[1] for line in lines[:4])\n",
    )
    listed = flambeau("domains")
    assert "flambeau-toy" in listed
    assert "DnaData" in listed
    choices = json.loads(flambeau("plan", "genes.dna", "--length", 56, "--json"))["choices"]
    assert {"key": "length", "value": 56} in [
        {"key": choice["key"], "value": choice["value"]} for choice in choices
    ]
    assert "no findings" in flambeau("doctor", "genes.dna")
    assert "dna-leak" in flambeau("doctor", "twice.dna", expect=1)
    flambeau("fit", "genes.dna", "--epochs", 30, "--lr", "0.01", "--out", "run")
    record = json.loads((environment.work / "run/model/flambeau.json").read_text())
    assert record["domain"] == "dna"
    assert record["preprocessor"]["builder"] == "dna_preprocessor"
    assert record["model"]["builder"] == "motif_net"
    records = json.loads(flambeau("predict", "run/model", "new.dna", "--format", "json"))
    # Most of the four: the promoters contain a motif that the network detects.
    expected = ["background", "promoter"] * 2
    assert sum(r["label"] == e for r, e in zip(records, expected, strict=True)) >= 3
    scores = json.loads(flambeau("evaluate", "run/model", "genes.dna", "--json"))
    assert scores["samples"] == 300
    assert scores["accuracy"] > 0.9
    assert "all checks passed" in environment.call("python", "-m", "flambeau.testing", "dna")
