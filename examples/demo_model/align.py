"""First stage: teach the projector words before the decoder sees a picture.

Every patch is trained to land near the embedding of its word: the class of the object that covers it, the colour of a
flat background, else "background". A throw-away linear read-out of the patch position keeps the position in the
embedding. No decoder runs, so the stage takes a minute; without it the decoder learns almost nothing in the same time.
"""

from __future__ import annotations

import time

import scenes
import torch
import torch.nn.functional as F
from model import Cache, DemoModel
from torch import nn

WORDS = (*scenes.NAMES, *scenes.COLOURS, "background")
SCALE, MSE_WEIGHT, POSITION_WEIGHT = 20.0, 0.1, 2.0
COVERED = 0.35  # share of object pixels from which a patch counts as object
BATCH, PATCHES = 32, 64


def patch_centres() -> torch.Tensor:
    """(256, 2) centre of each patch in pixels, (across, down), raster order."""
    axis = torch.arange(scenes.GRID).float() * scenes.PATCH_PX + scenes.PATCH_PX / 2
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([across, down], -1).view(-1, 2)


def patch_words(cache: Cache, index: int) -> torch.Tensor:
    """(256,) index into WORDS for every patch of a scene."""
    meta, covered = cache.get("meta", index), cache.get("foreground", index) > COVERED
    rest = meta["background"] if meta["kind"] == "flat" else "background"
    words = torch.full((scenes.GRID**2,), WORDS.index(rest))
    centres = patch_centres()
    for name, x, y, side in meta["objects"]:
        corner = torch.tensor([x, y])
        inside = ((centres >= corner) & (centres < corner + side)).all(-1)
        words[inside & covered] = WORDS.index(name)
    return words


class _Goal:
    """The loss of the stage, and what it needs: word embeddings, class weights, patch positions."""

    def __init__(self, model: DemoModel, labels: torch.Tensor) -> None:
        table = model.decoder.embedding.float()
        self.words = table[model.word_ids(list(WORDS))]
        self.middle, self.unit = self.words.mean(0), table.std().item()
        self.directions = F.normalize(self.words - self.middle, dim=-1)
        counts = torch.bincount(labels.view(-1), minlength=len(WORDS)).float().clamp_min(1)
        self.weights = counts.rsqrt() / counts.rsqrt().mean()
        self.places = patch_centres() / (scenes.SIZE_PX / 2) - 1

    def similarity(self, out: torch.Tensor) -> torch.Tensor:
        """out (..., 576) -> cosine to every word, (..., 49)."""
        return F.normalize(out - self.middle, dim=-1) @ self.directions.t()

    def loss(self, out: torch.Tensor, labels: torch.Tensor, patches: torch.Tensor, reader: nn.Linear) -> torch.Tensor:
        """out (B, P, 576), labels and patches (B, P)."""
        scores = (self.similarity(out) * SCALE).flatten(0, 1)
        loss = F.cross_entropy(scores, labels.flatten(), weight=self.weights)
        loss = loss + MSE_WEIGHT * (out - self.words[labels]).pow(2).mean() / self.unit**2
        return loss + POSITION_WEIGHT * (reader(out / self.unit) - self.places[patches]).pow(2).mean()


def _accuracy(model: DemoModel, goal: _Goal, hidden: torch.Tensor, labels: torch.Tensor) -> str:
    with torch.no_grad():
        right = goal.similarity(model.project(hidden).float()).argmax(-1) == labels
    is_object = labels < len(scenes.NAMES)
    return f"objects {right[is_object].float().mean():.3f}, rest {right[~is_object].float().mean():.3f}"


def align(model: DemoModel, cache: Cache, scenes_used: int, steps: int, held_out: int = 100) -> None:
    """Train the projector of `model` in place on the first `scenes_used` scenes; prints held-out patch accuracy."""
    hidden = torch.stack([cache.get("hidden", index) for index in range(scenes_used)])
    labels = torch.stack([patch_words(cache, index) for index in range(scenes_used)])
    goal = _Goal(model, labels)
    reader = nn.Linear(goal.words.shape[-1], 2)
    weights = [*model.projector().parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(weights, 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    began = time.monotonic()
    for step in range(steps):
        rows = torch.randint(held_out, scenes_used, (BATCH,))
        patches = torch.rand(BATCH, hidden.shape[1]).topk(PATCHES).indices
        out = model.project(hidden[rows[:, None], patches]).float()
        loss = goal.loss(out, labels[rows[:, None], patches], patches, reader)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            score = _accuracy(model, goal, hidden[:held_out], labels[:held_out])
            print(f"align {step + 1}/{steps}: loss {loss:.3f}, {score}, {time.monotonic() - began:.0f} s", flush=True)
