"""``ImageData``: images, their labels and all data choices, in one immutable object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.data import digest
from flambeau.data.loader import Dataset
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.reading import Reading, readings_as_facts
from flambeau.data.samples import Samples
from flambeau.data.split import Rows, Split
from flambeau.data.targets import Targets
from flambeau.data.transform import Transform
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau_vision.assemble import GROUP, WEIGHT
from flambeau_vision.constructors import ImageDataConstructors
from flambeau_vision.contact_sheet import (
    contact_sheet,
    predictions_sheet,
    random_positions,
    report_image,
)
from flambeau_vision.dataset import TARGET, ImageFileDataset
from flambeau_vision.facts import ImageFacts, image_facts
from flambeau_vision.from_plan import (
    device_transforms,
    image_geometry,
    mean_and_std,
    model_arguments,
    task_arguments,
)
from flambeau_vision.image_files import list_images
from flambeau_vision.image_store import ImageStore
from flambeau_vision.options import ImageOptions
from flambeau_vision.pixel_format import PixelFormat
from flambeau_vision.preprocess import INPUT, ImagePreprocessor
from flambeau_vision.presize import part_geometry
from flambeau_vision.report import report
from flambeau_vision.resize import Geometry

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageData(ImageDataConstructors):
    """Images and labels, checked and split; an image is decoded when it is needed.

    Build it with ``from_folder``, ``from_df``, ``from_csv``, ``from_arrays`` or ``from_items``.

    Args:
        samples: One row per image; the column "image" holds paths, bytes, Pillow images or arrays,
            or is one uint8 tensor ``(n, channels, height, width)``.
        targets: The targets, one per row.
        split: The rows of the train, validation, test and calibration parts.
        options: Options for reading images.
        notes: Notes for the report.
        readings: How folders and columns were interpreted; ``targets`` has the same for the labels.

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
        readings: Sequence[Reading] = (),
    ) -> None:
        self._samples = samples
        self._targets = targets
        self._split = split
        self._options = options
        self._notes = tuple(notes)
        self._readings = tuple(readings)
        self._facts: ImageFacts | None = None
        self._images = ImageStore(samples["image"], options)

    def __repr__(self) -> str:
        parts = self._split.sizes()
        return f"ImageData({len(self._samples):,} images, {self._targets.kind}: {parts})"

    # ------------------------------------------------------------ content

    @property
    def samples(self) -> Samples:
        """The images and what their headers contain, one row per image."""
        return self._samples

    @property
    def targets(self) -> Targets:
        """The targets, one per row of ``samples``."""
        return self._targets

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> ImageOptions:
        """The options with which images are read."""
        return self._options

    @property
    def like(self) -> Path | None:
        return None if self._options.like is None else Path(self._options.like)

    @property
    def choices(self) -> Mapping[str, Any]:
        given = {
            "image_size": self._options.size,
            "channels": self._options.channels,
            # That of an export is its preprocessor's, which its plan has.
            "resize": None if self._options.like else self._options.resize,
            "bits": None if self._options.like else self._options.bits,
            "white": None if self._options.like else self._options.white,
            "task": self._options.task,
            "cache": self._options.cache,
        }
        return {key: value for key, value in given.items() if value is not None}

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How labels, folders and columns were interpreted, if more than one way is possible."""
        return (*self._targets.readings, *self._readings)

    @property
    def reading_options(self) -> Mapping[str, Any]:
        return self._options.reading_options

    def facts(self) -> ImageFacts:
        if self._facts is None:
            folder = self._options.cache_folder
            cache_folder = None if folder is None else os.fspath(folder)
            facts = image_facts(self._samples, self._targets, self._split, cache_folder)
            self._facts = cast("ImageFacts", {**facts, **readings_as_facts(self.readings)})
        return self._facts

    def preview(self, row: int) -> Preview:
        return report_image(self._samples["image"][row], row)

    def report(self, duplicates: bool | None = None) -> str:
        """Return a text report: counts, sizes, classes, duplicates, unreadable files.

        Args:
            duplicates: See `flambeau_vision.report.report`: True compares up to 20,000 images by
                perceptual hash, None only small data sets, False skips the search.
        """
        notes = (*map(str, self.readings), *self._notes, *self._images.notes())
        return report(self._samples, self._targets, self._split, notes, duplicates)

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of ``Data`` and a digest of the weights of the images, if any."""
        found = super().fingerprint()
        if WEIGHT in self._samples.columns:
            weights = torch.as_tensor(self._samples[WEIGHT]).double().numpy()
            found["sample weights"] = f"digest {digest(weights.tobytes())}"
        return found

    def raw(self, part: str) -> Sequence[Any]:
        items = self._images.items(self._split.part(part))
        is_grey = self._options.layout == "HW" and isinstance(self._samples["image"], Tensor)
        return [item[0] for item in items] if is_grey else items

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[Any]:
        return list_images(path) if path.is_dir() else [str(path)]

    def subset(self, rows: Mapping[str, Sequence[int]]) -> ImageData:
        """Return the data with only these rows in each part (row numbers of ``samples``)."""
        return self.with_split(Split.from_parts(rows))

    def groups(self, part: str) -> Sequence[str] | None:
        return self._groups_of(self._split.part(part))

    def _groups_of(self, rows: Rows) -> list[str] | None:
        if GROUP not in self._samples.columns:
            return None
        groups = self._samples[GROUP]
        return [groups[int(row)] for row in rows]

    def split_arguments(self, rows: Rows) -> Mapping[str, Any]:
        groups = self._groups_of(rows)
        found: dict[str, Any] = {} if groups is None else {"groups": groups}
        if self._targets.kind == "classification":
            found["stratify"] = self._targets.select(rows).values.numpy()
        return found

    def with_split(self, split: Split) -> ImageData:
        return ImageData(
            self._samples, self._targets, split, self._options, self._notes, self._readings
        )

    # ------------------------------------------------------------ from the plan

    def preprocessor(self, values: Mapping[str, Any]) -> Preprocessor:
        geometry = image_geometry(values, self._options)
        # The geometry of the train images, so that they are decoded only once.
        train = part_geometry("train", geometry, values)
        mean, std = mean_and_std(
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
            pixels=PixelFormat(geometry.bits, geometry.white, self._options.layout),
            memory_format=values.get("memory_format", "contiguous_format"),
        )

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(
                f"There are no {part} images. Pass {part}= to the constructor, or add a folder "
                f"named {part}."
            )
        if not isinstance(preprocessor, ImagePreprocessor):
            raise ArgumentError(
                f"ImageData needs an ImagePreprocessor, not a {type(preprocessor).__name__}."
            )
        self._check_task(values)
        targets, ids = self._targets.select(rows).values, torch.from_numpy(np.array(rows))
        weights = self._weights(rows)
        geometry = part_geometry(part, preprocessor.geometry, values)
        mode = self._images.cache_mode(values)
        if mode == "files":
            return ImageFileDataset(
                self.raw(part), targets, ids, geometry, self._images.unreadable, weights
            )
        loaded = self._images.load_part(part, rows, geometry, mode)
        if loaded.unreadable:
            kept = torch.ones(len(rows), dtype=torch.bool)
            kept[list(loaded.unreadable)] = False
            targets, ids = targets[kept], ids[kept]
            weights = None if weights is None else weights[kept]
        return MemoryDataset({INPUT: loaded.pixels}, {TARGET: targets}, ids, weights)

    def is_loaded(self, part: str, values: Mapping[str, Any]) -> bool:
        return self._images.is_loaded(image_geometry(values, self._options))

    def transforms(self, values: Mapping[str, Any]) -> Sequence[Transform]:
        return device_transforms(values, self._options, self._targets)

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return model_arguments(values, self._targets)

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        self._check_task(values)
        return task_arguments(values, self._targets, self._split.train)

    # ------------------------------------------------------------ showing

    def show(
        self, n: int = 24, *, part: str = "train", path: str | os.PathLike[str] | None = None
    ) -> Image:
        """Return a contact sheet of ``n`` images of ``part`` with their labels.

        Args:
            n: Number of images; a random selection from the part, the same on every call.
            part: "train", "valid", "test" or "calibration".
            path: File to save the sheet to.

        Returns:
            A Pillow image.

        Raises:
            InputError: The part has no images.
        """
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(f"There are no {part} images to show. Choose another part.")
        rows = rows[random_positions(len(rows), n)]
        captions = [self._targets.text(int(row)) for row in rows]
        return contact_sheet(self._images.items(rows), captions, path=path)

    def show_predictions(
        self,
        predictions: Sequence[Any],
        *,
        part: str = "valid",
        n: int = 24,
        path: str | os.PathLike[str] | None = None,
    ) -> Image:
        """Return a contact sheet of predictions above targets; green if they are equal.

        Args:
            predictions: One per image of ``part``, in its order, as ``learner.predict`` returns
                them (text, or an object with ``label`` and ``probability``).
            part: The part that was predicted.
            n: Number of images to show.
            path: File to save the sheet to.

        Returns:
            A Pillow image.

        Raises:
            InputError: The number of predictions differs from the number of images.
        """
        rows = self._split.part(part)
        if len(predictions) != len(rows):
            raise InputError(
                f"There are {len(predictions):,} predictions for {len(rows):,} {part} images. "
                f'Predict data.raw("{part}") and pass all predictions.'
            )
        positions = random_positions(len(rows), n)
        targets = [self._targets.text(int(row)) for row in rows[positions]]
        shown = [predictions[position] for position in positions]
        return predictions_sheet(self._images.items(rows[positions]), targets, shown, path=path)

    # ------------------------------------------------------------ internal

    def _check_task(self, values: Mapping[str, Any]) -> None:
        task = values.get("task", self._targets.kind)
        if task in ("classification", "multi_label", "regression") and task != self._targets.kind:
            raise PlanError(
                f"The plan's task is {task!r}, but the labels were read as targets for "
                f"{self._targets.kind!r}: {self._targets.reason}. Pass the task when you create "
                f"the data: ImageOptions(task={task!r})."
            )

    def _weights(self, rows: Rows) -> Tensor | None:
        """Return the weights of ``rows``; None if all are 1."""
        if WEIGHT not in self._samples.columns:
            return None
        weights = torch.as_tensor(self._samples[WEIGHT])[torch.from_numpy(np.array(rows))]
        return None if bool((weights == 1).all()) else weights

    def _train_pixels(self, values: Mapping[str, Any], geometry: Geometry) -> Tensor:
        rows, mode = self._split.train, self._images.cache_mode(values)
        if mode == "files":
            return self._images.load_random(rows, geometry)
        return self._images.load_part("train", rows, geometry, mode).pixels
