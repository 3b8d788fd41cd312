"""Verify a bundle: schema, paths, sizes, hashes, and with --parity its golden tensors through the runtime.

Exit code 1: the runtime does not reproduce the golden tensors. A bundle that is damaged is a user error, exit code 2.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.cli.arguments import add_json, add_no_verify
from edgeprune.cli.output import mib, table, write_json

if TYPE_CHECKING:
    from edgeprune.bundle import Bundle
    from edgeprune.manifest import ParityRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--parity", action="store_true", help="replay the golden tensors through the runtime")
    add_no_verify(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import Bundle

    bundle = Bundle.open(args.bundle, verify="sizes" if args.no_verify else "full")
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    facts = {"files": len(bundle.manifest.files), "bytes": size, "hashes": not args.no_verify}
    if args.json != "-":
        compared = "sizes" if args.no_verify else "sizes and SHA-256"
        print(f"{bundle.path}: {facts['files']} files, {mib(size)}, {compared} agree with the manifest")
    rows = parity_rows(bundle) if args.parity else []
    failed = sum(not row.passed for row in rows)
    if args.json is not None:
        write_json({**facts, "parity": [_row(row) for row in rows], "ok": not failed}, args.json)
    if rows and args.json != "-":
        print(_text(rows))
        print(f"{failed} of {len(rows)} checks failed" if failed else f"all {len(rows)} checks passed")
    return 1 if failed else 0


def parity_rows(bundle: Bundle) -> list[ParityRow]:
    """Every row of the replay; the hashes have been compared already, or were not wanted."""
    from edgeprune.measure.parity import replay
    from edgeprune.runtime.session import Model

    with Model.open(bundle.path, verify="sizes") as model:
        return list(replay(bundle, model))


def _row(row: ParityRow) -> dict[str, Any]:
    """JSON-ready; a value that is no number, as of tensors of different shapes, becomes null."""
    return {**vars(row), "value": row.value if math.isfinite(row.value) else None}


def _text(rows: list[ParityRow]) -> str:
    head = ("stage", "measure", "value", "tolerance", "ok")
    body = [(row.stage, row.measure, f"{row.value:.3g}", f"{row.tolerance:.3g}", _mark(row)) for row in rows]
    return table([head, *body])


def _mark(row: ParityRow) -> str:
    return "yes" if row.passed else "NO"
