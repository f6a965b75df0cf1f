"""``CollabOptions`` and ``CollabColumns``: how a table of ratings is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flambeau.checked_arguments import checked_count
from flambeau.errors import InputError, did_you_mean, explains_arguments

LeaveLast = Literal["valid", "test"]
"""Which parts get the last rows of each user, see `CollabOptions`."""

Repeats = Literal["first", "last", "all"]
"""Which rows of a repeated pair of user and item are kept."""


@explains_arguments()
@dataclass(frozen=True)
class CollabOptions:
    """How a table of ratings is read and split.

    Attributes:
        leave_last: Split by user instead of over all rows: "valid" puts the last row of each user
            into valid; "test" puts the last one into test and the one before it into valid. Users
            with too few rows to keep one for train have all their rows in train. ``time`` orders
            the rows of a user; without it they are in the order of the table.
        repeats: Which rows are kept of a user and an item that occur together several times:
            "first", "last" (by ``time``, else in the order of the table) or "all". None keeps the
            last rating, and the first row without ratings: a model that has seen a pair in train
            would otherwise be scored on it in valid.
        min_count: Users and items with fewer train rows share the code for unknown ones; None lets
            the plan choose.
        store_seen: Whether an export contains the pairs of the train rows, so that
            ``Recommender.load`` can leave out what a user knows. They are personal data, so an
            export does not contain them by default.

    Raises:
        InputError: A value is invalid.
    """

    leave_last: LeaveLast | None = None
    repeats: Repeats | None = None
    min_count: int | None = None
    store_seen: bool = False

    def __post_init__(self) -> None:
        for name, known in (("leave_last", LeaveLast), ("repeats", Repeats)):
            value = getattr(self, name)
            if value is not None and value not in get_args(known):
                hint = did_you_mean(str(value), get_args(known))
                raise InputError(f"Unknown {name}={value!r}. {hint}")
        if self.min_count is not None:
            object.__setattr__(self, "min_count", checked_count(self.min_count, "min_count"))


@dataclass(frozen=True)
class CollabColumns:
    """The columns of a table of ratings.

    Attributes:
        user: Column of the users.
        item: Column of the items.
        rating: Column of the ratings; None for implicit feedback, where a row says only that the
            user chose the item.
        time: Column with the time of each row.

    Raises:
        InputError: A column is used twice.
    """

    user: str
    item: str
    rating: str | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        roles: dict[str, str] = {}
        for role, name in self.by_role().items():
            object.__setattr__(self, role, str(name))  # columns of pandas may have numbers as names
            if name in roles:
                raise InputError(
                    f"{role}={name!r} and {roles[name]}={name!r} are the same column. Give two."
                )
            roles[name] = role

    def by_role(self) -> dict[str, str]:
        """Return the columns by their role; those that are None are left out."""
        found = {"user": self.user, "item": self.item, "rating": self.rating, "time": self.time}
        return {role: name for role, name in found.items() if name is not None}
