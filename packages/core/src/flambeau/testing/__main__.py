"""``python -m flambeau.testing NAME``: run all conformance checks on an installed domain."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from flambeau.errors import FlambeauError
from flambeau.testing.conformance import check_domain


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return 0 if all checks pass, 1 if one fails, 2 for invalid arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m flambeau.testing",
        description="Check that a domain satisfies its contract with flambeau.",
    )
    parser.add_argument("name", help="an installed domain, or package.module:DOMAIN")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="also build this architecture, in addition to that of the plan; can be repeated",
    )
    parser.add_argument(
        "--samples", type=int, default=64, metavar="N", help="size of the demo data (default 64)"
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
