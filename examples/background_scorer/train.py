"""Train the background scorer: `python train.py OUT.safetensors [--images DIR --masks DIR | --boxes FILE]`.

Without --images it trains on composed scenes and reports on held-out ones. Every draw is seeded by (seed, step) and
the schedule counts steps, so a run can be repeated. OUT.json holds the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import Batch, Composites, Directory, Source, Subset, batch_of
from measure import figures
from storing import save

from edgeprune.export.models.background import Scorer, ScorerSpec
from edgeprune.export.models.layers import Linear

#: what the demo's pictures are normalised with (ImageNet's)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WARM_UP, CLIP, DECAY = 50, 1.0, 0.05
HELD_OUT = 200
#: bounds of the weight of a foreground patch, (background patches) / (foreground patches) of the batch
WEIGHTS = (0.3, 3.0)


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("out", type=Path, metavar="OUT.safetensors")
    add("--images", type=Path, metavar="DIR", help="pictures of your own")
    add("--masks", type=Path, metavar="DIR", help="a PNG per picture: 0 background, all else foreground")
    add("--boxes", type=Path, metavar="FILE", help="JSON: picture's file name -> [[x0, y0, x1, y1], ...] in pixels")
    add("--void", type=int, metavar="V", help="mask value of pixels nothing is known of (255 in PASCAL VOC)")
    add("--threshold", type=float, help="least share of a foreground patch (0.5; with --boxes 0.25); 0: any of it")
    add("--side", type=int, default=224, help="pixels of the square picture, with --images")
    add("--patch", type=int, default=14, help="pixels of a patch, with --images")
    add("--mean", type=float, nargs=3, default=MEAN)
    add("--std", type=float, nargs=3, default=STD)
    add("--steps", type=int, default=1000)
    add("--batch", type=int, default=12)
    add("--learning-rate", type=float, default=1.5e-3)
    add("--width", type=int, default=128)
    add("--seed", type=int, default=0)
    add("--held-out", type=int, default=HELD_OUT, help="pictures the figures are made of")
    args = parser.parse_args()
    if args.threshold is None:
        args.threshold = 0.25 if args.boxes else 0.5
    return args


def sources(args: argparse.Namespace) -> tuple[Source, dict[str, Source]]:
    """What is trained on, and held-out sets by name. Of a user's directory every fifth picture is held out."""
    if args.images is None:
        train = Composites("train", args.steps * args.batch)
        return train, {split: Composites(split, args.held_out) for split in ("test", "small")}
    every = Directory(args.images, args.masks, args.boxes, args.void, args.side, args.patch)
    held = [index for index in range(len(every)) if index % 5 == 4][: args.held_out]
    rest = [index for index in range(len(every)) if index % 5 != 4]
    return Subset(every, rest), {"held-out": Subset(every, held)} if held else {}


def new_scorer(spec: ScorerSpec, seed: int) -> Scorer:
    """A scorer with seeded weights, ready to be trained."""
    draw = torch.Generator().manual_seed(seed)
    scorer = Scorer(spec)
    for module in scorer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            shape = tuple(parameter.shape)
            if name == "bias":
                value = torch.zeros(shape)
            elif len(shape) == 1:
                value = torch.ones(shape)
            else:
                fan_in = shape[0] if isinstance(module, Linear) else math.prod(shape[1:])
                spread = 0.02 if shape[0] == 1 else 0.7 / math.sqrt(fan_in)
                value = torch.randn(shape, generator=draw) * spread
            setattr(module, name, torch.nn.Parameter(value))
    return scorer


def loss_of(scorer: Scorer, batch: Batch, threshold: float) -> torch.Tensor:
    """Binary cross-entropy over the patches with a label; the rarer class weighs more."""
    wanted = (batch.share >= threshold if threshold > 0 else batch.share > 0).float()
    known = batch.known.float()
    inside, outside = (wanted * known).sum(), ((1 - wanted) * known).sum()
    weight = (outside / inside.clamp_min(1)).clamp(*WEIGHTS)
    each = F.binary_cross_entropy_with_logits(scorer(batch.pixels), wanted, pos_weight=weight, reduction="none")
    return (each * known).sum() / known.sum().clamp_min(1)


def rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to 2 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def indices(source: Source, step: int, batch: int, seed: int) -> list[int]:
    """The pictures of a step: a generator's next ones, or a seeded draw from a finite set."""
    if isinstance(source, Composites):
        return list(range(step * batch, (step + 1) * batch))
    return np.random.default_rng((seed, step)).integers(0, len(source), batch).tolist()


def train(args: argparse.Namespace, source: Source, spec: ScorerSpec) -> Scorer:
    """The trained scorer."""
    scorer = new_scorer(spec, args.seed)
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=args.learning_rate, weight_decay=DECAY, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, args.steps))
    began = time.monotonic()
    for step in range(args.steps):
        batch = batch_of(source, indices(source, step, args.batch, args.seed), spec.mean, spec.std)
        loss = loss_of(scorer, batch, args.threshold)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(scorer.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == args.steps - 1:
            print(f"step {step}: loss {loss.item():.4f}, {time.monotonic() - began:.0f} s", flush=True)
    return scorer


def main() -> None:
    """Command line."""
    args = parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    source, held_out = sources(args)
    side, patch = (args.side, args.patch) if args.images else (Composites.side_px, Composites.patch_px)
    rows = side // patch
    spec = ScorerSpec((rows, rows), patch, tuple(args.mean), tuple(args.std), args.width, mlp_width=4 * args.width)
    scorer = train(args, source, spec)
    for parameter in scorer.parameters():  # the figures are those of the half-precision weights that are stored
        parameter.data = parameter.data.half().float()
    save(args.out, scorer, spec)
    found: dict[str, Any] = {
        name: figures(lambda batch: scorer(batch.pixels), held, spec, args.threshold) for name, held in held_out.items()
    }
    report = {"seed": args.seed, "steps": args.steps, "batch": args.batch, "threshold": args.threshold, **found}
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
