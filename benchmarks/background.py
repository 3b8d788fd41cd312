"""Time the vision stage with and without pruning before the encoder, trial by trial in turn; raw trials as JSON.

    python -m benchmarks.background [--trials 20] [--large-trials 6] [--skip-large]
Two shapes: the demo model as it ships (224 px, 256 patches, ViT-S/14), and ViT-L/14-336 with LLaVA-1.5-7B's projector
and random weights. The scorer is part of the time, the decoder is not. Takes about four minutes and 4 GB of memory;
`make bench-background` installs what it needs. docs/background.md holds the prediction by counted operations.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import onnxruntime
from transformers.utils import logging

from benchmarks.pruning_work import vision_flops
from edgeprune.export.pipeline import prepare
from edgeprune.keep import keep_count
from edgeprune.recipe import ExportRecipe

REPO = pathlib.Path(__file__).resolve().parent.parent
#: without a stage before the encoder, with it, keep ratio of both (None: what each lets through)
PAIRS: tuple[tuple[str, str, float | None], ...] = (
    ("none", "background@0.5", None),
    ("fastervlm", "background@0.5+fastervlm", 0.1),
)
RATIO = 0.5
#: the stage with pruning over the stage without: 1.6 times faster on the demo, 0.60 of it on ViT-L
GOALS = {"demo": 1 / 1.6, "vit-l-336": 0.60}
MODELS = {
    "demo": ExportRecipe(model="demo", prune=tuple(spec for pair in PAIRS for spec in pair[:2]), keep=0.1),
    "vit-l-336": ExportRecipe(model="llava15", prune=PAIRS[0][:2], keep=RATIO, random_weights=True),
}


class Timed:
    """One vision graph in ONNX Runtime on a fixed random picture."""

    def __init__(self, path: pathlib.Path, pixels: np.ndarray, kept: int) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feeds = {"pixel_values": pixels, "keep_slots": np.zeros(kept, np.float32)}
        self.feeds = {item.name: feeds[item.name] for item in self.session.get_inputs()}
        self.kept, self.trials_ms = kept, list[float]()

    def run(self) -> None:
        """One trial."""
        began = time.perf_counter()
        embeds, index = self.session.run(["visual_embeds", "keep_idx"], self.feeds)
        self.trials_ms.append(1e3 * (time.perf_counter() - began))
        assert embeds.shape[1] == index.shape[1] == self.kept
        assert np.isfinite(embeds).all()


def measure(name: str, trials: int) -> dict[str, Any]:
    """All graphs of a shape in turn, after one warm-up of each."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        job = prepare(MODELS[name], pathlib.Path(scratch))
        folder = pathlib.Path(scratch) / "onnx"
        files = job.graphs.write_vision(folder, job.source())
        side = job.family.image_px
        pixels = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
        total = job.family.visual_tokens
        timed: dict[str, Timed] = {}
        for without, with_it, keep in PAIRS:
            if with_it in files:
                counts = (total, keep_count(total, RATIO)) if keep is None else (keep_count(total, keep),) * 2
                for spec, kept in zip((without, with_it), counts, strict=True):
                    timed[spec] = Timed(folder / files[spec][0], pixels, kept)
        for graph in timed.values():
            graph.run()
            graph.trials_ms.clear()
        for _ in range(trials):
            for graph in timed.values():
                graph.run()
        return report(name, timed, {spec: counted(job, spec, graph.kept) for spec, graph in timed.items()})


def counted(job: Any, spec: str, kept: int) -> float:
    """Operations of a vision graph, from its maths."""
    tower, total = job.family.spec, job.family.visual_tokens
    staged = spec.startswith("background")
    return vision_flops(
        n=total, entered=keep_count(total, RATIO) if staged else total, kept=kept, width=tower.width,
        mlp=tower.mlp_width, blocks=job.family.feature_block + 1, patch_px=tower.patch_px,
        decoder_width=job.family.config.text_config.hidden_size, scorer=staged,
    )  # fmt: skip


def report(name: str, timed: dict[str, Timed], flops: dict[str, float]) -> dict[str, Any]:
    """Medians, ratios and raw trials."""
    medians = {spec: statistics.median(graph.trials_ms) for spec, graph in timed.items()}
    pairs = []
    for without, with_it, _ in PAIRS:
        if with_it in medians:
            measured, predicted = medians[with_it] / medians[without], flops[with_it] / flops[without]
            row = {"without": without, "with": with_it, "ratio": measured, "speedup": 1 / measured}
            pairs.append({**row, "predicted_ratio_by_flops": predicted, "meets_goal": measured <= GOALS[name]})
    return {
        "goal_ratio": GOALS[name],
        "pairs": pairs,
        "median_ms": medians,
        "kept": {spec: graph.kept for spec, graph in timed.items()},
        "gflop": {spec: value / 1e9 for spec, value in flops.items()},
        "trials_ms": {spec: [round(t, 3) for t in graph.trials_ms] for spec, graph in timed.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--large-trials", type=int, default=6)
    parser.add_argument("--skip-large", action="store_true", help="the demo only")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file (benchmarks/results/DATE-background.json)")
    args = parser.parse_args()
    logging.disable_progress_bar()  # of the checkpoint that is put together
    result: dict[str, Any] = {
        "machine": {"machine": platform.machine(), "system": platform.system(), "cpus": os.cpu_count()},
        "onnxruntime": onnxruntime.__version__,
        "demo": measure("demo", args.trials),
    }
    if not args.skip_large:
        result["vit-l-336"] = measure("vit-l-336", args.large_trials)
    target = args.output or REPO / "benchmarks" / "results" / f"{time.strftime('%Y-%m-%d')}-background.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for shape in GOALS:
        for pair in result.get(shape, {}).get("pairs", []):
            state = "holds" if pair["meets_goal"] else "MISSED"
            print(
                f"{shape:10} {pair['with']:26} {pair['ratio']:.3f} of {pair['without']} ({pair['speedup']:.2f} times "
                f"faster; by operations {pair['predicted_ratio_by_flops']:.3f}); goal {GOALS[shape]:.3f}: {state}"
            )
    print(target)


if __name__ == "__main__":
    main()
