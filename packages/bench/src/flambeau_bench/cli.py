"""``flambeau bench``: what can be measured, measuring it, and telling what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flambeau_bench.case import SIZES

RESULTS = Path("bench-results")

app = typer.Typer(
    help="Measures flambeau against programs written by hand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("list")
def list_cases() -> None:
    """Shows every case, its variants and the suites that it is in. Measures nothing."""
    from flambeau.report import text_table
    from flambeau_bench.cases import CASES

    rows: list[list[str]] = []
    for case in CASES.values():
        size = next(iter(case.sizes.values()))
        variants = ", ".join(comparison.variant for comparison in case.comparisons(size))
        rows.append([case.name, ", ".join(case.sizes), case.asks, variants])
    typer.echo(text_table(["case", "suites", "question", "variants"], rows))
    typer.echo("Run a case or a suite: flambeau bench run loop-overhead, flambeau bench run quick")


@app.command("run")
def run_cases(
    target: Annotated[str, typer.Argument(help=f"A case, or a suite: {', '.join(SIZES)}.")],
    pairs: Annotated[int | None, typer.Option(help="Pairs of each comparison.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to which results are added.")] = RESULTS,
    size: Annotated[str | None, typer.Option(help="Of a case: quick, cpu or gpu.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short for --size quick.")] = False,
    variants: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this one; may be given again.")
    ] = None,
) -> None:
    """Measures, adds the results to a folder, and shows them. Ends with 1 where a bar is missed."""
    from flambeau_bench import suites
    from flambeau_bench.cases import CASES
    from flambeau_bench.table import table

    chosen = suites.cases_of(target, CASES, "quick" if quick else size)
    records = suites.run(
        chosen,
        out,
        pairs=pairs,
        variants=variants or (),
        tell=lambda text: typer.echo(text, err=True),
    )
    typer.echo(table(records))
    typer.echo(f"The results are in {out}/; a page of them: flambeau bench report {out}")
    bad = {"MISSED", "GATE FAILED", "VOID"}
    if any(record.get("verdict") in bad for record in records):
        raise typer.Exit(1)


@app.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="The folder with the results.")] = RESULTS,
) -> None:
    """Writes report.md with figures beside the results, and shows the table."""
    from flambeau_bench.page import latest, write_report
    from flambeau_bench.records import read
    from flambeau_bench.table import table

    path = write_report(folder)
    typer.echo(table(latest(read(folder))))
    typer.echo(f"The page is {path}.")
