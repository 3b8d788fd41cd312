"""Tables of the documentation that are written from the raw results under benchmarks/results, between two marks:
`<!-- NAME: how to make it -->` and `<!-- end of NAME -->`. Tests compare the two."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any, Final

REPO: Final = pathlib.Path(__file__).resolve().parent.parent
RESULTS: Final = REPO / "benchmarks" / "results"


def newest(name: str) -> dict[str, Any]:
    """The newest committed result `<date>-NAME.json`. FileNotFoundError: there is none."""
    files = sorted(RESULTS.glob(f"*-{name}.json"))
    if not files:
        raise FileNotFoundError(f"no result {name} under {RESULTS}")
    made: dict[str, Any] = json.loads(files[-1].read_text(encoding="utf-8"))
    return made


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def marked(text: str, name: str) -> tuple[int, int]:
    """Where the part between the marks of NAME begins and ends. ValueError: a mark is missing."""
    start, end = text.index(f"<!-- {name}: "), text.index(f"<!-- end of {name} -->")
    return text.index("-->\n", start) + len("-->\n"), end


def part(page: pathlib.Path, name: str) -> str:
    """What stands between the marks."""
    text = page.read_text(encoding="utf-8")
    start, end = marked(text, name)
    return text[start:end]


def replace(page: pathlib.Path, name: str, table: str) -> None:
    """Puts `table` between the marks."""
    text = page.read_text(encoding="utf-8")
    start, end = marked(text, name)
    page.write_text(text[:start] + table + "\n" + text[end:], encoding="utf-8")
