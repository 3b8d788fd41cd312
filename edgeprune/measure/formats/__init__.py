"""Public benchmarks, read from a local directory in the files in which their makers publish them.

Each module names its files. A reader is a function (folder, split) -> Dataset; split is None for the usual one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeprune.errors import UserError
from edgeprune.measure.dataset import Dataset
from edgeprune.measure.formats import gqa, mme, pope, scienceqa, textvqa

Reader = Callable[[Path, "str | None"], Dataset]

FORMATS: Final[dict[str, Reader]] = {
    "pope": pope.read,
    "textvqa": textvqa.read,
    "gqa": gqa.read,
    "mme": mme.read,
    "scienceqa": scienceqa.read,
}


def read(name: str, folder: Path, split: str | None = None) -> Dataset:
    """The items of a benchmark.

    Raises:
        UserError: an unknown format, a file that is missing or of another form, a picture that is not there.
    """
    if name not in FORMATS:
        raise UserError(f"the format {name!r} is unknown; known: {', '.join(FORMATS)}.")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a directory; --format {name} reads one.")
    return FORMATS[name](folder, split)
