"""MME (arXiv 2306.13394): two yes/no questions about each picture, 14 tasks.

DIR/TASK/ (or DIR/MME_Benchmark_release_version/TASK/) with PICTURE.jpg or .png and PICTURE.txt side by side, or in
images/ and questions_answers_YN/; every line of a text is a question, a tab, and Yes or No.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgeprune.errors import UserError
from edgeprune.measure.dataset import Dataset, Item, make_item, read_text
from edgeprune.measure.formats.files import first_folder

PERCEPTION: Final = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION: Final = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def read(folder: Path, split: str | None = None) -> Dataset:
    """Every task that is there, or one: `split` names a task. `category` is the task."""
    tasks = (*PERCEPTION, *COGNITION)
    if split is not None and split not in tasks:
        raise UserError(f"MME has no task {split!r}; it has: {', '.join(tasks)}.")
    root = first_folder(folder, ("MME_Benchmark_release_version",))
    wanted = [task for task in (tasks if split is None else (split,)) if (root / task).is_dir()]
    if not wanted:
        raise UserError(f"{root} holds no folder of an MME task: {', '.join(tasks)}.")
    return Dataset("mme", tuple(item for task in wanted for item in _items(root / task, task)), totals=totals)


def totals(by: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """MME's scores: 100 times accuracy plus accuracy+ per task, summed over perception and cognition.

    A sum stands for the tasks that are there; `tasks` says which.
    """
    tasks = {
        task: 100 * (found["yes_no"]["accuracy"] + found["yes_no"]["accuracy_plus"])
        for task, found in by.get("category", {}).items()
        if found["items"]
    }
    sums = {
        name: sum(tasks[task] for task in group if task in tasks) if any(task in tasks for task in group) else None
        for name, group in (("perception", PERCEPTION), ("cognition", COGNITION))
    }
    return {**sums, "tasks": tasks}


def _items(folder: Path, task: str) -> Iterator[Item]:
    texts = first_folder(folder, ("questions_answers_YN",))
    images = first_folder(folder, ("images",))
    for path in sorted(texts.glob("*.txt")):
        found = [
            images / f"{path.stem}{kind}" for kind in (".jpg", ".png") if (images / f"{path.stem}{kind}").is_file()
        ]
        image = found[0] if found else images / f"{path.stem}.jpg"
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if line.strip():
                yield _item(f"{path} line {number}", f"{task}/{path.stem}/{number}", line, image, task)


def _item(where: str, key: str, line: str, image: Path, task: str) -> Item:
    question, tab, answer = line.rstrip().rpartition("\t")
    if not tab or not question.strip():
        raise UserError(f"{where} must be a question, a tab, and Yes or No.")
    return make_item(where, key, question.strip(), [answer], image=image, metric="yes_no", fields={"category": task})
