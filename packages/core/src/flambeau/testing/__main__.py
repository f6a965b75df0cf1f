"""``python -m flambeau.testing NAME``: all checks on an installed domain."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flambeau.errors import FlambeauError
from flambeau.testing.kit import check_domain


def main(arguments: Sequence[str] | None = None) -> int:
    """The report on the named domain; 0 where every check holds, 1 where not, 2 on wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m flambeau.testing",
        description="Check that a domain keeps flambeau's contract.",
    )
    parser.add_argument("name", help="an installed domain, or package.module:DOMAIN")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="build this architecture too, besides the one that the plan chooses; repeatable",
    )
    parser.add_argument(
        "--samples", type=int, default=64, metavar="N", help="size of the made data (default 64)"
    )
    given = parser.parse_args(arguments)
    try:
        report = check_domain(given.name, models=given.model, n_samples=given.samples)
    except FlambeauError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{report}\n")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
