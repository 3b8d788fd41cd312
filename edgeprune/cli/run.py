"""Ask a bundle about pictures, and print the answer, the kept tokens and the stage times.

Needs the native library and an onnxruntime library, but neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.cli.arguments import (
    TUNED,
    add_json,
    add_no_verify,
    choices,
    keep_auto_or_tuned,
    number,
    positive,
    question,
    seed,
    value,
)
from edgeprune.cli.output import write_json
from edgeprune.cli.providers import add_provider, provider_of
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.runtime.request import Keep
    from edgeprune.runtime.session import Answer, KeptTokens, Model, Scores, Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("--image", nargs="+", action="extend", default=[], metavar="F", help="JPEG or PNG files, in the prompt's order")
    add("--prompt", required=True, type=value(question), metavar="Q", help="the question")
    add(
        "--keep", type=value(keep_auto_or_tuned), metavar="R",
        help="keep ratio K/N, auto:mass=M,min=R,max=R, or `tuned`: what profile --save stored (the bundle's default)",
    )  # fmt: skip
    add("--prune", metavar="NAME", help="pruning method, one of the bundle's (its default)")
    add("--variant", metavar="V", help="a built variant (the bundle's own graphs)")
    add("--max-new-tokens", type=value(positive), metavar="N", help="most tokens to generate (128)")
    add("--choices", type=value(choices), metavar="A,B,...", help="score these answers instead of generating one")
    add("--dump-tokens", type=Path, metavar="FILE.npz", help="write kept tokens, scores and embeddings of each picture")
    add_decoding(parser)
    add_provider(parser)
    add_no_verify(parser)
    add_json(parser)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How the next token is chosen; the names are those of `Session.generate`."""
    add = parser.add_argument
    add("--temperature", type=value(number(0, math.inf, open_below=False)), default=0.0, metavar="T",
        help="sample at this temperature (0: greedy, the default)")  # fmt: skip
    add("--top-k", type=value(positive), metavar="K", help="sample among the K likeliest tokens")
    add("--top-p", type=value(number(0, 1)), metavar="P", help="sample among the fewest tokens with this share")
    add("--seed", type=value(seed), default=0, metavar="S", help="the same seed gives the same text (0)")
    add("--repetition-penalty", type=value(number(0, math.inf)), metavar="R",
        help="above 1: against tokens of the question and of the answer so far")  # fmt: skip


def decoding_of(args: argparse.Namespace) -> dict[str, Any]:
    names = ("temperature", "top_k", "top_p", "seed", "repetition_penalty")
    return {name: getattr(args, name) for name in names}


def run(args: argparse.Namespace) -> int:
    from edgeprune.measure import token_dump
    from edgeprune.runtime.session import Model

    check_choices(args)
    if args.dump_tokens is not None:
        token_dump.require_place(args.dump_tokens)
    opening = {"verify": "sizes" if args.no_verify else "full", **provider_of(args)}
    with Model.open(args.bundle, variant=args.variant, **opening) as model:
        report = ask(model, args, stream=args.json != "-")
    if args.json is not None:
        write_json(report, args.json)
    if args.json != "-":
        print(summary(report))
    return 0


def ask(model: Model, args: argparse.Namespace, *, stream: bool) -> dict[str, Any]:
    """Encodes the pictures, answers the question, and returns what `--json` writes."""
    keep, source = choose_keep(model, args)
    with model.new_session() as session:
        images = [session.add_image(file, keep=keep, method=args.prune) for file in args.image]
        report = (choose if args.choices else answer_question)(model, session, args, show=stream)
        if args.dump_tokens is not None:
            from edgeprune.measure import token_dump

            token_dump.write(args.dump_tokens, token_dump.token_arrays(session, images, args.image))
    return {**report, "keep_source": source} if source else report


def choose_keep(model: Model, args: argparse.Namespace) -> tuple[Keep, str]:
    """What is asked of the runtime, and where a stored ratio comes from, "" for any other.

    Raises:
        UserError: `tuned` was asked for and nothing is stored.
    """
    if args.keep != TUNED:
        return args.keep, ""
    from edgeprune.measure import tuned

    method = args.prune or model.bundle.manifest.methods.default
    found = tuned.read(model.bundle, args.variant, method, model.describe()["provider"])
    return found.keep, found.source


