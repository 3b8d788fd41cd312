"""What the generators of tables share: write the file, or with --check say that it is out of date."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable


def write_or_check(output: pathlib.Path, render: Callable[[], str], description: str | None) -> int:
    """Runs a generator's command line; returns its exit code, 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    arguments = parser.parse_args()
    text = render()
    if not arguments.check:
        output.write_text(text, encoding="utf-8")
        return 0
    if output.read_text(encoding="utf-8") == text:
        return 0
    print(f"{output.name} is out of date: run python tools/{pathlib.Path(sys.argv[0]).name}", file=sys.stderr)
    return 1
