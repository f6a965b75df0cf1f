"""``CommandWithDomainHelp``: a command whose ``--help`` lists the options of installed domains."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from flambeau.cli.data_arguments import READING_OPTIONS, UnknownOptionError, repeated_option
from flambeau.domain import installed_domains


class CommandWithDomainHelp(TyperCommand):
    """A command with options of domains; the domains are imported only to show its help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options of the command, then one section for each domain with options."""
        super().format_options(ctx, formatter)
        for found in installed_domains().values():
            options = found.domain.cli_options.get(self.name or "", ()) if found.domain else ()
            if not options:
                continue
            rows = [(f"--{option.name}", option.help) for option in options]
            with formatter.section(f"Options for the domain {found.name}"):
                formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words; an option that says how the data are read may be given only once."""
        words = [word.partition("=")[0] for word in args[: [*args, "--"].index("--")]]
        for name in READING_OPTIONS:
            if words.count(name) > 1:
                raise repeated_option(name)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error for an unknown option also knows those of the command."""
        try:
            return super().invoke(ctx)
        except UnknownOptionError as error:
            own = [name.removeprefix("--") for each in self.params for name in each.opts]
            raise UnknownOptionError(*error.found, own) from None