def answer_question(model: Model, session: Session, args: argparse.Namespace, *, show: bool) -> dict[str, Any]:
    """Generates the answer, piece by piece on stdout with `show`."""
    on_text = _write if show else None
    answer = session.generate(args.prompt, max_new_tokens=args.max_new_tokens, on_text=on_text, **decoding_of(args))
    if show:
        print()
    report = report_of(model.describe(), answer, args.image)
    return {"text": answer.text, "finish_reason": answer.finish_reason, **report}


def check_choices(args: argparse.Namespace) -> None:
    """UserError: an option of generating beside --choices, which generates nothing."""
    if not args.choices:
        return
    for name, given in {**decoding_of(args), "max_new_tokens": args.max_new_tokens}.items():
        if given:
            raise UserError(f"--choices scores given answers and generates none: leave --{name.replace('_', '-')} out.")


def choose(model: Model, session: Session, args: argparse.Namespace, *, show: bool) -> dict[str, Any]:
    """Scores the given answers; `text` is the one with the largest sum of log-probabilities."""
    scores = session.score(args.prompt, args.choices)
    rows = [
        {"text": choice.text, "log_probability": choice.log_probability, "tokens": choice.tokens, "share": share}
        for choice, share in zip(scores.choices, scores.shares(), strict=True)
    ]
    if show:
        for choice, share in zip(scores.choices, scores.shares(), strict=True):
            line = f"log-probability {choice.log_probability:.3f}, {choice.tokens} tokens, share {share:.3f}"
            print(f"{choice.text}: {line}")
    report = report_of(model.describe(), scores, args.image)
    return {"text": scores.best.text, "finish_reason": "choices", **report, "choices": rows}


def report_of(facts: dict[str, Any], answer: Answer | Scores, files: list[str]) -> dict[str, Any]:
    """The object of `run --json` without text and finish_reason; counts come from the shapes of executed tensors.

    With several pictures the counts are sums, `keep_idx` holds one picture's after the other's, and `applied` means
    that every picture lost tokens.
    """
    images = [image_report(file, tokens) for file, tokens in zip(files, answer.images, strict=True)]
    reasons = [entry["reason"] for entry in images if entry["reason"]] or ([] if images else ["no picture was given"])
    return {
        "method": images[0]["method"] if images else None,
        "keep": images[0]["keep"] if images else None,
        "kept_tokens": sum(entry["kept_tokens"] for entry in images),
        "visual_tokens": sum(entry["visual_tokens"] for entry in images),
        "keep_idx": [index for entry in images for index in entry["keep_idx"]],
        "applied": bool(images) and all(entry["applied"] for entry in images),
        "reason": "; ".join(dict.fromkeys(reasons)),
        "prompt_tokens": answer.prompt_tokens,
        "kv_tokens": answer.kv_tokens,
        "images": images,
        "timings_ms": {name: time for name, time in answer.timings.to_dict().items() if name.endswith("_ms")},
        "provider": facts["provider"],
        "variant": facts["variant"],
    }


def image_report(file: str, tokens: KeptTokens) -> dict[str, Any]:
    """One picture of `run --json`."""
    return {
        "file": file,
        "width": tokens.width_px,
        "height": tokens.height_px,
        "method": tokens.method,
        "keep": tokens.keep,
        "auto_keep": None if tokens.auto_keep is None else str(tokens.auto_keep),
        "kept_tokens": tokens.kept,
        "visual_tokens": tokens.visual_tokens,
        "keep_idx": [int(index) for index in tokens.keep_idx],
        "applied": tokens.applied,
        "reason": tokens.reason,
        "padded_tokens": 0 if tokens.pad_mask is None else int(tokens.pad_mask.sum()),
    }


def summary(report: dict[str, Any]) -> str:
    """A line per picture and one of stage times."""
    lines = []
    for entry in report["images"]:
        state = "applied" if entry["applied"] else "not applied"
        state += f": {entry['reason']}" if entry["reason"] else ""
        count = f"K/N = {entry['kept_tokens']}/{entry['visual_tokens']} visual tokens kept"
        keep = f"keep {entry['keep']:g}" + (f" by {entry['auto_keep']}" if entry["auto_keep"] else "")
        lines.append(f"{entry['file']}: {count}, {entry['method']}, {keep}, {state}")
    times = report["timings_ms"]
    stages = [f"{name.removesuffix('_ms')} {time:.1f} ms" for name, time in times.items()]
    if "keep_source" in report:
        lines.append(f"keep from {report['keep_source']}")
    lines += [f"prompt tokens {report['prompt_tokens']}, kv tokens {report['kv_tokens']}, {report['finish_reason']}"]
    return "\n".join([*lines, ", ".join(stages)])


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
