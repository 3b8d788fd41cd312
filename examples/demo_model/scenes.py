"""Composed scenes with short questions: the data of the demo model.

A scene is a 224 px picture: one to three drawn objects (40 classes) on a flat, procedural, textured or photographed
background, with about 5.6 questions whose answers are known exactly. `make_scene(split, index)` depends on nothing but
its two arguments and the picture files, so every split is reproduced at will and none has to be stored.

Pictures: the 64 px emoji of the npm package `emoji-datasource-google` (directory in `EDGEPRUNE_DEMO_EMOJI`) and the
photographs that are inside the scikit-image and scikit-learn wheels. Their licences are listed in README.md.

    for image, questions, meta, foreground in iter_scenes("test", 10):
        ...
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import backgrounds
import numpy as np
from PIL import Image

SIZE_PX = 224
PATCH_PX = 14
GRID = SIZE_PX // PATCH_PX
GAP_PX = 24  # least distance between the centres of two objects, across: "left to right" is never a matter of taste
SMALL_PX = (28, 48)
OBJECT_PX = (28, 88)

# answer word -> short name in emoji.json; " word" is one token of the decoder's vocabulary for every one of them
CLASSES = {
    "dog": "dog", "cat": "cat", "cow": "cow", "pig": "pig", "frog": "frog", "lion": "lion_face", "panda": "panda_face",
    "fox": "fox_face", "rabbit": "rabbit", "monkey": "monkey_face", "chicken": "chicken", "penguin": "penguin",
    "owl": "owl", "turtle": "turtle", "snake": "snake", "fish": "tropical_fish", "whale": "whale",
    "octopus": "octopus", "crab": "crab", "butterfly": "butterfly", "apple": "apple", "banana": "banana",
    "grapes": "grapes", "strawberry": "strawberry", "watermelon": "watermelon", "pizza": "pizza", "bus": "bus",
    "bicycle": "bike", "airplane": "airplane", "rocket": "rocket", "boat": "boat", "house": "house",
    "tree": "deciduous_tree", "cactus": "cactus", "umbrella": "umbrella", "guitar": "guitar", "ball": "soccer",
    "clock": "alarm_clock", "key": "key", "heart": "heart",
}  # fmt: skip
NAMES = tuple(CLASSES)
COLOURS = backgrounds.COLOURS
COUNT_WORDS = ("one", "two", "three")
QUESTION_TYPES = ("what", "count", "where", "exist", "colour")
SIDES = ("left", "right", "top", "bottom")


class Question(NamedTuple):
    """One question: its type (of QUESTION_TYPES), its text and the only accepted answer."""

    type: str
    text: str
    answer: str


class Placed(NamedTuple):
    """One object: class name and square box, top-left corner and side in pixels."""

    name: str
    x: int
    y: int
    side: int

    @property
    def centre(self) -> tuple[float, float]:
        """(across, down) in pixels."""
        return self.x + self.side / 2, self.y + self.side / 2


class Meta(NamedTuple):
    """What is known of a scene: background kind, its source or colour, and the objects."""

    split: str
    index: int
    kind: str
    background: str
    objects: tuple[Placed, ...]


class Scene(NamedTuple):
    """A picture (RGB, 224 px), its questions, what is known of it, the object share of each patch (256,) float32."""

    image: Image.Image
    questions: tuple[Question, ...]
    meta: Meta
    foreground: np.ndarray


def emoji_dir() -> Path:
    """Directory of the unpacked npm package: holds emoji.json and img/google/64."""
    return Path(os.environ.get("EDGEPRUNE_DEMO_EMOJI", "emoji-datasource-google/package"))


def missing_sources() -> str | None:
    """One sentence that says which picture source is missing, or None when scenes can be made."""
    if not (emoji_dir() / "emoji.json").is_file():
        return f"emoji.json not found in {emoji_dir()}: unpack emoji-datasource-google 16.0.0, set EDGEPRUNE_DEMO_EMOJI"
    for module in ("skimage", "sklearn"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install scikit-image scikit-learn"
    return None


@functools.cache
def _emoji_index() -> dict[str, str]:
    entries = json.loads((emoji_dir() / "emoji.json").read_text(encoding="utf-8"))
    return {entry["short_name"]: entry["image"] for entry in entries}


@functools.cache
def emoji(name: str) -> Image.Image:
    """The 64 px RGBA drawing of a class; its alpha channel is the exact mask."""
    return Image.open(emoji_dir() / "img/google/64" / _emoji_index()[CLASSES[name]]).convert("RGBA")


def _fits(new: Placed, placed: list[Placed]) -> bool:
    """Whether `new` keeps clear of every placed object: hardly any overlap, and GAP_PX between centres across."""
    for other in placed:
        dx, dy = (abs(a - b) for a, b in zip(new.centre, other.centre, strict=True))
        if dx < GAP_PX or max(dx, dy) <= 0.45 * (new.side + other.side):
            return False
    return True


def _place(names: list[str], sides_px: tuple[int, int], rng: random.Random) -> tuple[Placed, ...]:
    """Positions for all names; starts again when one does not fit in 60 draws."""
    while True:
        placed: list[Placed] = []
        for name in names:
            for _ in range(60):
                side = rng.randint(*sides_px)
                new = Placed(name, rng.randint(0, SIZE_PX - side), rng.randint(0, SIZE_PX - side), side)
                if _fits(new, placed):
                    placed.append(new)
                    break
        if len(placed) == len(names):
            return tuple(placed)


def _paste(canvas: Image.Image, mask: Image.Image, item: Placed, rng: random.Random) -> None:
    """Draw one object, flipped and turned a little, on the canvas and in the mask."""
    drawing = emoji(item.name).resize((item.side, item.side), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    drawing = drawing.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC)
    canvas.paste(drawing, (item.x, item.y), drawing)
    mask.paste(255, (item.x, item.y), drawing.getchannel("A"))


def _existence(name: str) -> str:
    if name == "grapes":
        return "Are there any grapes in the image?"
    article = "an" if name[0] in "aeiou" else "a"
    return f"Is there {article} {name} in the image?"


def _side_questions(objects: tuple[Placed, ...]) -> list[Question]:
    """Questions for the outermost object of each side that is ahead of the next by GAP_PX."""
    found = []
    for side in SIDES if len(objects) > 1 else ():
        axis, far = (0 if side in ("left", "right") else 1), side in ("right", "bottom")
        first, second = sorted(objects, key=lambda item: item.centre[axis], reverse=far)[:2]
        if abs(first.centre[axis] - second.centre[axis]) >= GAP_PX:
            preposition = "on the" if axis == 0 else "at the"
            found.append(Question("where", f"What is {preposition} {side}?", first.name))
    return found


def _questions(meta: Meta, banned: tuple[str, ...], rng: random.Random) -> tuple[Question, ...]:
    """All questions of a scene; `banned` are classes that the photograph itself may show."""
    objects = meta.objects
    listing = ", ".join(item.name for item in sorted(objects, key=lambda item: item.x + item.side / 2))
    what = rng.choice(("What is in the image?", "List the objects from left to right."))
    asked = [Question("what", what, listing)]
    asked.append(Question("count", "How many objects are there?", COUNT_WORDS[len(objects) - 1]))
    sides = _side_questions(objects)
    asked += rng.sample(sides, min(2, len(sides)))
    present = [item.name for item in objects]
    absent = [name for name in NAMES if name not in present and name not in banned]
    asked.append(Question("exist", _existence(rng.choice(present)), "yes"))
    asked.append(Question("exist", _existence(rng.choice(absent)), "no"))
    if meta.kind == "flat":
        asked.append(Question("colour", "What colour is the background?", meta.background))
    return tuple(asked)


def _patch_share(mask: Image.Image) -> np.ndarray:
    """Share of object pixels in each patch, raster order, (256,) float32 in 0..1."""
    pixels = np.asarray(mask, np.float32).reshape(GRID, PATCH_PX, GRID, PATCH_PX)
    return pixels.mean((1, 3)).reshape(-1) / 255


def make_scene(split: str, index: int) -> Scene:
    """Scene `index` of `split` (train, val, test, small); the same arguments give the same scene."""
    rng = random.Random(f"edgeprune-demo-{split}-{index}")
    backdrop = backgrounds.draw(split, rng)
    canvas, mask = backdrop.image, Image.new("L", (SIZE_PX, SIZE_PX), 0)
    names = rng.sample([name for name in NAMES if name not in backdrop.depicts], rng.randint(1, 3))
    objects = _place(names, SMALL_PX if split == "small" else OBJECT_PX, rng)
    for item in objects:
        _paste(canvas, mask, item, rng)
    meta = Meta(split, index, backdrop.kind, backdrop.source, objects)
    return Scene(canvas, _questions(meta, backdrop.depicts, rng), meta, _patch_share(mask))


def iter_scenes(split: str, count: int, start: int = 0) -> Iterator[Scene]:
    """Scenes start .. start + count - 1 of a split."""
    for index in range(start, start + count):
        yield make_scene(split, index)
