"""Times edgeprune, transformers (bf16), OpenVINO GenAI (int4) and llama.cpp (Q4_0) on one checkpoint, interleaved.

    python -m benchmarks.peers.run [--work DIR] [--precision P] [--prune NAME]... [--trials 7] [--without PEER]...
        [--prepare]
The checkpoint has the shape of CLIP ViT-L/14-336 and a Llama of 1.1 B parameters, random weights; so has the background
scorer of its grid, none having been trained: its cost is real, its choice means nothing. Needs 15 GB of disk below DIR,
12 GB of memory, and pip for the first preparation (half an hour); then about a minute per round, three where bfloat16
is slow. A bundle below DIR without one of the methods is exported anew.
TTFT is picture in memory to first token for all, loading excluded. Every worker has its process and its environment;
those that wait are suspended. Writes benchmarks/results/MACHINE/DATE-peers.json, MACHINE being processor, cores and the
widest instruction set; quote its ratios only.
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
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.environment import OPTIONAL, PRECISION, REPO, Prepared, prepare, variant_of
from benchmarks.peers.ratios import TRIALS, ratios, tokens_per_s
from edgeprune import machine

#: the one that is timed, and the same behind a stage that leaves half of the patches out before the encoder
METHODS = ("fastervlm", "background@0.5+fastervlm")
HERE = pathlib.Path(__file__).resolve().parent
#: what decides over int8 products, widest first
WIDTHS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp", "asimd")


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


def commands(made: Prepared, variant: str, peers: Sequence[str] = OPTIONAL) -> dict[str, list[str]]:
    """Name of a peer -> the command of its worker; of OPTIONAL those in `peers`."""
    own = sys.executable
    found = {
        "edgeprune": [own, str(HERE / "edgeprune_worker.py"), str(made.bundle), variant],
        "hf": [own, str(HERE / "hf_worker.py"), str(made.checkpoint)],
        "openvino": [str(made.openvino_python), str(HERE / "openvino_worker.py"), str(made.openvino_model)],
        "llamacpp": [str(made.llamacpp_python), str(HERE / "llamacpp_worker.py"), str(made.llamacpp_model)],
        "peak": [own, str(HERE / "peak_worker.py")],
    }
    return {name: command for name, command in found.items() if name not in OPTIONAL or name in peers}


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


def run(made: Prepared, variant: str, trials: int, peers: Sequence[str] = OPTIONAL) -> dict[str, Any]:
    """The whole result."""
    asked = commands(made, variant, peers)
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
    about = {"machine": {**machine.facts(), "governor": machine.governor()}, "peers": facts, "trials": trials}
    return {**about, **result(raw, memory)}


def result(raw: Mapping[str, Sequence[float]], memory: Mapping[str, float]) -> dict[str, Any]:
    """Trials, medians and ratios; `trials_ms` has the names that the goals are stated in, and no other."""
    medians = {name: statistics.median(values) for name, values in raw.items()}
    return {
        "trials_ms": {name: list(raw[name]) for name in TRIALS if name in raw},
        "other_trials": {name: list(values) for name, values in raw.items() if name not in TRIALS},
        "medians": medians,
        "tokens_per_s": tokens_per_s(medians),
        "memory": dict(memory),
        "ratios": ratios(medians, memory),
    }


def needs(work: pathlib.Path, trials: int) -> str:
    """What a run takes, before it takes it."""
    made = "made already" if (work / "peers.bundle").is_dir() else "half an hour to make"
    return (
        f"needs 15 GB of disk below {work} ({made}), 12 GB of memory and a quiet machine; "
        f"{trials + 1} rounds, the first one unrecorded, of about a minute on two cores (three without AVX-512)"
    )


def place(facts: Mapping[str, Any]) -> str:
    """The folder of a machine's results. Processors that call themselves the same differ in their instruction sets."""
    sets = [flag for flag in WIDTHS if flag in facts["cpu_flags"]]
    return slug(f"{facts['processor']} {facts['cores']} cores {sets[0] if sets else ''}")


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
    parser.add_argument("--without", action="append", default=[], choices=OPTIONAL, help="leave a peer out")
    parser.add_argument("--prepare", action="store_true", help="make what is missing and measure nothing")
    args = parser.parse_args()
    if args.trials < 1:
        parser.error("--trials must be at least 1")
    print(needs(args.work, args.trials), file=sys.stderr)
    peers = tuple(name for name in OPTIONAL if name not in args.without)
    made = prepare(args.work, args.precision, tuple(args.prune or METHODS), peers)
    if args.prepare:
        return
    found = run(made, variant_of(args.precision), args.trials, peers)
    folder = REPO / "benchmarks" / "results" / place(found["machine"])
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{time.strftime('%Y-%m-%d')}-peers.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"medians": found["medians"], "ratios": found["ratios"]}, indent=1))
    print(f"raw trials in {target.relative_to(REPO)}")


if __name__ == "__main__":
    main()
