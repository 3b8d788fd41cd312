"""Score a bundle on questions with known answers: methods against keep ratios, with intervals and paired tests.

Needs the native library and an onnxruntime library, but neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import __version__
from edgeprune.cli.arguments import add_json, add_no_verify, keeps, names, positive, question, value
from edgeprune.cli.output import table, write_json
from edgeprune.cli.progress import bar
from edgeprune.cli.providers import add_provider, provider_of
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.bundle import Bundle
    from edgeprune.measure.dataset import Dataset
    from edgeprune.measure.eval_work import WorkFile

INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add(
        "data",
        type=Path,
        metavar="DATA",
        help="JSONL: question, answer or answers, image, ... per line; or a directory",
    )
    add_data_options(parser)
    add("--keep", type=value(keeps), metavar="R,...", help="keep ratios K/N (the bundle's default)")
    add("--methods", "--prune", "--method", type=value(names), dest="methods", metavar="NAME,...",
        help="pruning methods (the bundle's default); several: all seeds of `random` are added")  # fmt: skip
    add("--text-only", action="store_true", help="also ask every question without its picture")
    add("--max-new-tokens", type=value(positive), default=16, metavar="N", help="most tokens of an answer (16)")
    add("--variant", metavar="V", help="a built variant (the bundle's own graphs)")
    add("--threads", type=value(positive), default=0, metavar="N", help="inside one graph run (onnxruntime's choice)")
    add("--resume", type=Path, metavar="FILE",
        help="the work file: what it holds is not asked again (FILE.work of --json FILE)")  # fmt: skip
    add_provider(parser)
    add_no_verify(parser)
    add_json(parser)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """How DATA is read, as `read_data` takes it."""
    add = parser.add_argument
    add("--format", metavar="NAME", help="DATA is the directory of a benchmark: pope, textvqa, gqa, mme, scienceqa")
    add("--split", metavar="NAME", help="with --format: one of its splits (the usual one)")
    add(
        "--metric",
        metavar="NAME",
        help="for items that name none, and for all of a --format: exact, vqa, yes_no, pope, choice, likelihood",
    )
    add(
        "--by",
        type=value(names),
        metavar="FIELD,...",
        help="fields of the items to break scores down by (category,size)",
    )
    add("--suffix", type=value(question), metavar="TEXT", help="put on a new line behind every question")
    add("--limit", type=value(positive), metavar="N", help="only the first N items")


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import Bundle
    from edgeprune.measure.grid import plan

    dataset = read_data(args)
    bundle = Bundle.open(args.bundle, verify="sizes" if args.no_verify else "full")
    grid = plan(bundle.manifest, args.methods, args.keep, text_only=args.text_only)
    for note in grid.notes:
        print(f"edgeprune: note: {note}", file=sys.stderr)
    report = evaluate(args, bundle, dataset, grid)
    if args.json is not None:
        write_json(report, args.json)
        if args.json != "-" and args.resume is None and not report["partial"]:
            _beside(args.json).unlink(missing_ok=True)
    if args.json != "-":
        print(summary(report))
    return INTERRUPTED if report["partial"] else 0


def read_data(args: argparse.Namespace) -> Dataset:
    """The items that the command line asks for."""
    import dataclasses

    from edgeprune.measure import formats
    from edgeprune.measure.dataset import read_jsonl, with_metric
    from edgeprune.measure.metrics import METRICS

    if args.metric is not None and args.metric not in METRICS:
        raise UserError(f"the metric {args.metric!r} is unknown; known: {', '.join(METRICS)}.")
    if args.format is not None:
        found = formats.read(args.format, args.data, args.split)
        found = with_metric(found, args.metric) if args.metric else found
    elif args.split is not None:
        raise UserError("--split names a part of a benchmark: give --format, too.")
    else:
        found = read_jsonl(args.data, args.metric)
    suffix = found.suffix if args.suffix is None else args.suffix
    return dataclasses.replace(found, items=found.items[: args.limit], suffix=suffix)


def evaluate(args: argparse.Namespace, bundle: Bundle, dataset: Dataset, grid: Any) -> dict[str, Any]:
    """The object that `--json` writes."""
    from edgeprune.measure import evaluate as evaluation
    from edgeprune.measure.eval_report import DEFAULT_FIELDS, report
    from edgeprune.runtime.session import Model

    facts = {"data": dataset.sha256(), "bundle": evaluation.identity(bundle, args.variant), "variant": args.variant,
             "max_new_tokens": args.max_new_tokens,
             **({} if args.provider is None else {"provider": args.provider})}  # fmt: skip
    work = open_work(args, facts)
    try:
        # the files of the bundle have been compared above
        if args.variant is not None and not args.no_verify:
            bundle.variant(args.variant)
        options = {"threads": args.threads, **provider_of(args)}
        with Model.open(args.bundle, variant=args.variant, verify="sizes", **options) as model:
            described = model.describe()
            result = evaluation.run(
                model, dataset, grid.cases, work, max_new_tokens=args.max_new_tokens, progress=bar("answers")
            )
    finally:
        work.close()
    return {
        "bundle": args.bundle.name,
        "bundle_sha256": facts["bundle"],
        "data": dataset.name,
        "data_sha256": facts["data"],
        "edgeprune": __version__,
        "onnxruntime": described["onnxruntime"]["version"],
        "provider": described["provider"],
        "variant": args.variant,
        "items": len(dataset.items),
        "pictures": len(dataset.by_picture()),
        "max_new_tokens": args.max_new_tokens,
        "suffix": dataset.suffix,
        "work_file": str(work.path) if result.partial and work.path else None,
        "notes": list(grid.notes),
        **report(result, args.by or DEFAULT_FIELDS),
    }


def open_work(args: argparse.Namespace, facts: dict[str, Any]) -> WorkFile:
    """The work file of --resume, else beside the file of --json, else none."""
    from edgeprune.measure.eval_work import WorkFile

    path = args.resume
    if path is None and args.json not in (None, "-"):
        path = _beside(args.json)
    return WorkFile(path, facts)


def _beside(target: str) -> Path:
    """The work file that lives as long as FILE is not there yet."""
    return Path(f"{target}.work")


def summary(report: dict[str, Any]) -> str:
    """The table, and where the rest of an interrupted run waits."""
    from edgeprune.measure.eval_report import table_rows

    lines = [table(table_rows(report))]
    if report["partial"]:
        kept = report["work_file"]
        lines.append(
            f"interrupted after {report['answered']} of {report['items']} items per case: partial results; "
            + (
                f"the same command goes on from {kept}"
                if kept
                else "nothing was kept, for want of --json FILE or --resume FILE"
            )
        )
    return "\n".join(lines)
