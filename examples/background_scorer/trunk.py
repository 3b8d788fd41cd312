"""Linear heads on the demo encoder's hidden states: `python trunk.py SCORER.safetensors`, after train.py.

Adds one head per encoder block to the file, for `--prune background:trunk=BLOCK`. A head is a ridge-regularised
logistic regression, solved by Newton steps, so nothing but the scenes is drawn. SCORER.json gets the heads' figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from data import DEMO_MODEL, Batch, Composites, batch_of
from measure import figures
from storing import add_heads
from train import HELD_OUT, MEAN, STD

from edgeprune.export.background_weights import fingerprint, read

SCENES, NEWTON_STEPS, RIDGE, PER_SCENE = 240, 8, 1e-3, 64


def encoder() -> torch.nn.Module:
    """The demo's vision encoder in float32, cut behind the block of the features."""
    sys.path.insert(0, str(DEMO_MODEL))
    from features import ScoredEncoder

    return ScoredEncoder().model.eval()


@torch.inference_mode()
def hidden(model: torch.nn.Module, pixels: torch.Tensor, blocks: int) -> list[torch.Tensor]:
    """Outputs (B,N,C) of the first blocks, without [CLS]."""
    states = model(pixels, output_hidden_states=True).hidden_states
    return [state[:, 1:] for state in states[1 : blocks + 1]]


def fit(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Logistic regression of y (M,) on x (M,C): weights and bias (C+1,), float64 inside."""
    centre, spread = x.double().mean(0), x.double().std(0)
    z = torch.cat([(x.double() - centre) / spread, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    w, target = torch.zeros(z.shape[1], dtype=torch.float64), y.double()
    ridge = RIDGE * len(x) * torch.eye(z.shape[1], dtype=torch.float64)
    ridge[-1, -1] = 0
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(z @ w)
        curve = (z * (p * (1 - p)).clamp_min(1e-6).unsqueeze(1)).T @ z + ridge
        w = w - torch.linalg.solve(curve, z.T @ (p - target) + ridge @ w)
    plain = w[:-1] / spread
    return torch.cat([plain, (w[-1] - plain @ centre).unsqueeze(0)])


def samples(model: torch.nn.Module, blocks: int, threshold: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Patches of training scenes, every foreground patch likelier than a background one: their states and labels."""
    source, draw = Composites("train", SCENES), torch.Generator().manual_seed(0)
    states: list[list[torch.Tensor]] = [[] for _ in range(blocks)]
    labels = []
    for first in range(0, SCENES, 8):
        batch = batch_of(source, range(first, first + 8), MEAN, STD)
        wanted = batch.share >= threshold
        chance = torch.where(wanted, 4.0, 1.0)
        chosen = torch.multinomial(chance, PER_SCENE, generator=draw)
        labels.append(wanted.gather(1, chosen).reshape(-1))
        for into, state in zip(states, hidden(model, batch.pixels, blocks), strict=True):
            picked = state.gather(1, chosen.unsqueeze(-1).expand(-1, -1, state.shape[2]))
            into.append(picked.reshape(-1, state.shape[2]))
    return [torch.cat(parts) for parts in states], torch.cat(labels)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scorer", type=Path)
    parser.add_argument("--blocks", type=int, default=6, help="heads for blocks 0 to BLOCKS - 1")
    parser.add_argument("--held-out", type=int, default=HELD_OUT // 4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    report_file = args.scorer.with_suffix(".json")
    report = json.loads(report_file.read_text(encoding="utf-8"))
    model, spec = encoder(), read(args.scorer).spec
    states, labels = samples(model, args.blocks, report["threshold"])
    fitted = [fit(state, labels) for state in states]
    heads = {}
    for block, w in enumerate(fitted):
        heads[f"background.trunk.{block}.linear.weight"] = w[:-1].half().unsqueeze(0).contiguous()
        heads[f"background.trunk.{block}.linear.bias"] = w[-1:].half()
    add_heads(args.scorer, heads, fingerprint(model.embeddings.patch_embeddings.projection.weight))
    for split in ("test", "small"):
        source = Composites(split, args.held_out)
        cache: dict[int, list[torch.Tensor]] = {}

        def scores(batch: Batch, block: int, cache: dict[int, list[torch.Tensor]] = cache) -> torch.Tensor:
            key = hash(batch.share.numpy().tobytes())
            if key not in cache:
                cache[key] = hidden(model, batch.pixels, args.blocks)
            w = fitted[block].half().float()
            return cache[key][block] @ w[:-1] + w[-1]

        report[f"trunk_{split}"] = {
            str(block): figures(lambda batch, block=block: scores(batch, block), source, spec, report["threshold"])
            for block in range(args.blocks)
        }
    report_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key.startswith("trunk")}, indent=1))


if __name__ == "__main__":
    main()
