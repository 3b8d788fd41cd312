"""What pruning did to each picture, as arrays in one .npz file, for researchers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgeprune.errors import UserError
from edgeprune.runtime.session import Session

Arrays = dict[str, "np.ndarray[Any, Any]"]


def require_place(target: Path) -> None:
    """UserError, in one sentence, unless `target` can become an .npz file; asked before any work is done."""
    if target.suffix != ".npz":
        raise UserError(f"{target} cannot hold tokens: give a name that ends in .npz.")
    if target.is_dir() or not target.parent.is_dir():
        problem = "it is a directory" if target.is_dir() else f"there is no directory {target.parent}"
        raise UserError(f"cannot write {target}: {problem}.")
    if not os.access(target.parent, os.W_OK | os.X_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise UserError(f"cannot write {target}: Permission denied.")


def token_arrays(session: Session, images: Sequence[int], files: Sequence[str]) -> Arrays:
    """The arrays of all pictures, each NAME/i for picture i of the command line, from 0.

    keep_idx (K,) int64; kinds (K,) text, "patch", or "other" where keep_idx is -1 ([CLS], merged and contextual
    tokens); visual_embeds (K,D) float32 as the decoder reads them; grid (2,) rows and columns; size_px (2,) height and
    width; method, file text; scores (N,) float32 of methods that give them; pad_mask (N,) bool of letter-boxed bundles.
    """
    arrays: Arrays = {}
    for place, (image, file) in enumerate(zip(images, files, strict=True)):
        kept = session.kept_tokens(image)
        values = {
            "keep_idx": kept.keep_idx,
            "kinds": np.where(kept.keep_idx >= 0, "patch", "other"),
            "visual_embeds": session.image_embeds(image),
            "grid": np.array([kept.grid_rows, kept.grid_cols]),
            "size_px": np.array([kept.height_px, kept.width_px]),
            "method": np.array(kept.method),
            "file": np.array(file),
            "scores": kept.scores,
            "pad_mask": kept.pad_mask,
        }
        arrays |= {f"{name}/{place}": value for name, value in values.items() if value is not None}
    return arrays


def write(target: Path, arrays: Arrays) -> None:
    """Writes the file whole or not at all.

    Raises:
        UserError: the disk refuses.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                np.savez(file, **cast(Any, arrays))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.replace(file.name, target)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}.") from error
