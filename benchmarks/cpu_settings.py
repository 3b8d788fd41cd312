"""Times what a user can set, and what other forms of a graph could save, on one bundle and variant.

    python -m benchmarks.cpu_settings BUNDLE VARIANT [--trials 7] [--keep 0.1]
Threads, idle threads that spin or sleep, weights mapped or repacked: every setting has a process of its own, opened
three times (seconds, and memory that is the process's own), and trials of all settings alternate. Then a camera's loop,
whose next picture finds the beginning of its prompt in the cache, beside a new session; and, with onnxruntime's
profiler on, the share of each operator in vision, prefill and step, which bounds what folding or fusing it could save.
Needs a quiet machine, four times the memory of the variant, and half a minute a round where a step is int4. Writes the
raw trials as JSON under benchmarks/results/MACHINE; `--out FILE` elsewhere.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from collections import defaultdict
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.peers import protocol
from benchmarks.peers.run import place
from edgeprune import machine
from edgeprune.measure.trace import graph_of, read_runs
from edgeprune.runtime.session import Model

REPO = pathlib.Path(__file__).resolve().parent.parent
SETTINGS: dict[str, dict[str, Any]] = {
    "two_threads": {"threads": 2},
    "one_thread": {"threads": 1},
    "sleeping": {"threads": 2, "spinning": False},
    "mapped": {"threads": 2, "map_weights": True},
}
TIMES = ("preprocess_ms", "resize_ms", "vision_ms", "prefill_ms", "ttft_ms", "tpot_ms")
OPENINGS, NEW_TOKENS = 3, 8


class Setting:
    """A process with a model of its own; its threads sleep while another setting is asked."""

    def __init__(self, bundle: str, variant: str | None, settings: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, bundle, variant, settings), daemon=True)
        self._process.start()
        self.opening: dict[str, float] = self._pipe.recv()

    def ask(self, case: str, keep: float) -> dict[str, float]:
        """The figures of one trial of CASES."""
        self._pipe.send((case, keep))
        found: dict[str, float] = self._pipe.recv()
        return found

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()


def serve(pipe: Connection, bundle: str, variant: str | None, settings: dict[str, Any]) -> None:
    """Opens the model, says what that took, and answers until it is told to end."""
    before, begun = own_mib(), time.perf_counter()
    with Model.open(bundle, variant=variant, verify="sizes", **settings) as model:
        seconds = time.perf_counter() - begun
        model.warmup()
        pipe.send({"seconds": seconds, "own_mib": own_mib() - before})
        while (asked := pipe.recv()) is not None:
            case, keep = asked
            pipe.send(CASES[case](model, keep))


def own_mib() -> float:
    """Anonymous resident memory of this process: without the pages of mapped files."""
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def trial(model: Model, keep: float) -> dict[str, float]:
    """One answer in a session of its own; processor_ms is that of all threads, idle ones that spin included."""
    time.sleep(0.2)  # the threads of the setting before are asleep by now
    begun = time.process_time()
    answer = model.ask(protocol.picture(), protocol.QUESTION, keep=keep, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    spent = 1e3 * (time.process_time() - begun)
    return {**{name: float(getattr(answer.timings, name)) for name in TIMES}, "processor_ms": spent}


def loop(model: Model, keep: float, kept: bool) -> dict[str, float]:
    """A camera's second picture; `kept`: in the session of the first, which holds the prompt's beginning."""
    with model.new_session() as session:
        if kept:
            first = session.add_image(protocol.picture(), keep=keep)
            session.generate(protocol.QUESTION, max_new_tokens=1, ignore_eos=True)
            session.remove_image(first)
        session.add_image(protocol.picture()[::-1].copy(), keep=keep)
        answer = session.generate(protocol.QUESTION, max_new_tokens=1, ignore_eos=True)
    return {"prefill_ms": answer.timings.prefill_ms, "prompt_tokens": float(answer.prompt_tokens)}


CASES = {
    "trial": trial,
    "kept": lambda model, keep: loop(model, keep, True),
    "anew": lambda model, keep: loop(model, keep, False),
}


def operators(bundle: str, variant: str | None, keep: float) -> dict[str, dict[str, float]]:
    """graph -> operator -> its share of the time in nodes, medians of the last runs; traces are written on closing."""
    with tempfile.TemporaryDirectory() as folder:
        with Model.open(bundle, variant=variant, verify="sizes", threads=2, profile_prefix=f"{folder}/") as model:
            for _ in range(3):
                model.ask(protocol.picture(), protocol.QUESTION, keep=keep, max_new_tokens=4, ignore_eos=True)
        found = {}
        for file in sorted(pathlib.Path(folder).iterdir()):
            graph = graph_of(file)
            runs = read_runs(file)
            if graph is not None and runs:
                found[graph] = shares(runs[1:] or runs)
    return found


def shares(runs: list[list[Any]]) -> dict[str, float]:
    """operator -> median share of a run's time, largest first."""
    parts: dict[str, list[float]] = defaultdict(list)
    names = {node.op for run in runs for node in run}
    for run in runs:
        whole = sum(node.own_ms for node in run)
        for name in names:
            parts[name].append(sum(node.own_ms for node in run if node.op == name) / whole)
    medians = {name: statistics.median(values) for name, values in parts.items()}
    return dict(sorted(medians.items(), key=lambda item: -item[1]))


