"""``ImageOptions``: how images are read, shared by all constructors of ``ImageData``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from flambeau.artefact.read_like import filled_like, output_names, read_record, reading_options
from flambeau.data.known_classes import Unknown
from flambeau.data.ordered_names import ordered_names
from flambeau.data.targets import Kind
from flambeau.errors import InputError, explains_arguments
from flambeau_vision.float_scale import White
from flambeau_vision.pixel_format import PixelFormat
from flambeau_vision.resize import Geometry, Interpolation, Layout, Resize, Size, parse_size

Cache = Literal["memory", "disk", "files"]


@explains_arguments()
@dataclass(frozen=True)
class ImageOptions:
    """How images and labels are read. Direct arguments of a constructor override these values.

    Attributes:
        size: Side in pixels, or (height, width); None lets the plan choose.
        channels: 1 or 3, or the number that the data have; None lets the plan choose.
        resize: "crop", "squash" or "pad", see `Geometry`; None lets the plan choose.
        interpolation: Pillow's filter, by default "bilinear".
        classes: All classes in the order of the model's outputs; None uses the classes in the data,
            sorted.
        parts: Name of a folder → its part: ``{"training": "train", "holdout": "test"}``; ``{}`` if
            no folder is a part. None recognises such folders by their names.
        task: "classification", "multi_label" or "regression"; None infers it from the labels.
        sep: Separator between several labels of one image.
        file: Column of a table with the paths of the images; None finds it.
        label: Column of a table with the labels, or several; None finds it.
        weight: Column of a table with the weight of each image in loss and metrics: finite and not
            negative. None weighs all images equally.
        group: Column of a table with the group of each image, such as a patient or a film. Drawn
            parts keep each group in one part. For a folder, a regular expression that is searched
            in the path of each file below the folder: its first group in ( ), else the whole match,
            is the group of the image: "patient[0-9]+".
        pattern: Regular expression of the file names of a folder without class folders, whose first
            group is the label: ``r"(.+)_[0-9]+"`` for ``great_dane_12.jpg``.
        suffix: Extension to add to the ids in a table that has ids instead of paths: ".jpg".
        unknown: "raise" if data that are only evaluated have a class that is not in ``classes``, or
            "skip" such images.
        unreadable: "raise" if a file cannot be read, or "skip" such files and report them. Applies
            at construction and to files that become unreadable later, see `ImageFileDataset`.
        verify: Decode every file at construction, which finds all damage that the decoder detects
            (some damaged JPEGs decode to grey blocks without an error); False reads only headers
            and file ends. None decodes every file of data sets up to 500 MB (a few seconds); files
            of larger data sets are decoded when training needs them. The report says which was
            done.
        cache: Where decoded images are kept: "memory"; "disk", one memory-mapped file for all
            processes; "files" reads the files every epoch. None lets the plan choose.
        cache_folder: Folder of the "disk" cache; by default the folder in ``FLAMBEAU_CACHE``, else
            flambeau's folder in the user's cache folder.
        bits: Number of significant bits of 16-bit pixels, 8 to 16: 12 scales 0..4095 to 0..255.
            None lets the plan choose by the largest value in train.
        white: The value of white in arrays of floats: 1 or 255. None decides by the largest value
            in train; ``predict`` reads arrays in the same way.
        layout: Axes of one image in arrays: "HW" (grey), "HWC" or "CHW"; ``predict`` reads arrays
            in the same way. None recognises them.
        like: Folder of an export. Classes, task, size, channels and resize method are the export's
            unless they are set, and a learner keeps the export's preprocessor. The class order is
            the export's even if the data have only some of the classes. Separator, suffix, pattern
            and the columns of a table are by default those with which the export's images were
            read.

    Raises:
        ArtefactError: ``like`` is not an export of ``ImageData``.
        InputError: A value is invalid, or differs from that of ``like``.
    """

    size: Size | None = None
    channels: int | None = None
    resize: Resize | None = None
    interpolation: Interpolation | None = None
    classes: Sequence[str] | None = None
    parts: Mapping[str, str] | None = None
    task: Kind | None = None
    sep: str | None = None
    file: str | None = None
    label: str | Sequence[str] | None = None
    weight: str | None = None
    group: str | None = None
    pattern: str | None = None
    suffix: str | None = None
    unknown: Unknown = "raise"
    unreadable: Literal["raise", "skip"] = "raise"
    verify: bool | None = None
    cache: Cache | None = None
    cache_folder: str | os.PathLike[str] | None = None
    bits: int | None = None
    white: White | None = None
    layout: Layout | None = None
    like: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.unreadable not in ("raise", "skip"):
            raise InputError(f"Unknown unreadable={self.unreadable!r}. Choose 'raise' or 'skip'.")
        if self.unknown not in get_args(Unknown):
            raise InputError(f"Unknown unknown={self.unknown!r}. Choose 'raise' or 'skip'.")
        if self.cache not in (None, *get_args(Cache)):
            raise InputError(f"Unknown cache={self.cache!r}. Choose 'memory', 'disk' or 'files'.")
        if self.task not in (None, "classification", "multi_label", "regression"):
            raise InputError(
                f"Unknown task={self.task!r}. Choose 'classification', 'multi_label' or "
                "'regression'."
            )
        if self.size is not None:
            object.__setattr__(self, "size", parse_size(self.size))
        # Raises an error for a wrong value.
        PixelFormat(16 if self.bits is None else self.bits, self.white, self.layout)
        if self.suffix is not None and "." not in self.suffix:
            raise InputError(
                f"suffix={self.suffix!r} has no dot. Give an extension: suffix='.jpg', on the "
                "command line --suffix .jpg."
            )
        if self.classes is not None:
            object.__setattr__(self, "classes", ordered_names(self.classes, "classes"))
        if self.like is not None:
            saved = _saved_options(self.like)
            saved["size"] = None if saved["size"] is None else parse_size(saved["size"])
            given = {name: getattr(self, name) for name in saved}
            for name, value in filled_like(self.like, given, saved).items():
                object.__setattr__(self, name, value)
            for name in ("sep", "suffix"):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, self.of_like.get(name))
        # Check size and resize method here rather than when the first image is read.
        self.geometry(
            1 if self.size is None else self.size, 1 if self.channels is None else self.channels
        )

    def geometry(self, size: Size, channels: int) -> Geometry:
        """Return how images of the given size and channels are resized."""
        resize = "crop" if self.resize is None else self.resize
        interpolation = "bilinear" if self.interpolation is None else self.interpolation
        return Geometry(size, channels, resize, interpolation=interpolation, white=self.white)

    @property
    def of_like(self) -> dict[str, Any]:
        """The options with which the images of ``like`` were read, by name; empty without it."""
        if self.like is None:
            return {}
        return reading_options(read_record(self.like, "vision", "like"))

    @property
    def reading_options(self) -> dict[str, Any]:
        """The options to use for reading further images for the same model, as JSON."""
        label = self.label if self.label is None or isinstance(self.label, str) else [*self.label]
        names = ("sep", "suffix", "pattern", "file", "weight")
        found = {**{name: getattr(self, name) for name in names}, "label": label}
        return {name: value for name, value in found.items() if value is not None}

    def updated(self, given: Mapping[str, Any]) -> ImageOptions:
        """Return the options with all values of ``given`` that are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def _saved_options(like: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the options that an export determines, by name; None if it lacks the option."""
    record = read_record(like, "vision", "like")
    prepared, task = record.preprocessor.arguments, record.task
    prepared = {**prepared, **prepared.get("pixels", {})}
    saved_names = ("size", "channels", "resize", "interpolation", "bits", "white", "layout")
    return {
        **{name: prepared.get(name) for name in saved_names},
        "classes": output_names(task.arguments) or None,
        "task": task.builder if task.builder in get_args(Kind) else None,
    }
