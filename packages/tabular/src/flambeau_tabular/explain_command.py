"""``flambeau explain``: how much each column of a row contributes to its prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_MOST_ROWS, _FEWEST_BACKGROUND = 10, 30

app = typer.Typer(
    add_completion=False,
    # A group of commands would take options after the arguments for names of commands.
    context_settings={"allow_interspersed_args": True},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def explain_rows(
    model: Annotated[Path, typer.Argument(help="A folder that `flambeau fit` exported.")],
    rows: Annotated[Path, typer.Argument(help="A CSV, TSV or Parquet file with rows.")],
    row: Annotated[
        list[int] | None,
        typer.Option(help="Number of a row, from 0; repeatable. Default: all of at most 10."),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(help="File of rows to compare with, such as those of train. Default: ROWS."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(help="The class or target to explain. Default: the predicted class."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Least number of random orders.")] = 256,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")] = False,
) -> None:
    """Show how much each column of a row of a table contributes to its prediction."""
    from flambeau import Predictor
    from flambeau_tabular.explain import explain

    predictor = Predictor.load(model)
    table = _read(predictor, rows)
    others = table if background is None else _read(predictor, background)
    if background is None and len(others) < _FEWEST_BACKGROUND:
        raise _too_few(rows, len(others))
    for number in _chosen(row, len(table), rows):
        found = explain(
            predictor, table.take([number]), _drawn(others), output=output, samples=samples
        )
        if as_json:
            typer.echo(json.dumps({"row": number, **_values(found)}, ensure_ascii=False))
        else:
            typer.echo(f"row {number}, {found}\n")


def _read(predictor: Any, path: Path) -> Any:
    """Return the rows of a file, read as the table on which the model was trained."""
    from flambeau.artefact.read_like import reading_options
    from flambeau_tabular.assemble import read_file
    from flambeau_tabular.csv_options import CsvOptions

    options = {} if predictor.record is None else reading_options(predictor.record)
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    return read_file(path, None if is_parquet else CsvOptions.of(options.get("csv", {})))


def _drawn(frame: Any) -> Any:
    """Return at most 256 rows, the same in each call."""
    import numpy as np

    most = 256
    if len(frame) <= most:
        return frame
    return frame.take(np.sort(np.random.default_rng(0).choice(len(frame), most, replace=False)))


def _chosen(rows: list[int] | None, n: int, path: Path) -> list[int]:
    from flambeau.errors import ArgumentError

    if rows is None and n > _MOST_ROWS:
        raise ArgumentError(f"{path} has {n:,} rows. Choose some of them: --row 0 --row 5.")
    chosen = list(range(n)) if rows is None else rows
    for number in chosen:
        if not 0 <= number < n:
            raise ArgumentError(f"--row {number}, but {path} has the rows 0 to {n - 1}.")
    return chosen


def _too_few(path: Path, n: int) -> Exception:
    from flambeau.errors import ArgumentError

    return ArgumentError(
        f"A row is compared with others, but {path} has only {n:,}. Give rows like those in train: "
        "--background train.csv."
    )


def _values(found: Any) -> dict[str, Any]:
    names = ("output", "prediction", "baseline", "contributions", "errors")
    return {name: getattr(found, name) for name in names}
