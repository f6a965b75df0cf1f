"""`__all__` lists exactly the public names of a package, sorted, and all have a docstring."""

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
    """Return our packages and their sub-packages, from which users import."""
    found = list(PACKAGES)
    for name in PACKAGES:
        path = importlib.import_module(name).__path__
        found += [m.name for m in pkgutil.walk_packages(path, f"{name}.") if m.ispkg]
    return found


def order(name: str) -> tuple[int, str]:
    """Return the sort key of ruff's RUF022: CONSTANTS, then Classes, then functions."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def public_names(module: ModuleType) -> set[str]:
    """Return the names bound in a package, without sub-modules and private names."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }


def undocumented(name: str, value: object) -> list[str]:
    """Return the members of a public class, or the function, that have no docstring."""
    if inspect.isfunction(value):
        return [] if value.__doc__ else [name]
    if not inspect.isclass(value):
        return []
    found = []
    generated = f"{value.__name__}("  # how the generated docstring of a dataclass starts
    if not vars(value).get("__doc__") or str(value.__doc__).startswith(generated):
        found.append(name)
    for member, attribute in vars(value).items():
        inner = getattr(attribute, "__func__", None) or getattr(attribute, "fget", None)
        function = inner or attribute
        if member.startswith("_") or not inspect.isfunction(function):
            continue
        # An override without a docstring inherits that of its base.
        inherited = [getattr(base, member, None) for base in value.__mro__]
        if not any(attribute.__doc__ for attribute in inherited if attribute is not None):
            found.append(f"{name}.{member}")
    return found


@pytest.mark.parametrize("package", packages())
def test_all_is_sorted_and_equals_the_public_names(package: str) -> None:
    module = importlib.import_module(package)
    names = list(getattr(module, "__all__", []))
    assert names == sorted(names, key=order)
    assert set(names) - {"__version__"} == public_names(module)


@pytest.mark.parametrize("package", packages())
def test_every_public_name_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    missing = [
        lack
        for name in sorted(public_names(module))
        for lack in undocumented(name, getattr(module, name))
    ]
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_code_is_a_package(package: str) -> None:
    """Python can import a folder without `__init__.py`, but the tests above would not see it."""
    [home] = ROOT.glob(f"packages/*/src/{package}")
    assert (home / "py.typed").is_file()
    folders = {path.parent for path in home.rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_a_missing_docstring_is_found() -> None:
    @dataclass
    class Undocumented:
        size: int = 0

        @property
        def area(self) -> int:
            return self.size**2

        @classmethod
        def make(cls) -> None: ...

    @dataclass
    class Documented(Undocumented):
        """A documented class."""

        def make(self) -> None:
            """Make nothing."""

    class Override(Documented):
        """Inherits the docstring of ``make``."""

        def make(self) -> None: ...

    def undocumented_function() -> None: ...

    assert undocumented("Undocumented", Undocumented) == [
        "Undocumented",
        "Undocumented.area",
        "Undocumented.make",
    ]
    assert undocumented("Documented", Documented) == []
    assert undocumented("Override", Override) == []
    assert undocumented("undocumented_function", undocumented_function) == ["undocumented_function"]
    assert undocumented("number", 3) == []