def measure(bundle: str, variant: str | None, trials: int, keep: float) -> dict[str, Any]:
    """The whole result; the first round is not recorded."""
    openings: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(OPENINGS - 1):
        for name, settings in SETTINGS.items():
            opened = Setting(bundle, variant, settings)
            openings[name].append(opened.opening)
            opened.close()
    models = {name: Setting(bundle, variant, settings) for name, settings in SETTINGS.items()}
    for name, model in models.items():
        openings[name].append(model.opening)
    raw: dict[str, list[dict[str, float]]] = defaultdict(list)
    cases = [*((name, "trial") for name in SETTINGS), ("two_threads", "kept"), ("two_threads", "anew")]
    for turn in range(trials + 1):
        for at in range(len(cases)):
            name, case = cases[(turn + at) % len(cases)]
            found = models[name].ask(case, keep)
            if turn:
                raw[name if case == "trial" else case].append(found)
        print(f"round {turn} of {trials}", flush=True)
    for model in models.values():
        model.close()
    return {
        "machine": {**machine.facts(), "governor": machine.governor()},
        "bundle": pathlib.Path(bundle).name,
        "variant": variant,
        "keep": keep,
        "new_tokens": NEW_TOKENS,
        "opening": dict(openings),
        "trials": {name: raw[name] for name in SETTINGS},
        "loop": {name: raw[name] for name in ("kept", "anew")},
        "operators": operators(bundle, variant, keep),
    }


def summary(found: dict[str, Any]) -> str:
    """Medians, and ratios to two threads that spin."""
    lines = []
    base = found["trials"]["two_threads"]
    for name, rows in found["trials"].items():
        ratios = (
            f"{key} {statistics.median(r[key] for r in rows) / statistics.median(r[key] for r in base):.2f}"
            for key in ("vision_ms", "prefill_ms", "ttft_ms", "tpot_ms", "processor_ms")
        )
        seconds, own = (statistics.median(row[key] for row in found["opening"][name]) for key in ("seconds", "own_mib"))
        lines.append(f"{name:12} {' '.join(ratios)}; opened in {seconds:.2f} s, {own:,.0f} MiB of its own")
    for name, rows in found["loop"].items():
        prefill, tokens = (statistics.median(row[key] for row in rows) for key in ("prefill_ms", "prompt_tokens"))
        lines.append(f"beginning {name}: prefill {prefill:.1f} ms of a prompt of {tokens:.0f} tokens")
    for graph, ops in found["operators"].items():
        lines.append(f"{graph}: " + ", ".join(f"{name} {share:.3f}" for name, share in list(ops.items())[:14]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("variant", help="of the bundle, or `own` for its own graphs")
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--keep", type=float, default=protocol.KEEP)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    if args.trials < 1:
        parser.error("--trials must be at least 1")
    found = measure(args.bundle, None if args.variant == "own" else args.variant, args.trials, args.keep)
    folder = REPO / "benchmarks" / "results" / place(found["machine"])
    out = args.out or folder / f"{time.strftime('%Y-%m-%d')}-cpu-settings.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(summary(found))


if __name__ == "__main__":
    main()
