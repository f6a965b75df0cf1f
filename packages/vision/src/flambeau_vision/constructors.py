"""The constructors of ``ImageData``: ``from_folder``, ``from_df``, ``from_csv``, ``from_arrays``.

They read their sources with `flambeau_vision.sources`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from flambeau.data.data import Data
from flambeau.data.ordered_names import ordered_columns
from flambeau.data.reading import Reading
from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.tables import read_table
from flambeau.data.targets import Targets
from flambeau.errors import explains_arguments
from flambeau_vision.options import ImageOptions
from flambeau_vision.resize import Size


def _option_hint(name: str) -> str:
    known = name in ImageOptions.__dataclass_fields__
    return f"Set it with options=ImageOptions({name}=…)." if known else ""


@explains_arguments(_option_hint)
class ImageDataConstructors(Data):
    """The class methods that build ``ImageData``."""

    @abstractmethod
    def __init__(
        self,
        samples: Samples,
        targets: Targets,
        split: Split,
        options: ImageOptions,
        notes: Sequence[str] = (),
        readings: Sequence[Reading] = (),
    ) -> None: ...

    @classmethod
    def from_folder(  # noqa: PLR0913 each part of the split is an argument
        cls,
        path: str | os.PathLike[str],
        *,
        valid: float = 0.2,
        test: float = 0.0,
        calibration: float = 0.0,
        split: Split | None = None,
        seed: int = 0,
        size: Size | None = None,
        channels: int | None = None,
        classes: Sequence[str] | None = None,
        unreadable: str | None = None,
        options: ImageOptions | None = None,
    ) -> Self:
        """Read a folder with a sub-folder per class, or with such folders in train, valid and test.

        A folder named like a part (``train``, ``validation``, ``test_set``) is a part if it has
        class folders. It is a class if it has images directly in it and class folders are beside
        it. If both are possible, ``classes`` or ``ImageOptions(parts=…)`` decides.

        Args:
            path: ``path/bee/1.jpg`` or ``path/train/bee/1.jpg``; see `list_folder`.
            valid: Share of validation images, stratified by class, if there is no valid folder; a
                share other than the default beside such a folder is refused.
            test: Share of test images, likewise.
            calibration: Share of images for ``learner.calibrate``, likewise.
            split: A split by row numbers instead of shares; rows are ordered by part, class and
                file name.
            seed: Seed of the random split.
            size: Side in pixels, or (height, width); None lets the plan choose.
            channels: 1 or 3; None lets the plan choose.
            classes: The classes to use, in the order of the model's outputs.
            unreadable: "raise" or "skip" for files that cannot be read.
            options: Further options; the arguments above override them.

        Raises:
            InputError: The folder does not exist, contains no images, or an image cannot be read.
            SplitError: The parts cannot be formed, or a share would have no effect.
        """
        from flambeau_vision import sources

        options = (options or ImageOptions()).updated(
            {
                "size": size,
                "channels": channels,
                "classes": classes,
                "unreadable": unreadable,
            }
        )
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        return cls(*sources.read_folder(path, request, options))

    @classmethod
    def from_df(  # noqa: PLR0913 each part of the split is an argument
        cls,
        frame: Any,
        file: str | None = None,
        label: str | Sequence[str] | None = None,
        *,
        root: str | os.PathLike[str] = ".",
        split: str | Split | bool | None = None,
        valid: float = 0.2,
        test: float = 0.0,
        calibration: float = 0.0,
        seed: int = 0,
        size: Size | None = None,
        options: ImageOptions | None = None,
    ) -> Self:
        """Read the image files and labels in a data frame.

        Args:
            frame: A data frame (pandas, polars, pyarrow, …), or a mapping of column names to
                sequences.
            file: Name of the column of paths; by default "file", else the only column of image
                paths.
            label: Name of the label column; by default "label", else the only other column.
                Several columns are regression targets, or classes if all values are 0 or 1.
            root: The folder that relative paths start from.
            split: Name of the column with the part of each row (train, valid, test, calibration;
                or True for valid), or a ``Split``. None uses the column "split" or "is_valid" if
                there is one; False uses no column.
            valid: Share of validation images if no column has the parts; a share other than the
                default beside such a column is refused.
            test: Share of test images, likewise.
            calibration: Share of images for ``learner.calibrate``, likewise.
            seed: Seed of the random split.
            size: Side in pixels, or (height, width); None lets the plan choose.
            options: Further options, such as ``sep`` for several labels in one cell, or ``weight``
                for the column with the weight of each image.

        Raises:
            InputError: A column does not exist, a label is missing, or a file cannot be read.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision import sources
        from flambeau_vision.table_columns import TableSource

        options = (options or ImageOptions()).updated({"size": size})
        columns = read_table(frame)
        orders = ordered_columns(frame, columns.names)
        table = TableSource(columns, Path(root), file, label, orders)
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        return cls(*sources.read_table(table, request, options))

    @classmethod
    def from_csv(  # noqa: PLR0913 each part of the split is an argument
        cls,
        path: str | os.PathLike[str],
        file: str | None = None,
        label: str | Sequence[str] | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        split: str | Split | bool | None = None,
        valid: float = 0.2,
        test: float = 0.0,
        calibration: float = 0.0,
        seed: int = 0,
        size: Size | None = None,
        options: ImageOptions | None = None,
    ) -> Self:
        """Read the image files and labels in a CSV file; see `from_df`.

        If the first line has the path of an image, it is not a header, and the columns are named
        "0", "1", …. Labels are read as int if all are whole numbers, as float if all are numbers,
        else as text; codes such as 007 are text. Relative paths start from ``root``, by default
        the folder of the CSV file.
        """
        from flambeau_vision import sources
        from flambeau_vision.table_columns import csv_source

        options = (options or ImageOptions()).updated({"size": size})
        folder = Path(path).parent if root is None else Path(root)
        table = csv_source(path, folder, file, label, options)
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        return cls(*sources.read_table(table, request, options))

    @classmethod
    def from_arrays(  # noqa: PLR0913 each part of the split is an argument
        cls,
        images: Any,
        labels: Any,
        *,
        valid: float | tuple[Any, Any] = 0.2,
        test: float | tuple[Any, Any] = 0.0,
        calibration: float | tuple[Any, Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        sample_weight: Any = None,
        group: Any = None,
        layout: str | None = None,
        size: Size | None = None,
        options: ImageOptions | None = None,
    ) -> Self:
        """Use images in memory, all of the same size.

        Args:
            images: Array or tensor ``(n, H, W)``, ``(n, H, W, C)`` or ``(n, C, H, W)``; uint8, or
                floats in 0..1 or 0..255, or uint16.
            labels: One per image, of any type that `read_labels` accepts, also one-hot and
                multi-hot columns ``(n, classes)``.
            valid: A share, or ``(images, labels)``.
            test: A share, or ``(images, labels)``.
            calibration: A share, or ``(images, labels)``; for ``learner.calibrate``.
            split: A split by row numbers instead of shares.
            seed: Seed of the random split.
            class_names: Names of the classes 0, 1, …, or of the columns of ``labels``.
            sample_weight: Weight of each image of ``images`` in loss and metrics, ``(n,)``: finite
                and not negative. None weights all images equally. Images of ``valid``, ``test`` and
                ``calibration`` given as arrays have weight 1.
            group: Group of each image of ``images``, ``(n,)``, such as a patient: parts that are
                given as a share keep each group in one part.
            layout: "HWC" or "CHW" if the shape is ambiguous.
            size: Resize to this side, or (height, width), in pixels; by default the images' own.
            options: Further options.

        Raises:
            InputError: A shape, value range or label is invalid.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision import sources

        options = (options or ImageOptions()).updated({"size": size, "classes": class_names})
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        return cls(
            *sources.read_arrays(images, labels, request, layout, options, sample_weight, group)
        )

    @classmethod
    def from_items(
        cls,
        items: Sequence[tuple[Any, Any]],
        *,
        valid: float = 0.2,
        test: float = 0.0,
        calibration: float = 0.0,
        split: Split | None = None,
        seed: int = 0,
        group: Any = None,
        size: Size | None = None,
        options: ImageOptions | None = None,
    ) -> Self:
        """Use ``(image, label)`` pairs; an image is anything that ``decode`` accepts.

        Args:
            items: The pairs.
            valid: A share, or a number of images.
            test: A share, or a number of images.
            calibration: A share, or a number of images; for ``learner.calibrate``.
            split: A split by row numbers instead of shares.
            seed: Seed of the random split.
            group: Group of each item, such as a patient: drawn parts keep each group in one part.
            size: Side in pixels, or (height, width); None lets the plan choose.
            options: Further options.

        Raises:
            InputError: An item is not a pair, an image cannot be read, or there is not one group
                for each item.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision import sources

        options = (options or ImageOptions()).updated({"size": size})
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        return cls(*sources.read_items(items, request, options, group))

    @classmethod
    def from_datasets(
        cls,
        train: Any,
        *,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        seed: int = 0,
        image: str | None = None,
        label: str | None = None,
        group: Any = None,
        size: Size | None = None,
        options: ImageOptions | None = None,
    ) -> Self:
        """Use data sets of torchvision or Hugging Face, or other map-style data sets.

        Images are read when they are needed. The data sets must not transform them, because the
        plan resizes, augments and normalises.

        Args:
            train: A data set of pairs ``(image, label)``, also a ``Subset``, or of mappings.
            valid: A share, or a data set.
            test: A share, or a data set.
            calibration: A share, or a data set; for ``learner.calibrate``.
            seed: Seed of the random split.
            image: Key of the image if samples are mappings; by default the only image column of a
                Hugging Face data set.
            label: Key of the label if samples are mappings; by default the only label column of a
                Hugging Face data set.
            group: Group of each sample of ``train``, such as a patient: parts that are given as a
                share keep each group in one part.
            size: Side in pixels, or (height, width); None lets the plan choose.
            options: Further options.

        Raises:
            ArgumentError: A data set is not map-style, or a column does not exist or is unknown.
            InputError: A data set transforms its images, or an image cannot be read.
            SplitError: The parts cannot be formed.
        """
        from flambeau_vision.image_sets import read_datasets

        options = (options or ImageOptions()).updated({"size": size})
        request = SplitRequest(valid, test, None, seed, calibration=calibration)
        return cls(*read_datasets(train, request, image, label, options, group))

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], options: Mapping[str, Any]) -> Self:
        """Read a folder of class folders, or a CSV file, for ``flambeau fit PATH``.

        Args:
            path: The folder or file.
            options: ``valid``, ``test``, ``calibration``, ``seed``, ``unreadable``, ``sep``,
                ``task``, ``size``, ``channels``, ``classes``, ``parts``, ``resize``, ``pattern``,
                ``group``, ``like``; for a CSV file also ``file``, ``target`` (the column of the
                labels, or several with commas), ``split``, ``weight``, ``root`` and ``suffix``.

        Raises:
            ArgumentError: An option is unknown.
        """
        from flambeau_vision import sources

        return cls(*sources.read_path(Path(path), options))
