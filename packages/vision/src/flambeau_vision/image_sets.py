"""Read data sets of torchvision, Hugging Face or the user as items that are decoded when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flambeau.data.split_request import SplitRequest, consecutive_rows
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.tensors.hugging_face import is_hugging_face
from flambeau_vision.assemble import ImageDataArguments, assemble
from flambeau_vision.options import ImageOptions

# Transforms that change the type of an image but not its pixels.
_HARMLESS = ("ToTensor", "PILToTensor", "ToImage", "NoneType")
_LABELS = ("label", "labels", "target", "class", "fine_label")


@dataclass(frozen=True)
class SetImage:
    """An image of a data set, which is read when it is decoded.

    Attributes:
        samples: The data set.
        index: Position of the image in the data set.
        column: Key of the image if samples are mappings, else its position in a sample.
    """

    samples: Any
    index: int
    column: str | int

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
        return image


def read_datasets(
    train: Any,
    request: SplitRequest,
    image: str | None,
    label: str | None,
    options: ImageOptions,
) -> ImageDataArguments:
    """Read map-style data sets; see ``ImageData.from_datasets``."""
    parts = {"train": train, **request.separate(object)}
    items: list[SetImage] = []
    labels: list[Any] = []
    names: Sequence[str] | None = None
    sizes: dict[str, int] = {}
    for part, samples in parts.items():
        own, found, classes = _read_set(samples, part, image, label)
        if names is not None and classes is not None and list(classes) != list(names):
            raise InputError(
                f"The classes of {part} are {', '.join(classes)}, but those of train are "
                f"{', '.join(names)}, so the same class number has two meanings. Give all data "
                "sets the same classes in the same order."
            )
        names = classes if names is None else names
        items += own
        labels += found
        sizes[part] = len(own)
    if options.classes is None and names is not None:
        present = set(map(str, labels))
        options = options.updated({"classes": [name for name in names if name in present]})
    if items and len(getattr(items[0].load_image(), "shape", ())) == 2:
        options = options.updated({"layout": "HW"})
    rows = consecutive_rows(sizes)
    given = rows if len(rows) > 1 else None
    return assemble(items, labels, request, options, given=given)


def _read_set(
    samples: Any, part: str, image: str | None, label: str | None
) -> tuple[list[SetImage], list[Any], Sequence[str] | None]:
    """Return the images of one part, their labels (as names if known), and all class names."""
    base, indices = _base_of(samples, part)
    _refuse_transform(base, part)
    if is_hugging_face(base):
        image, label = _columns(base, part, image, label)
        values: Any = base[label]
        names = getattr(base.features[label], "names", None)
        column: str | int = image
    else:
        column = 0 if image is None else image
        names = getattr(base, "classes", None)
        values = getattr(base, "targets", None) if label is None else None
        if values is None or len(values) != len(base):
            key = (1 if image is None else "label") if label is None else label
            values = _labels_of(base, indices, key, part)
    found = [_plain(values[index]) for index in indices]
    if names is not None and all(isinstance(each, int) for each in found):
        found = [str(names[each]) for each in found]
    else:
        names = None
    return [SetImage(base, index, column) for index in indices], found, names


def _base_of(samples: Any, part: str) -> tuple[Any, Sequence[int]]:
    """Return the data set below ``torch.utils.data.Subset`` and the positions in it."""
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
        base, inner = _base_of(samples.dataset, part)
        return base, [inner[int(index)] for index in samples.indices]
    return samples, range(len(samples))


def _refuse_transform(base: Any, part: str) -> None:
    """Raise if a data set transforms its images, because flambeau transforms them itself."""
    if is_hugging_face(base):
        kind = base.format.get("type")
        named = None if kind != "custom" else "a transform (set_transform)"
    else:
        known = [
            type(getattr(base, name, None)).__name__ for name in ("transform", "target_transform")
        ]
        odd = [name for name in known if name not in _HARMLESS]
        named = f"a transform ({odd[0]})" if odd else None
    if named is not None:
        raise InputError(
            f"The {part} data set has {named}, but ImageData resizes, augments and normalises "
            "images itself. Create the data set without a transform; or keep the transform and use "
            "TensorData.from_datasets(…) with your own module."
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
    classes = [name for name, each in features.items() if hasattr(each, "names")]
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
