"""The command line ``flambeau COMMAND``: each ``*_command`` module defines one command."""

from __future__ import annotations


def main() -> None:
    """Run ``flambeau``; typer is imported here, not together with the library."""
    from flambeau.cli.app import run

    run()


__all__ = ["main"]
