"""Times what a user can set, and what other forms of a graph could save, on one bundle and variant.

    python -m benchmarks.cpu_settings BUNDLE VARIANT [--trials 7] [--keep 0.1]
Threads, idle threads that spin or sleep, weights mapped or repacked: every setting has a model of its own, opened three
times before the trials (seconds and the process's own memory), and trials of all settings alternate. Then a camera's
loop, whose next picture finds the beginning of its prompt in the cache, beside a new session; and, with onnxruntime's
profiler on, the share of each operator in vision, prefill and step, which bounds what folding or fusing it could save.
Needs a quiet machine and four times the memory of the variant. Writes the raw trials as JSON under
benchmarks/results/MACHINE; `--out FILE` elsewhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
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
OPENINGS = 3
NEW_TOKENS = 32
Opener = Callable[..., Model]


def opening(open_model: Opener, settings: dict[str, Any]) -> list[dict[str, float]]:
    """Seconds of each opening, and MiB that the process has for itself afterwards; the page cache is warm by then."""
    found = []
    for _ in range(OPENINGS):
        gc.collect()
        before, begun = own_mib(), time.perf_counter()
        with open_model(**settings) as model:
            seconds = time.perf_counter() - begun
            model.warmup()
            found.append({"seconds": seconds, "own_mib": own_mib() - before})
    return found


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


def prefix_trial(model: Model, keep: float, kept: bool) -> dict[str, float]:
    """A camera's second picture; `kept`: in the session of the first, which holds the prompt's beginning."""
    with model.new_session() as session:
        if kept:
            session.add_image(protocol.picture(), keep=keep)
            session.generate(protocol.QUESTION, max_new_tokens=1, ignore_eos=True)
            session.remove_image(0)
        session.add_image(protocol.picture()[::-1].copy(), keep=keep)
        answer = session.generate(protocol.QUESTION, max_new_tokens=1, ignore_eos=True)
    return {"prefill_ms": answer.timings.prefill_ms, "prompt_tokens": float(answer.prompt_tokens)}


def operators(open_model: Opener, keep: float) -> dict[str, dict[str, float]]:
    """graph -> operator -> its share of the time in nodes, medians of the last runs. Written after the model closes."""
    with tempfile.TemporaryDirectory() as folder:
        with open_model(threads=2, profile_prefix=f"{folder}/") as model:
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
    """The whole result."""

    def open_model(**settings: Any) -> Model:
        return Model.open(bundle, variant=variant, verify="sizes", **settings)

    opened = {name: opening(open_model, settings) for name, settings in SETTINGS.items()}
    models = {name: open_model(**settings) for name, settings in SETTINGS.items()}
    raw: dict[str, list[dict[str, float]]] = defaultdict(list)
    loop: dict[str, list[dict[str, float]]] = defaultdict(list)
    names = list(models)
    for turn in range(trials + 1):
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            found = trial(models[name], keep)
            if turn:
                raw[name].append(found)
        for kept in (True, False) if turn % 2 else (False, True):
            found = prefix_trial(models["two_threads"], keep, kept)
            if turn:
                loop["kept" if kept else "anew"].append(found)
    for model in models.values():
        model.close()
    return {
        "machine": {**machine.facts(), "governor": machine.governor()},
        "bundle": pathlib.Path(bundle).name,
        "variant": variant,
        "keep": keep,
        "opening": opened,
        "trials": dict(raw),
        "loop": dict(loop),
        "operators": operators(open_model, keep),
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
