"""Pictures of the kept tokens for a report: every method on a few of the pictures that were asked about."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.measure.grid import Case
from edgeprune.measure.overlay import draw_overlay, legend
from edgeprune.runtime.session import Model

#: side of a drawn picture in the file, in pixels; the page shows it at half of that.
MOST_PX = 500


@dataclass(frozen=True)
class Picture:
    """One method on one picture. `question`: what a method that reads it was asked, "" where none does."""

    name: str
    question: str
    caption: str
    data_url: str


def draw(model: Model, shown: Sequence[tuple[Path, str]], cases: Sequence[Case]) -> list[Picture]:
    """Every case on every picture.

    Args:
        shown: (file, question) pairs; the question is for the methods that read it.

    Raises:
        DependencyError: Pillow is missing.
        UserError: a picture cannot be read.
    """
    methods = model.bundle.manifest.methods.each
    reads = {case: case.method is not None and methods[case.method].text for case in cases}
    return [
        _draw(model, file, question if any(reads.values()) else "", case, reads[case])
        for file, question in shown
        for case in cases
    ]


def smallest_keeps(cases: Sequence[Case]) -> list[Case]:
    """Of every method the case that prunes most; of random's seeds the first; none that keeps everything."""
    found: dict[str, Case] = {}
    for case in cases:
        if case.method is not None and case.keep < found.get(case.group, Case(None, "", 1.0, 0)).keep:
            found[case.group] = case
    return list(found.values())


def _draw(model: Model, file: Path, question: str, case: Case, reads_question: bool) -> Picture:
    with model.new_session() as session:
        image = session.add_image(str(file), keep=case.keep, method=case.method)
        if reads_question:
            session.generate(question, max_new_tokens=1)
        kept = session.kept_tokens(image)
    drawn = draw_overlay(file, [kept], model.bundle.manifest.preprocess)
    drawn.thumbnail((MOST_PX, MOST_PX * 3))
    out = io.BytesIO()
    drawn.save(out, "JPEG", quality=85)
    url = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
    return Picture(file.name, question, ", ".join(legend(kept)), url)
