"""What the runtime itself costs on the shape of a 1.4 B LLaVA, and how soon an abort and a deadline end a prefill.

    python -m benchmarks.runtime_overhead [--bundle DIR] [--variant V] [--trials 7] [--stops 9]
Exports benchmarks/llava_1b4.toml (random weights, 6 GB of disk and of memory) into a temporary directory unless a
bundle is given. Trials of both keep ratios alternate, each in a session of its own: a 640 x 480 frame in memory, one
question, one token. "own" is what of the wall time lies neither in graph runs nor in the resize: the goal is below 1 %.
Then one session of all visual tokens is stopped inside its prefill, by abort from another thread and by deadlines; the
goal is to return within 100 ms. After every stop it answers a short question, and at the end the long one, like a fresh
session. Takes under ten minutes on two cores. Writes the raw trials as JSON under benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import edgeprune
from edgeprune import machine
from edgeprune.measure.profile import generated_picture
from edgeprune.runtime.answers import Answer
from edgeprune.runtime.session import Model, Session

REPO = pathlib.Path(__file__).resolve().parent.parent
RECIPE = REPO / "benchmarks" / "llava_1b4.toml"
KEEPS = (0.1, 1.0)
QUESTION = "What is in the image?"
SHORT = "Which way?"
SHARE_GOAL, STOP_GOAL_MS = 0.01, 100.0
TIMES = ("ttft_ms", "graph_ms", "resize_ms", "preprocess_ms", "vision_ms", "embed_ms", "prefill_ms")


def trial(model: Model, frame: Any, keep: float) -> dict[str, float]:
    """One question in a new session; wall_ms begins with the frame in memory and ends with the first token."""
    began = time.perf_counter()
    answer = model.ask(frame, QUESTION, keep=keep, max_new_tokens=1, ignore_eos=True)
    wall_ms = 1e3 * (time.perf_counter() - began)
    times = {name: float(getattr(answer.timings, name)) for name in TIMES}
    own_ms = wall_ms - times["graph_ms"] - times["resize_ms"]
    return {"prompt_tokens": answer.prompt_tokens, "wall_ms": wall_ms, **times, "own_ms": own_ms,
            "own_share": own_ms / wall_ms}  # fmt: skip


def overhead(model: Model, frame: Any, trials: int) -> dict[str, Any]:
    """keep -> {"trials", "median"}, after one warm-up of each keep."""
    raw: dict[float, list[dict[str, float]]] = {keep: [] for keep in KEEPS}
    for turn in range(trials + 1):
        for keep in KEEPS:
            measured = trial(model, frame, keep)
            if turn > 0:
                raw[keep].append(measured)
    return {
        str(keep): {"trials": rows, "median": {name: statistics.median(row[name] for row in rows) for name in rows[0]}}
        for keep, rows in raw.items()
    }


@dataclass
class Stopped:
    """A question that was stopped: its answer, and how long after the stop the call returned."""

    answer: Answer
    late_ms: float


def stopped_by_abort(session: Session, after_ms: float) -> Stopped:
    """The question runs on another thread; this one aborts it."""
    ended: list[tuple[Answer, float]] = []

    def ask() -> None:
        answer = session.generate(QUESTION, max_new_tokens=1, ignore_eos=True)
        ended.append((answer, time.perf_counter()))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(after_ms / 1e3)
    asked = time.perf_counter()
    session.abort()
    thread.join()
    answer, returned = ended[0]
    return Stopped(answer, 1e3 * (returned - asked))


def stopped_by_deadline(session: Session, after_ms: float) -> Stopped:
    began = time.perf_counter()
    answer = session.generate(QUESTION, max_new_tokens=1, ignore_eos=True, deadline_ms=after_ms)
    return Stopped(answer, 1e3 * (time.perf_counter() - began) - after_ms)


STOPS = {"aborted": stopped_by_abort, "deadline": stopped_by_deadline}


def greedy(session: Session, question: str, images: list[int] | None) -> Answer:
    return session.generate(question, images=images, max_new_tokens=4, ignore_eos=True)


def fresh(model: Model, frame: Any, question: str, *, with_picture: bool) -> tuple[str, tuple[int, ...]]:
    """Text and ids of the first answer of a new session."""
    answer = model.ask(frame if with_picture else None, question, keep=1.0 if with_picture else None,
                       max_new_tokens=4, ignore_eos=True)  # fmt: skip
    return answer.text, answer.token_ids


def stops(model: Model, frame: Any, count: int, prefill_ms: float) -> dict[str, Any]:
    """Stops at `count` moments spread over the prefill, by abort and by deadline in turn."""
    short = fresh(model, frame, SHORT, with_picture=False)
    trials = []
    with model.new_session() as session:
        session.add_image(frame, keep=1.0)
        for turn in range(count):
            after_ms = prefill_ms * (0.1 + 0.8 * turn / max(1, count - 1))
            for reason, stop in STOPS.items():
                stopped = stop(session, after_ms)
                next_answer = greedy(session, SHORT, [])
                trials.append({
                    "stop": reason,
                    "after_ms": after_ms,
                    "returned_after_ms": stopped.late_ms,
                    "inside_the_prefill": stopped.answer.finish_reason == reason and not stopped.answer.token_ids
                                          and stopped.answer.timings.graph_ms > 0,
                    "prompt_tokens": stopped.answer.prompt_tokens,
                    "next_answer_right": (next_answer.text, next_answer.token_ids) == short,
                })  # fmt: skip
        last = greedy(session, QUESTION, None)
    same = (last.text, last.token_ids) == fresh(model, frame, QUESTION, with_picture=True)
    return {"trials": trials, "last_answer_right": same, **_slowest(trials)}


def _slowest(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """reason -> median and most of the trials that were stopped inside the prefill."""
    found = {}
    for reason in STOPS:
        late = [t["returned_after_ms"] for t in trials if t["stop"] == reason and t["inside_the_prefill"]]
        if not late:
            raise SystemExit(f"no stop by {reason} fell inside the prefill: nothing to report")
        found[reason] = {"trials": len(late), "median_ms": statistics.median(late), "most_ms": max(late)}
    return found


@contextlib.contextmanager
def exported(bundle: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """The bundle given, or one that is made and removed again."""
    if bundle is not None:
        yield bundle
        return
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        yield export(ExportRecipe.read(RECIPE), pathlib.Path(folder, "llava-1b4.bundle"))


def run(bundle: pathlib.Path, variant: str | None, trials: int, stop_count: int) -> dict[str, Any]:
    frame = np.ascontiguousarray(generated_picture(640, 480))
    with edgeprune.load(bundle, variant=variant, verify="sizes") as model:
        model.warmup()
        costs = overhead(model, frame, trials)
        stopped = stops(model, frame, stop_count, costs["1.0"]["median"]["prefill_ms"])
        described = model.describe()
    return {
        "recipe": RECIPE.read_text(encoding="utf-8"),
        "variant": variant,
        "frame_px": [640, 480],
        "machine": machine.facts(),
        "python": platform.python_version(),
        "onnxruntime": described["onnxruntime"]["version"],
        "provider": described["provider"],
        "goals": {"own_share": SHARE_GOAL, "stop_ms": STOP_GOAL_MS},
        "overhead": costs,
        "stops": stopped,
    }


def summary(result: dict[str, Any]) -> str:
    lines = []
    for keep, found in result["overhead"].items():
        m = found["median"]
        lines.append(f"keep {keep}: {m['wall_ms']:.0f} ms to the first token, in graphs {m['graph_ms']:.0f}, resize "
                     f"{m['resize_ms']:.2f}, own {m['own_ms']:.2f} ({m['own_share']:.2%}; goal below 1 %)")  # fmt: skip
    trials = result["stops"]["trials"]
    for reason in STOPS:
        s = result["stops"][reason]
        inside = f"{s['trials']} of {len(trials) // len(STOPS)} stops inside the prefill"
        lines.append(f"{reason}: returned {s['median_ms']:.0f} ms after the stop, at most {s['most_ms']:.0f} "
                     f"({inside}; goal 100 ms)")  # fmt: skip
    right = sum(t["next_answer_right"] for t in trials)
    lines.append(f"next answers right: {right} of {len(trials)}; last answer right: "
                 f"{result['stops']['last_answer_right']}")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=pathlib.Path)
    parser.add_argument("--variant")
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--stops", type=int, default=9)
    args = parser.parse_args()
    with exported(args.bundle) as bundle:
        result = run(bundle, args.variant, args.trials, args.stops)
    name = f"{time.strftime('%Y-%m-%d')}-runtime-overhead{'-' + args.variant if args.variant else ''}.json"
    target = REPO / "benchmarks" / "results" / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(summary(result))
    print(f"raw trials in {target.relative_to(REPO)}")


if __name__ == "__main__":
    main()
