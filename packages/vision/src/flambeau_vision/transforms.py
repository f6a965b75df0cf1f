"""From the plan's values to the device transforms of training batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flambeau.data.transform import Transform
from flambeau.errors import PlanError
from flambeau_vision.augment import Augment
from flambeau_vision.augmentation import Augmentation
from flambeau_vision.labels import Targets
from flambeau_vision.mixing import Mix, Mixing
from flambeau_vision.preprocess import seen_share
from flambeau_vision.resize import Geometry


def device_transforms(
    values: Mapping[str, Any], geometry: Callable[[], Geometry], targets: Targets
) -> Sequence[Transform]:
    """Augmentation, with the way from the presized to the final size, and mixing.

    Args:
        values: The plan's.
        geometry: Gives what the network takes; called where pictures are presized.
        targets: What the model is to answer.

    Raises:
        PlanError: Numbers are to be mixed.
    """
    transforms: list[Transform] = []
    if values.get("augmentation") is not None:
        augmentation = Augmentation.from_json(values["augmentation"])
        if values.get("presize") is not None:
            final = geometry()
            transforms.append(Augment(augmentation, final.size, seen_share(final)))
        elif augmentation.changes:
            transforms.append(Augment(augmentation))
    if values.get("mixing") is not None:
        if targets.kind == "regression":
            raise PlanError(
                f"mixing={values['mixing']!r} mixes labels, and those of a regression are numbers. "
                "Leave mixing out."
            )
        transforms.append(Mix(Mixing.from_json(values["mixing"]), len(targets.names)))
    return tuple(transforms)
