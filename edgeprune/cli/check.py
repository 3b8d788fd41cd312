"""Verify a bundle: schema, paths, sizes, hashes; with --target what it cannot run there, with --parity its results.

Exit code 1: the target refuses something, or the runtime does not reproduce the golden tensors. A damaged bundle is a
user error, exit code 2.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.cli.arguments import add_json, add_no_verify
from edgeprune.cli.output import mib, needs_extra, table, write_json
from edgeprune.cli.providers import add_provider, provider_of
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.bundle import Bundle
    from edgeprune.engines.lint import Finding
    from edgeprune.engines.numerics import Outlier
    from edgeprune.engines.parity import NotCompared
    from edgeprune.engines.targets import Target
    from edgeprune.manifest import ParityRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--parity", action="store_true", help="golden tensors through the runtime, then dialects and variants"
    )
    parser.add_argument("--layers", action="store_true", help="with --parity: also what each layer makes")
    parser.add_argument("--target", metavar="T", help="name what this target cannot run; see `edgeprune list targets`")
    parser.add_argument(
        "--precision",
        metavar="P",
        help="fp16: name the nodes that leave its range; with --target: refuse what it lacks",
    )
    add_provider(parser)
    add_no_verify(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import Bundle

    if args.layers and not args.parity:
        raise UserError("--layers is a part of --parity: add --parity.")
    if any(provider_of(args).values()) and not args.parity:
        raise UserError("--provider runs the golden tensors: add --parity.")
    target, guard = _target(args), _guard(args)
    bundle = Bundle.open(args.bundle, verify="sizes" if args.no_verify else "full")
    for variant in bundle.manifest.variants:
        bundle.variant(variant.slug, verify="sizes" if args.no_verify else "full")
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    facts = {"files": len(bundle.manifest.files), "bytes": size, "hashes": not args.no_verify}
    if args.json != "-":
        compared = "sizes" if args.no_verify else "sizes and SHA-256"
        print(f"{bundle.path}: {facts['files']} files, {mib(size)}, {compared} agree with the manifest")
    rows = parity_rows(bundle, provider_of(args)) if args.parity else []
    left_out: list[NotCompared] = []
    if args.parity:
        more, left_out = graph_rows(bundle, layers=args.layers)
        rows += more
    failed = sum(not row.passed for row in rows)
    findings = [] if target is None else lint_findings(bundle, target)
    beyond = fp16_findings(bundle, guard) if guard else []
    ok = not failed and not findings and not beyond
    if args.json is not None:
        report = {**facts, "parity": [_row(row) for row in rows], "ok": ok}
        if args.parity:
            report["not_compared"] = [vars(row) for row in left_out]
        if guard:
            report["fp16"] = [vars(row) for row in beyond]
        lint = {} if target is None else {"target": target.name, "findings": [f.to_dict() for f in findings]}
        write_json({**report, **lint}, args.json)
    if rows and args.json != "-":
        print(_text(rows, left_out))
        print(f"{failed} of {len(rows)} checks failed" if failed else f"all {len(rows)} checks passed")
    if target is not None and args.json != "-":
        print(lint_text(findings, target))
    if guard and args.json != "-":
        print("\n".join([*map(str, beyond), fp16_text(beyond, guard)]))
    return 0 if ok else 1


def fp16_findings(bundle: Bundle, stages: list[str]) -> list[Outlier]:
    """Nodes of these graphs that fp16 would compute and cannot hold, on the bundle's golden picture and question."""
    with needs_extra("build", "check --precision fp16"):
        from edgeprune.engines import numerics
    return numerics.check_bundle(bundle, stages)


def fp16_text(found: list[Outlier], stages: list[str]) -> str:
    """The sum, with the remedy."""
    if not found:
        return f"fp16: {' and '.join(stages)} stay within its range on the golden inputs"
    return f"fp16: {len(found)} node(s) leave its range; `edgeprune build` of an fp32 bundle keeps them in fp32"


def lint_findings(bundle: Bundle, target: Target) -> list[Finding]:
    """What the target refuses in the bundle's graphs; reads no weights and needs no GPU."""
    with needs_extra("build", "check --target"):
        from edgeprune.engines import lint
    return lint.check_bundle(bundle, target)


def _target(args: argparse.Namespace) -> Target | None:
    """The target that is asked about; it must have the precision."""
    if args.target is None:
        return None
    from edgeprune.engines import precisions, targets

    target = targets.find(args.target)
    for precision in precisions.parse(args.precision).values() if args.precision else ():
        target.require_precision(precision)
    return target


def _guard(args: argparse.Namespace) -> list[str]:
    """The graphs that are asked about in fp16."""
    if args.precision is None:
        return []
    from edgeprune.engines import precisions

    found = [graph for graph, word in precisions.parse(args.precision).items() if word == "fp16"]
    if args.target is None and not found:
        raise UserError("without --target only --precision fp16 can be checked; see `edgeprune list targets`.")
    return found


def lint_text(findings: list[Finding], target: Target) -> str:
    """A line per finding with its remedy, and the sum."""
    from edgeprune.engines import lint

    count = len(lint.rules_for(target))
    if not findings:
        return f"{target.name}: {count} rules, nothing refused"
    lines = [f"{f.graph}: {f.node}: {f.rule}: {f.problem}. {f.remedy}" for f in findings]
    return "\n".join([*lines, f"{target.name}: {count} rules, {len(findings)} finding(s)"])


def parity_rows(bundle: Bundle, provider: dict[str, Any]) -> list[ParityRow]:
    """Every row of the replay with an execution provider; the hashes have been compared already, or were not wanted."""
    from edgeprune.measure.parity import replay
    from edgeprune.runtime.session import Model

    with Model.open(bundle.path, verify="sizes", **provider) as model:
        return list(replay(bundle, model))


def graph_rows(bundle: Bundle, *, layers: bool) -> tuple[list[ParityRow], list[NotCompared]]:
    """Dialects and variants beside the canonical graphs, and what could not be compared here."""
    with needs_extra("build", "comparing dialects and variants (check --parity)"):
        from edgeprune.engines import parity

        try:
            found = list(parity.rows(bundle, layers=layers))
        except OSError as error:
            raise UserError(f"cannot write beside {bundle.path}, as this check must: {error.strerror}.") from error
    left_out = [row for row in found if isinstance(row, parity.NotCompared)]
    return [row for row in found if not isinstance(row, parity.NotCompared)], left_out


def _row(row: ParityRow) -> dict[str, Any]:
    """JSON-ready; a value that is no number, as of tensors of different shapes, becomes null."""
    return {**vars(row), "value": row.value if math.isfinite(row.value) else None}


def _text(rows: list[ParityRow], left_out: list[NotCompared]) -> str:
    head = ("stage", "measure", "value", "tolerance", "ok")
    body = [(row.stage, row.measure, f"{row.value:.3g}", f"{row.tolerance:.3g}", _mark(row)) for row in rows]
    return table([head, *body, *((row.stage, row.reason, "-", "-", "-") for row in left_out)])


def _mark(row: ParityRow) -> str:
    return "yes" if row.passed else "NO"
