"""The retention tables as Markdown: all scores, by question type, by object size, and where random wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from losses import base, groups

KEEPS = (1.0, 0.5, 0.25, 0.1, 0.05)
#: variant -> its precision in words
PRECISION = {None: "all in fp32", "cpu-vision.fp32-decoder.int8": "vision in fp32 and decoder in int8"}
#: the keep ratios of the tables by type and size
DETAILED = (0.1, 0.05)


def page(report: dict[str, Any], source: str) -> str:
    """Everything between the markers."""
    cases = {case["case"]: case for case in report["cases"]}
    parts = [intro(report, source, cases), overall(report, cases)]
    for field, title in (("category", "question type"), ("size", "size of the smallest object")):
        for keep in DETAILED:
            parts.append(f"By {title} at keep {keep:g}:\n\n" + detailed(report, cases, field, keep))
    parts.append(
        "Where random selection is ahead (mean of its seeds above the method's score):\n\n" + random_wins(report, cases)
    )
    if report["notes"]:
        parts.append("Notes of the run:\n\n" + "\n".join(f"- {note}." for note in report["notes"]))
    return "\n\n".join(parts) + "\n"


def intro(report: dict[str, Any], source: str, cases: dict[str, Any]) -> str:
    asked = report["answered"]
    answered = Counter(row["id"] for row in report["results"])
    whole = [key for key, count in answered.items() if count == len(cases)]
    pictures = len({key.rpartition("-")[0] for key in whole})
    half = max((case["interval"][1] - case["interval"][0]) / 2 for case in cases.values())
    partial = " The run was ended before all pictures were asked about." if report["partial"] else ""
    return (
        f"The demo model, {PRECISION[report['variant']]}, "
        f"on {asked} questions about {pictures} pictures of the demo benchmark's test split, exact "
        f"match, greedy decoding, ONNX Runtime {report['onnxruntime']}.{partial} Every cell holds the same questions; "
        f"a cell's 95 % interval (Wilson) is at most ± {half:.3f}. `+` and `-`: above or below random at the same K by "
        f"a paired test, p < 0.05 after Holm's correction over the methods of that column. Raw answers: `{source}`."
    )


def overall(report: dict[str, Any], cases: dict[str, Any]) -> str:
    """Method against keep ratio."""
    lines = ["| method | " + " | ".join(f"keep {keep:g}" for keep in KEEPS) + " |", "|---" * (len(KEEPS) + 1) + "|"]
    found = groups(report)
    marks = {keep: significant(report, cases, keep) for keep in KEEPS}
    for method in dict.fromkeys(name for name, _ in found):
        cells = [_cell(report, cases, found.get((method, keep)), marks[keep].get(method, "")) for keep in KEEPS]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    if "text-only" in cases:
        floor = f"{cases['text-only']['score']:.3f}"
        lines.append(f"| text only | {floor} |" + " |" * (len(KEEPS) - 1))
    return "\n".join(lines)


def _cell(report: dict[str, Any], cases: dict[str, Any], names: list[str] | None, mark: str) -> str:
    if not names:
        return ""
    if base(cases[names[0]]["method"]) != "random":
        return f"{cases[names[0]]['score']:.3f}{' ' + mark if mark else ''}"
    entry = next(entry for entry in report["random"] if entry["keep"] == cases[names[0]]["keep"])
    low, high = entry["interval"] or (entry["score"], entry["score"])
    spread = "" if low == high else f" ({low:.3f} to {high:.3f})"
    return f"{entry['score']:.3f}{spread}"


def significant(report: dict[str, Any], cases: dict[str, Any], keep: float) -> dict[str, str]:
    """Method -> + or -, by Holm's step-down over the comparisons with random at the K of a keep ratio."""
    kept = {
        case["kept_tokens"]
        for case in cases.values()
        if case["keep"] == keep and base(case["method"] or "") == "random"
    }
    rows = []
    for test in report["tests"]:
        if test["kept_tokens"] in kept and "random" in (test["first"], test["second"]):
            sign = 1 if test["second"] == "random" else -1
            rows.append((test["p"], test["first"] if sign > 0 else test["second"], sign * test["difference"]))
    found: dict[str, str] = {}
    for place, (p, method, difference) in enumerate(sorted(rows)):
        if p * (len(rows) - place) >= 0.05:
            break
        found[method] = "+" if difference > 0 else "-"
    return found


def detailed(report: dict[str, Any], cases: dict[str, Any], field: str, keep: float) -> str:
    """Method against the values of a field, with the number of questions in the header."""
    first = cases["none@1"]["by"][field]
    values = sorted(first)
    head = [f"{value} ({first[value]['items']})" for value in values]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    rows = [("all tokens", "none@1")]
    rows += [
        (f"`{name}`", names[0]) for (name, ratio), names in groups(report).items() if ratio == keep and name != "random"
    ]
    for title, name in [*rows, ("text only", "text-only")]:
        if name in cases:
            by = cases[name]["by"][field]
            lines.append(f"| {title} | " + " | ".join(f"{by[value]['score']:.3f}" for value in values) + " |")
    for entry in report["random"]:
        if entry["keep"] == keep:
            lines.insert(
                -1, "| `random` | " + " | ".join(_spread(entry["by"][field][value]) for value in values) + " |"
            )
    return "\n".join(lines)


def _spread(entry: dict[str, Any]) -> str:
    return f"{entry['score']:.3f}"


def random_wins(report: dict[str, Any], cases: dict[str, Any]) -> str:
    """A line per keep ratio and kind of question with the methods that random beats."""
    lines = [line for entry in report["random"] if entry["keep"] < 1 for line in _wins(report, cases, entry)]
    return "\n".join(lines) or "- nowhere in this run."


def _wins(report: dict[str, Any], cases: dict[str, Any], entry: dict[str, Any]) -> Iterator[str]:
    keep = entry["keep"]
    names = {name: found[0] for (name, ratio), found in groups(report).items() if ratio == keep and name != "random"}
    behind = [name for name, case in names.items() if cases[case]["score"] < entry["score"]]
    if behind:
        yield f"- keep {keep:g}, all questions ({entry['score']:.3f}): {', '.join(behind)}"
    for field in ("category", "size"):
        for value, found in entry["by"][field].items():
            worse = [(name, cases[case]["by"][field][value]["score"]) for name, case in names.items()]
            shown = [f"{name} {score:.3f}" for name, score in worse if score < found["score"]]
            if shown and np.isfinite(found["score"]):
                yield f"- keep {keep:g}, {field} {value} ({found['score']:.3f}): {', '.join(shown)}"
