"""Count and run the programs that are compared, and write the page about them.

python -m flambeau_bench.less_code count
FLAMBEAU_DATA=… python -m flambeau_bench.less_code prepare DATA
python -m flambeau_bench.less_code run DATA keras tabular
python -m flambeau_bench.less_code run DATA
python -m flambeau_bench.less_code report

"run" without a task runs the programs that have not reached the required score yet, or whose code
changed since they did. A library is installed with ``uv sync --frozen --inexact --group programs``
in its folder of packages/bench/baselines; one that is not installed is reported as absent. The exit
code is 1 if a program failed or its score is below the required one, and 2 if a library is absent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flambeau_bench.less_code import results
from flambeau_bench.less_code.prepare import prepare as write_data
from flambeau_bench.less_code.programs import PEERS, TASKS, AbsentError, program, run_program
from flambeau_bench.syntax_nodes import code_hash, count_nodes

app = typer.Typer(help=__doc__, add_completion=False, rich_markup_mode=None)

Data = Annotated[Path, typer.Argument(help="The folder that prepare writes.")]


@app.command()
def count() -> None:
    """Show the nodes of all programs."""
    from flambeau.report import text_table

    rows = [[task, *(str(count_nodes(program(peer, task))) for peer in PEERS)] for task in TASKS]
    typer.echo(text_table(["task", *PEERS], rows))


@app.command()
def prepare(data: Data) -> None:
    """Write the data of the programs, and weights that take the place of published ones."""
    write_data(data)


@app.command()
def run(
    data: Data,
    peer: Annotated[str | None, typer.Argument(help=f"One of {', '.join(PEERS)}.")] = None,
    task: Annotated[str | None, typer.Argument(help=f"One of {', '.join(TASKS)}.")] = None,
    out: Annotated[Path, typer.Option(help="File to which results are added.")] = results.RESULTS,
) -> None:
    """Run programs and add their scores to the file of results."""
    known = results.read(out) if out.exists() else {}
    missed = absent = False
    for name in [task] if task else TASKS:
        for each in [peer] if peer else PEERS:
            last = known.get((each, name))
            same = last is not None and last["code"] == code_hash(program(each, name))
            if task is None and same and results.reached(last):
                continue
            try:
                score = run_program(each, name, data)
            except AbsentError as error:
                typer.echo(str(error), err=True)
                absent = True
                continue
            except RuntimeError as error:  # the other programs continue
                typer.echo(str(error), err=True)
                missed = True
                continue
            results.append(results.record_of(each, name, score), out)
            wanted = TASKS[name].required
            missed |= score < wanted
            typer.echo(f"{each:18}{name:22}{score:.4g} (required: {wanted:g})")
    if missed or absent:
        raise typer.Exit(1 if missed else 2)


@app.command()
def report() -> None:
    """Write the generated part of the page anew."""
    page = results.PAGE.read_text(encoding="utf-8")
    results.PAGE.write_text(results.written(page, results.read()), encoding="utf-8")


if __name__ == "__main__":
    app()
