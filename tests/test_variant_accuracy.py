"""The table of the cpu variants' answers in docs/targets.md is that of the answers kept, and within its bounds."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from benchmarks import docs_tables

REPO = pathlib.Path(__file__).resolve().parents[1]
#: row of the table -> variant, and how many of 100 answers it may lose to fp32
ROWS = {
    "fp32": ("canonical", 0.0),
    "int8": ("cpu-int8", 1.0),
    "vision int8, decoder int8+int4": ("cpu-vision.int8-decoder.int8-int4", 3.0),
    "int4": ("cpu-int4", 3.0),
}


def cells(name: str) -> list[str]:
    """What the table says of a variant, without its name."""
    section = (REPO / "docs" / "targets.md").read_text(encoding="utf-8").split("## Answers of the CPU variants")[1]
    (line,) = [line for line in section.splitlines() if line.startswith(f"| {name} | ")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def verdicts(found: dict[str, Any]) -> list[bool]:
    return [answer["right"] for scene in found.values() for answer in scene["answers"]]


@pytest.mark.parametrize("name", ROWS)
def test_docs_say_what_was_answered(name: str) -> None:
    result = docs_tables.newest("variant-accuracy")
    slug, points = ROWS[name]
    exact, made = verdicts(result["canonical"]), verdicts(result[slug])
    asked = len(exact)
    assert asked == len(made) >= 300
    assert sum(made) >= sum(exact) - asked * points / 100
    others = sum(a != b for a, b in zip(exact, made, strict=True))
    cosines = [scene["cosine"] for scene in result[slug].values()]
    if name == "int8":
        assert min(cosines) >= 0.999
    right, share, different, lowest, mean, _ = cells(name)
    assert (int(right), share) == (sum(made), f"{100 * sum(made) / asked:.1f} %")
    assert different == (str(others) if name != "fp32" else "")
    assert [float(lowest), float(mean)] == pytest.approx([min(cosines), sum(cosines) / len(cosines)], abs=5.1e-6)
