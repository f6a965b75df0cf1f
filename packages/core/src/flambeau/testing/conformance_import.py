"""Conformance checks of the record, and of the modules that importing it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points

from flambeau.domain import ENTRY_POINT_GROUP, check_record, is_variant, load_domain
from flambeau.testing.conformance_report import conformance_error
from flambeau.testing.domain_under_test import DomainUnderTest

HEAVY = frozenset({
    "IPython", "PIL", "datasets", "matplotlib", "pandas", "pyarrow", "sacrebleu", "scipy",
    "sklearn", "spacy", "timm", "tokenizers", "torchvision", "transformers",
})  # fmt: skip
"""Packages that must not be loaded by importing a domain; import them where they are used."""

# Every domain imports it; modules that it loads are not counted.
_BASE = "flambeau.domain"
_PROBE = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
before = set(sys.modules)
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def check_data_classes_refer_to_the_record(tested: DomainUnderTest) -> None:
    """Check that the attribute ``domain`` of every data class refers to this record.

    A data class after the first may refer to a variant of the record, with rules of its own.
    """
    record = tested.domain
    check_record(record, f"the domain {record.name!r}")
    if not record.data_classes or not record.models or not record.tasks:
        raise conformance_error(
            f"The record {record.name!r} lacks data_classes, models or tasks.",
            "a Learner needs all three",
            "set them in Domain(...)",
        )
    for position, (name, data_class) in enumerate(record.data_classes.items()):
        reference = getattr(data_class, "domain", None)
        found = load_domain(reference) if isinstance(reference, str) else None
        if position and found is not None and is_variant(found, record):
            continue
        if found is not record:
            raise conformance_error(
                f"{name}.domain is {reference!r}, which is not the reference of the record "
                f"{record.name!r}.",
                "Learner(data) finds rules and builders through this reference",
                f'write in the class {name}: domain = "package.module:DOMAIN"',
            )


def check_import_is_light(tested: DomainUnderTest) -> None:
    """Check that importing the domain loads no large library and no other domain."""
    module = _module_of(tested)
    own = module.partition(".")[0]
    process = subprocess.run(
        [sys.executable, "-c", _PROBE, _BASE, own, module],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if process.returncode != 0:
        raise conformance_error(
            f"Importing {module} in a new process fails: {process.stderr.strip()[-500:]}",
            "the domain works only after another module was imported",
            "make the module importable on its own",
        )
    loaded = set(json.loads(process.stdout.splitlines()[-1]))
    if heavy := sorted(loaded & HEAVY):
        raise conformance_error(
            f"Importing {module} loads {', '.join(heavy)}.",
            "`flambeau --help` and every Learner read all installed records and would wait for "
            "these libraries",
            "import them inside the functions that use them",
        )
    if others := sorted(loaded & (_other_domains() - {own, "flambeau"})):
        raise conformance_error(
            f"Importing {module} loads the domain package {', '.join(others)}.",
            "domains must be independent, so that each can be installed alone",
            "move shared code to core or to a separate package",
        )


def _module_of(tested: DomainUnderTest) -> str:
    data_class = next(iter(tested.domain.data_classes.values()))
    return str(data_class.domain).partition(":")[0]


def _other_domains() -> set[str]:
    """Return the top-level packages of installed domains, from metadata, without imports."""
    return {entry.module.partition(".")[0] for entry in entry_points(group=ENTRY_POINT_GROUP)}
