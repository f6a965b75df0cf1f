"""``CollabFacts``: measurements of the train rows of a table of ratings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambeau.data.facts import Facts

if TYPE_CHECKING:
    from typing import Required

    from typing_extensions import ReadOnly


class CollabFacts(Facts, total=False):
    """Core's facts, and those of users and items.

    Attributes:
        feedback: "ratings" or "implicit".
        n_users: Number of distinct users in train.
        n_items: Number of distinct items in train.
        roles: Columns of user, item, rating and time by their role.
    """

    feedback: ReadOnly[Required[str]]
    n_users: ReadOnly[Required[int]]
    n_items: ReadOnly[Required[int]]
    roles: ReadOnly[dict[str, str]]
