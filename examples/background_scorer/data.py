"""Pictures with labelled patches: composed scenes whose alpha masks are exact, or a directory of the user's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from labels import Labels, boxes_mask, fit_square, mask_labels
from PIL import Image

DEMO_MODEL = Path(__file__).resolve().parents[1] / "demo_model"
PICTURES = (".jpg", ".jpeg", ".png")


class Batch(NamedTuple):
    """pixels (B,3,S,S) float32 normalised; share (B,N) of foreground; known (B,N) bool."""

    pixels: torch.Tensor
    share: torch.Tensor
    known: torch.Tensor


class Composites:
    """Scenes of the demo's generator (examples/demo_model/scenes.py). Splits share no background picture."""

    side_px, patch_px = 224, 14

    def __init__(self, split: str, count: int) -> None:
        sys.path.insert(0, str(DEMO_MODEL))
        import scenes

        problem = scenes.missing_sources()
        if problem:
            raise SystemExit(problem)
        self._make, self._split, self._count = scenes.make_scene, split, count

    def __len__(self) -> int:
        return self._count

    def item(self, index: int) -> tuple[Image.Image, Labels]:
        scene = self._make(self._split, index)
        return scene.image, Labels(scene.foreground, np.ones(len(scene.foreground), bool))


class Directory:
    """Pictures with masks (a PNG of the same stem per picture) or boxes (a JSON object: file name -> list of boxes).

    The masks go the same way of resizing and cropping as the pictures.
    """

    def __init__(
        self, images: Path, masks: Path | None, boxes: Path | None, void: int | None, side_px: int, patch_px: int
    ) -> None:
        if (masks is None) == (boxes is None):
            raise SystemExit("give either --masks DIR or --boxes FILE for --images")
        self.files = sorted(path for path in images.iterdir() if path.suffix.lower() in PICTURES)
        if not self.files:
            raise SystemExit(f"{images} holds no pictures ({', '.join(PICTURES)})")
        self.masks, self.void, self.side_px, self.patch_px = masks, void, side_px, patch_px
        self.boxes = json.loads(boxes.read_text(encoding="utf-8")) if boxes else None
        missing = [path.name for path in self.files if not self._has_labels(path)]
        if missing:
            raise SystemExit(
                f"{len(missing)} pictures have no {'mask' if masks else 'boxes'}, the first is {missing[0]}"
            )

    def _has_labels(self, path: Path) -> bool:
        return path.name in self.boxes if self.boxes is not None else self._mask(path).is_file()

    def _mask(self, path: Path) -> Path:
        assert self.masks is not None
        return self.masks / f"{path.stem}.png"

    def __len__(self) -> int:
        return len(self.files)

    def item(self, index: int) -> tuple[Image.Image, Labels]:
        path = self.files[index]
        picture = Image.open(path).convert("RGB")
        if self.boxes is not None:
            try:
                values = boxes_mask(self.boxes[path.name], picture.height, picture.width).astype(np.uint8)
            except (ValueError, TypeError) as error:
                raise SystemExit(f"{path.name}: {error}") from None
        else:
            mask = Image.open(self._mask(path))
            if mask.size != picture.size:
                raise SystemExit(f"{self._mask(path)} has {mask.size} pixels, {path.name} has {picture.size}")
            # a palette's indices are the classes; anything else is read as grey values
            values = np.asarray(mask if mask.mode in ("P", "L", "1") else mask.convert("L"))
        square = fit_square(picture, self.side_px, Image.Resampling.BICUBIC)
        return square, mask_labels(values, self.void, self.side_px, self.patch_px)


class Subset:
    """Some items of a source."""

    def __init__(self, source: Composites | Directory, indices: Sequence[int]) -> None:
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def item(self, index: int) -> tuple[Image.Image, Labels]:
        return self._source.item(self._indices[index])


Source = Composites | Directory | Subset


def batch_of(source: Source, indices: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Batch:
    """The items at `indices`, normalised."""
    made = [source.item(index) for index in indices]
    raw = torch.from_numpy(np.stack([np.asarray(image) for image, _ in made])).permute(0, 3, 1, 2).float() / 255
    pixels = (raw - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    share, known = (torch.from_numpy(np.stack([getattr(item, name) for _, item in made])) for name in Labels._fields)
    return Batch(pixels, share, known)
