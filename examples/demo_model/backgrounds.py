"""Backgrounds of the demo scenes: flat colours, procedural patterns, textures and photographs.

Photographs and textures are disjoint between train, val and test; `small` is a second held-out split and shares the
backgrounds of test (and of nothing else), so that the two differ in the size of the objects only.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIZE_PX = 224
COLOURS = {
    "red": (205, 30, 30), "green": (30, 150, 50), "blue": (40, 70, 210), "yellow": (240, 220, 50),
    "white": (248, 248, 248), "black": (12, 12, 12), "gray": (128, 128, 128), "purple": (130, 40, 160),
}  # fmt: skip


class Backdrop(NamedTuple):
    """A background: RGB picture, kind (flat, pattern, texture, photo), colour name or file, classes it may show."""

    image: Image.Image
    kind: str
    source: str
    depicts: tuple[str, ...] = ()


PHOTOS = {
    "train": (
        "astronaut.png", "coffee.png", "hubble_deep_field.jpg", "retina.jpg", "chelsea.png", "rocket.jpg", "text.png",
        "clock_motion.png", "cell.png", "china.jpg",
    ),
    "val": ("flower.jpg", "microaneurysms.png"),
    "test": ("camera.png", "coins.png", "ihc.png"),
}  # fmt: skip
TEXTURES = {"train": ("brick.png", "page.png"), "val": ("grass.png",), "test": ("gravel.png",)}
DEPICTS = {  # classes never drawn on, nor asked about, in front of a photograph that shows one
    "chelsea.png": ("cat",), "rocket.jpg": ("rocket",), "astronaut.png": ("rocket", "airplane"),
    "clock_motion.png": ("clock",), "china.jpg": ("house", "tree"), "camera.png": ("house", "tree"),
}  # fmt: skip
_SKLEARN = ("china.jpg", "flower.jpg")


def _held_out(split: str) -> str:
    return "test" if split == "small" else split


def _package_dir(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{module} is not installed")
    return Path(spec.origin).parent


@functools.cache
def photograph(name: str) -> Image.Image:
    """A photograph of scikit-image or scikit-learn as RGB, its shorter side at most 640 px."""
    folder = _package_dir("sklearn") / "datasets/images" if name in _SKLEARN else _package_dir("skimage") / "data"
    image = Image.open(folder / name).convert("RGB")
    scale = min(1.0, 640 / min(image.size))
    return image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)


def _crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """A random square of 150..420 px, resized to 224 px, mirrored half of the time."""
    side = min(*image.size, rng.randint(150, 420))
    left, top = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    square = image.crop((left, top, left + side, top + side)).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else square


def _tint(image: Image.Image, rng: random.Random) -> Image.Image:
    gains = np.array([rng.uniform(0.55, 1.1) for _ in range(3)])
    return Image.fromarray((np.asarray(image, np.float32) * gains).clip(0, 255).astype(np.uint8))


def _waves(rng: random.Random) -> np.ndarray:
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    angle = rng.uniform(0, math.pi)
    return np.sin((x * math.cos(angle) + y * math.sin(angle)) * rng.uniform(0.05, 0.5)) * 0.5 + 0.5


def _checks(rng: random.Random) -> np.ndarray:
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    side = rng.randint(8, 40)
    return ((x // side + y // side) % 2).astype(float)


def _ramp(rng: random.Random) -> np.ndarray:
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    angle = rng.uniform(0, 2 * math.pi)
    slope = x * math.cos(angle) + y * math.sin(angle)
    return (slope - slope.min()) / (slope.max() - slope.min())


def _blobs(rng: random.Random) -> np.ndarray:
    cells = rng.randint(3, 40)
    noise = (np.random.RandomState(rng.randint(0, 2**31)).rand(cells, cells) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)) / 255.0


def _pattern(rng: random.Random) -> Image.Image:
    """Two random colours mixed by waves, checks, a ramp or blobs."""
    mix = rng.choice((_waves, _checks, _ramp, _blobs))(rng)[..., None]
    first, second = (np.array([rng.randint(0, 255) for _ in range(3)]) for _ in range(2))
    return Image.fromarray((first * (1 - mix) + second * mix).clip(0, 255).astype(np.uint8))


def _flat(rng: random.Random) -> Backdrop:
    name = rng.choice(list(COLOURS))
    shade = tuple(max(0, min(255, value + rng.randint(-14, 14))) for value in COLOURS[name])
    return Backdrop(Image.new("RGB", (SIZE_PX, SIZE_PX), shade), "flat", name)


def draw(split: str, rng: random.Random) -> Backdrop:
    """A background for a split: 34 % flat, 16 % pattern, 16 % texture, 34 % photograph."""
    share, split = rng.random(), _held_out(split)
    if share < 0.34:
        return _flat(rng)
    if share < 0.5:
        return Backdrop(_pattern(rng), "pattern", "pattern")
    if share < 0.66:
        name = rng.choice(TEXTURES[split])
        return Backdrop(_tint(_crop(photograph(name), rng), rng), "texture", name)
    name = rng.choice(PHOTOS[split])
    image = _crop(photograph(name), rng)
    image = _tint(image, rng) if rng.random() < 0.3 else image
    return Backdrop(image, "photo", name, DEPICTS.get(name, ()))
