"""``CsvValues``: columns of text from a file as numbers, booleans and text with missing cells."""

from __future__ import annotations

import pyarrow as pa

from flambeau.data.reading import Reading
from flambeau.wording import name_some
from flambeau_tabular.columns.cells import pc
from flambeau_tabular.columns.csv_numbers import (
    FoundStyle,
    NumberStyle,
    contains,
    excel_reading,
    find_number_style,
    given_style,
    matches,
    to_numbers,
)
from flambeau_tabular.csv_options import MISSING_TEXTS, CsvOptions, Decimal

_DOUBTFUL, _LIKELY = 0.4, 0.8
_SAMPLE = 1000


class CsvValues:
    """Converts columns of text to values; later pieces of a file are read like the first one.

    Args:
        options: What is not inferred.
        delimiter: Separator of the cells of the file.

    Attributes:
        readings: How doubtful columns were read; a piece appends its own.
        found: What the cells had: columns of numbers by their separators, missing cells by text.
    """

    def __init__(self, options: CsvOptions, delimiter: str) -> None:
        self.options = options
        self.delimiter = delimiter
        self.readings: list[Reading] = []
        self.found: dict[str, int] = {}
        self._decimal: Decimal | None = options.decimal
        self._decimals: dict[str, Decimal] = {}  # of columns that an earlier piece made sure
        self._missing = pa.array(options.missing, pa.large_string())

    @property
    def decimal(self) -> str | None:
        """The decimal separator of all columns; None if no number has one, or they differ."""
        return self.options.decimal or self._only("decimal")

    @property
    def thousands(self) -> str | None:
        """The separator of thousands of all columns; None if no number has one, or they differ."""
        return self._only("thousands") if self.options.thousands is None else self.options.thousands

    def _only(self, what: str) -> str | None:
        found = [key.removeprefix(f"{what} ") for key in self.found if key.startswith(what)]
        return found[0][1:-1] if len(found) == 1 else None

    def convert(self, table: pa.Table) -> pa.Table:
        """Return the columns as numbers, booleans or text with missing cells."""
        columns: dict[str, pa.ChunkedArray] = {}
        found: dict[str, FoundStyle] = {}
        spaced: list[str] = []
        for name in table.column_names:
            cells, had_spaces = _trimmed(table.column(name))
            if had_spaces:
                spaced.append(name)
            missing = pc.is_in(cells, value_set=self._missing)
            columns[name] = pc.if_else(missing, pa.scalar(None, pa.large_string()), cells)
            known = columns[name].drop_null()
            style = None if name in self.options.text else self._number_style(known)
            if style is not None:
                found[name] = style
            elif _are_booleans(known):
                columns[name] = pc.equal(pc.utf8_lower(columns[name]), "true")
            else:
                self._read_missing(name, cells, missing)
                columns[name] = _compact(columns[name])
            table = table.drop_columns([name])  # frees the memory
        if spaced:
            what = f"All cells of {len(spaced)} columns start with a space, which is removed: "
            self.readings.append(Reading("columns", f"{what}{name_some(spaced)}."))
        self._decide(found)
        for name, style in found.items():
            columns[name] = self._numbers(name, columns[name], style)
        names = [name.strip() if name in spaced else name for name in columns]
        if len(set(names)) < len(names):
            names = list(columns)
        return pa.table(list(columns.values()), names=names)

    def _number_style(self, known: pa.ChunkedArray) -> FoundStyle | None:
        sample, given = pc.utf8_trim_whitespace(known[:_SAMPLE]), self.options.decimal
        if (thousands := self.options.thousands) is not None:
            style = NumberStyle(given or ".", thousands)
            if given_style(sample, style) is None:
                return None
            return given_style(pc.utf8_trim_whitespace(known), style)
        if find_number_style(sample) is None:
            return None
        trimmed = pc.utf8_trim_whitespace(known)
        found = find_number_style(trimmed)
        if given and found and found.style and found.sure and found.style.decimal != given:
            # Whole numbers have no decimal separator; others are no numbers then.
            return None if contains(trimmed, ".*[.,].*") else found
        return found

    def _decide(self, found: dict[str, FoundStyle]) -> None:
        """Decide the decimal separator of the file, if a column has a sure one."""
        if self._decimal is None:
            sure = [each.style.decimal for each in found.values() if each.style and each.sure]
            has_thousands = [
                each.style.decimal
                for each in found.values()
                if each.style and each.sure and each.style.thousands
            ]
            if "," in sure:
                self._decimal = ","
            elif "." in has_thousands:
                self._decimal = "."

    def _numbers(self, name: str, cells: pa.ChunkedArray, found: FoundStyle) -> pa.ChunkedArray:
        style, trimmed = found.style, pc.utf8_trim_whitespace(cells)
        if excel := excel_reading(trimmed.drop_null(), name):
            self.readings.append(excel)
        if found.sure and style is not None:
            self._count(style, trimmed.drop_null())
            if contains(trimmed.drop_null(), ".*[.,].*"):
                self._decimals.setdefault(name, style.decimal)
            return to_numbers(trimmed, style)
        # "1,234" or "1.234": with a decimal separator, or one of thousands.
        known = self._decimals.get(name) or self._decimal
        decimal = known or ("." if self.delimiter == "," or style is not None else ",")
        chosen = NumberStyle(decimal, "," if decimal == "." else ".")
        example = next(text for text in trimmed.drop_null().to_pylist() if not text.isdecimal())
        separator = "," if "," in example else "."
        is_sure = self.options.decimal is not None or name in self._decimals
        # Where semicolons separate cells, commas usually separate decimals.
        is_usual = separator == "." == decimal and self.delimiter != ";"
        if not is_sure and not is_usual:
            meaning = "a decimal separator" if separator == decimal else "a separator of thousands"
            self._doubt_number(name, example, separator, meaning, decimal)
        self._count(chosen, trimmed.drop_null())
        return to_numbers(trimmed, chosen)

    def _count(self, style: NumberStyle, known: pa.ChunkedArray) -> None:
        """Record which separators the numbers of a column have."""
        for name, characters in (("decimal", style.decimal), ("thousands", style.thousands)):
            for character in characters:
                if pc.any(pc.match_substring(known, character), min_count=0).as_py():
                    key = f"{name} {character!r}"
                    self.found[key] = self.found.get(key, 0) + 1

    def _doubt_number(
        self, name: str, example: str, separator: str, meaning: str, decimal: str
    ) -> None:
        other = "." if decimal == "," else ","
        why = "as in other columns" if self._decimal else f"as the delimiter is {self.delimiter!r}"
        self.readings.append(
            Reading(
                "csv",
                f"In numbers of column {name!r} such as {example}, {separator!r} could separate "
                f"decimals or thousands; it is read as {meaning}, {why}.",
                {"example": example},
                confidence=_DOUBTFUL,
                override="For the other meaning pass "
                f"TabularOptions(csv=CsvOptions(decimal={other!r})), on the command line "
                f"--decimal '{other}'.",
            )
        )

    def _read_missing(self, name: str, cells: pa.ChunkedArray, missing: pa.ChunkedArray) -> None:
        """Append a reading if a column of text has texts that are read as missing."""
        counted = {
            str(each["values"]): each["counts"]
            for each in pc.value_counts(cells.filter(missing)).to_pylist()
            if each["values"] != ""
        }
        for text, count in counted.items():
            key = f"missing {text!r}"
            self.found[key] = self.found.get(key, 0) + count
        if not counted or tuple(self.options.missing) != MISSING_TEXTS:
            return
        known = cells.filter(pc.invert(missing))
        # "NA" among codes of two capital letters could be Namibia.
        is_code = "NA" in counted and matches(known[:_SAMPLE], "[A-Z]{2}")
        shown = name_some(f"{count:,} cells {text!r}" for text, count in counted.items())
        self.readings.append(
            Reading(
                "csv",
                f"In column {name!r}, {shown} are read as missing.",
                counted,
                confidence=_DOUBTFUL if is_code else _LIKELY,
                override="To keep them as text pass "
                "TabularOptions(csv=CsvOptions(missing=[''])), on the command line --missing ''.",
            )
        )


def _trimmed(cells: pa.ChunkedArray) -> tuple[pa.ChunkedArray, bool]:
    """Return the cells without surrounding spaces if all start with one, and whether they did."""
    for part in (cells[:_SAMPLE], cells):
        starts = pc.or_(pc.starts_with(part, " "), pc.equal(part, ""))
        if not pc.all(starts, min_count=0).as_py():
            return cells, False
    if not contains(cells, " .*"):
        return cells, False  # all are empty
    return pc.utf8_trim_whitespace(cells), True


def _are_booleans(known: pa.ChunkedArray) -> bool:
    pattern = "(?i:true|false)"
    return len(known) > 0 and matches(known[:_SAMPLE], pattern) and matches(known, pattern)


def _compact(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the cells as dictionary cells, if texts repeat."""
    sample = cells[:_SAMPLE]
    return (
        cells.dictionary_encode() if 2 * pc.count_distinct(sample).as_py() < len(sample) else cells
    )
