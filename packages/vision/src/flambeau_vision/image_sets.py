"""Read data sets of torchvision, Hugging Face or the user as items that are decoded when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from flambeau.data.class_numbering import class_numbering
from flambeau.data.split_request import SplitRequest, consecutive_rows
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.tensors.hugging_face import is_hugging_face
from flambeau_vision.assemble import ImageDataArguments, assemble
from flambeau_vision.decode import as_array, decode, in_levels
from flambeau_vision.float_scale import White
from flambeau_vision.options import ImageOptions
from flambeau_vision.sources import groups_of_images, refuse_group

# Transforms that change the type of an image but not its pixels.
_HARMLESS = ("ToTensor", "PILToTensor", "ToImage", "ToDtype", "ConvertImageDtype", "NoneType")
_TRANSFORMS = ("transform", "target_transform", "transforms")
# Samples that are read twice, to find random transforms; one that changes every second image is
# missed once in 256 times.
_READ_TWICE = 8
_LABELS = ("label", "labels", "target", "class", "fine_label")


@dataclass(frozen=True)
class SetImage:
    """An image of a data set, which is read when it is decoded.

    Attributes:
        samples: The data set.
        index: Position of the image in the data set.
        column: Key of the image if samples are mappings, else its position in a sample.
        white: The value of white in arrays of floats, once it is known.
    """

    samples: Any
    index: int
    column: str | int
    white: White | None = None

    @property
    def filename(self) -> str:
        """Name for messages."""
        return f"image {self.index} of {type(self.samples).__name__}"

    def load_image(self) -> Any:
        """Return the image in a form that `flambeau_vision.decode.decode` accepts."""
        image = self.samples[self.index][self.column]
        if isinstance(image, Mapping):  # an undecoded image of Hugging Face
            found = cast("Mapping[str, Any]", image)
            return found.get("bytes") or found.get("path")
        is_array = hasattr(image, "dtype") and hasattr(image, "shape")
        if self.white is not None and is_array and as_array(image).dtype.kind == "f":
            return in_levels(image, self.white)
        return image


def read_datasets(
    train: Any,
    request: SplitRequest,
    image: str | None,
    label: str | None,
    options: ImageOptions,
    group: Any = None,
) -> ImageDataArguments:
    """Read map-style data sets; see ``ImageData.from_datasets``."""
    refuse_group(options, "Pass the group of each sample: group=….")
    parts = {"train": train, **request.separate(object)}
    items: list[SetImage] = []
    labels: list[Any] = []
    names: Sequence[str] | None = None
    sizes: dict[str, int] = {}
    for part, samples in parts.items():
        own, found, classes = _read_set(samples, part, image, label)
        if names is not None and classes is not None and list(classes) != list(names):
            raise _other_classes_error(part, classes, "train", names)
        names = classes if names is None else names
        items += own
        labels += found
        sizes[part] = len(own)
    _refuse_random(items[: min(_READ_TWICE, sizes["train"])])
    if options.classes is None and names is not None:
        present = {name for each in labels for name in (each if isinstance(each, list) else [each])}
        options = options.updated({"classes": [name for name in names if name in present]})
    if items and len(getattr(items[0].load_image(), "shape", ())) == 2:
        options = options.updated({"layout": "HW"})
    rows = consecutive_rows(sizes)
    given = rows if len(rows) > 1 else None
    groups = groups_of_images(group, sizes)
    return assemble(items, labels, request, options, given=given, groups=groups)


def _read_set(
    samples: Any, part: str, image: str | None, label: str | None
) -> tuple[list[SetImage], list[Any], Sequence[str] | None]:
    """Return the images of one part, their labels (as names if known), and all class names."""
    members = _members(samples, part)
    indices: dict[int, list[int]] = {}
    bases: dict[int, Any] = {}
    for base, index in members:
        bases[id(base)] = base
        indices.setdefault(id(base), []).append(index)
    columns: dict[int, str | int] = {}
    label_of: dict[tuple[int, int], Any] = {}
    names: Sequence[str] | None = None
    for key, base in bases.items():
        columns[key], labels, classes = _read_base(base, indices[key], part, image, label)
        if names is not None and classes is not None and list(classes) != list(names):
            raise _other_classes_error(f"one data set of {part}", classes, "another", names)
        names = classes if names is None else names
        label_of |= {(key, index): value for index, value in labels.items()}
    items = [SetImage(base, index, columns[id(base)]) for base, index in members]
    return items, [label_of[id(base), index] for base, index in members], names


def _read_base(
    base: Any, indices: Sequence[int], part: str, image: str | None, label: str | None
) -> tuple[str | int, dict[int, Any], Sequence[str] | None]:
    """Return the column of the images, position → label, and all class names of a data set."""
    _refuse_transform(base, part)
    if is_hugging_face(base):
        image, label = _columns(base, part, image, label)
        values: Any = base[label]
        feature: Any = base.features[label]
        names = getattr(feature, "names", getattr(getattr(feature, "feature", None), "names", None))
        name_of = None if names is None else dict(enumerate(map(str, names)))
        column: str | int = image
    else:
        column = 0 if image is None else image
        name_of = class_numbering(base, part)
        values = getattr(base, "targets", None) if label is None else None
        if values is None or len(values) != len(base):
            key = (1 if image is None else "label") if label is None else label
            values = _labels_of(base, indices, key, part)
    found = {index: _plain(values[index]) for index in indices}
    numbers = [number for value in found.values() for number in _as_list(value)]
    if name_of is None or not all(isinstance(number, int) for number in numbers):
        return column, found, None
    _check_numbers(found, name_of, part)
    named = {
        index: [name_of[n] for n in value] if isinstance(value, list) else name_of[value]
        for index, value in found.items()
    }
    return column, named, [name_of[number] for number in sorted(name_of)]


def _check_numbers(labels: Mapping[int, Any], name_of: Mapping[int, str], part: str) -> None:
    """Raise an InputError if a label is no class number: -1 marks samples without a label."""
    wrong = {
        index: value
        for index, value in labels.items()
        if any(number not in name_of for number in _as_list(value))
    }
    if wrong:
        first = next(iter(wrong))
        raise InputError(
            f"{len(wrong):,} of {len(labels):,} labels of {part} are outside "
            f"{min(name_of)}..{max(name_of)} (sample {first}: {wrong[first]}). Data sets mark "
            "samples without a label by -1: leave them out, for example with "
            "torch.utils.data.Subset."
        )


def _other_classes_error(
    part: str, classes: Sequence[str], other: str, names: Sequence[str]
) -> InputError:
    return InputError(
        f"The classes of {part} are {', '.join(classes)}, but those of {other} are "
        f"{', '.join(names)}, so the same class number has two meanings. Give all data sets the "
        "same classes in the same order."
    )


def _members(samples: Any, part: str) -> list[tuple[Any, int]]:
    """Return data set and position of each sample, below ``Subset`` and ``ConcatDataset``."""
    if isinstance(samples, Mapping):
        names = ", ".join(map(repr, cast("Mapping[object, Any]", samples)))
        raise ArgumentError(
            f"The {part} data set is a {type(cast(object, samples)).__name__} with the keys "
            f"{names}. Pass one data set per part: ImageData.from_datasets(sets['train'], "
            "valid=sets['validation'])."
        )
    if not hasattr(samples, "__len__") or not hasattr(samples, "__getitem__"):
        raise ArgumentError(
            f"The {part} data set is a {type(samples).__name__}, which lacks __len__ or "
            "__getitem__. Pass a map-style data set, which has both."
        )
    if hasattr(samples, "dataset") and hasattr(samples, "indices"):
        inner = _members(samples.dataset, part)
        return [inner[int(index)] for index in samples.indices]
    if hasattr(samples, "datasets") and hasattr(samples, "cumulative_sizes"):
        return [member for each in samples.datasets for member in _members(each, part)]
    return [(samples, index) for index in range(len(samples))]


def _refuse_transform(base: Any, part: str) -> None:
    """Raise if a data set transforms its images, because flambeau transforms them itself."""
    if is_hugging_face(base):
        kind = base.format.get("type")
        named = None if kind != "custom" else "a transform (set_transform)"
    else:
        odd = [
            type(value).__name__
            for name in _TRANSFORMS
            if not _is_harmless(value := getattr(base, name, None))
        ]
        named = f"a transform ({odd[0]})" if odd else None
    if named is not None:
        raise InputError(f"The {part} data set has {named}, {_INSTEAD}")


_INSTEAD = (
    "but ImageData resizes, augments and normalises images itself. Create the data set without a "
    "transform; or keep the transform and use TensorData.from_datasets(…) with your own module."
)


def _is_harmless(transform: Any) -> bool:
    """Return whether a transform changes no pixel; that of a composition if none of it does."""
    kind = type(transform).__name__
    if kind == "Compose":
        return all(map(_is_harmless, transform.transforms))
    if kind == "StandardTransform":  # torchvision's pair of transform and target_transform
        return True
    return kind in _HARMLESS


def _refuse_random(items: Sequence[SetImage]) -> None:
    """Raise an InputError if an image differs when it is read again: a random transform."""
    for item in items:
        try:
            same = np.array_equal(decode(item, white=255), decode(item, white=255))
        except InputError:  # reported when all images are checked
            continue
        if not same:
            raise InputError(
                f"{item.filename} differs each time it is read, so the data set has a random "
                f"transform, {_INSTEAD}"
            )


def _columns(base: Any, part: str, image: str | None, label: str | None) -> tuple[str, str]:
    """Return the columns of image and label of a Hugging Face data set."""
    features: Mapping[str, Any] = base.features
    for name in (image, label):
        if name is not None and name not in features:
            raise ArgumentError(
                f"The {part} data set has no column {name!r}. {did_you_mean(name, features)}"
            )
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    classes = [
        name
        for name, each in features.items()
        if hasattr(each, "names") or hasattr(getattr(each, "feature", None), "names")
    ]
    usual = [name for name in _LABELS if name in features]
    found = {"image": image or _only(images), "label": label or _only(classes) or _only(usual[:1])}
    for what, name in found.items():
        if name is None:
            raise ArgumentError(
                f"The {part} data set has the columns {', '.join(features)}, so it is unknown "
                f"which column is the {what}. Name it with {what}=…."
            )
    return cast("str", found["image"]), cast("str", found["label"])


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _labels_of(base: Any, indices: Sequence[int], key: str | int, part: str) -> dict[int, Any]:
    """Return position → label, read from the samples at ``indices``."""
    found: dict[int, Any] = {}
    for index in indices:
        try:
            found[index] = base[index][key]
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"Sample {index} of {part} is a {type(base[index]).__name__} without a label at "
                f"{key!r}. Give samples (image, label), or mappings and the names of their "
                "columns: image=…, label=…."
            ) from error
    return found


def _plain(value: Any) -> Any:
    """Return a label as a Python value: a tensor or NumPy scalar as a number."""
    is_scalar = hasattr(value, "item") and not getattr(value, "shape", ())
    return value.item() if is_scalar else value


def _as_list(value: Any) -> list[Any]:
    """Return the labels of a sample: several of a list, else one."""
    return cast("list[Any]", value) if isinstance(value, list) else [value]
