"""Write the retention table from the report of an `edgeprune eval` grid: `python retention_table.py REPORT.json`.

benchmarks/results/DATE-retention.json   every answer of every case, without the report's repetitions
docs/pruning.md                          the tables, between the markers
edgeprune/assets/retention.json          what was lost at which keep ratio, for the warning of `export`
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from losses import retained
from wording import page

REPO = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- retention: begin -->", "<!-- retention: end -->"
_REPEATED = ("results", "cases")


def raw(report: dict[str, Any]) -> dict[str, Any]:
    """The report with the answers as one list per case, in the order of `ids`, of the items that all cases answered."""
    by_case: dict[str, dict[str, dict[str, Any]]] = {}
    for row in report["results"]:
        by_case.setdefault(row["case"], {})[row["id"]] = row
    ids = [key for key in next(iter(by_case.values())) if all(key in found for found in by_case.values())]
    cases = [
        {
            **{key: value for key, value in case.items() if key != "by"},
            "scores": [int(by_case[case["case"]][key]["score"]) for key in ids],
            "texts": [by_case[case["case"]][key]["text"] for key in ids],
        }
        for case in report["cases"]
    ]
    rest = {key: value for key, value in report.items() if key not in _REPEATED}
    return {**rest, "work_file": None, "ids": ids, "cases": cases}


def dump(value: dict[str, Any]) -> str:
    """JSON with one line per case, so that a change of one answer is a change of one line."""
    lists = {key: part for key, part in value.items() if key in ("cases", "tests", "random")}
    rest = [f"{json.dumps(key)}: {json.dumps(part)}" for key, part in value.items() if key not in lists]
    for key, rows in lists.items():
        rest.append(f"{json.dumps(key)}: [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    return "{\n" + ",\n".join(rest) + "\n}\n"


def put_between(path: Path, text: str) -> None:
    """Replaces what stands between the markers of a page; SystemExit without them."""
    old = path.read_text(encoding="utf-8")
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{path} lacks the markers {BEGIN} and {END}")
    head, tail = old.partition(BEGIN)[0], old.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n{text}{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--root", type=Path, default=REPO, help="write below this directory (the repository)")
    args = parser.parse_args()
    report = json.loads(args.report.read_text(encoding="utf-8"))
    name = f"benchmarks/results/{time.strftime('%Y-%m-%d')}-retention.json"
    (args.root / name).parent.mkdir(parents=True, exist_ok=True)
    (args.root / name).write_text(dump(raw(report)), encoding="utf-8")
    put_between(args.root / "docs/pruning.md", page(report, name))
    target = args.root / "edgeprune/assets/retention.json"
    target.write_text(json.dumps(retained(report, name), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {name}, docs/pruning.md, edgeprune/assets/retention.json")


if __name__ == "__main__":
    main()
