"""What the verbs print: tables, JSON, sizes, and errors of missing packages."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import DependencyError, UserError


def table(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns two spaces apart; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def write_json(value: Any, target: str) -> None:
    """Writes `value` as JSON to the file `target`, or to stdout when it is "-"."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}.") from error


def require_place(target: Path) -> None:
    """UserError, in one sentence, unless the file can be written; asked before any work is done."""
    if target.is_dir() or not target.parent.is_dir():
        problem = "it is a directory" if target.is_dir() else f"there is no directory {target.parent}"
        raise UserError(f"cannot write {target}: {problem}.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise UserError(f"cannot write {target}: Permission denied.")


def mib(size_bytes: float) -> str:
    """Bytes as MiB, for people."""
    size = size_bytes / 2**20
    return f"{size:.1f} MiB" if size < 100 else f"{size:,.0f} MiB"


@contextlib.contextmanager
def needs_extra(extra: str, action: str) -> Iterator[None]:
    """Turns a missing package into one sentence that names the extra; our own missing modules stay a bug."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "edgeprune":
            raise
        raise DependencyError(
            f"{action} needs {package}, which is not installed: run `pip install 'edgeprune[{extra}]'`."
        ) from error
