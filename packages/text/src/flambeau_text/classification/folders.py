"""Read folders with a sub-folder of text files per class."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from flambeau.data.part_columns import part_of_name
from flambeau.data.split_request import rows_by_part
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_text.classification.assemble import LabelledTexts
from flambeau_text.classification.options import TextOptions
from flambeau_text.file_kinds import suffix_of
from flambeau_text.text_lines import text_of_file

TEXT_SUFFIXES = ("", ".txt", ".text", ".md")
"""Endings of the files of a folder that are texts; a name of digits only has no ending."""


def read_folder(path: Path, options: TextOptions) -> LabelledTexts:
    """Read a folder with a sub-folder per class, or with such folders in train, valid and test.

    Raises:
        InputError: The folder does not exist or has no class folders, or a file is not UTF-8.
    """
    if not path.is_dir():
        raise InputError(f"There is no folder {path}. Check the path.")
    folders = _part_folders(path)
    texts: list[str] = []
    labels: list[str] = []
    locations: list[str] = []
    parts: list[str | None] = []
    skipped: list[Path] = []
    for part, folder in folders.items():
        for of_class in _class_folders(folder, options):
            files, others = _files(of_class)
            skipped += others
            for file in files:
                texts.append(text_of_file(file))
                labels.append(of_class.name)
                locations.append(str(file))
                parts.append(part or None)
    if not texts:
        raise InputError(
            f"{path} has no folders of text files. Give a folder with a sub-folder per class, with "
            f"files {', '.join(TEXT_SUFFIXES[1:])} in UTF-8."
        )
    notes = [f"{len(skipped):,} files are not texts (the first is {skipped[0]})"] if skipped else []
    held_out = {label for label, part in zip(labels, parts, strict=True) if part != "train"}
    only = [label for label in dict.fromkeys(labels) if label not in held_out]
    if held_out and only:
        # Such as the folder "unsup" of IMDb, whose texts have no label.
        notes.append(
            f"The folders {name_some(only)} are only in train. Each is a class; to leave them out, "
            "name the classes: classes=… (--classes)."
        )
    return LabelledTexts(texts, labels, locations, rows_by_part(parts), notes=tuple(notes))


def _part_folders(path: Path) -> dict[str, Path]:
    """Return the folder of each part; the folder itself, named "", if its parts are not folders."""
    named = {part: each for each in _folders(path) if (part := part_of_name(each.name)) is not None}
    if "train" in named and all(map(_folders, named.values())):
        return {str(part): each for part, each in named.items()}
    return {"": path}


def class_folders(path: Path) -> list[Path]:
    """Return the folders of classes in a folder that directly have text files.

    Only the first names of each folder are looked at.
    """
    folders = _part_folders(path)
    found = _folders(folders.get("train", path))
    return [folder for folder in found if _has_text_files(folder)]


def _has_text_files(folder: Path) -> bool:
    some = [each for each in islice(folder.iterdir(), 20) if each.is_file()]
    return bool(some) and all(is_text_name(each.name) for each in some)


def _class_folders(folder: Path, options: TextOptions) -> list[Path]:
    found = _folders(folder)
    if options.classes is None or options.task == "regression":
        return found
    chosen = [each for each in found if each.name in options.classes]
    if not chosen:
        raise InputError(
            f"{folder} has the folders {name_some(each.name for each in found)}, none of them one "
            f"of the classes {name_some(options.classes)}. Check classes=… (--classes)."
        )
    return chosen


def _folders(path: Path) -> list[Path]:
    return sorted(
        each for each in path.iterdir() if each.is_dir() and not each.name.startswith((".", "__"))
    )


def text_files_of(folder: Path) -> list[Path]:
    """Return the text files in a folder and its sub-folders, sorted.

    Raises:
        InputError: There are none.
    """
    files, _ = _files(folder)
    if not files:
        raise InputError(f"{folder} has no text files ({', '.join(TEXT_SUFFIXES[1:])}).")
    return files


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the text files below a folder, and the others."""
    files = sorted(
        each
        for each in folder.rglob("*")
        if each.is_file()
        and not any(part.startswith(".") for part in each.relative_to(folder).parts)
    )
    texts = [each for each in files if is_text_name(each.name)]
    return texts, [each for each in files if not is_text_name(each.name)]


def is_text_name(name: str) -> bool:
    """Return whether the ending of a file name is that of a text, also of a compressed one."""
    return suffix_of(Path(name)) in TEXT_SUFFIXES
