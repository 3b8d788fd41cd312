"""Time the demo bundle at keep 1 and 0.1, trial by trial in turn, and write the raw trials as JSON.

    python benchmarks/demo_keep.py [--bundle DIR] [--trials 20]
Takes about a minute; needs the demo packages (`make bench` installs them).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import statistics
import sys
import time

import edgeprune

REPO = pathlib.Path(__file__).resolve().parent.parent
KEEPS = (1.0, 0.1)
STAGES = ("preprocess_ms", "vision_ms", "prefill_ms", "ttft_ms", "tpot_ms")


def trial(model: edgeprune.Model, picture: pathlib.Path, keep: float) -> dict[str, float]:
    timings = model.ask(picture, "What is in the image?", keep=keep, max_new_tokens=16, ignore_eos=True).timings
    return {stage: float(getattr(timings, stage)) for stage in STAGES}


def run(bundle: pathlib.Path, trials: int) -> dict[str, object]:
    """Interleaved trials after one warm-up of each keep."""
    picture = next((REPO / "tests" / "data" / "scenes").glob("*.png"))
    raw: dict[float, list[dict[str, float]]] = {keep: [] for keep in KEEPS}
    with edgeprune.load(bundle) as model:
        for keep in KEEPS:
            trial(model, picture, keep)
        for _ in range(trials):
            for keep in KEEPS:
                raw[keep].append(trial(model, picture, keep))
        described = model.describe()
    medians = {k: {s: statistics.median(t[s] for t in rows) for s in STAGES} for k, rows in raw.items()}
    return {
        "bundle": bundle.name,
        "machine": {"machine": platform.machine(), "system": platform.system()},
        "onnxruntime": described["onnxruntime"]["version"],
        "trials": {str(k): rows for k, rows in raw.items()},
        "medians": {str(k): m for k, m in medians.items()},
        "ratio_keep0.1_to_keep1": {s: medians[0.1][s] / medians[1.0][s] for s in STAGES},
    }


def needs(bundle: pathlib.Path, trials: int) -> str:
    """What a run takes, before it takes it."""
    made = "made already" if bundle.exists() else "made first, a minute or two"
    return f"needs the demo bundle ({bundle}, {made}), 2 GB of memory and a quiet machine; {trials} rounds, a minute"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=pathlib.Path, default=REPO / "out" / "demo" / "demo-keep0.1.bundle")
    parser.add_argument("--trials", type=int, default=20)
    args = parser.parse_args()
    print(needs(args.bundle, args.trials), file=sys.stderr)
    if not args.bundle.exists():
        from edgeprune.export.pipeline import export
        from edgeprune.recipe import ExportRecipe

        args.bundle.parent.mkdir(parents=True, exist_ok=True)
        export(ExportRecipe(model="demo", prune=("fastervlm",), keep=0.1), args.bundle)
    result = run(args.bundle, args.trials)
    target = REPO / "benchmarks" / "results" / f"{time.strftime('%Y-%m-%d')}-demo-keep.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"medians": result["medians"], "ratio": result["ratio_keep0.1_to_keep1"]}, indent=1))
    print(f"raw trials in {target.relative_to(REPO)}")


if __name__ == "__main__":
    main()
