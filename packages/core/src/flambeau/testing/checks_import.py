"""Checks of the record and of what importing it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points

from flambeau import domain as domains
from flambeau.testing.report import broken
from flambeau.testing.subject import Subject

HEAVY = frozenset({
    "IPython", "PIL", "datasets", "matplotlib", "pandas", "pyarrow", "sacrebleu", "scipy",
    "sklearn", "spacy", "timm", "tokenizers", "torchvision", "transformers",
})  # fmt: skip
"""Packages that no import of a domain may load: import them in the functions that use them."""

# What a record cannot be read without; what this loads is not the domain's doing.
_BASE = "flambeau.domain"
_PROBE = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
before = set(sys.modules)
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def check_record_is_found_from_its_data(subject: Subject) -> None:
    """Every data class says where its domain's record stands, and that is this record."""
    record = subject.domain
    domains.check_record(record, f"the domain {record.name!r}")
    if not record.data_classes or not record.models or not record.tasks:
        raise broken(
            f"The record {record.name!r} lacks data_classes, models or tasks.",
            "a Learner could not be made of it",
            "fill in all three in Domain(...)",
        )
    for name, data_class in record.data_classes.items():
        reference = getattr(data_class, "domain", None)
        found = domains.load(reference) if isinstance(reference, str) else None
        if found is not record:
            raise broken(
                f"{name}.domain is {reference!r}, which is not the record {record.name!r}.",
                "Learner(data) looks its rules and builders up there",
                f'write in the class {name}: domain = "package.module:DOMAIN"',
            )


def check_import_is_light(subject: Subject) -> None:
    """Importing the domain loads no heavy library and no other domain."""
    module = _module_of(subject)
    own = module.partition(".")[0]
    answer = subprocess.run(
        [sys.executable, "-c", _PROBE, _BASE, own, module],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    if answer.returncode != 0:
        raise broken(
            f"Importing {module} in a fresh process fails: {answer.stderr.strip()[-500:]}",
            "the domain works only after something else was imported",
            "make the module importable by itself",
        )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    if heavy := sorted(loaded & HEAVY):
        raise broken(
            f"Importing {module} loads {', '.join(heavy)}.",
            "`flambeau --help` and every Learner read all installed records, so each of them "
            "would wait for these libraries",
            "import them inside the functions that use them",
        )
    if others := sorted(loaded & (_other_domains() - {own, "flambeau"})):
        raise broken(
            f"Importing {module} loads the domain package {', '.join(others)}.",
            "domains do not know each other, so that each can be installed alone",
            "move what both need to core, or into a package that is no domain",
        )


def _module_of(subject: Subject) -> str:
    data_class = next(iter(subject.domain.data_classes.values()))
    return str(data_class.domain).partition(":")[0]


def _other_domains() -> set[str]:
    """Top-level packages of the installed domains; read from their metadata, loading none."""
    return {entry.module.partition(".")[0] for entry in entry_points(group=domains.GROUP)}
