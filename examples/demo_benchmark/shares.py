"""The pictures of an evaluation divided among processes, and their work files made one again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.measure.dataset import read_jsonl


@dataclass(frozen=True)
class Share:
    """Some pictures: their questions, and the work file of whoever answers them."""

    data: Path
    work: Path


def divide(data: Path, answered: Path, jobs: int) -> list[Share]:
    """Picture i goes to share i modulo `jobs`; the files stand beside `data`, whose pictures they name, and `answered`,
    whose answers they begin with."""
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    place = {picture: index % jobs for index, picture in enumerate(dict.fromkeys(row["image"] for row in rows))}
    made = []
    for index in range(jobs):
        name = f"{index}-of-{jobs}"
        share = Share(data.with_name(f"{data.stem}-{name}.jsonl"), answered.with_name(f"{answered.name}-{name}"))
        own = (json.dumps(row) + "\n" for row in rows if place[row["image"]] == index)
        share.data.write_text("".join(own), encoding="utf-8")
        made.append(share)
        if answered.exists() and not share.work.exists():
            _write(share.work, share.data, [answered])
    return made


def collect(data: Path, answered: Path, shares: Sequence[Share]) -> None:
    """Makes `answered` the work file of all questions of `data` from those of the shares."""
    _write(answered, data, [share.work for share in shares])


def _write(work: Path, data: Path, sources: Sequence[Path]) -> None:
    """A work file for `data` with the blocks of other work files that are about its pictures."""
    dataset = read_jsonl(data)
    pictures = dataset.by_picture()
    heads, blocks = [], []
    for source in sources:
        head, *rows = map(json.loads, source.read_text(encoding="utf-8").splitlines())
        heads.append({**head, "data": dataset.sha256()})
        blocks += [row for row in rows if row["picture"] in pictures]
    work.write_text("".join(json.dumps(row) + "\n" for row in (heads[0], *blocks)), encoding="utf-8")
