"""``DataCommand``: a command that reads data, whose help lists the options of each kind of data."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from flambeau import domain as domains


class DataCommand(TyperCommand):
    """Shows in ``--help`` what installed domains add; they are imported for the help alone."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The command's own options, then a section for each domain that has some."""
        super().format_options(ctx, formatter)
        for found in domains.discover().values():
            if found.domain is None or not found.domain.cli_options:
                continue
            rows = [(f"--{option.name}", option.help) for option in found.domain.cli_options]
            with formatter.section(f"Options for the domain {found.name}"):
                formatter.write_dl(rows)
