"""The class numbers of a user's data sets: their attributes ``class_to_idx`` and ``classes``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from flambeau.errors import InputError
from flambeau.wording import name_some


def class_numbering(items: object, what: str) -> dict[int, str] | None:
    """Return the name of each class number that a data set declares; None if it declares none.

    Data sets inside others (``Subset``, ``ConcatDataset``, and others with an attribute
    ``dataset``) are found. Behind a ``target_transform`` the numbers are not known.

    Args:
        items: The data set.
        what: Name of the data set, for messages.

    Raises:
        InputError: ``class_to_idx`` and ``classes``, or two data sets inside this one, give a
            number different names.
    """
    source = cast("Any", items)
    if getattr(source, "target_transform", None) is not None:
        return None
    found = _declared(source, what)
    if found is not None:
        return found
    inner: Any = getattr(source, "datasets", None)
    members: list[Any] = [source.dataset] if hasattr(source, "dataset") else []
    if isinstance(inner, list | tuple):
        members = list(cast("Sequence[Any]", inner))
    known = [(each, class_numbering(each, what)) for each in members if each is not items]
    named = [numbering for _, numbering in known if numbering is not None]
    for numbering in named[1:]:
        check_same_numbering(named[0], numbering, f"one data set of {what}", f"another of {what}")
    return named[0] if named and len(named) == len(known) else None


def check_same_numbering(
    numbering: Mapping[int, str], other: Mapping[int, str], what: str, other_what: str
) -> None:
    """Raise an ``InputError`` if a number has two names, or a name two numbers.

    A data set may have classes that the other does not have.
    """
    number_of = {name: number for number, name in other.items()}
    for number, name in numbering.items():
        if other.get(number, name) != name or number_of.get(name, number) != number:
            raise InputError(
                f"The classes of {what} are {_shown(numbering)}, but those of {other_what} are "
                f"{_shown(other)}, so the same class number has two meanings. Give all data sets "
                "the same classes in the same order."
            )


def check_parts(parts: Mapping[str, Any], class_names: Sequence[str] | None) -> None:
    """Check that the data sets of all parts, and the user's class names, number classes alike.

    Args:
        parts: A data set, or a loader of one, by the name of the part.
        class_names: The names that the user gave; other names than those of the data sets are
            translations.

    Raises:
        InputError: A class number has two meanings.
    """
    first: tuple[str, dict[int, str]] | None = None
    for part, items in parts.items():
        numbering = class_numbering(items, part)
        if numbering is None:
            continue
        if first is not None:
            check_same_numbering(numbering, first[1], part, first[0])
        first = first or (part, numbering)
    if class_names is None or first is None:
        return
    given = dict(enumerate(class_names))
    if set(given.values()) == set(first[1].values()):
        check_same_numbering(given, first[1], "class_names", first[0])


def _declared(source: Any, what: str) -> dict[int, str] | None:
    """Return the numbering in the attributes of this data set itself."""
    by_name = getattr(source, "class_to_idx", None)
    by_number: Any = getattr(source, "classes", None)
    listed: dict[int, str] | None = None
    if _is_names(by_number):
        listed = dict(enumerate(map(str, by_number)))
    if not isinstance(by_name, Mapping) or not by_name:
        return listed
    pairs = cast("Mapping[Any, Any]", by_name).items()
    if not all(isinstance(name, str) and type(number) is int for name, number in pairs):
        return listed
    found: dict[int, str] = {}
    for name, number in pairs:
        found.setdefault(number, name)  # ImageNet has several names of each class
    if listed is not None:
        check_same_numbering(listed, found, f"{what} (classes)", f"{what} (class_to_idx)")
    return found


def _is_names(names: object) -> bool:
    if not isinstance(names, list | tuple) or not names:
        return False
    texts = cast("Sequence[object]", names)
    return all(isinstance(name, str) for name in texts) and len(set(texts)) == len(texts)


def _shown(numbering: Mapping[int, str]) -> str:
    return name_some(f"{number}: {numbering[number]}" for number in sorted(numbering))
