"""How pictures are read: the choices that go with any way of building ``ImageData``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from flambeau.errors import InputError
from flambeau_vision.labels import Kind
from flambeau_vision.resize import Geometry, Interpolation, Resize

Cache = Literal["memory", "disk", "files"]


@dataclass(frozen=True)
class ImageOptions:
    """Choices about the pictures. What the data's builder takes directly replaces what is here.

    Attributes:
        size: Height and width in pixels; None lets the plan choose.
        channels: 1 or 3 (or the data's own number); None lets the plan choose.
        resize: "crop", "squash" or "pad"; see `Geometry`.
        interpolation: Pillow's filter.
        classes: All classes in the order of the model's outputs; None takes those found, sorted.
        task: "classification", "multi_label" or "regression"; None reads it from the labels.
        sep: What stands between several labels of one picture.
        unreadable: "raise" where files cannot be read, or "skip" those and report them; holds when
            the data are built and for files that break later, see `FileImages`.
        verify: Decode every file when the data are built, which finds all damage that a decoder
            notices (a JPEG's may be grey squares that none does); False looks at headers and ends
            of files only. None decodes up to 500 MB of files (a few seconds), and the report says
            so; larger sets are decoded as far as training needs them.
        cache: Where decoded pictures are kept: "memory"; "disk", one memory-mapped file for all
            processes; "files" reads them anew every epoch. None lets the plan choose.
        cache_folder: Where "disk" puts the file; by default the folder that ``FLAMBEAU_CACHE``
            names, else flambeau's in the user's cache folder.

    Raises:
        InputError: A value is none of those above.
    """

    size: int | None = None
    channels: int | None = None
    resize: Resize = "crop"
    interpolation: Interpolation = "bilinear"
    classes: Sequence[str] | None = None
    task: Kind | None = None
    sep: str | None = None
    unreadable: Literal["raise", "skip"] = "raise"
    verify: bool | None = None
    cache: Cache | None = None
    cache_folder: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.unreadable not in ("raise", "skip"):
            raise InputError(f"unreadable={self.unreadable!r} is neither 'raise' nor 'skip'.")
        if self.cache not in (None, *get_args(Cache)):
            raise InputError(f"cache={self.cache!r} is none of 'memory', 'disk', 'files'.")
        if self.task not in (None, "classification", "multi_label", "regression"):
            raise InputError(
                f"task={self.task!r} is none of 'classification', 'multi_label', 'regression'."
            )
        if isinstance(self.classes, str):
            raise InputError(f"classes={self.classes!r} is one text; give a list of names.")
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        # A wrong size or mode is told here rather than at the first picture.
        Geometry(
            1 if self.size is None else self.size,
            1 if self.channels is None else self.channels,
            self.resize,
            interpolation=self.interpolation,
        )

    def with_given(self, given: Mapping[str, Any]) -> ImageOptions:
        """These options with every value of ``given`` that is not None in place."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})
