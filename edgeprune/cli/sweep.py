"""Sweep methods, keep ratios and variants: accuracy against latency in one HTML report that opens anywhere.

Without DATA it measures latency alone. Needs the native library, an onnxruntime library, plotly and Pillow, but neither
torch nor transformers.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import __version__
from edgeprune.cli.arguments import add_json, add_no_verify, keeps, names, positive, question, value
from edgeprune.cli.eval import add_data_options, read_data
from edgeprune.cli.output import require_place, table, write_json
from edgeprune.cli.profile import INTERRUPTED, OWN
from edgeprune.cli.progress import bar
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.measure.dataset import Dataset
    from edgeprune.measure.sweep import Plan
    from edgeprune.measure.sweep_pictures import Picture
    from edgeprune.measure.sweep_run import Options, Swept

PLACES = ("here", "ray")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("data", type=Path, nargs="?", metavar="DATA",
        help="questions as of `eval`: JSONL, or a directory with --format; without it: latency alone")  # fmt: skip
    add("-o", "--output", type=Path, default=Path("sweep.html"), metavar="FILE", help="the report (sweep.html)")
    add("--methods", "--prune", "--method", type=value(names), dest="methods", metavar="NAME,...",
        help="pruning methods (all of the bundle); several: all seeds of `random` are added")  # fmt: skip
    add("--keep", type=value(keeps), metavar="R,...",
        help="keep ratios K/N (of 1,0.5,0.25,0.1 those that the bundle serves)")  # fmt: skip
    add("--variant", type=value(names), default=[OWN], metavar="V,...",
        help=f"built variants; `{OWN}` is the bundle's own graphs (the default)")  # fmt: skip
    add_data_options(parser)
    add("--trials", type=value(positive), default=10, metavar="N", help="recorded rounds over all cases (10)")
    add("--warmup", type=value(positive), default=1, metavar="N", help="rounds before them, not recorded (1)")
    add("--image", metavar="FILE", help="a JPEG or PNG file to measure latency with (a generated picture)")
    add("--prompt", type=value(question), default="What is in the image?", metavar="Q", help="and the question")
    add("--max-new-tokens", type=value(positive), default=16, metavar="N",
        help="tokens of every timed answer, and the most of every other (16)")  # fmt: skip
    add("--pictures", type=value(positive), default=3, metavar="N", help="pictures drawn with their kept tokens (3)")
    add("--threads", type=value(positive), default=0, metavar="N",
        help="inside one graph run (onnxruntime's choice; 1 in the processes of --on ray)")  # fmt: skip
    add("--on", choices=PLACES, default=PLACES[0],
        help="where questions are answered: this process, or Ray's (RAY_ADDRESS, else this machine)")  # fmt: skip
    add("--workers", type=value(positive), metavar="N", help="with --on ray: processes (the cores of this machine)")
    add("--resume", type=Path, metavar="DIR", help="work files: what they hold is neither measured nor asked again")
    add_no_verify(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import Bundle
    from edgeprune.measure import sweep_run
    from edgeprune.measure.sweep import plan

    dataset = None if args.data is None else absolute(read_data(args))
    if args.data is None and any((args.format, args.split, args.metric, args.limit, args.on == "ray")):
        raise UserError("--format, --split, --metric, --limit and --on ray are about questions: give DATA, too.")
    if args.workers is not None and args.on != "ray":
        raise UserError("--workers counts the processes of --on ray: give that, too.")
    require_packages(args)
    require_place(args.output)
    if args.json not in (None, "-"):
        require_place(Path(args.json))
    bundle = Bundle.open(args.bundle, verify="sizes" if args.no_verify else "full")
    variants = [None if name == OWN else name for name in args.variant]
    for variant in (name for name in variants if name is not None):
        bundle.variant(variant, verify="sizes" if args.no_verify else "full")
    planned = plan(bundle.manifest, variants, args.methods, args.keep)
    for note in planned.asked.notes:
        print(f"edgeprune: note: {note}", file=sys.stderr)
    swept = sweep_run.run(options(args), bundle, dataset, planned)
    return write(args, report(args, dataset, planned, swept), swept.drawn)


def require_packages(args: argparse.Namespace) -> None:
    """One sentence about what is missing, before hours of work."""
    from edgeprune.measure.pillow import pillow
    from edgeprune.measure.sweep_plots import plotly

    plotly("graph_objects")
    pillow("Image")
    if args.on == "ray":
        from edgeprune.measure.sweep_ray import load_ray

        load_ray()


def options(args: argparse.Namespace) -> Options:
    """How the command line wants the sweep to run."""
    from edgeprune.measure.sweep_run import Options

    workers = (args.workers or len(os.sched_getaffinity(0))) if args.on == "ray" else None
    return Options(
        bundle=args.bundle, image=args.image, question=args.prompt, max_new_tokens=args.max_new_tokens,
        trials=args.trials, warmup=args.warmup, pictures=args.pictures, threads=args.threads, workers=workers,
        resume=args.resume, progress=bar,
    )  # fmt: skip


def absolute(dataset: Dataset) -> Dataset:
    """The same items with pictures that are found from any directory: work files name them, and other processes."""
    items = [
        item if item.image is None else dataclasses.replace(item, image=item.image.resolve()) for item in dataset.items
    ]
    return dataclasses.replace(dataset, items=tuple(items))


def report(args: argparse.Namespace, dataset: Dataset | None, planned: Plan, swept: Swept) -> dict[str, Any]:
    """The object that `--json` writes and the page embeds."""
    from edgeprune.measure import eval_report, profile_report
    from edgeprune.measure.sweep import points

    timed = profile_report.report(swept.measured)
    by = args.by or eval_report.DEFAULT_FIELDS
    accuracy = {variant: eval_report.report(found, by) for variant, found in swept.answered.items()}
    notes = list(planned.asked.notes)
    if len(set(swept.runs)) > 1:
        notes.append(f"latency was measured in {len(set(swept.runs))} runs, one after the other")
    data = None
    if dataset is not None:
        answered = min((found["answered"] for found in accuracy.values()), default=0)
        data = {"name": dataset.name, "sha256": dataset.sha256(), "items": len(dataset.items),
                "pictures": len(dataset.by_picture()), "suffix": dataset.suffix, "answered": answered}  # fmt: skip
    return {
        "bundle": args.bundle.name,
        "bundle_sha256": {name or OWN: found for name, found in swept.identities.items()},
        "edgeprune": __version__,
        "onnxruntime": swept.described["onnxruntime"]["version"],
        "provider": swept.described["provider"],
        "machine": timed["machine"],
        "partial": bool(swept.partial_reason),
        "partial_reason": swept.partial_reason,
        "notes": notes,
        "on": args.on,
        "data": data,
        "points": points(planned, timed["cases"], accuracy),
        "latency": {
            "image": args.image or "generated", "prompt": args.prompt, "max_new_tokens": args.max_new_tokens,
            "trials": min(len(found) for found in swept.measured.trials.values()), "trials_asked": args.trials,
            "warmup": args.warmup, "runs": swept.runs, "peak_rss_bytes": timed["peak_rss_bytes"],
            "cases": timed["cases"], "break_even": timed["break_even"],
        },
        "accuracy": {name or OWN: found for name, found in accuracy.items()},
    }  # fmt: skip


def write(args: argparse.Namespace, found: dict[str, Any], drawn: Sequence[Picture]) -> int:
    """The page, the JSON and the table; the exit code."""
    from edgeprune.measure.sweep_page import page

    try:
        args.output.write_text(page(found, drawn), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"cannot write {args.output}: {error.strerror}.") from error
    if args.json is not None:
        write_json(found, args.json)
    if args.json != "-":
        print(summary(args, found))
    return INTERRUPTED if found["partial"] else 0


def summary(args: argparse.Namespace, found: dict[str, Any]) -> str:
    """The points as a table, and where the rest is."""
    from edgeprune.measure.eval_report import interval_text

    rows = [["variant", "method", "keep", "K/N", "TTFT ms", "accuracy", "95 % interval", "front"]]
    for point in found["points"]:
        count = "-" if point["kept_tokens"] is None else f"{point['kept_tokens']}/{point['visual_tokens']}"
        rows.append([
            point["variant"] or OWN, point["method"], f"{point['keep']:g}", count, _number(point["ttft_ms"], ".2f"),
            _number(point["score"], ".3f"), interval_text(point["score_interval"]), "*" if point["pareto"] else "",
        ])  # fmt: skip
    lines = [table(rows), f"wrote {args.output}"]
    if found["data"] is None:
        lines.append("no questions were given, so accuracy was not measured")
    if found["partial"]:
        kept = (
            f"the same command goes on from {args.resume}" if args.resume else "nothing was kept, for want of --resume"
        )
        lines.append(f"{found['partial_reason']} These results are partial; {kept}")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
