"""What a method must know about a checkpoint before its graph can be traced, measured on pictures at export.

The pictures are made ones unless `--set calibration=DIR` names a folder of real ones. What was measured becomes the
method's parameters, so the manifest's spec makes the same graph again without measuring.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from edgeprune.errors import CheckpointError, PruningError
from edgeprune.export.graphs import VisionGraph
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.preprocess import normalise, reference_pixels
from edgeprune.export.thinning import thin_through
from edgeprune.export.weights import WeightSource, fill
from edgeprune.machine import memory_bytes
from edgeprune.pruning.base import PruningMethod
from edgeprune.pruning.embedlens import NEAREST, EmbedLens
from edgeprune.pruning.in_encoder import BlockView, InEncoder, Passing
from edgeprune.pruning.none import NoPruning
from edgeprune.pruning.orders import unit

#: how many pictures are made or read at most
MADE: Final = 8
MOST: Final = 64
_KINDS: Final = (".jpg", ".jpeg", ".png")


def uncalibrated(method: PruningMethod) -> bool:
    """The method's graph waits for a measurement."""
    return method.uncalibrated


def calibrated(
    methods: dict[str, tuple[PruningMethod, int]], family: ModelFamily, source: WeightSource, pictures: list[np.ndarray]
) -> dict[str, tuple[PruningMethod, int]]:
    """The methods with everything measured. `pictures`: (1,3,S,S) float32 each, as the vision graph takes them."""

    def of(method: PruningMethod, count: int) -> PruningMethod:
        if not method.uncalibrated:
            return method
        if isinstance(method, InEncoder):
            return schedule_of(method, count, family, source, pictures)
        assert isinstance(method, EmbedLens)
        return anchors_of(method, family, source, pictures)

    return {key: (of(method, count), count) for key, (method, count) in methods.items()}


def filled(method: PruningMethod, keep: int, family: ModelFamily, source: WeightSource) -> VisionGraph:
    """The whole vision graph in float32, with weights.

    Raises:
        PruningError: the memory is not there.
    """
    graph = family.vision(method, keep, torch.float32, whole=True).eval()
    need, free = 4 * sum(parameter.numel() for parameter in graph.parameters()), memory_bytes()[1]
    if need > free:
        raise PruningError(
            f"{method.name} is calibrated at export, which needs {need >> 20} MiB of memory and {free >> 20} MiB are "
            f"free; take {method.name}'s spec from the manifest of an export made elsewhere"
        )
    fill(graph, source, family.canonical)
    return graph


@torch.inference_mode()
def anchors_of(
    method: EmbedLens, family: ModelFamily, source: WeightSource, pictures: list[np.ndarray]
) -> PruningMethod:
    """Which vocabulary entries the projected tokens of the pictures are nearest to, by cosine."""
    graph = filled(NoPruning(), family.visual_tokens, family, source)
    text = family.config.text_config
    table = unit(source.tensor("embed_tokens.weight", (text.vocab_size, text.hidden_size)).float())
    seen = [unit(graph(torch.from_numpy(picture))[0][0]) for picture in pictures]
    return method.calibrated(torch.cat([(tokens @ table.T).topk(NEAREST, dim=1).indices for tokens in seen]))


@torch.inference_mode()
def schedule_of(
    method: InEncoder, keep: int, family: ModelFamily, source: WeightSource, pictures: list[np.ndarray]
) -> PruningMethod:
    """A method that prunes inside the encoder, its schedule measured by its own rule picture by picture."""
    graph = filled(method, keep, family, source)
    blocks, runs = graph.path.blocks, []
    for picture in pictures:
        behind: list[int] = []

        def count(view: BlockView, passing: Passing, behind: list[int] = behind) -> int:
            behind.append(method.measured(view, blocks, keep))
            return behind[-1]

        iota = torch.arange(family.visual_tokens)
        thin_through(graph.vision_tower, method, torch.from_numpy(picture), iota, keep, count)
        runs.append(behind)
    return method.calibrated(runs)


def read_pictures(folder: Path | None, preprocessor: dict[str, Any], preprocess: dict[str, Any]) -> list[np.ndarray]:
    """Calibration pictures, preprocessed.

    Raises:
        CheckpointError: the folder holds none.
    """
    images = made_pictures() if folder is None else _read(folder)
    return [normalise(reference_pixels(preprocessor, image), preprocess) for image in images]


def _read(folder: Path) -> list[np.ndarray]:
    from PIL import Image

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _KINDS)[:MOST]
    if not files:
        raise CheckpointError(f"--set calibration={folder}: it holds no picture ({', '.join(_KINDS)})")
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def made_pictures() -> list[np.ndarray]:
    """Pictures (240,320,3) uint8 of soft backgrounds with discs and rectangles on them, always the same."""
    rows, columns = np.mgrid[0:240, 0:320]
    made = []
    for seed in range(MADE):
        rng = np.random.Generator(np.random.PCG64(seed))
        slope = rng.normal(size=(3, 2)) * 0.4
        image = (
            rng.uniform(60, 200, 3) + slope[:, 0] * (rows[..., None] - 120) + slope[:, 1] * (columns[..., None] - 160)
        )
        image += rng.normal(size=image.shape) * rng.uniform(2, 25)
        for _ in range(rng.integers(1, 7)):
            y, x, size = rng.uniform(0, 240), rng.uniform(0, 320), rng.uniform(10, 70)
            disc = (rows - y) ** 2 + (columns - x) ** 2 < size**2
            box = (abs(rows - y) < size) & (abs(columns - x) < 0.6 * size)
            image[disc if rng.random() < 0.5 else box] = rng.uniform(0, 255, 3)
        made.append(image.clip(0, 255).astype(np.uint8))
    return made
