"""Make a bundle: trace a checkpoint to ONNX with the pruning inside."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.cli.arguments import keep_or_auto, keep_range, setting, value
from edgeprune.cli.output import mib, needs_extra
from edgeprune.errors import UserError
from edgeprune.keep import AutoKeep
from edgeprune.recipe import DTYPES, ExportRecipe

if TYPE_CHECKING:
    from edgeprune.export.pipeline import ExportPlan

DEFAULT_RANGE = (0.01, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="ALIAS|DIR|HUB_ID", help="see `edgeprune list models`")
    add("--revision", metavar="R", help="branch, tag or commit of a hub id")
    add("--keep", required=True, type=value(keep_or_auto), metavar="R",
        help="default keep ratio K/N, or auto:mass=M,min=R,max=R: K from each picture's scores")  # fmt: skip
    add("--keep-range", type=value(keep_range), metavar="LOW:HIGH", help="what a request may ask for (0.01:1.0)")
    add("--static-keep", action="store_true", help="bake K into the graphs; a request cannot change it")
    add(
        "--prune",
        action="append",
        metavar="SPEC",
        help="NAME[:param=value,...] or background@R+NAME; repeat for several; first: default",
    )
    add("--background-weights", metavar="FILE", help="scorer of --prune background (the package's, for its grid)")
    add(
        "--text-encoder",
        metavar="DIR",
        help="CLIP checkpoint that reads the question, of --prune cdpruner:preset=paper",
    )
    add("--random-weights", action="store_true", help="the architecture without its weights, for latency work")
    add("--set", action="append", default=[], type=value(setting), metavar="KEY=VALUE", help="override a config value")
    add("--letterbox", action="store_true", help="pad pictures to a square instead of cropping; padding is kept last")
    add("--dtype", choices=DTYPES, default="fp32", help="of weights and activations (fp32)")
    add("-o", "--output", type=Path, metavar="DIR", help="the bundle (NAME-keepR.bundle in the current directory)")
    add("--force", action="store_true", help="replace an existing bundle")
    add("--dry-run", action="store_true", help="print the plan and stop")


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import BundleWriter

    recipe = recipe_from(args)
    output = args.output or Path(default_name(recipe))
    if not args.dry_run:
        BundleWriter(output, force=args.force).require_place()
    with needs_extra("export", "export"):
        from edgeprune.export import pipeline

        plan = pipeline.plan(recipe)
        print(plan_text(plan, recipe, output), flush=True)
        for warning in plan.warnings:
            print(f"edgeprune: warning: {warning}", file=sys.stderr)
        if args.dry_run:
            return 0
        with _progress() as progress:
            written = pipeline.export(recipe, output, force=args.force, progress=progress)
    size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    print(f"wrote {written} ({mib(size)})")
    return 0


def recipe_from(args: argparse.Namespace) -> ExportRecipe:
    """The recipe a command line asks for."""
    if args.static_keep and args.keep_range is not None:
        raise UserError("--static-keep bakes one keep ratio into the graphs; leave out --keep-range.")
    auto = args.keep if isinstance(args.keep, AutoKeep) else None
    if auto and args.static_keep:
        raise UserError("--static-keep bakes one K into the graphs; leave it out for an automatic keep.")
    low, high = args.keep_range or DEFAULT_RANGE
    # where K is not chosen from the scores, an automatic bundle keeps as many as it may at most
    keep = args.keep if auto is None else auto.max or high
    least = keep if auto is None else auto.min or low
    bounds = (keep, keep) if args.static_keep else (low, high) if args.keep_range else (min(low, least), high)
    return ExportRecipe(
        model=args.model,
        revision=args.revision,
        prune=tuple(args.prune or ("fastervlm",)),
        keep=keep,
        auto_keep=None if auto is None else str(auto),
        keep_range=bounds,
        static_keep=args.static_keep,
        random_weights=args.random_weights,
        overrides=tuple(args.set),
        dtype=args.dtype,
        letterbox=args.letterbox,
        background_weights=args.background_weights,
        text_encoder=args.text_encoder,
    )


def default_name(recipe: ExportRecipe) -> str:
    """`llava15-keep0.1.bundle`: the alias, or the last part of a directory or hub id."""
    path = Path(recipe.model)
    name = path.resolve().name if path.is_dir() else recipe.model.rstrip("/").rpartition("/")[2]
    keep = f"{recipe.keep:g}" if recipe.auto is None else f"auto{recipe.auto.mass:g}"
    return f"{name or 'model'}-keep{keep}.bundle"


def plan_text(plan: ExportPlan, recipe: ExportRecipe, output: Path) -> str:
    """The plan as people read it."""
    methods = ", ".join(recipe.prune)
    lines = [
        f"export {recipe.model} with {methods} -> {output}",
        f"  visual tokens  {plan.tokens_before} -> {plan.tokens_after} (keep {recipe.keep:g})",
        f"  graphs         {', '.join(plan.graphs)}",
        f"  disk           about {plan.disk_mib:,.0f} MiB",
        f"  memory         about {plan.memory_mib:,.0f} MiB during the export",
        *(f"  note           {note}" for note in plan.notes),
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A callback (step name, steps done, steps in all) behind a progress bar; None where stderr is no terminal."""
    if not os.isatty(sys.stderr.fileno()):
        yield None
        return
    from tqdm import tqdm

    # Some terminals do not tell their size; tqdm would then draw nothing.
    columns, lines = shutil.get_terminal_size()
    layout = "{desc} {bar} {n_fmt}/{total_fmt} [{elapsed}]"
    with tqdm(total=1, bar_format=layout, ncols=min(columns, 100), nrows=lines, leave=False) as bar:

        def show(step: str, done: int, total: int) -> None:
            _update(bar, step, done, total)

        yield show


def _update(bar: Any, step: str, done: int, total: int) -> None:
    bar.total, bar.n = total, done
    bar.set_description_str(step)
    bar.refresh()
