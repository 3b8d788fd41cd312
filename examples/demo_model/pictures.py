"""Render the pictures that are kept in the repository: `python pictures.py`, run from the root of the repository.

tests/data/scenes/   20 scenes of the test split as PNG and pairs.json, 50 of their questions
examples/pictures/   two scenes and two photographs for the demos
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import backgrounds
import scenes
from PIL import Image

SCENES, PAIRS = 20, 50
ORDER = ("what", "where", "count", "exist", "colour")


def write_scenes(folder: Path) -> None:
    """The first scenes of the test split, and questions of theirs, type by type in turn, until there are PAIRS."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for scene in scenes.iter_scenes("test", SCENES):
        name = f"test-{scene.meta.index:03d}.png"
        scene.image.save(folder / name, optimize=True)
        for question in scene.questions:
            pairs.append({"image": name, "question": question.text, "type": question.type, "answer": question.answer})
    chosen = balanced(pairs)
    (folder / "pairs.json").write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")


def balanced(pairs: list[dict[str, str]]) -> list[dict[str, str]]:
    """PAIRS of them, as even over the types as they go, in the order of the pictures."""
    mixed = random.Random(0).sample(pairs, len(pairs))
    queues = {kind: [pair for pair in mixed if pair["type"] == kind] for kind in ORDER}
    chosen: list[dict[str, str]] = []
    while len(chosen) < PAIRS:
        for queue in queues.values():
            if queue and len(chosen) < PAIRS:
                chosen.append(queue.pop(0))
    return sorted(chosen, key=lambda pair: pair["image"])


def write_photograph(name: str, target: Path, box: tuple[int, int, int, int] | None = None) -> None:
    """One scikit-image photograph as JPEG, at most 512 px."""
    image = backgrounds.photograph(name).crop(box) if box else backgrounds.photograph(name)
    image.thumbnail((512, 512), Image.Resampling.BICUBIC)
    image.save(target, quality=85, optimize=True)


def main() -> None:
    """Everything."""
    write_scenes(Path("tests/data/scenes"))
    folder = Path("examples/pictures")
    folder.mkdir(parents=True, exist_ok=True)
    for index in (7, 2):
        scenes.make_scene("test", index).image.save(folder / f"scene-{index}.png", optimize=True)
    write_photograph("coffee.png", folder / "coffee.jpg")
    write_photograph("chelsea.png", folder / "chelsea.jpg")


if __name__ == "__main__":
    main()
