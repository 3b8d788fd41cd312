"""Where libedgeprune lies, for all that load it: the runtime, and onnxruntime for the operators in it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

from edgeprune.errors import DependencyError

LIBRARY_VARIABLE = "EDGEPRUNE_LIB"


def path() -> Path:
    """The file. DependencyError names every place tried."""
    tried = []
    for place in places():
        if place.is_file():
            return place
        tried.append(f"{place} (not there)")
    raise DependencyError(f"libedgeprune.so was not found: tried {', '.join(tried)}; run `make native`, "
                          f"reinstall edgeprune, or point {LIBRARY_VARIABLE} at the file.")  # fmt: skip


def places() -> Iterator[Path]:
    """A place that was named is the only one; else the installed package, else the build folder of a source tree."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        yield Path(named)
        return
    try:
        distribution = importlib.metadata.distribution("edgeprune")
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        yield Path(str(distribution.locate_file("edgeprune/lib/libedgeprune.so")))
    yield Path(__file__).resolve().parents[1] / "build" / "native" / "libedgeprune.so"
