"""Train the demo model on cached features: `python train.py FEATURES OUT [--steps N]`.

Two stages: the projector is aligned to words (align.py), then projector and LoRA are trained on the answers. Worker
processes of one thread each average their gradients; two such workers do twice the work of one, where two threads in
one process do 1.5 times. The schedule counts steps, never seconds, and every draw is seeded by (seed, step, worker), so
a run can be repeated. Checkpoints: OUT/aligned.pt, latest.pt, step-N.pt, final.pt.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
import time
from pathlib import Path

import scoring
import torch
import torch.distributed as dist
import torch.nn.functional as F
from align import align
from decoder import training_dtype
from features import SCORE_BLOCKS
from model import Cache, DemoModel
from packing import Packed
from torch import nn

CYCLE = (64, 26, 128, 64, 26, 96, 64, 256, 26, 64)  # K, step by step
RANDOM_SHARE = {True: 0.5, False: 0.25}  # of random selections at K >= MANY and below; the rest is [CLS] top-k
MANY = 64
COUNT_WEIGHT = 2.0
PROJECTOR_RATE = 2.0  # its learning rate over that of the LoRA
ALIGN_SCENES, ALIGN_STEPS = 2000, 600
SAVE_EVERY = 20
WARM_UP, FLOOR, CLIP = 25, 0.03, 1.0


def parse_args() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--batch", type=int, default=16, help="images per step, over all workers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check-every", type=int, default=125, help="steps between checkpoints and validation")
    parser.add_argument("--check-scenes", type=int, default=16)
    parser.add_argument("--align-scenes", type=int, default=ALIGN_SCENES)
    parser.add_argument("--compiled", action="store_true", help="torch.compile the element-wise parts")
    return parser.parse_args()


def choose_patches(cache: Cache, index: int, count: int, draw: torch.Generator) -> torch.Tensor:
    """(K,) kept tokens of a scene in raster order: random, or the [CLS] top-k of one of the score blocks."""
    if count == 256:
        return torch.arange(256)
    if torch.rand(1, generator=draw).item() < RANDOM_SHARE[count >= MANY]:
        return torch.randperm(256, generator=draw)[:count].sort().values
    block = SCORE_BLOCKS[int(torch.randint(len(SCORE_BLOCKS), (1,), generator=draw))]
    return cache.cls_top(index, block, count)


def batch_loss(model: DemoModel, cache: Cache, indices: list[int], count: int, draw: torch.Generator) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens of a batch, count questions weighted."""
    kept = [choose_patches(cache, index, count, draw) for index in indices]
    hidden = torch.stack([cache.get("hidden", index)[patches] for index, patches in zip(indices, kept, strict=True)])
    asked = [cache.get("questions", index) for index in indices]
    packed = model.packer.pack(asked, count)
    losses = F.cross_entropy(model(hidden, packed), packed.labels, reduction="none")
    weights = token_weights(asked, packed)
    return (losses * weights).sum() / weights.sum()


def token_weights(asked: list, packed: Packed) -> torch.Tensor:
    """(M,) weight of each answer token."""
    types = [asked[image][number][0] for image, number in packed.owners]
    return torch.tensor([COUNT_WEIGHT if kind == "count" else 1.0 for kind in types])


def average_gradients(weights: list[nn.Parameter], workers: int) -> None:
    """Replace each worker's gradients by their mean."""
    if workers == 1:
        return
    flat = torch.cat([weight.grad.reshape(-1) for weight in weights])
    dist.all_reduce(flat)
    flat /= workers
    for weight, part in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad.copy_(part.view_as(weight))


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, and a cosine down to FLOOR."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return min(1.0, (step + 1) / WARM_UP) * ((1 - FLOOR) * cosine + FLOOR)


