"""``ImageData``: pictures, their labels and every choice about them, in one immutable object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.data import Data, Facts
from flambeau.data.loader import Dataset
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.data.transform import Transform
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau_vision.dataset import TARGET, FileImages
from flambeau_vision.facts import image_facts
from flambeau_vision.fitting import (
    geometry_of,
    model_arguments,
    normalisation_of,
    task_arguments,
)
from flambeau_vision.labels import Targets
from flambeau_vision.options import ImageOptions
from flambeau_vision.pixels import Pictures
from flambeau_vision.preprocess import INPUT, ImagePreprocessor
from flambeau_vision.presize import read_geometry
from flambeau_vision.report import report
from flambeau_vision.resize import Geometry
from flambeau_vision.sheet import answers_sheet, contact_sheet, drawn_places, picture_of
from flambeau_vision.splitting import SplitRequest
from flambeau_vision.transforms import device_transforms

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageData(Data):
    """Pictures and labels, found, checked and split; nothing is decoded before it is needed.

    Build it with ``from_folder``, ``from_df``, ``from_csv``, ``from_arrays`` or ``from_items``.

    Args:
        samples: One row a picture; the column "item" holds paths, bytes, Pillow images or arrays,
            or is one uint8 tensor ``(n, channels, height, width)``.
        targets: What the model is to answer.
        split: Which rows are train, valid and test.
        options: How pictures are read.
        notes: What a reader of the report should know.

    Example:
        >>> images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
        >>> data = ImageData.from_arrays(images, ["dark", "light"] * 20)
        >>> data.facts()["n_train"], data.facts()["class_names"]
        (32, ['dark', 'light'])
    """

    domain = "flambeau_vision.domain:DOMAIN"

    def __init__(
        self,
        samples: Samples,
        targets: Targets,
        split: Split,
        options: ImageOptions,
        notes: Sequence[str] = (),
    ) -> None:
        self._samples = samples
        self._targets = targets
        self._split = split
        self._options = options
        self._notes = tuple(notes)
        self._facts: Facts | None = None
        self._pictures = Pictures(samples["item"], options)

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(self._split.part(part)):,} {part}" for part in PARTS)
        return f"ImageData({len(self._samples):,} pictures, {self._targets.kind}: {parts})"

    # ------------------------------------------------------------ building

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        *,
        valid: float = 0.2,
        test: float = 0.0,
        split: Split | None = None,
        seed: int = 0,
        size: int | None = None,
        channels: int | None = None,
        classes: Sequence[str] | None = None,
        unreadable: str | None = None,
        options: ImageOptions | None = None,
    ) -> ImageData:
        """Pictures in a folder a class, or in train, valid and test folders of such.

        Args:
            path: ``path/bee/1.jpg`` or ``path/train/bee/1.jpg``; see `list_folder`.
            valid: Share of valid, where no folder is; stratified by class.
            test: Share of test, likewise.
            split: Row numbers instead, in the order of part, class and file name.
            seed: Of the draw.
            size: Height and width in pixels; None lets the plan choose.
            channels: 1 or 3; None lets the plan choose.
            classes: The classes to take, in the order of the model's outputs.
            unreadable: "raise" or "skip".
            options: All else, and these.

        Raises:
            InputError: No such folder, no pictures in it, or a picture that cannot be read.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision import entries

        options = (options or ImageOptions()).with_given(
            {
                "size": size,
                "channels": channels,
                "classes": classes,
                "unreadable": unreadable,
            }
        )
        request = SplitRequest(valid, test, seed, split)
        return cls(*entries.of_folder(path, request, options))

    @classmethod
    def from_df(
        cls,
        frame: Any,
        file: str = "file",
        label: str | Sequence[str] = "label",
        *,
        root: str | os.PathLike[str] = ".",
        split: str | Split | None = None,
        valid: float = 0.2,
        test: float = 0.0,
        seed: int = 0,
        size: int | None = None,
        options: ImageOptions | None = None,
    ) -> ImageData:
        """Pictures that a data frame names, with their labels.

        Args:
            frame: A pandas frame, or any mapping of column names to sequences.
            file: The column of paths.
            label: The column of labels; several columns are numbers to predict, or one label each
                where all are 0 or 1.
            root: The folder that relative paths start from.
            split: The column that says train, valid or test (or True for valid); or the split.
            valid: Share of valid where no column says.
            test: Share of test, likewise.
            seed: Of the draw.
            size: Height and width in pixels; None lets the plan choose.
            options: All else (``sep`` for several labels in one text).

        Raises:
            InputError: A column does not exist, a label is missing, or a file cannot be read.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision import entries

        options = (options or ImageOptions()).with_given({"size": size})
        columns = entries.columns_of(frame)
        table = entries.Table(columns, file, label, Path(root))
        request, column = entries.split_of(split, valid, test, seed)
        return cls(*entries.of_table(table, request, column, options))

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        file: str = "file",
        label: str | Sequence[str] = "label",
        *,
        root: str | os.PathLike[str] | None = None,
        split: str | Split | None = None,
        valid: float = 0.2,
        test: float = 0.0,
        seed: int = 0,
        size: int | None = None,
        options: ImageOptions | None = None,
    ) -> ImageData:
        """Pictures that a CSV file with a header names; see `from_df`.

        A label column of whole numbers is read as such, one of numbers as floats, others as text.
        Relative paths start from ``root``, by default the folder of the CSV file.
        """
        from flambeau_vision import entries

        options = (options or ImageOptions()).with_given({"size": size})
        columns = entries.read_csv(path)
        table = entries.Table(
            columns, file, label, Path(path).parent if root is None else Path(root)
        )
        request, column = entries.split_of(split, valid, test, seed)
        return cls(*entries.of_table(table, request, column, options))

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        *,
        valid: float | tuple[Any, Any] = 0.2,
        test: float | tuple[Any, Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        layout: str | None = None,
        size: int | None = None,
        options: ImageOptions | None = None,
    ) -> ImageData:
        """Pictures in memory, all of one size.

        Args:
            images: Array or tensor ``(n, H, W)``, ``(n, H, W, C)`` or ``(n, C, H, W)``; uint8, or
                floats in 0..1 or 0..255, or uint16.
            labels: One a picture, of any kind that `read_labels` takes.
            valid: A share, or ``(images, labels)``.
            test: A share, or ``(images, labels)``.
            split: Row numbers instead, over train, valid and test in this order.
            seed: Of the draw.
            class_names: Names of the classes 0, 1, ….
            layout: "HWC" or "CHW" where the shape does not tell.
            size: To resize to; by default as they are.
            options: All else.

        Raises:
            InputError: Shapes, ranges or labels that cannot be used.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision import entries

        options = (options or ImageOptions()).with_given({"size": size, "classes": class_names})
        arrays = entries.Arrays(images, labels, valid, test, layout)
        return cls(*entries.of_arrays(arrays, seed, split, options))

    @classmethod
    def from_items(
        cls,
        items: Sequence[tuple[Any, Any]],
        *,
        valid: float = 0.2,
        test: float = 0.0,
        split: Split | None = None,
        seed: int = 0,
        size: int | None = None,
        options: ImageOptions | None = None,
    ) -> ImageData:
        """Pictures from ``(picture, label)`` pairs; a picture is whatever ``decode`` takes.

        Raises:
            InputError: An item is no pair, or a picture cannot be read.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision import entries

        options = (options or ImageOptions()).with_given({"size": size})
        request = SplitRequest(valid, test, seed, split)
        return cls(*entries.of_items(items, request, options))

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], options: Mapping[str, Any]) -> ImageData:
        """What ``flambeau fit PATH`` reads: a folder of class folders, or a CSV file.

        Args:
            path: The folder or file.
            options: ``valid``, ``test``, ``seed``, ``unreadable``, ``sep``, ``task``, ``size``,
                ``channels``; for a CSV file also ``file``, ``label``, ``split`` and ``root``.

        Raises:
            ArgumentError: An option that is none of these.
        """
        from flambeau_vision import entries

        return cls(*entries.of_path(Path(path), options))

    # ------------------------------------------------------------ what it holds

    @property
    def samples(self) -> Samples:
        """What was found, a row a picture."""
        return self._samples

    @property
    def targets(self) -> Targets:
        """What the model is to answer, a row a picture."""
        return self._targets

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> ImageOptions:
        """How pictures are read."""
        return self._options

    @property
    def choices(self) -> Mapping[str, Any]:
        given = {
            "image_size": self._options.size,
            "channels": self._options.channels,
            "task": self._options.task,
            "cache": self._options.cache,
        }
        return {key: value for key, value in given.items() if value is not None}

    def facts(self) -> Facts:
        if self._facts is None:
            facts = image_facts(self._samples, self._targets, self._split)
            folder = self._options.cache_folder
            self._facts = {**facts, "cache_folder": None if folder is None else os.fspath(folder)}
        return self._facts

    def preview(self, row: int) -> Preview:
        return picture_of(self._samples["item"][row], row)

    def report(self, duplicates: bool | None = None) -> str:
        """What was found, in words: counts, sizes, classes, doubles, what could not be read.

        Args:
            duplicates: See `flambeau_vision.report.report`: True compares the look of up to 20,000
                pictures, None that of small sets, False nothing.
        """
        notes = (*self._notes, *self._pictures.notes())
        return report(self._samples, self._targets, self._split, notes, duplicates)

    def raw(self, part: str) -> Sequence[Any]:
        return self._pictures.items(self._split.part(part))

    def subset(self, rows: Mapping[str, Sequence[int]]) -> ImageData:
        """The same data with only the named rows in each part (row numbers of ``samples``)."""
        parts = {part: np.asarray(rows.get(part, ()), dtype=np.int64) for part in PARTS}
        split = Split.given(parts["train"], parts["valid"], parts["test"])
        return ImageData(self._samples, self._targets, split, self._options, self._notes)

    # ------------------------------------------------------------ realising a plan

    def preprocessor(self, values: Mapping[str, Any]) -> Preprocessor:
        geometry = geometry_of(values, self._options)
        # As train pictures are read, so that they are decoded once.
        train = read_geometry("train", geometry, values)
        mean, std = normalisation_of(
            values, geometry.channels, lambda: self._train_pixels(values, train)
        )
        return ImagePreprocessor(
            size=geometry.size,
            channels=geometry.channels,
            mean=mean,
            std=std,
            resize=geometry.resize,
            crop=geometry.crop,
            interpolation=geometry.interpolation,
            memory_format=values.get("memory_format", "contiguous_format"),
        )

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(
                f"There are no {part} pictures. Give {part}= where the data are built, a share or "
                f"a folder named {part}."
            )
        if not isinstance(preprocessor, ImagePreprocessor):
            raise ArgumentError(
                f"ImageData needs an ImagePreprocessor, not a {type(preprocessor).__name__}."
            )
        self._check_task(values)
        targets, ids = self._targets.select(rows).values, torch.from_numpy(np.array(rows))
        geometry = read_geometry(part, preprocessor.geometry, values)
        place = self._pictures.place(values)
        if place == "files":
            return FileImages(self.raw(part), targets, ids, geometry, self._pictures.lost)
        loaded = self._pictures.part(part, rows, geometry, place)
        if loaded.unreadable:
            kept = torch.ones(len(rows), dtype=torch.bool)
            kept[list(loaded.unreadable)] = False
            targets, ids = targets[kept], ids[kept]
        return MemoryDataset({INPUT: loaded.pixels}, {TARGET: targets}, ids)

    def transforms(self, values: Mapping[str, Any]) -> Sequence[Transform]:
        return device_transforms(values, lambda: geometry_of(values, self._options), self._targets)

    def model_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return model_arguments(values, self._targets)

    def task_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check_task(values)
        return task_arguments(values, self._targets, self._split.train)

    # ------------------------------------------------------------ showing

    def show(
        self, n: int = 24, *, part: str = "train", path: str | os.PathLike[str] | None = None
    ) -> Image:
        """A contact sheet of ``n`` pictures of ``part`` with their labels, as a Pillow image.

        Args:
            n: How many; the same ones every time, drawn over the whole part.
            part: "train", "valid" or "test".
            path: Where it is saved too.
        """
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(f"There are no {part} pictures to show. Name another part.")
        rows = rows[drawn_places(len(rows), n)]
        captions = [self._targets.text(int(row)) for row in rows]
        return contact_sheet(self._pictures.items(rows), captions, path=path)

    def show_predictions(
        self,
        predictions: Sequence[Any],
        *,
        part: str = "valid",
        n: int = 24,
        path: str | os.PathLike[str] | None = None,
    ) -> Image:
        """A contact sheet with what was predicted over what is true; green where they agree.

        Args:
            predictions: One a picture of ``part``, in its order, as ``learner.predict`` gives
                them (text, or an object with ``label`` and ``probability``).
            part: What was predicted.
            n: How many are shown.
            path: Where it is saved too.

        Raises:
            InputError: There are not as many predictions as pictures.
        """
        rows = self._split.part(part)
        if len(predictions) != len(rows):
            raise InputError(
                f"{len(predictions):,} predictions for {len(rows):,} {part} pictures. Predict "
                f'data.raw("{part}") and pass all of them.'
            )
        places = drawn_places(len(rows), n)
        truths = [self._targets.text(int(row)) for row in rows[places]]
        answers = [predictions[place] for place in places]
        return answers_sheet(self._pictures.items(rows[places]), truths, answers, path=path)

    # ------------------------------------------------------------ inside

    def _check_task(self, values: Mapping[str, Any]) -> None:
        task = values.get("task", self._targets.kind)
        if task in ("classification", "multi_label", "regression") and task != self._targets.kind:
            raise PlanError(
                f"The plan's task is {task!r}, but the labels were read for "
                f"{self._targets.kind!r}: {self._targets.reason}. Say it where the data are built: "
                f"ImageOptions(task={task!r})."
            )

    def _train_pixels(self, values: Mapping[str, Any], geometry: Geometry) -> Tensor:
        rows, place = self._split.train, self._pictures.place(values)
        if place == "files":
            return self._pictures.some(rows, geometry)
        return self._pictures.part("train", rows, geometry, place).pixels
