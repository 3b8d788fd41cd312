"""Draw the kept patches over a picture: dropped ones dimmed, kept ones clear.

Several methods, `--prune a,b`, are drawn side by side. Needs Pillow.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.cli.arguments import add_no_verify, keep, names, value
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.measure.overlay import Panel
    from edgeprune.runtime.session import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("--image", required=True, metavar="F", help="a JPEG or PNG file")
    add("--prune", type=value(names), default=[None], metavar="NAME,...", help="pruning methods (the bundle's default)")
    add("--keep", type=value(keep), metavar="R", help="keep ratio K/N (the bundle's default)")
    add("-o", "--output", type=Path, default=Path("overlay.png"), metavar="FILE", help="PNG or JPEG (overlay.png)")
    add_no_verify(parser)


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import read_manifest
    from edgeprune.measure.overlay import draw
    from edgeprune.runtime.session import Model

    if args.output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{args.output} must end in .png or .jpg.")
    with Model.open(args.bundle, verify="sizes" if args.no_verify else "full") as model:
        panels, size_px = kept_panels(model, args)
    drawn = draw(args.image, panels, read_manifest(args.bundle).preprocess, size_px)
    try:
        drawn.save(args.output)
    except OSError as error:
        raise UserError(f"cannot write {args.output}: {error.strerror or error}.") from error
    for panel in panels:
        print(", ".join(panel.legend))
    print(f"wrote {args.output}")
    return 0


def kept_panels(model: Model, args: argparse.Namespace) -> tuple[list[Panel], tuple[int, int]]:
    """One panel per method, and the picture's (width, height) as the runtime read it."""
    from edgeprune.measure.overlay import Panel

    panels, size_px = [], (0, 0)
    for method in args.prune:
        with model.session() as session:
            tokens = session.kept_tokens(session.add_image(args.image, keep=args.keep, method=method))
        grid = (tokens.grid_rows, tokens.grid_cols)
        keep_idx = tuple(int(index) for index in tokens.keep_idx)
        panels.append(Panel(tokens.method, tokens.keep, tokens.kept, keep_idx, grid, tokens.reason))
        size_px = (tokens.width_px, tokens.height_px)
    return panels, size_px
