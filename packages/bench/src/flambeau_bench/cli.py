"""``flambeau bench``: list the cases, measure them, report the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flambeau_bench.case import SIZES

RESULTS = Path("bench-results")

app = typer.Typer(
    help="Measure flambeau against hand-written programs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("list")
def list_cases() -> None:
    """Show all cases with their variants and suites, without measuring."""
    from flambeau.report import text_table
    from flambeau_bench.cases import CASES

    rows: list[list[str]] = []
    for case in CASES.values():
        size = next(iter(case.sizes.values()))
        variants = "; ".join(comparison.variant for comparison in case.comparisons(size))
        rows.append([case.name, ", ".join(case.sizes), case.question, variants])
    typer.echo(text_table(["case", "suites", "question", "variants"], rows))
    typer.echo("Run a case or a suite: flambeau bench run loop-overhead, flambeau bench run quick")


@app.command("run")
def run_cases(
    target: Annotated[str, typer.Argument(help=f"A case or a suite: {', '.join(SIZES)}.")],
    pairs: Annotated[int | None, typer.Option(help="Number of pairs per comparison.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to which the results are added.")] = RESULTS,
    size: Annotated[str | None, typer.Option(help="Size of a case: quick, cpu or gpu.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short for --size quick.")] = False,
    variants: Annotated[
        list[str] | None, typer.Option("--variant", help="Run only this variant; repeatable.")
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Run only this case of a suite, or FILE.py with a CASE; repeatable."),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(help="Peers by name or path, with commas; all by default. Installed by uv."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure peers anew that the folder already has.")
    ] = False,
) -> None:
    """Measure, add the results to a folder and show them. Exit with 1 if a limit is missed."""
    from flambeau_bench import suites
    from flambeau_bench.cases import CASES
    from flambeau_bench.peers.peer_run import PeerOptions
    from flambeau_bench.user_cases import with_user_cases
    from flambeau_bench.verdict_table import terminal_table

    only = case or []
    cases = with_user_cases(CASES, [target, *only])
    names = [Path(name).stem if name.endswith(".py") else name for name in [target, *only]]
    chosen = suites.select_cases(names[0], cases, "quick" if quick else size, names[1:])
    named = tuple(name.strip() for name in peers.split(",") if name.strip()) if peers else ()
    records = suites.run(
        chosen,
        out,
        pairs=pairs,
        variants=variants or (),
        peers=PeerOptions(named, again),
        log=lambda line: typer.echo(line, err=True),
    )
    typer.echo(terminal_table(records))
    typer.echo(f"The results are in {out}/. To write a report: flambeau bench report {out}")
    failures = {"MISSED", "GATE FAILED", "INVALID"}
    if any(record.get("verdict") in failures for record in records):
        raise typer.Exit(1)


@app.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of the results.")] = RESULTS,
) -> None:
    """Write report.md and its figures beside the results, and show the table."""
    from flambeau_bench.page import latest_records, write_report
    from flambeau_bench.records import read
    from flambeau_bench.verdict_table import terminal_table

    path = write_report(folder)
    typer.echo(terminal_table(latest_records(read(folder))))
    typer.echo(f"The report is {path}.")


@app.command("compare")
def compare(
    before: Annotated[Path, typer.Argument(help="Folder of the results of run A.")],
    after: Annotated[Path, typer.Argument(help="Folder of the results of run B.")],
) -> None:
    """Show what became slower or faster from A to B beyond the noise. Exit with 1 on a loss."""
    from flambeau_bench.comparison import changes_as_markdown, compare_runs, enough_pairs
    from flambeau_bench.page import latest_records
    from flambeau_bench.records import read

    changes = compare_runs(latest_records(read(before)), latest_records(read(after)))
    if not changes:
        typer.echo("The runs have no variant in common.")
        return
    typer.echo(changes_as_markdown(changes))
    if any(change.verdict == "too few pairs" for change in changes):
        count = enough_pairs()
        typer.echo(
            f"Too few pairs for a verdict in some figures: measure at least {count} in both runs "
            f"(--pairs {count})."
        )
    if any(change.verdict == "slower" for change in changes):
        raise typer.Exit(1)
