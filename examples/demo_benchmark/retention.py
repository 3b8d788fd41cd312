"""The retention table in one command: `python retention.py WORK [--pictures 100] [--minutes N]`.

Writes the demo benchmark (`make_data.py`), exports the demo model with every pruning method and five seeds of the
random baseline, asks every test question at every keep ratio (`edgeprune eval`), and rewrites the tables
(`retention_table.py`). Steps whose result is in WORK are not repeated, and an evaluation that was ended goes on where
it stopped. 100 pictures are about 560 questions, 162 cases each: about an hour and a half of one core; --minutes ends
the evaluation early, and the tables then say on how many questions they rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from bundles import KEEPS, VARIANT, Part, edgeprune, export, parts
from joined import joined

from edgeprune.measure.dataset import read_jsonl

HERE = Path(__file__).resolve().parent
FIELDS = "category,size,background,objects"


def evaluate(part: Part, work: Path, data: Path, threads: int, minutes: float | None) -> Path:
    """The report of one bundle, of all questions or of those that were answered in time."""
    report = work / f"{part.name}.json"
    grid = ["--methods", part.methods, "--keep", ",".join(f"{keep:g}" for keep in KEEPS), "--by", FIELDS]
    if "none" in part.specs:
        grid.append("--text-only")
    how = ["--variant", VARIANT, "--threads", threads, "--max-new-tokens", 12]
    kept = ["--resume", work / f"{part.name}.work", "--json", report]
    edgeprune("eval", export(part, work), data, *grid, *how, *kept, minutes=minutes)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--minutes", type=float, help="end the evaluations after this time")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    data = args.work / "data" / "test.jsonl"
    if not data.exists():
        made = [sys.executable, HERE / "make_data.py", args.work / "data", "--pictures", str(args.pictures)]
        subprocess.run(made, check=True)
    shared, *others = parts()
    for part in (shared, *others):
        export(part, args.work)
    begun = time.monotonic()
    reports = {}
    # the shared bundle has nearly all cases, and takes the time that the others leave
    for part in (*others, shared):
        left = None if args.minutes is None else args.minutes - (time.monotonic() - begun) / 60
        reports[part] = evaluate(part, args.work, data, args.threads, left)
    read = [json.loads(reports[part].read_text(encoding="utf-8")) for part in (shared, *others)]
    report = args.work / "retention.json"
    report.write_text(json.dumps(joined(read, read_jsonl(data), FIELDS.split(","))), encoding="utf-8")
    subprocess.run([sys.executable, HERE / "retention_table.py", report], check=True)


if __name__ == "__main__":
    main()
