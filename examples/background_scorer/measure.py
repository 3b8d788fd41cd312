"""What a scorer gets right on held-out pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from data import Batch, Source, batch_of

from edgeprune.export.models.background import ScorerSpec
from edgeprune.keep import keep_count

KEEPS = (0.5, 0.25, 0.1)


@torch.inference_mode()
def figures(
    scores: Callable[[Batch], torch.Tensor], source: Source, spec: ScorerSpec, threshold: float
) -> dict[str, float]:
    """Token accuracy at logit 0, its parts, and the share of foreground patches among the K highest.

    Args:
        scores: a batch -> logits (B,N).
    """
    total, right, inside, hit, called = 0.0, 0.0, 0.0, 0.0, 0.0
    kept = dict.fromkeys(KEEPS, 0.0)
    for first in range(0, len(source), 20):
        batch = batch_of(source, range(first, min(first + 20, len(source))), spec.mean, spec.std)
        logits = scores(batch)
        wanted = (batch.share >= threshold if threshold > 0 else batch.share > 0) & batch.known
        said = (logits > 0) & batch.known
        total += float(batch.known.sum())
        right += float(((said == wanted) & batch.known).sum())
        inside += float(wanted.sum())
        hit += float((said & wanted).sum())
        called += float(said.sum())
        for keep in KEEPS:
            top = logits.topk(keep_count(spec.patches, keep), dim=1).indices
            kept[keep] += float(wanted.gather(1, top).sum())
    return {
        "pictures": len(source),
        "token_accuracy": right / total,
        "foreground_share": inside / total,
        "all_background_accuracy": 1 - inside / total,
        "foreground_recall": hit / max(1.0, inside),
        "foreground_precision": hit / max(1.0, called),
        "iou": hit / max(1.0, inside + called - hit),
        **{f"foreground_recall_at_keep_{keep:g}": value / max(1.0, inside) for keep, value in kept.items()},
    }
