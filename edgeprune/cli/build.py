"""Build a variant of a bundle for one target: graphs compared with the bundle's own, or engines, which nothing has run.

Exit code 1: the target refuses a graph, or the variant stays too far from the canonical graphs; the bundle is as it was
before.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.cli.arguments import add_no_verify
from edgeprune.cli.output import mib, needs_extra
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.bundle import Bundle
    from edgeprune.engines.calibration import Samples
    from edgeprune.engines.preflight import Needs
    from edgeprune.engines.targets import Target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--target", required=True, metavar="T", help="see `edgeprune list targets`")
    parser.add_argument(
        "--precision",
        required=True,
        metavar="P",
        help="fp32, fp16, bf16, int8, int4, fp8, or e.g. vision=fp16,decoder=int4",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="DIR|FILE.jsonl",
        help="pictures and questions that give the ranges of int8 and fp8 engines; default: the golden pair",
    )
    parser.add_argument(
        "--kv-cache",
        choices=("auto", "fp32"),
        default="auto",
        help="cpu: how the decoder keeps keys and values; auto: in fp16 unless they need fp32, which is then said",
    )
    parser.add_argument(
        "--no-timing-cache",
        action="store_true",
        help="TensorRT: neither reuse nor keep timings of kernels; TensorRT-RTX times none",
    )
    parser.add_argument("--rebuild", action="store_true", help="build again what is there already")
    parser.add_argument("--force", action="store_true", help="build although memory or disk seem too small")
    add_no_verify(parser)


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import Bundle
    from edgeprune.engines import precisions, targets

    target, precision = targets.find(args.target), precisions.parse(args.precision)
    for word in precision.values():
        target.require_precision(word)
    bundle = Bundle.open(args.bundle, verify="sizes" if args.no_verify else "full")
    build = _graphs if target.builder == "onnxruntime" else _engines
    done = build(args, bundle, target, precision)
    if done is None:
        return 1
    slug, built = done
    variant = Bundle.open(args.bundle, verify="sizes").variant(slug, verify="sizes")
    size = sum(entry.bytes for entry in variant.files.values())
    use = (
        f"it holds engines, which nothing has run yet: run it on its GPU with --variant {slug}"
        if variant.graphs is None
        else f"run it with --variant {slug}"
    )
    print(f"{'wrote' if built else 'there already:'} variant {slug} ({mib(size)}); {use}")
    return 0


def _graphs(
    args: argparse.Namespace, bundle: Bundle, target: Target, precision: dict[str, str]
) -> tuple[str, bool] | None:
    """Slug of a variant that onnxruntime runs, and whether it was built; None: the target refuses a graph."""
    with needs_extra("build", "build"):
        from edgeprune.engines import cpu, cuda, preflight

        for_cuda = target.name == "cuda"
        (cuda if for_cuda else cpu).require(bundle, target, precision)
        if args.calibrate is not None:
            raise UserError(f"{target.name} stores no ranges of activations: --calibrate is for TensorRT targets.")
        if for_cuda:
            _refuse_cache(args, target)
            if not _passes_lint(bundle, target):
                return None
        _preflight(args, bundle, preflight.needs(bundle, precision))
        _announce(target, precision)
        if for_cuda:
            return cuda.build(bundle, target, precision, rebuild=args.rebuild, say=_say)
        half = args.kv_cache == "auto"
        return cpu.build(bundle, target, precision, rebuild=args.rebuild, half_cache=half, say=_say)


def _refuse_cache(args: argparse.Namespace, target: Target) -> None:
    if args.kv_cache != "auto":
        raise UserError(f"--kv-cache is for the target cpu: on {target.name} the precision decides.")


def _passes_lint(bundle: Bundle, target: Target) -> bool:
    """Whether the target refuses no graph; says what it does."""
    from edgeprune.cli.check import lint_findings, lint_text

    findings = lint_findings(bundle, target)
    _say(lint_text(findings, target))
    return not findings


def _engines(
    args: argparse.Namespace, bundle: Bundle, target: Target, precision: dict[str, str]
) -> tuple[str, bool] | None:
    """Slug of a variant of engines, and whether it was built; None: the target refuses a graph."""
    from edgeprune.engines import engine_variant, preflight

    engine_variant.require(bundle, target, precision)
    _refuse_cache(args, target)
    samples = None if args.calibrate is None else _samples(args.calibrate, bundle, precision)
    if not _passes_lint(bundle, target):
        return None
    _preflight(args, bundle, preflight.engine_needs(bundle, precision, target))
    _announce(target, precision)
    options = engine_variant.Options(samples, timing_cache=not args.no_timing_cache)
    return engine_variant.build(bundle, target, precision, rebuild=args.rebuild, options=options, say=_say)


def _samples(path: Path, bundle: Bundle, precision: dict[str, str]) -> Samples:
    """What to calibrate on."""
    from edgeprune.cli import calibration_files

    has = bundle.manifest.recipe.get("dtype", "fp32")
    if set(precision.values()) == {has}:
        raise UserError(f"an {has} engine of this bundle is its own graphs: --calibrate has nothing to measure.")
    samples = calibration_files.read(path, bundle)
    _say(f"calibration: {samples.source}")
    return samples


def _preflight(args: argparse.Namespace, bundle: Bundle, needs: Needs) -> None:
    """Says what the build needs; UserError when the machine has less, unless --force."""
    from edgeprune.engines import build_time, preflight

    _say(f"needs about {needs.memory >> 20} MiB of memory and {needs.disk >> 20} MiB of disk")
    if needs.seconds is not None:
        about = build_time.rounded(needs.seconds)
        _say(f"engines take about {about}: an order of magnitude, from builds on two x86 cores; measuring comes on top")
    if not args.force:
        preflight.require(bundle, needs)


def _announce(target: Target, precision: dict[str, str]) -> None:
    _say(f"{target.name}: " + ", ".join(f"{graph} {word}" for graph, word in precision.items()))


def _say(text: str) -> None:
    print(text, flush=True)