class Trainer:
    """The second stage as one worker sees it."""

    def __init__(self, args: argparse.Namespace, rank: int, model: DemoModel) -> None:
        self.args, self.rank, self.model = args, rank, model
        self.train, self.val = Cache(args.features, "train"), Cache(args.features, "val")
        self.weights = list(model.parameters())
        self.rates = {"projector": PROJECTOR_RATE * args.learning_rate, "lora": args.learning_rate}
        projector = list(model.projector().parameters())
        lora = list(model.decoder.parameters())
        groups = [{"params": projector, "name": "projector"}, {"params": lora, "name": "lora"}]
        self.optimizer = torch.optim.AdamW(groups, args.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.order: list[int] = []
        self.shuffler = random.Random(args.seed)

    def next_indices(self) -> list[int]:
        """This worker's share of the next batch; all workers walk one shuffled order."""
        if len(self.order) < self.args.batch:
            self.order = list(range(len(self.train)))
            self.shuffler.shuffle(self.order)
        return [self.order.pop() for _ in range(self.args.batch)][self.rank :: self.args.workers]

    def step(self, number: int) -> float:
        """One optimiser step; returns this worker's loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[group["name"]] * rate_factor(number, self.args.steps)
        draw = torch.Generator().manual_seed((self.args.seed * 1_000_003 + number) * 64 + self.rank)
        count = CYCLE[number % len(CYCLE)]
        loss = batch_loss(self.model, self.train, self.next_indices(), count, draw)
        self.optimizer.zero_grad()
        loss.backward()
        average_gradients(self.weights, self.args.workers)
        nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.optimizer.step()
        self.model.decoder.merge()
        return loss.item()

    def check(self, number: int) -> None:
        """Validate all tokens and K = 26, each worker on its share; worker 0 prints and saves."""
        share = list(range(min(self.args.check_scenes, len(self.val))))[self.rank :: self.args.workers]
        for name, pick in (("all", scoring.everything()), ("cls 26", scoring.cls_attention(self.val, 8, 26))):
            table = scoring.Tally(scoring.answer_scenes(self.model, self.val, share, pick))
            counts = torch.tensor(table.counts(), dtype=torch.float64)
            if self.args.workers > 1:
                dist.all_reduce(counts)
            if self.rank == 0:
                print(f"  val {name}: {scoring.Tally.format(counts.tolist())}", flush=True)
        if self.rank == 0:
            torch.save(self.model.state_dict(), self.args.out / f"step-{number}.pt")

    def run(self) -> None:
        """All steps."""
        began, losses, last = time.monotonic(), [], self.args.steps
        for number in range(last):
            losses.append(self.step(number))
            done = number + 1
            if self.rank == 0 and done % 10 == 0:
                mean = sum(losses[-10:]) / 10
                print(f"{done}/{self.args.steps}: loss {mean:.3f}, {time.monotonic() - began:.0f} s", flush=True)
            if self.rank == 0 and done % SAVE_EVERY == 0:
                torch.save(self.model.state_dict(), self.args.out / "latest.pt")
            if done % self.args.check_every == 0 and done < last:
                self.check(done)
        self.check(last)
        if self.rank == 0:
            torch.save(self.model.state_dict(), self.args.out / "final.pt")


def start_model(args: argparse.Namespace, rank: int) -> DemoModel:
    """The model after the first stage; worker 0 aligns, the others wait for its checkpoint."""
    torch.manual_seed(args.seed)
    cache = Cache(args.features, "train")
    sample = torch.stack([cache.get("hidden", index) for index in range(min(512, len(cache)))]).float().flatten(0, 1)
    model = DemoModel(sample.mean(0), sample.std(0), training_dtype(), args.compiled)
    aligned = args.out / "aligned.pt"
    if rank == 0:
        align(model, cache, min(args.align_scenes, len(cache)), ALIGN_STEPS)
        torch.save(model.state_dict(), aligned)
    if args.workers > 1:
        dist.barrier()
    model.load_state_dict(torch.load(aligned, weights_only=True))
    model.decoder.merge()
    return model


def worker(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One process, on a processor of its own where there are enough."""
    torch.set_num_threads(1)
    processors = sorted(os.sched_getaffinity(0))
    if args.workers <= len(processors):
        os.sched_setaffinity(0, {processors[rank]})
    if args.workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.workers)
    Trainer(args, rank, start_model(args, rank)).run()


def main() -> None:
    """Start the workers."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (args, f"{folder}/meeting"), nprocs=args.workers)


if __name__ == "__main__":
    main()
