"""Write the demo benchmark's splits as pictures and DATA.jsonl: `python make_data.py OUTPUT [--pictures 100]`.

OUTPUT/{train,val,test}/scene-00000.png ... and OUTPUT/{train,val,test}.jsonl for `edgeprune eval`. Every second test
scene holds small objects only (28-48 px), all other scenes objects of 28-88 px. Photographs and textures of the splits
are disjoint (`backgrounds.py`), flat colours and patterns are drawn anew, and no two splits share a placement: this
program checks both. Needs scikit-image, scikit-learn, and the unpacked npm package `emoji-datasource-google` 16.0.0
(its directory in EDGEPRUNE_DEMO_EMOJI).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo_model"))

import scenes

SPLITS = ("train", "val", "test")
#: name -> longest side in px
SIZES = {"small": 40, "medium": 60, "large": 88}


def size_of(meta: scenes.Meta) -> str:
    """small, medium or large, by the smallest object: the one that is lost first."""
    side = min(item.side for item in meta.objects)
    return next(name for name, most in SIZES.items() if side <= most)


def scenes_of(split: str, count: int) -> Iterator[scenes.Scene]:
    """`count` scenes; a test split takes turns between the generator's held-out splits test and small."""
    for index in range(count):
        if split == "test":
            yield scenes.make_scene(("test", "small")[index % 2], index // 2)
        else:
            yield scenes.make_scene(split, index)


def rows_of(split: str, number: int, scene: scenes.Scene) -> Iterator[dict[str, Any]]:
    """One line of DATA.jsonl per question."""
    name = f"{split}/scene-{number:05d}.png"
    for place, asked in enumerate(scene.questions):
        yield {
            "id": f"{split}-{number:05d}-{place}",
            "image": name,
            "question": asked.text,
            "answer": asked.answer,
            "metric": "exact",
            "category": asked.type,
            "size": size_of(scene.meta),
            "background": scene.meta.kind,
            "objects": len(scene.meta.objects),
        }


def write_split(folder: Path, split: str, count: int) -> dict[str, set[Any]]:
    """Writes one split; returns its placements and the files of its backgrounds."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    placements: set[Any] = set()
    files: set[str] = set()
    questions = 0
    with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
        for number, scene in enumerate(scenes_of(split, count)):
            scene.image.save(folder / split / f"scene-{number:05d}.png")
            placements.add(scene.meta.objects)
            if scene.meta.kind in ("photo", "texture"):
                files.add(scene.meta.background)
            for row in rows_of(split, number, scene):
                lines.write(json.dumps(row) + "\n")
                questions += 1
    print(f"{split}: {count} pictures, {questions} questions, backgrounds {', '.join(sorted(files))}")
    return {"placements": placements, "backgrounds": files}


def require_disjoint(found: dict[str, dict[str, set[Any]]]) -> None:
    """SystemExit: two splits share a placement or the file of a background."""
    for place, first in enumerate(found):
        for second in list(found)[place + 1 :]:
            for kind in ("placements", "backgrounds"):
                shared = found[first][kind] & found[second][kind]
                if shared:
                    raise SystemExit(f"{first} and {second} share {kind}: {sorted(map(str, shared))[:3]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pictures", type=int, default=100, help="of each split (100, about 560 questions)")
    args = parser.parse_args()
    missing = scenes.missing_sources()
    if missing:
        raise SystemExit(missing)
    require_disjoint({split: write_split(args.output, split, args.pictures) for split in SPLITS})


if __name__ == "__main__":
    main()
