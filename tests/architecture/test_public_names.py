"""`__all__` is exactly what a package shows, in order, and all of it is documented."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["flambeau", "flambeau_vision", "flambeau_text", "flambeau_tabular", "flambeau_bench"]


def packages() -> list[str]:
    """Our packages and their sub-packages: what people import from."""
    found = list(PACKAGES)
    for name in PACKAGES:
        path = importlib.import_module(name).__path__
        found += [m.name for m in pkgutil.walk_packages(path, f"{name}.") if m.ispkg]
    return found


def order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order of ruff's RUF022."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def shown(module: ModuleType) -> set[str]:
    """Names bound in a package, without sub-modules and private names."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }


def undocumented(name: str, value: object) -> list[str]:
    """What of a public class or function has no docstring of its own; other values need none."""
    if inspect.isfunction(value):
        return [] if value.__doc__ else [name]
    if not inspect.isclass(value):
        return []
    found = []
    made = f"{value.__name__}("  # what a dataclass writes when nobody wrote anything
    if not vars(value).get("__doc__") or str(value.__doc__).startswith(made):
        found.append(name)
    for member, attribute in vars(value).items():
        inner = getattr(attribute, "__func__", None) or getattr(attribute, "fget", None)
        function = inner or attribute
        if member.startswith("_") or not inspect.isfunction(function):
            continue
        # An override without a docstring has its base's.
        inherited = [getattr(base, member, None) for base in value.__mro__]
        if not any(attribute.__doc__ for attribute in inherited if attribute is not None):
            found.append(f"{name}.{member}")
    return found


@pytest.mark.parametrize("package", packages())
def test_all_is_sorted_and_equals_the_public_names(package: str) -> None:
    module = importlib.import_module(package)
    names = list(getattr(module, "__all__", []))
    assert names == sorted(names, key=order)
    assert set(names) - {"__version__"} == shown(module)


@pytest.mark.parametrize("package", packages())
def test_every_public_name_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    missing = [
        lack for name in sorted(shown(module)) for lack in undocumented(name, getattr(module, name))
    ]
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_code_is_a_package(package: str) -> None:
    """A folder without `__init__.py` imports by accident and is left out of the tests above."""
    [home] = ROOT.glob(f"packages/*/src/{package}")
    assert (home / "py.typed").is_file()
    folders = {path.parent for path in home.rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_the_document_check_tells_bad_from_good() -> None:
    @dataclass
    class Silent:
        size: int = 0

        @property
        def area(self) -> int:
            return self.size**2

        @classmethod
        def make(cls) -> None: ...

    @dataclass
    class Told(Silent):
        """Says what it is."""

        def make(self) -> None:
            """Say what it makes."""

    class Heir(Told):
        """Overrides, and keeps its base's words."""

        def make(self) -> None: ...

    def silent() -> None: ...

    assert undocumented("Silent", Silent) == ["Silent", "Silent.area", "Silent.make"]
    assert undocumented("Told", Told) == []
    assert undocumented("Heir", Heir) == []
    assert undocumented("silent", silent) == ["silent"]
    assert undocumented("number", 3) == []
