"""The retention table in one command: `python retention.py WORK [--pictures 100] [--minutes N]`.

Writes the demo benchmark (`make_data.py`), exports the demo model with every pruning method that needs no question and
five seeds of the random baseline, asks every test question at every keep ratio (`edgeprune eval`), and rewrites the
tables (`retention_table.py`). Steps whose result is in WORK are not repeated, and an evaluation that was ended goes on
where it stopped. 100 pictures are about 560 questions, 79 cases each: hours on a small CPU; --minutes ends the
evaluation early, and the tables then say on how many questions they rest.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

from edgeprune.pruning.registry import method_class, method_names

HERE = Path(__file__).resolve().parent
KEEPS = "1,0.5,0.25,0.1,0.05"
SEEDS = range(5)
#: the console script, taking Ctrl-C even when started in the background
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from edgeprune.cli.main import entry; entry()"
)
INTERRUPTED = 130


def methods() -> list[str]:
    """Names of the methods that need no question, `random` last; those with required parameters are left out."""
    names = [name for name in method_names() if name != "random" and not method_class(name).text]
    return [*names, "random"]


def edgeprune(*argv: object, minutes: float | None = None) -> None:
    """Runs the command line; after `minutes` it is interrupted. SystemExit when it fails."""
    running = subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, argv)])
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(None if minutes is None else minutes * 60)
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
    code = running.wait()
    if code not in (0, INTERRUPTED):
        raise SystemExit(code)


def export(work: Path) -> Path:
    """The bundle, made once."""
    bundle = work / "demo-grid.bundle"
    if not bundle.exists():
        specs = [*methods()[:-1], *(f"random:seed={seed}" for seed in SEEDS)]
        edgeprune("export", "--model", "demo", "--keep", 0.1, *(f"--prune={spec}" for spec in specs), "-o", bundle)
    return bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--minutes", type=float, help="end the evaluation after this time")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    data = args.work / "data" / "test.jsonl"
    if not data.exists():
        made = [sys.executable, HERE / "make_data.py", args.work / "data", "--pictures", str(args.pictures)]
        subprocess.run(made, check=True)
    report = args.work / "retention.json"
    grid = [
        "--methods",
        ",".join(methods()),
        "--keep",
        KEEPS,
        "--text-only",
        "--by",
        "category,size,background,objects",
    ]
    kept = ["--threads", args.threads, "--max-new-tokens", 12, "--resume", args.work / "retention.work"]
    edgeprune("eval", export(args.work), data, *grid, *kept, "--json", report, minutes=args.minutes)
    subprocess.run([sys.executable, HERE / "retention_table.py", report], check=True)


if __name__ == "__main__":
    main()
