"""``flambeau difference FIRST SECOND``: how the weights of two saved models differ, by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flambeau.artefact.saved_weights import read_saved_weights
from flambeau.inspect.model_difference import model_difference

_WHAT = "An export, a checkpoint, the folder of a run (its newest checkpoint), or a weights file."


def difference(
    first: Annotated[Path, typer.Argument(help=_WHAT)],
    second: Annotated[Path, typer.Argument(help="The same for the other model.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a figure to this file (.png, .pdf, .svg).")
    ] = None,
) -> None:
    """Show how the weights of two saved models differ, layer by layer; no code is loaded."""
    one, other = read_saved_weights(first), read_saved_weights(second)
    found = model_difference(one, other, names=(str(first), str(second)))
    typer.echo(str(found))
    if plot is not None:
        found.plot(plot)
        typer.echo(f"The figure is in {plot}.")
