"""``Recommender``: the best items for users, without those that they know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.artefact.predictor import Predictor
from flambeau.checked_arguments import checked_count
from flambeau.data.batch import Batch
from flambeau.data.split import PARTS
from flambeau.errors import ArgumentError, ArtefactError, InputError, explains_arguments
from flambeau_tabular.collab_data import CollabData
from flambeau_tabular.collab_preprocess import CollabPreprocessor, complete
from flambeau_tabular.models.category_embedding import FIRST_VALUE, UNKNOWN

if TYPE_CHECKING:
    from flambeau.learner import Learner
    from flambeau_tabular.columns import Frame

Seen = Mapping[int | str, NDArray[np.int64]]
"""Positions of the items that each user knows, by the code of a known user, else by its text."""

_MOST_PAIRS = 1 << 18
"""Pairs of users and items whose scores are computed at once."""


class Recommended(NamedTuple):
    """An item for a user.

    Attributes:
        item: The item, as in train: a whole number or text.
        score: The expected rating; with implicit feedback the probability of a choice among the
            sampled items, which orders items but is higher than the share of users who choose it.
    """

    item: str | int
    score: float


@explains_arguments()
class Recommender:
    """Ranks all items of train for users.

    Create it with ``from_learner`` or ``load``. A user that was not in train gets the items that
    unknown users are expected to prefer, by the biases of the items.

    Args:
        predictor: A predictor of a model for ``CollabData``.
        seen: A table with the columns of users and items: what each user knows. None if this is not
            known.

    Raises:
        ArgumentError: The predictor is of other data.
        InputError: A column of ``seen`` is missing, or a cell in it.
    """

    def __init__(self, predictor: Predictor, seen: Any | None = None) -> None:
        if not isinstance(predictor.preprocessor, CollabPreprocessor):
            raise ArgumentError(
                f"The predictor has a {type(predictor.preprocessor).__name__}, but only a model "
                "for CollabData can recommend items."
            )
        self.predictor = predictor
        self.preprocessor = predictor.preprocessor
        self._items = self.preprocessor.item_values()
        self._seen: Seen | None = None
        if seen is not None:
            from flambeau_tabular.columns import read_frame

            self._seen = _seen_in(read_frame(seen), self.preprocessor)
        elif self.preprocessor.seen is not None:
            users, items = self.preprocessor.seen.numpy().astype(np.int64)
            self._seen = _by_user(users.tolist(), items)

    @classmethod
    def from_learner(cls, learner: Learner, parts: Sequence[str] = PARTS) -> Self:
        """Return the recommender of a learner.

        Args:
            learner: A learner on ``CollabData``.
            parts: Users know the items of their rows in these parts.

        Raises:
            ArgumentError: The learner has other data.
        """
        if not isinstance(learner.data, CollabData):
            raise ArgumentError(
                f"The learner has {type(learner.data).__name__}, but only a model for CollabData "
                "can recommend items."
            )
        rows = learner.data.interactions
        known = np.concatenate([learner.data.split.part(part) for part in parts])
        return cls(learner.predictor(), rows.frame.take(known))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        seen: Any | None = None,
        device: torch.device | str | None = None,
    ) -> Self:
        """Return the recommender of an export.

        Args:
            folder: The folder that ``learner.export`` wrote.
            seen: What each user knows, see ``Recommender``. None uses the train rows if the export
                has them: ``CollabOptions(store_seen=True)``.
            device: Device of the computation; None uses the first accelerator, else the CPU.

        Raises:
            ArtefactError: The folder is no export, or one of other data.
        """
        predictor = Predictor.load(folder, device=device)
        if not isinstance(predictor.preprocessor, CollabPreprocessor):
            raise ArtefactError(
                f"{folder} is no export of a model for CollabData, so it cannot recommend items. "
                "Use Predictor.load to predict with it."
            )
        return cls(predictor, seen)

    def recommend(self, users: Any, k: int = 10, *, exclude_seen: bool = True) -> Any:
        """Return the ``k`` items with the highest scores, best first.

        Args:
            users: One user, or a list, array or series of them.
            k: Number of items for each user; a user gets fewer if there are no more items.
            exclude_seen: Whether to leave out what a user knows.

        Returns:
            A list of ``Recommended`` for one user; a list of such lists for several.

        Raises:
            InputError: ``k`` is below 1, a user is missing, or it is not known what users know.
        """
        single = users is None or isinstance(users, str | int | float | np.generic)
        k = checked_count(k, "k", unit="items")
        if exclude_seen and self._seen is None:
            raise InputError(
                "It is not known which items the users know: an export contains it only with "
                "CollabOptions(store_seen=True). Pass Recommender.load(folder, seen=frame) a table "
                "with the columns of users and items, or exclude_seen=False."
            )
        found: list[list[Recommended]] = []
        for scores in self._scored(self._keys([users] if single else users), exclude_seen):
            found += [self._decoded(row, best_items(row, k)) for row in scores]
        return found[0] if single else found

    def scores(self, users: Any, *, exclude_seen: bool = False) -> Tensor:
        """Return the model's outputs for users and all items of train, ``(users, items)``.

        The columns are in the order of ``preprocessor.item_values()``. The outputs order items, but
        are not in the units of ratings.

        Args:
            users: A list, array or series of users.
            exclude_seen: Whether items that a user knows get -inf.

        Raises:
            InputError: A user is missing.
        """
        parts = list(self._scored(self._keys(users), exclude_seen))
        return torch.cat(parts) if parts else torch.empty(0, len(self._items))

    def seen_by(self, user: Any) -> list[str | int]:
        """Return the items that a user knows, in the order of ``preprocessor.item_values()``."""
        [key] = self._keys([user])
        return [self._items[at] for at in self._known_to(key)]

    # ------------------------------------------------------------ internal

    def _keys(self, users: Any) -> list[int | str]:
        """Return the code of each known user, and the text of each unknown one."""
        from flambeau_tabular.columns import read_frame

        if hasattr(users, "to_frame"):  # a series
            users = users.to_list()
        name = self.preprocessor.users.name
        frame = read_frame({name: list(users)}, "users")
        return _user_keys(frame, self.preprocessor)

    def _known_to(self, key: int | str) -> NDArray[np.int64]:
        return (self._seen or {}).get(key, np.empty(0, np.int64))

    def _scored(self, keys: Sequence[int | str], exclude_seen: bool) -> Iterator[Tensor]:
        """Yield the scores ``(users, items)`` of consecutive users, as many as fit into memory."""
        n = len(self._items)
        size = max(1, _MOST_PAIRS // n)
        items = torch.arange(n, dtype=torch.int32) + FIRST_VALUE
        for start in range(0, len(keys), size):
            chunk = keys[start : start + size]
            codes = [key if isinstance(key, int) else UNKNOWN for key in chunk]
            users = torch.tensor(codes, dtype=torch.int32)
            inputs = {"users": users.repeat_interleave(n), "items": items.repeat(len(chunk))}
            batch = Batch(inputs, weight=float(n * len(chunk)))
            outputs = self.predictor.predict_batch(batch)
            scores = outputs.float().cpu().reshape(len(chunk), n)
            if exclude_seen:
                for row, key in enumerate(chunk):
                    scores[row, torch.from_numpy(self._known_to(key))] = -torch.inf
            yield scores

    def _decoded(self, outputs: Tensor, best: NDArray[np.int64]) -> list[Recommended]:
        task = self.predictor.task
        found = task.decode(outputs[torch.from_numpy(best)][:, None]) if len(best) else []
        values = [each.values if hasattr(each, "values") else each.probabilities for each in found]
        scores = [next(iter(each.values())) for each in values]
        return [Recommended(self._items[at], score) for at, score in zip(best, scores, strict=True)]


def best_items(scores: Tensor, k: int) -> NDArray[np.int64]:
    """Return the positions of the ``k`` highest scores ``(items,)``, best first.

    Items with the score -inf are left out; of equal scores the first item comes first.
    """
    order = torch.argsort(scores, descending=True, stable=True)[:k].numpy()
    return order[~np.isneginf(scores.numpy()[order])]


def _seen_in(frame: Frame, preprocessor: CollabPreprocessor) -> Seen:
    keys = _user_keys(frame, preprocessor)
    cells = complete(frame, preprocessor.items.name, "item")
    return _by_user(keys, preprocessor.items.encode(cells).astype(np.int64))


def _by_user(keys: Sequence[int | str], codes: NDArray[np.int64]) -> Seen:
    found: dict[int | str, set[int]] = {}
    for key, code in zip(keys, codes.tolist(), strict=True):
        if code >= FIRST_VALUE:
            found.setdefault(key, set()).add(code - FIRST_VALUE)
    return {key: np.array(sorted(items), np.int64) for key, items in found.items()}


def _user_keys(frame: Frame, preprocessor: CollabPreprocessor) -> list[int | str]:
    from flambeau_tabular.columns.cells import as_categories

    cells = complete(frame, preprocessor.users.name, "user")
    positions, texts = as_categories(cells)
    by_text = [(preprocessor.users.code(text), text or "") for text in texts]
    keys = [code if code >= FIRST_VALUE else text for code, text in by_text]
    return [keys[at] for at in positions.tolist()]
