"""The retention table in one command: `python retention.py WORK [--pictures 100] [--minutes N]`.

Writes the demo benchmark (`make_data.py`), exports the demo model with every pruning method and five seeds of the
random baseline, asks every test question at every keep ratio (`edgeprune eval`), and rewrites the tables
(`retention_table.py`). Steps whose result is in WORK are not repeated, and an evaluation that was ended goes on where
it stopped. 100 pictures are about 560 questions, 162 cases each: 1.5 (AVX-512 VNNI) to 4 hours (AVX2) of one core, and
--jobs shares the pictures among processes; --minutes ends the evaluation early, and the tables then say on how many
questions they rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import shares
from bundles import KEEPS, VARIANT, Part, edgeprune, export, parts
from joined import joined

from edgeprune.measure.dataset import read_jsonl

HERE = Path(__file__).resolve().parent
FIELDS = "category,size,background,objects"


def evaluate(part: Part, work: Path, data: Path, jobs: int, minutes: float | None) -> Path:
    """The report of one bundle, of all questions or of those that were answered in time."""
    report, answered = work / f"{part.name}.json", work / f"{part.name}.work"
    grid = ["--methods", part.methods, "--keep", ",".join(f"{keep:g}" for keep in KEEPS), "--by", FIELDS]
    if "none" in part.specs:
        grid.append("--text-only")
    asked = ["eval", export(part, work)], [*grid, "--variant", VARIANT, "--threads", 1, "--max-new-tokens", 12]
    in_time = True
    if jobs > 1:
        shared = shares.divide(data, answered, jobs)
        in_time = edgeprune(*([*asked[0], share.data, *asked[1], "--resume", share.work] for share in shared),
                            minutes=minutes)  # fmt: skip
        shares.collect(data, answered, shared)
        minutes = None if in_time else 1  # to write down what is there
    edgeprune([*asked[0], data, *asked[1], "--resume", answered, "--json", report], minutes=minutes)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--minutes", type=float, help="end the evaluations after this time")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each; each opens the bundle")
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
        reports[part] = evaluate(part, args.work, data, args.jobs, left)
    read = [json.loads(reports[part].read_text(encoding="utf-8")) for part in (shared, *others)]
    report = args.work / "retention.json"
    report.write_text(json.dumps(joined(read, read_jsonl(data), FIELDS.split(","))), encoding="utf-8")
    subprocess.run([sys.executable, HERE / "retention_table.py", report], check=True)


if __name__ == "__main__":
    main()
