"""``TagTask``: cross entropy over the words of sentences; predictions are tags and entities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.data.facts import IGNORED
from flambeau.errors import InputError
from flambeau.task import Classification
from flambeau.task.batch_summary import Summary, summary_of_kind
from flambeau.task.metrics import Metric
from flambeau.task.task import StepContext
from flambeau_text.tagging.entities import Entity, EntityF1, are_entities, entities_of

WORDS = "words"
"""Name of the mask of words in every batch."""


@dataclass(frozen=True)
class TaggedWords:
    """The tags of a sentence; ``str()`` joins them with spaces.

    Attributes:
        tags: The tag of each word.
        probabilities: Probability of each tag.
        entities: The entities, if the tags mark entities.
    """

    tags: tuple[str, ...]
    probabilities: tuple[float, ...]
    entities: tuple[Entity, ...] = ()

    def __str__(self) -> str:
        return " ".join(self.tags)


class TagTask(Classification):
    """Classification of each word of a sentence.

    Outputs are logits ``(batch, tags, words)``, targets class numbers ``(batch, words)`` with -100
    after the last word. The loss is the mean over words; metrics are the accuracy of words and, if
    the tags mark entities (B-PER), the F1 of entities.

    Args:
        classes: The tags in the order of the outputs.
    """

    builder = "tags"
    kind = "tagging"

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes, ignore_index=IGNORED)

    def host_weight(self, batch: Batch) -> float | None:
        """Return the number of words, which the loader has counted."""
        return batch.weight

    def metrics(self) -> Mapping[str, Metric]:
        found = dict(super().metrics())
        if are_entities(self.classes):
            found["entity_f1"] = EntityF1(self.classes, IGNORED)
        return found

    def calibrate(self, pairs: Iterable[tuple[Any, Batch]]) -> Mapping[str, Any]:
        """Refuse: probabilities of words are not calibrated.

        Raises:
            InputError: Always.
        """
        raise InputError("The probabilities of tags cannot be calibrated. Use them as they are.")

    def predict(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the "logits" ``(batch, tags, words)``, and the mask of "words"."""
        return {"logits": self.forward(model, batch, context), WORDS: batch.masks[WORDS]}

    def summarise(self, outputs: Any, batch: Batch) -> Summary:
        return summary_of_kind(self, outputs["logits"], batch)

    def decode(self, outputs: Any) -> list[Any]:
        """Return `TaggedWords` for each sentence."""
        logits: Tensor = outputs["logits"]
        best = logits.float().softmax(1).max(1)
        found: list[Any] = []
        rows = zip(
            best.indices.tolist(), best.values.tolist(), outputs[WORDS].sum(1).tolist(), strict=True
        )
        for numbers, values, n in cast("Any", rows):
            tags = tuple(self.classes[number] for number in numbers[:n])
            entities = tuple(entities_of(tags)) if are_entities(self.classes) else ()
            found.append(TaggedWords(tags, tuple(values[:n]), entities))
        return found

    def example_prediction(self) -> Any:
        return TaggedWords((), ())

    def arguments(self) -> Mapping[str, Any]:
        return {"classes": list(self.classes)}
