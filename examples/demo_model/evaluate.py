"""Figures of a trained checkpoint on held-out scenes: `python evaluate.py CHECKPOINT FEATURES OUT.json [plans]`.

A plan is SPLIT:NAME with NAME one of all | text | cls<block>@K | random@K#SEED, for example `test:cls8@26`,
`small:random@26#0`. Without plans the gate's own list is run. Results are merged into OUT.json as they come, so several
processes can share the list (`--share 0/2`, `--share 1/2`, each with its own OUT.json).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from pathlib import Path

import scoring
import torch
from model import Cache, DemoModel, load_model

SEEDS = range(5)
GATE = (
    "test:all", "test:cls8@26", "test:text", "test:cls9@26", "small:cls8@26", "small:all", "small:text",
    *(f"{split}:random@26#{seed}" for seed in SEEDS for split in ("test", "small")),
)  # fmt: skip


def pick_of(name: str, cache: Cache) -> scoring.Pick:
    """The selection a plan's NAME stands for."""
    if name in ("all", "text"):
        return scoring.everything() if name == "all" else scoring.nothing()
    match = re.fullmatch(r"cls(\d+)@(\d+)|random@(\d+)#(\d+)", name)
    if match is None:
        raise SystemExit(f"not a plan: {name}")
    block, kept, drawn, seed = (int(group) if group else 0 for group in match.groups())
    return scoring.cls_attention(cache, block, kept) if kept else scoring.at_random(drawn, seed)


def interval(values: list[float]) -> dict[str, float]:
    """Mean, and mean -/+ the half-width of Student's 95 % interval over seeds (t for 5 seeds: 2.776)."""
    mean, count = sum(values) / len(values), len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(1, count - 1))
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}.get(count, 2.0)
    half = t * spread / math.sqrt(count)
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4), "seeds": count}


def run_plan(model: DemoModel, cache: Cache, name: str, limit: int) -> dict:
    """Accuracy by type of one plan, and what it took."""
    began = time.monotonic()
    count = min(limit, len(cache))
    tally = scoring.Tally(scoring.answer_scenes(model, cache, range(count), pick_of(name, cache)))
    return {"scenes": count, "seconds": round(time.monotonic() - began, 1), "types": tally.as_dict()}


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="final.pt of train.py, or a difference.safetensors")
    parser.add_argument("features", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("plans", nargs="*", default=GATE)
    parser.add_argument("--share", default="0/1", help="I/N: every N-th plan, starting at the I-th")
    parser.add_argument("--limit", type=int, default=10_000, help="scenes per plan at most")
    return parser.parse_args()


def main() -> None:
    """Run the plans and write the results after each of them."""
    args = parse_args()
    torch.set_num_threads(1)
    model, caches = load_model(args.checkpoint), {}
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    first, step = (int(part) for part in args.share.split("/"))
    for plan in list(args.plans)[first::step]:
        split, name = plan.split(":")
        caches.setdefault(split, Cache(args.features, split))
        results[plan] = run_plan(model, caches[split], name, args.limit)
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        figures = {key: value["accuracy"] for key, value in results[plan]["types"].items()}
        print(plan, figures, f"{results[plan]['seconds']} s", flush=True)
    for split in caches:
        drawn = [r["types"]["all"]["accuracy"] for plan, r in results.items() if plan.startswith(f"{split}:random@26#")]
        if len(drawn) > 1:
            print(split, "random@26", interval(drawn))


if __name__ == "__main__":
    main()
