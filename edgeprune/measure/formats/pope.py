"""POPE (arXiv 2305.10355): is there an object in a COCO picture.

DIR/coco_pope_{random,popular,adversarial}.json (or in DIR/coco, DIR/output/coco), JSON lines with question_id, image,
text and label; pictures of COCO val2014 in DIR/val2014, DIR/images or DIR. A split is one of the three; all by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeprune.errors import UserError
from edgeprune.measure.dataset import Dataset, Item, json_lines, make_item
from edgeprune.measure.formats.files import SHORT_ANSWER, first_folder, text

SPLITS: Final = ("random", "popular", "adversarial")
_FOLDERS: Final = ("", "coco", "output/coco")


def read(folder: Path, split: str | None = None) -> Dataset:
    """Every question of one or all of the three files that are there; `category` is which."""
    if split is not None and split not in SPLITS:
        raise UserError(f"POPE has no split {split!r}; it has: {', '.join(SPLITS)}.")
    wanted = SPLITS if split is None else (split,)
    files = {name: path for name in wanted if (path := _file(folder, name)) is not None}
    if not files:
        names = ", ".join(f"coco_pope_{name}.json" for name in wanted)
        raise UserError(f"{folder} holds none of: {names}.")
    images = first_folder(folder, ("val2014", "images"))
    items = [item for name, path in files.items() for item in _items(path, name, images)]
    return Dataset("pope", tuple(items), SHORT_ANSWER)


def _file(folder: Path, name: str) -> Path | None:
    paths = (folder / place / f"coco_pope_{name}.json" for place in _FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def _items(path: Path, name: str, images: Path) -> Iterator[Item]:
    for where, row in json_lines(path):
        yield make_item(
            where,
            f"{name}-{text(row, 'question_id', where)}",
            text(row, "text", where),
            [text(row, "label", where)],
            image=images / text(row, "image", where),
            metric="pope",
            fields={"category": name},
        )
