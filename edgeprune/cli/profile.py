"""Measure every stage of a bundle on this machine, keep ratio against keep ratio, in interleaved trials.

Needs the native library and an onnxruntime library, but neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import __version__
from edgeprune.cli.arguments import add_json, add_no_verify, keeps, names, number, positive, question, value
from edgeprune.cli.output import mib, require_place, table, write_json
from edgeprune.cli.providers import add_provider, provider_of
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.manifest import Manifest
    from edgeprune.measure.profile import Case, Question
    from edgeprune.measure.target import Target
    from edgeprune.runtime.session import Model

    Models = dict[str | None, Model]

#: what --variant calls the bundle's own graphs.
OWN = "own"
#: nodes that --layers shows of each graph.
LAYERS = 10
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("--keep", type=value(keeps), metavar="R,...",
        help="keep ratios K/N (of 1,0.5,0.25,0.1 those that the bundle serves)")  # fmt: skip
    add("--prune", "--method", type=value(names), dest="methods", metavar="NAME,...",
        help="pruning methods (the bundle's default)")  # fmt: skip
    add("--variant", type=value(names), default=[OWN], metavar="V,...",
        help=f"built variants; `{OWN}` is the bundle's own graphs (the default)")  # fmt: skip
    add("--trials", type=value(positive), default=10, metavar="N", help="recorded rounds over all cases (10)")
    add("--warmup", type=value(positive), default=1, metavar="N", help="rounds before them, not recorded (1)")
    add("--image", metavar="FILE", help="a JPEG or PNG file (a generated picture)")
    add("--prompt", type=value(question), default="What is in the image?", metavar="Q", help="the question")
    add("--max-new-tokens", type=value(positive), default=16, metavar="N", help="tokens of every answer (16)")
    add("--target-ms", type=value(number(0, math.inf)), metavar="X",
        help="find the largest keep with a TTFT (p90) of at most X on this machine")  # fmt: skip
    add("--save", action="store_true", help="store what --target-ms finds on this machine, for `run --keep tuned`")
    add("--layers", type=value(positive), nargs="?", const=LAYERS, default=0, metavar="N",
        help=f"the N slowest nodes of every graph, from the runtime's own profiler ({LAYERS})")  # fmt: skip
    add("--no-trace", action="store_true",
        help="leave out the profiled answers behind the trials: no operations, no pruner's share")  # fmt: skip
    add_provider(parser)
    add_no_verify(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from edgeprune.bundle import Bundle
    from edgeprune.measure.profile import Question, choose_cases, generated_picture

    if args.layers and args.no_trace:
        raise UserError("--layers needs the traced answers that --no-trace leaves out; ask for one of them.")
    require_places(args)
    bundle = Bundle.open(args.bundle, verify="sizes" if args.no_verify else "full")
    variants = [None if name == OWN else name for name in dict.fromkeys(args.variant)]
    cases = choose_cases(bundle.manifest, variants, args.methods, args.keep)
    picture = generated_picture() if args.image is None else args.image
    asked = Question(picture, args.prompt, args.max_new_tokens)
    with contextlib.ExitStack() as stack:
        # the files of the bundle have been compared above
        models: Models = {name: stack.enter_context(_open(args, name)) for name in variants}
        report = profile(models, cases, asked, args)
    # a model that is traced has the machine for itself: those of the trials are closed
    if not (report["partial"] or args.no_trace):
        trace(report, bundle.manifest, cases, asked, args)
    if args.json is not None:
        write_json(report, args.json)
    if args.json != "-":
        print(summary(report))
    return INTERRUPTED if report["partial"] else 0


def require_places(args: argparse.Namespace) -> None:
    """UserError for what could not be written after minutes of measuring."""
    if args.json not in (None, "-"):
        require_place(Path(args.json))
    if args.save:
        from edgeprune.measure import tuned

        if args.target_ms is None:
            raise UserError("--save stores what --target-ms finds: give that, too.")
        tuned.require_place()


def _open(args: argparse.Namespace, variant: str | None, profile_prefix: str | None = None) -> Model:
    from edgeprune.runtime.session import Model

    if variant is not None and not args.no_verify:
        from edgeprune.bundle import Bundle

        Bundle.open(args.bundle, verify="sizes").variant(variant)
    return Model.open(args.bundle, variant=variant, verify="sizes", profile_prefix=profile_prefix, **provider_of(args))


def profile(models: Models, cases: Sequence[Case], asked: Question, args: argparse.Namespace) -> dict[str, Any]:
    """The object that `--json` writes."""
    from edgeprune.measure.power import Power
    from edgeprune.measure.profile import measure
    from edgeprune.measure.profile_report import report

    with Power() as power:
        measured = measure(models, cases, asked, trials=args.trials, warmup=args.warmup, progress=_progress())
    found = report(measured)
    found["machine"]["power"] = power.summary()
    targets = []
    if args.target_ms is not None and not measured.partial:
        targets = find_targets(models, cases, asked, args)
    saved = save(models, targets) if args.save else {}
    partial = measured.partial or any(target.partial for target in targets)
    described = next(iter(models.values())).describe()
    providers = dict.fromkeys(model.describe()["provider"] for model in models.values())
    return {
        "bundle": args.bundle.name,
        "edgeprune": __version__,
        "onnxruntime": described["onnxruntime"]["version"],
        "provider": ", ".join(providers),
        "image": args.image or "generated",
        "prompt": args.prompt,
        "max_new_tokens": args.max_new_tokens,
        "trials": args.trials,
        "warmup": args.warmup,
        **found,
        "partial": partial,
        "target": [{**target.to_dict(), "saved": saved.get(target)} for target in targets],
    }


def trace(
    report: dict[str, Any], manifest: Manifest, cases: Sequence[Case], asked: Question, args: argparse.Namespace
) -> None:
    """Adds operations, the pruner's share and the slowest nodes to a report; Ctrl-C ends it and marks it partial."""
    from edgeprune.measure.profile_report import add_traces
    from edgeprune.measure.traced import Traced, trace_cases

    found: dict[Case, Traced] = {}
    try:
        trace_cases(lambda variant, prefix: _open(args, variant, prefix), manifest, cases, asked, found)
    except KeyboardInterrupt:
        report["partial"] = True
    add_traces(report, cases, found, args.layers)


