"""``CsvOptions``: how a delimited text file is read."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from flambeau.errors import ArgumentError, InputError, did_you_mean

Decimal = Literal[".", ","]

MISSING_TEXTS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
"""Cells that are read as missing by default."""

UTF8 = ("utf-8", "utf-8-sig")


@dataclass(frozen=True)
class CsvOptions:
    """How a delimited text file is read; None is inferred from the file.

    Attributes:
        delimiter: Separator of the cells, one character; by default comma, semicolon, tab or
            vertical bar, whichever gives the header the most columns.
        decimal: Decimal separator of all numbers: "." or ",".
        thousands: Separator of thousands in all numbers, one character that is removed; "" for
            none.
        encoding: Encoding of the file, such as "latin-1", "cp1252" or "utf-16"; None is UTF-8 with
            or without byte-order mark.
        quote: The character around cells that contain separators; "" if quotes are ordinary
            characters. None is the double quote and, in files named ``.tsv``, none.
        missing: Cells that are missing, after spaces are removed.
        text: Columns that stay text even if all cells are numbers.

    Raises:
        InputError: A value is invalid.
    """

    delimiter: str | None = None
    decimal: Decimal | None = None
    thousands: str | None = None
    encoding: str | None = None
    quote: str | None = None
    missing: Sequence[str] = MISSING_TEXTS
    text: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("missing", "text"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise InputError(f"{name}={value!r} is a string. Give a list: {name}=[{value!r}].")
            object.__setattr__(self, name, tuple(map(str, value)))
        if self.decimal not in (None, ".", ","):
            raise InputError(f"decimal is {self.decimal!r}, but must be '.' or ','.")
        for name, empty in (("delimiter", False), ("thousands", True), ("quote", True)):
            value = getattr(self, name)
            if value is None or (value == "" and empty):
                continue
            if not isinstance(value, str) or len(value) != 1 or value in "\r\n" or value.isalnum():
                raise InputError(
                    f"{name} is {value!r}, but must be one character that is no letter or digit."
                )
        if self.thousands and self.thousands == (self.decimal or "."):
            raise InputError(
                f"thousands={self.thousands!r} is also the decimal separator. Set decimal=, too."
            )
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except (LookupError, TypeError) as error:
                raise InputError(
                    f"encoding={self.encoding!r} is unknown. Usual ones are utf-8, utf-16, latin-1 "
                    "and cp1252."
                ) from error

    @classmethod
    def of(cls, values: CsvOptions | Mapping[str, Any]) -> CsvOptions:
        """Return the options, also from their values by name.

        Raises:
            ArgumentError: A name is unknown.
        """
        if isinstance(values, CsvOptions):
            return values
        known = [each.name for each in fields(cls)]
        for name in values:
            if name not in known:
                raise ArgumentError(f"CsvOptions has no {name!r}. {did_you_mean(name, known)}")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the values that differ from the default, as JSON values."""
        default = asdict(CsvOptions())
        found = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {n: list(value) if isinstance(value, tuple) else value for n, value in found.items()}
