"""The constructors of ``TabularData``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from flambeau.data.data import Data
from flambeau.data.split import Rows, Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.targets import Targets
from flambeau.errors import explains_arguments
from flambeau_tabular.column_kind import Override
from flambeau_tabular.csv_options import CsvOptions
from flambeau_tabular.from_arrays import columns_of_arrays, columns_of_targets
from flambeau_tabular.options import TabularOptions, Target
from flambeau_tabular.out_of_scope import OneFile, argument_hint, one_path

if TYPE_CHECKING:
    from flambeau_tabular.columns import Frame
    from flambeau_tabular.predicted_frame import LabelType
    from flambeau_tabular.structure import Structure


def _option_hint(name: str) -> str:
    known = name in TabularOptions.__dataclass_fields__
    return f"Set it with options=TabularOptions({name}=…)." if known else argument_hint(name)


@explains_arguments(_option_hint)
class TabularDataConstructors(Data):
    """The class methods that build ``TabularData``."""

    @abstractmethod
    def __init__(
        self,
        frame: Frame,
        targets: Targets | Mapping[str, Targets],
        split: Split,
        options: TabularOptions,
        *,
        target_names: Sequence[str],
        structure: Structure | None = None,
        notes: Sequence[str] = (),
        label_type: LabelType | Mapping[str, LabelType] | None = None,
        kept: Rows | None = None,
    ) -> None: ...

    @classmethod
    def from_df(  # noqa: PLR0913 each part of the split is an argument
        cls,
        frame: Any,
        target: Target | None = None,
        *,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: Any = None,
        seed: int = 0,
        stratify: bool | Literal["auto"] = "auto",
        time: str | None = None,
        group: str | None = None,
        weight: str | None = None,
        kinds: Mapping[str, Override] | None = None,
        options: TabularOptions | None = None,
    ) -> Self:
        """Read a frame of any library (pandas, polars, pyarrow, DuckDB) or a mapping of columns.

        The frame is not changed. Rows without a target are left out and counted.

        Args:
            frame: The table.
            target: Column to predict, or several columns.
            valid: Size of the validation part: a fraction below 1 or a number of rows; 0 for none;
                or a separate frame.
            test: The same for the test part.
            calibration: The same for the part on which predictions are calibrated.
            split: A ``Split``, or the column with the part of each row; False ignores such a
                column, None searches for one.
            seed: Seed of a random split.
            stratify: Whether a random split keeps the class proportions; "auto" does so for
                classification.
            time: See `TabularOptions`.
            group: See `TabularOptions`.
            weight: See `TabularOptions`.
            kinds: See `TabularOptions`.
            options: Further options.

        Raises:
            InputError: A column is missing or its cells cannot be used; the message names the
                column and the row.
            SplitError: The parts cannot be formed.
        """
        given = {"time": time, "group": group, "weight": weight, "kinds": kinds}
        chosen = (options or TabularOptions()).updated(given)
        request = SplitRequest(valid, test, split, seed, stratify, calibration)
        from flambeau_tabular.assemble import assemble
        from flambeau_tabular.columns import read_frame

        return cls(**assemble(read_frame(frame), target, request, chosen))

    @classmethod
    def from_csv(  # noqa: PLR0913
        cls,
        path: OneFile,
        target: Target | None = None,
        *,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: Any = None,
        seed: int = 0,
        stratify: bool | Literal["auto"] = "auto",
        time: str | None = None,
        group: str | None = None,
        weight: str | None = None,
        kinds: Mapping[str, Override] | None = None,
        options: TabularOptions | None = None,
    ) -> Self:
        """Read a CSV or TSV file, also compressed; for the other arguments see `from_df`.

        Delimiter, decimal separator and missing cells are inferred for each file; the plan's "csv"
        shows them, and ``options=TabularOptions(csv=CsvOptions(…))`` sets them. ``valid``, ``test``
        and ``calibration`` may be files with the same columns.

        Raises:
            InputError: A file is missing or no table; further as `from_df`.
        """
        from flambeau_tabular.assemble import assemble, read_file, read_files_of_parts

        given = {"time": time, "group": group, "weight": weight, "kinds": kinds}
        chosen = (options or TabularOptions()).updated(given)
        csv = chosen.csv_options
        request = SplitRequest(valid, test, split, seed, stratify, calibration)
        request = read_files_of_parts(request, csv)
        return cls(**assemble(read_file(one_path(path), csv), target, request, chosen))

    @classmethod
    def from_parquet(  # noqa: PLR0913
        cls,
        path: OneFile,
        target: Target | None = None,
        *,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: Any = None,
        seed: int = 0,
        stratify: bool | Literal["auto"] = "auto",
        time: str | None = None,
        group: str | None = None,
        weight: str | None = None,
        kinds: Mapping[str, Override] | None = None,
        options: TabularOptions | None = None,
    ) -> Self:
        """Read a Parquet file; for the other arguments see `from_df`.

        ``valid``, ``test`` and ``calibration`` may be files with the same columns.

        Raises:
            InputError: A file is missing or no table; further as `from_df`.
        """
        from flambeau_tabular.assemble import assemble, read_file, read_files_of_parts

        given = {"time": time, "group": group, "weight": weight, "kinds": kinds}
        chosen = (options or TabularOptions()).updated(given)
        request = SplitRequest(valid, test, split, seed, stratify, calibration)
        request = read_files_of_parts(request)
        return cls(**assemble(read_file(one_path(path)), target, request, chosen))

    @classmethod
    def from_arrays(  # noqa: PLR0913
        cls,
        numbers: Any | None,
        targets: Any,
        *,
        categories: Any | None = None,
        names: Sequence[str] | None = None,
        sample_weight: Any | None = None,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: Split | None = None,
        seed: int = 0,
        stratify: bool | Literal["auto"] = "auto",
        options: TabularOptions | None = None,
    ) -> Self:
        """Read arrays of numbers ``(n, m)`` and of categories ``(n, c)``, and targets ``(n, …)``.

        Args:
            numbers: Numbers, one column per feature; None without.
            targets: One target per row, or one column per target.
            categories: Categories as numbers or text; None without.
            names: Names of the columns, first those of the numbers; by default "number_0", …,
                "category_0", ….
            sample_weight: Weight of each row, ``(n,)``.
            valid: See `from_df`.
            test: See `from_df`.
            calibration: See `from_df`.
            split: A ``Split``; None for a random one.
            seed: See `from_df`.
            stratify: See `from_df`.
            options: Further options.

        Raises:
            InputError: An array has another shape; further as `from_df`.
        """
        from flambeau_tabular.assemble import assemble
        from flambeau_tabular.columns import read_frame

        columns, kinds = columns_of_arrays(numbers, categories, names)
        found = columns_of_targets(targets)
        weight = None if sample_weight is None else "sample_weight"
        if sample_weight is not None:
            columns["sample_weight"] = sample_weight
        chosen = options or TabularOptions()
        chosen = chosen.updated({"kinds": {**kinds, **(chosen.kinds or {})}, "weight": weight})
        request = SplitRequest(valid, test, split, seed, stratify, calibration)
        frame = read_frame({**columns, **found}, "arrays")
        return cls(**assemble(frame, tuple(found), request, chosen))

    @classmethod
    def from_path(cls, path: str | Path, options: Mapping[str, Any] | None = None) -> Self:
        """Read the file of ``flambeau fit PATH``; ``options`` come from the command line."""
        given = dict(options or {})
        target = given.pop("target", None)
        scored = given.pop("evaluate", None)
        sizes = {
            name: given.pop(name) for name in ("valid", "test", "calibration") if name in given
        }
        split = given.pop("split", None)
        request = SplitRequest(**sizes, split=False if split == "none" else split, scored=scored)
        names = (each.name for each in fields(CsvOptions) if each.name != "text")
        csv = {name: given.pop(name) for name in names if name in given}
        reading = TabularOptions(**given, csv=CsvOptions.of(csv) if csv else None)
        from flambeau_tabular.assemble import assemble, read_file

        frame = read_file(Path(path), reading.csv_options)
        if isinstance(target, str) and target not in frame.column_names and "," in target:
            target = [name.strip() for name in target.split(",") if name.strip()]
        return cls(**assemble(frame, target, request, reading))
