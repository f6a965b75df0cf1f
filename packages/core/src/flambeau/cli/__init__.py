"""The command line: ``flambeau COMMAND``, one file a command."""

from __future__ import annotations


def main() -> None:
    """The entry point of ``flambeau``; typer is imported here, not with the library."""
    from flambeau.cli.app import run

    run()


__all__ = ["main"]
