"""Build a variant of a bundle for one target, compared with the bundle's own graphs.

Exit code 1: the variant stays too far from the canonical graphs; the bundle is as it was before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeprune.cli.arguments import add_no_verify
from edgeprune.cli.output import mib, needs_extra
from edgeprune.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--target", required=True, metavar="T", help="see `edgeprune list targets`")
    parser.add_argument("--precision", required=True, metavar="P", help="int8, or vision=int8,decoder=fp32")
    parser.add_argument("--rebuild", action="store_true", help="build again what is there already")
    parser.add_argument("--force", action="store_true", help="build although memory or disk seem too small")
    add_no_verify(parser)


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import Bundle
    from edgeprune.engines import precisions, targets

    target, precision = targets.find(args.target), precisions.parse(args.precision)
    for word in precision.values():
        target.require_precision(word)
    if target.builder != "onnxruntime":
        raise UserError(
            f"building for {target.name} is not there yet; `edgeprune check` with --target says what it would refuse."
        )
    bundle = Bundle.open(args.bundle, verify="sizes" if args.no_verify else "full")
    with needs_extra("build", "build"):
        from edgeprune.engines import cpu, preflight

        cpu.require(bundle, target, precision)
        if not args.force:
            preflight.require(bundle, precision)
        print(f"{target.name}: " + ", ".join(f"{graph} {word}" for graph, word in precision.items()), flush=True)
        slug, built = cpu.build(
            bundle, target, precision, rebuild=args.rebuild, say=lambda text: print(text, flush=True)
        )
    variant = Bundle.open(args.bundle, verify="sizes").variant(slug, verify="sizes")
    size = sum(entry.bytes for entry in variant.files.values())
    print(f"{'wrote' if built else 'there already:'} variant {slug} ({mib(size)}); run it with --variant {slug}")
    return 0
