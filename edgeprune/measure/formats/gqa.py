"""GQA (arXiv 1902.09506): compositional questions with one short answer.

DIR/SPLIT_questions.json (testdev_balanced; or in DIR/questions, DIR/questions1.2), an object question id -> question,
imageId, answer and types; pictures IMAGEID.jpg in DIR/images or DIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.measure.dataset import Dataset, Item, make_item
from edgeprune.measure.formats.files import SHORT_ANSWER, entry, first_file, first_folder, json_object, text


def read(folder: Path, split: str | None = None) -> Dataset:
    """Every question of a split; `category` is its structural type, `semantic` its semantic one."""
    name = f"{split or 'testdev_balanced'}_questions.json"
    path = first_file(folder, [name, f"questions/{name}", f"questions1.2/{name}"])
    images = first_folder(folder, ("images",))
    items = [_item(f"{path} question {key}", key, row, images) for key, row in json_object(path).items()]
    return Dataset("gqa", tuple(items), SHORT_ANSWER)


def _item(where: str, key: str, row: Any, images: Path) -> Item:
    fields = entry(row, where)
    types = entry(fields.get("types", {}), f"{where}: 'types'")
    kinds = {"category": types.get("structural"), "semantic": types.get("semantic")}
    return make_item(
        where,
        key,
        text(fields, "question", where),
        [text(fields, "answer", where)],
        image=images / f"{text(fields, 'imageId', where)}.jpg",
        metric="exact",
        fields={name: str(kind) for name, kind in kinds.items() if kind},
    )