def find_targets(models: Models, cases: Sequence[Case], asked: Question, args: argparse.Namespace) -> list[Target]:
    """A search per variant and method, over all counts that the method serves; ends when it is interrupted."""
    from edgeprune.measure.profile import Case, ask, find_method, served_counts
    from edgeprune.measure.target import search

    manifest = next(iter(models.values())).bundle.manifest
    found: list[Target] = []

    def ttft(case: Case) -> list[float]:
        answers = [ask(models[case.variant], case, asked) for _ in range(args.warmup + args.trials)]
        return [answer.timings.ttft_ms for answer in answers[args.warmup :]]

    for variant, name in dict.fromkeys((case.variant, case.method) for case in cases):
        counts = served_counts(manifest, find_method(manifest, name))
        found.append(search(Case(variant, name, 1.0), counts, manifest.visual_tokens, args.target_ms, ttft))
        if found[-1].partial:
            break
    return found


def save(models: Models, targets: Sequence[Target]) -> dict[Target, str]:
    """Stores every target that was met, by a search that came to its end; target -> the file."""
    from edgeprune.measure import tuned

    met = [target for target in targets if target.keep is not None and not target.partial]
    for target in met:
        tuned.store(models[target.variant].bundle, target, models[target.variant].describe()["provider"])
    return dict.fromkeys(met, str(tuned.file()))


def summary(report: dict[str, Any]) -> str:
    """The machine, the table, and the statements about break-even and target."""
    from edgeprune.measure.profile_report import rows

    facts = report["machine"]
    flags = " ".join(facts["cpu_flags"]) or "-"
    peak = report["peak_rss_bytes"]
    lines = [
        f"{facts['processor']}, {facts['cores']} cores, {flags}, governor {facts['governor'] or 'not readable'}",
        *device_lines(facts),
        f"onnxruntime {report['onnxruntime']}, {report['provider']}; image {report['image']}, "
        f"{report['max_new_tokens']} new tokens; ms, p50 unless said otherwise",
        "",
        table(rows(report["cases"])),
        "",
        *traced_lines(report["cases"]),
        f"peak RSS of the process: {'not readable' if peak is None else mib(peak)}",
        *(entry["statement"] for entry in (*report["break_even"], *report["target"])),
        *(
            f"stored for `run --keep tuned` in {file}"
            for file in dict.fromkeys(t["saved"] for t in report["target"])
            if file
        ),
    ]
    if report["partial"]:
        lines.append("interrupted: these results are partial")
    return "\n".join(lines)


def device_lines(facts: dict[str, Any]) -> list[str]:
    """GPU, power mode and what each rail drew during the trials, as far as the machine tells."""
    words = [facts["gpu"], facts["jetpack"], facts["power_mode"] and f"power mode {facts['power_mode']}"]
    power = facts["power"] or {"samples": 0, "rails_mw": {}}
    drawn = [f"{name} {rail['mean']:.0f} mW (at most {rail['most']})" for name, rail in power["rails_mw"].items()]
    lines = [", ".join(filter(None, words)), ", ".join(drawn) and f"power during the trials: {', '.join(drawn)}"]
    return [line for line in lines if line]


def traced_lines(cases: Sequence[dict[str, Any]]) -> list[str]:
    """What the traced answers told, each table with an empty line behind it; nothing when there were none."""
    from edgeprune.measure.profile_report import layer_rows, traced_rows

    traced = [case for case in cases if case["flops"] is not None]
    if not traced:
        return []
    reasons = dict.fromkeys(case["pruner"]["reason"] for case in traced if case["pruner"]["reason"])
    lines = [table(traced_rows(traced)), *reasons, ""]
    for case in traced:
        name = f"{case['variant'] or OWN} {case['method']} keep {case['keep']:g}"
        for graph, nodes in (case["layers"] or {}).items():
            lines += [f"{name}, {graph}", table(layer_rows(nodes)), ""]
    return lines


def _progress() -> Callable[[int, int], None]:
    """Counts trials on a terminal's stderr; silent in a pipe."""
    if not sys.stderr.isatty():
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        print(f"\rtrial {done} of {total}" if done < total else "\r\x1b[K", end="", file=sys.stderr, flush=True)

    return show
