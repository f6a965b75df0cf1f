"""Decide which folders are parts (train, valid, test), which are classes, and which are unused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambeau.data.part_columns import part_in_name, part_of_name
from flambeau.data.reading import Reading
from flambeau.data.split import PARTS
from flambeau.errors import InputError, did_you_mean
from flambeau.wording import name_some

_MOST_NAMES = 10


@dataclass(frozen=True)
class Contents:
    """The images in a folder.

    Attributes:
        folder: The folder.
        files: Its images at any depth, in order.
    """

    folder: Path
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    def class_of(self, file: Path) -> str | None:
        """Return the sub-folder that contains ``file``; None if no sub-folder contains it."""
        inner = file.relative_to(self.folder).parts
        return inner[0] if len(inner) > 1 else None

    @property
    def inner(self) -> tuple[str, ...]:
        """Names of the sub-folders with images, sorted."""
        names = {self.class_of(file) for file in self.files}
        return tuple(sorted(name for name in names if name is not None))

    def subfolder(self, name: str) -> Contents:
        """Return the images of a sub-folder."""
        return Contents(
            self.folder / name, tuple(file for file in self.files if self.class_of(file) == name)
        )

    def __str__(self) -> str:
        return f"{self.name} ({len(self.files):,} images)"


@dataclass(frozen=True)
class FolderRoles:
    """What the folders of a data set are.

    Attributes:
        parts: Pairs of a folder with class folders, and its part.
        classes: Folders that are classes themselves.
        readings: Why the folders were interpreted in this way, and which are not used.
    """

    parts: tuple[tuple[Contents, str], ...]
    classes: tuple[Contents, ...]
    readings: tuple[Reading, ...]


def find_roles(
    root: Path,
    folders: Sequence[Contents],
    named: Collection[str],
    given: Mapping[str, str] | None,
    *,
    for_training: bool = True,
) -> FolderRoles:
    """Return which folders are parts and which are classes.

    A folder with the name of a part (``train``, ``validation_set``) is a part if it has class
    folders. It is a class if it has images directly in it and class folders are beside it.

    Args:
        root: The folder of the data set, for messages.
        folders: Its sub-folders that have images.
        named: Classes that the user names, or the classes of the model; a folder of such a name is
            not a part.
        given: Name of a folder → its part; None recognises such folders by their names.
        for_training: False if ``named`` are the classes of the model: then a folder that has
            sub-folders of these names is a part even if its own name is one of them.

    Raises:
        InputError: The folders can be interpreted in two ways that differ in the classes.
    """
    if given is not None:
        return _given_roles(root, folders, given)
    if not for_training:
        named = {each.name for each in folders if not set(each.inner) & set(named)} & set(named)
    part_of = {
        each: part
        for each in folders
        if each.name not in named and (part := part_of_name(each.name)) is not None
    }
    others = tuple(each for each in folders if each not in part_of)
    if not part_of:
        unnamed = [each for each in others if each.name not in named]
        _refuse_unclear_parts(root, unnamed, for_training)
        return FolderRoles((), others, _doubt_about_parts(unnamed) if for_training else ())
    with_classes = tuple(each for each in part_of if each.inner)
    flat = tuple(each for each in part_of if not each.inner)
    if not with_classes:
        if not others:
            raise _only_parts_error(root, flat, for_training)
        return FolderRoles((), tuple(folders), (_classes_named_as_parts(flat, others),))
    if others and not _are_parts(with_classes, others):
        first = with_classes[0]
        raise _two_readings_error(root, first, part_of[first], others, for_training)
    parts = tuple((each, part_of[each]) for each in with_classes)
    _refuse_single_folders(root, with_classes)
    return _with_parts(parts, flat, others)


def check_parts(root: Path, folders: Collection[str], given: Mapping[str, str]) -> None:
    """Raise an InputError if the argument parts names another folder than ``folders``, or no part.

    Args:
        root: The folder of the data set, for messages.
        folders: Names of the folders with images.
        given: Name of a folder → its part.
    """
    for name, part in given.items():
        if name not in folders:
            raise InputError(
                f"The argument parts names the folder {name!r}, but {root} has no such folder with "
                f"images. {did_you_mean(name, folders)}"
            )
        if part not in PARTS:
            raise InputError(
                f"The argument parts has {part!r} for the folder {name!r}. Choose one of "
                f"{', '.join(PARTS)}."
            )


def parts_option(folders: Mapping[str, str]) -> str:
    """Return the Python argument and the command-line option that make these folders parts."""
    text = ",".join(f"{name}={part}" for name, part in folders.items())
    return f"ImageOptions(parts={dict(folders)!r}), on the command line --parts {text}"


def classes_option(names: Sequence[str]) -> str:
    """Return the Python argument and the command-line option that name the classes."""
    shown = sorted(names)[:_MOST_NAMES]
    more = ["…"] if len(names) > _MOST_NAMES else []
    listed = ", ".join([*(repr(name) for name in shown), *more])
    return f"classes=[{listed}], on the command line --classes {','.join([*shown, *more])}"


def _classes_advice(names: Sequence[str], for_training: bool) -> str:
    if for_training:
        return classes_option(names)
    return "ImageOptions(parts={}), on the command line --parts ''"


def _refuse_unclear_parts(root: Path, folders: Sequence[Contents], for_training: bool) -> None:
    """Raise an InputError if names such as ``seg_train`` and ``seg_test`` look like parts.

    They do if there are train and another part among them, and either all folders have such names,
    or those that have contain sub-folders, and are at least half of the folders or share the name
    of a sub-folder.
    """
    hints = {each: part for each in folders if (part := part_in_name(each.name)) is not None}
    if "train" not in hints.values() or len(set(hints.values())) < 2:
        return
    inner = [set(each.inner) for each in hints]
    are_many = 2 * len(hints) >= len(folders) or bool(set.intersection(*inner))
    if len(hints) < len(folders) and not (all(inner) and are_many):
        return
    names = {each.name: part for each, part in hints.items()}
    raise InputError(
        f"The folders {name_some(hints)} of {root} have the words of parts in their names. If they "
        f"are parts, pass {parts_option(names)}. If they are classes, pass "
        f"{_classes_advice([each.name for each in folders], for_training)}."
    )


def _doubt_about_parts(folders: Sequence[Contents]) -> tuple[Reading, ...]:
    """Return a doubtful reading if all folders have the same sub-folders, as parts would."""
    same = set.intersection(*(set(each.inner) for each in folders)) if len(folders) > 1 else set()
    if len(same) < 2:
        return ()
    large, small, *_ = sorted(folders, key=lambda each: -len(each.files))
    what = (
        f"Each of the folders {name_some(folders)} has the sub-folders {name_some(sorted(same))}. "
        "The folders are used as the classes, but they could be parts, and their sub-folders the "
        "classes."
    )
    option = parts_option({large.name: "train", small.name: "test"})
    evidence = {"sub-folders in all": len(same)}
    return (_split(what, evidence, 0.4, f"If they are parts, pass {option}."),)


def _refuse_single_folders(root: Path, parts: Sequence[Contents]) -> None:
    """Raise an InputError if every part has one folder only, in which the class folders are."""
    single = [each.subfolder(each.inner[0]) for each in parts if len(each.inner) == 1]
    if len(single) < len(parts) or min(len(each.inner) for each in single) < 2:
        return
    [first, *_] = single
    shown = name_some(f"{each.folder.parent.name}/{each.name}" for each in single)
    raise InputError(
        f"The parts of {root} have a single folder each ({shown}), with the sub-folders "
        f"{name_some(first.inner)}. If these are the classes, move them one level up: "
        f"{first.folder.parent / first.inner[0]}."
    )


def _are_parts(with_classes: Sequence[Contents], others: Sequence[Contents]) -> bool:
    """Return whether folders named like parts are parts although other folders are beside them.

    They are if the first shares the name of a class folder with another of them, or with a folder
    beside it or in such a folder.
    """
    beside = {each.name for each in others} | {name for each in others for name in each.inner}
    first, *rest = [set(each.inner) for each in with_classes]
    return any(first & each for each in rest) or bool(first & beside)


def _with_parts(
    parts: Sequence[tuple[Contents, str]], flat: Sequence[Contents], others: Sequence[Contents]
) -> FolderRoles:
    names = {each.name: part for each, part in parts}
    by_folder = ", ".join(f"{each} as {part}" for each, part in parts)
    what = f"Folders used as parts, because they have class folders: {by_folder}."
    override = f"Choose the parts with {parts_option(names)}."
    readings = [_split(what, {"folders": names}, 0.95, override)]
    for part in dict.fromkeys(names.values()):
        same = [name for name, other in names.items() if other == part]
        if len(same) > 1:
            what = f"{len(same)} folders are the {part} part: {name_some(same)}."
            one = parts_option({n: p for n, p in names.items() if n not in same[1:]})
            readings.append(_split(what, {part: same}, 0.4, f"If they are copies, use one: {one}."))
    if flat:
        what = (
            "Folders that are not used, because without class folders their images have no labels: "
            f"{name_some(flat)}."
        )
        tests_only = all(part_of_name(each.name) == "test" for each in flat)
        readings.append(
            _split(
                what,
                {"not labelled": [each.name for each in flat]},
                0.8 if tests_only else 0.4,
                "Put their images into class folders, or give the labels in a CSV file.",
            )
        )
    with_train = "train" in names.values()
    if with_train and others:
        what = f"Folders beside train that are not used: {name_some(others, most=_MOST_NAMES)}."
        override = f"To use one as a part: {parts_option({**names, others[0].name: 'valid'})}."
        readings.append(_split(what, {"not used": [e.name for e in others]}, 0.4, override))
    classes = () if with_train else tuple(others)
    return FolderRoles(tuple(parts), classes, tuple(readings))


def _given_roles(root: Path, folders: Sequence[Contents], given: Mapping[str, str]) -> FolderRoles:
    by_name = {each.name: each for each in folders}
    check_parts(root, list(by_name), given)
    parts = tuple((by_name[name], part) for name, part in given.items())
    if parts:
        _refuse_single_folders(root, [each for each, _ in parts])
    others = tuple(each for each in folders if each.name not in given)
    if "train" not in given.values():
        return FolderRoles(parts, others, ())
    what = (
        "Folders that are not used, because the argument parts does not name them: "
        f"{name_some(others)}."
    )
    readings = (_split(what, {"not used": [e.name for e in others]}, 1.0, ""),) if others else ()
    return FolderRoles(parts, (), readings)


def _classes_named_as_parts(flat: Sequence[Contents], others: Sequence[Contents]) -> Reading:
    names = [each.name for each in flat]
    return _split(
        "Folders used as classes although they have the names of parts, because their images are "
        f"directly in them, as in the other class folders: {name_some(names)}.",
        {"classes": names},
        0.7,
        f"To leave them out: {classes_option([each.name for each in others])}.",
    )


def _split(what: str, evidence: dict[str, Any], confidence: float, override: str) -> Reading:
    return Reading("split", what, evidence, (), confidence, override)


def _only_parts_error(root: Path, flat: Sequence[Contents], for_training: bool) -> InputError:
    names = [each.name for each in flat]
    return InputError(
        f"The only folders of {root} with images are {name_some(flat)}. These are names of parts, "
        "but their images are not in class folders. If these are the classes, pass "
        f"{_classes_advice(names, for_training)}. If they are parts, put the images into class "
        "folders "
        f"({names[0]}/class/image.jpg), or give the labels in a CSV file."
    )


def _two_readings_error(
    root: Path, folder: Contents, part: str, others: Sequence[Contents], for_training: bool
) -> InputError:
    classes = [folder.name, *(each.name for each in others)]
    return InputError(
        f"{root} can be interpreted in two ways: the folder {folder} has the name of a part and "
        f"the sub-folders {name_some(folder.inner)}, but beside it are {name_some(others)}. If it "
        f"is a part, pass {parts_option({folder.name: part})}. If it is a class like the others, "
        f"pass {_classes_advice(classes, for_training)}."
    )
