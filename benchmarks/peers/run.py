"""Times edgeprune, Hugging Face transformers (bf16) and OpenVINO GenAI (int4) on one checkpoint in one interleaved run.

    python -m benchmarks.peers.run [--work DIR] [--precision P] [--prune NAME]... [--trials 7]
The checkpoint has the shape of CLIP ViT-L/14-336 and a Llama of 1.1 B parameters, random weights; so has the background
scorer of its grid, none having been trained: its cost is real, its choice means nothing. Needs 13 GB of disk below DIR,
20 GB of memory to build the variant (12 to run), and pip for the first preparation (a quarter of an hour); then about a
minute per round. A bundle below DIR without one of the methods is exported anew.
TTFT is picture in memory to first token for all, loading excluded. Every worker has its process and its environment;
those that wait are suspended. Writes benchmarks/results/MACHINE/DATE-peers.json; quote its ratios only.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.environment import PRECISION, REPO, Prepared, prepare, variant_of
from benchmarks.peers.ratios import ratios
from edgeprune import machine

#: the one that is timed, and the same behind a stage that leaves half of the patches out before the encoder
METHODS = ("fastervlm", "background@0.5+fastervlm")
HERE = pathlib.Path(__file__).resolve().parent


class Worker:
    """A peer in a process of its own, suspended while it is not asked."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "ORT_DISABLE_TELEMETRY": "1"}
        environment = {**quiet, "PYTHONPATH": str(REPO)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        ready = self._read()
        self.facts: dict[str, Any] = ready["facts"]
        self.cases: list[str] = ready["cases"]
        self._signal(signal.SIGSTOP)

    def trial(self, case: str) -> dict[str, float]:
        """The figures of one case, in milliseconds unless their names say otherwise."""
        assert self.process.stdin is not None
        self._signal(signal.SIGCONT)
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        found: dict[str, float] = self._read()
        self._signal(signal.SIGSTOP)
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _signal(self, number: int) -> None:
        self.process.send_signal(number)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}; its own message stands above")
        message: dict[str, Any] = json.loads(line)
        return message


def commands(made: Prepared, variant: str) -> dict[str, list[str]]:
    """Name of a peer -> the command of its worker."""
    own, other = sys.executable, str(made.openvino_python)
    return {
        "edgeprune": [own, str(HERE / "edgeprune_worker.py"), str(made.bundle), variant],
        "hf": [own, str(HERE / "hf_worker.py"), str(made.checkpoint)],
        "openvino": [other, str(HERE / "openvino_worker.py"), str(made.openvino_model)],
        "peak": [own, str(HERE / "peak_worker.py")],
    }


def measure(workers: Sequence[Worker], trials: int) -> dict[str, list[float]]:
    """Figure -> its trials. One unrecorded round first; each round begins one case later than the one before."""
    cases = [(worker, case) for worker in workers for case in worker.cases]
    raw: dict[str, list[float]] = defaultdict(list)
    for turn in range(trials + 1):
        for place in range(len(cases)):
            worker, case = cases[(turn + place) % len(cases)]
            found = worker.trial(case)
            for name, value in found.items() if turn else ():
                raw[name].append(value)
        print(f"round {turn} of {trials}", file=sys.stderr)
    return dict(raw)


def run(made: Prepared, variant: str, trials: int) -> dict[str, Any]:
    """The whole result."""
    asked = commands(made, variant)
    memory = json.loads(subprocess.run([*asked["edgeprune"], "--memory"], check=True, stdout=subprocess.PIPE,
                                       env={**os.environ, "PYTHONPATH": str(REPO)}).stdout)  # fmt: skip
    workers: list[Worker] = []
    try:
        workers += (Worker(name, command) for name, command in asked.items())
        raw = measure(workers, trials)
        facts = {worker.name: worker.facts for worker in workers}
    finally:
        for worker in workers:
            worker.close()
    return {
        "machine": {**machine.facts(), "governor": machine.governor()},
        "peers": facts,
        "trials": trials,
        "trials_ms": raw,
        "medians": {name: statistics.median(values) for name, values in raw.items()},
        "memory": memory,
        "ratios": ratios({name: statistics.median(values) for name, values in raw.items()}, memory),
    }


def needs(work: pathlib.Path, trials: int) -> str:
    """What a run takes, before it takes it."""
    made = "made already" if (work / "peers.bundle").is_dir() else "a quarter of an hour to make"
    return (
        f"needs 13 GB of disk below {work} ({made}), 12 GB of memory (20 to build the variant) and a quiet machine; "
        f"{trials + 1} rounds of about a minute on two cores, the first one unrecorded"
    )


def slug(text: str) -> str:
    """Letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=REPO / ".cache" / "peers")
    parser.add_argument(
        "--precision",
        default=PRECISION,
        help=f"of edgeprune's variant, or `own` for the bundle's graphs ({PRECISION})",
    )
    parser.add_argument(
        "--prune", action="append", help=f"methods of the bundle, the first one is timed ({', '.join(METHODS)})"
    )
    parser.add_argument("--trials", type=int, default=7)
    args = parser.parse_args()
    if args.trials < 1:
        parser.error("--trials must be at least 1")
    print(needs(args.work, args.trials), file=sys.stderr)
    made = prepare(args.work, args.precision, tuple(args.prune or METHODS))
    found = run(made, variant_of(args.precision), args.trials)
    facts = found["machine"]
    folder = REPO / "benchmarks" / "results" / slug(f"{facts['processor']} {facts['cores']} cores")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{time.strftime('%Y-%m-%d')}-peers.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"medians": found["medians"], "ratios": found["ratios"]}, indent=1))
    print(f"raw trials in {target.relative_to(REPO)}")


if __name__ == "__main__":
    main()
