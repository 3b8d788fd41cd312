"""Draw the kept patches over a picture: dropped ones dimmed, kept ones clear.

Several methods, `--prune a,b`, are drawn side by side, with `--scores` above heat maps of their scores, with `--labels`
with an outline around what a background scorer calls foreground. Methods that read the question need `--prompt`. Needs
Pillow.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.cli.arguments import add_no_verify, keep_or_auto, names, question, value
from edgeprune.cli.providers import add_provider, provider_of
from edgeprune.errors import UserError

if TYPE_CHECKING:
    from edgeprune.runtime.session import KeptTokens, Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("--image", required=True, metavar="F", help="a JPEG or PNG file")
    add("--prune", type=value(names), default=[None], metavar="NAME,...", help="pruning methods (the bundle's default)")
    add(
        "--keep", type=value(keep_or_auto), metavar="R", help="keep ratio K/N, or auto:mass=M,min=R,max=R (the default)"
    )
    add("--prompt", type=value(question), metavar="Q", help="the question, for methods that read it")
    add("--scores", action="store_true", help="draw the scores of every patch, too, as a heat map below")
    add("--labels", action="store_true", help="outline what the background scorer calls foreground")
    add("-o", "--output", type=Path, default=Path("overlay.png"), metavar="FILE", help="PNG or JPEG (overlay.png)")
    add_provider(parser)
    add_no_verify(parser)


def run(args: argparse.Namespace) -> int:
    if args.output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{args.output} must end in .png or .jpg.")

    from edgeprune.measure.labels import foreground
    from edgeprune.measure.overlay import draw_overlay, legend
    from edgeprune.runtime.session import Model

    opening = {"verify": "sizes" if args.no_verify else "full", **provider_of(args)}
    with Model.open(args.bundle, **opening) as model:
        labelled = _labelled(model, args.prune) if args.labels else []
        kept = [_kept(model, args, method) for method in args.prune]
        labels = [foreground(tokens) if tokens.method in labelled else None for tokens in kept] if labelled else None
        drawn = draw_overlay(args.image, kept, model.bundle.manifest.preprocess, scores=args.scores, labels=labels)
    try:
        drawn.save(args.output)
    except OSError as error:
        raise UserError(f"cannot write {args.output}: {error.strerror or error}.") from error
    for tokens in kept:
        print(", ".join(legend(tokens)))
    print(f"wrote {args.output}")
    return 0


def _labelled(model: Model, asked: list[str | None]) -> list[str]:
    """Those of the methods that label patches; UserError where none does."""
    from edgeprune.measure.labels import carries_labels

    methods = model.bundle.manifest.methods
    names = [name or methods.default for name in asked]
    found = [name for name in names if name in methods.each and carries_labels(methods.each[name])]
    known = [name for name, method in methods.each.items() if carries_labels(method)]
    if found or not set(names) <= set(methods.each):  # an unknown method has an error of its own
        return found
    remedy = f"show {', '.join(known)} beside it" if known else "export the bundle with --prune background, too"
    raise UserError(f"the scores of {', '.join(names)} are no labels of background: {remedy}.")


def _kept(model: Model, args: argparse.Namespace, method: str | None) -> KeptTokens:
    methods = model.bundle.manifest.methods
    known = methods.each.get(method or methods.default)
    reads_question = known is not None and known.text
    if reads_question and not args.prompt:
        raise UserError(f"{method or methods.default} keeps tokens by the question: give one with --prompt.")
    with model.new_session() as session:
        image = session.add_image(args.image, keep=args.keep, method=method)
        if reads_question:
            session.generate(args.prompt, max_new_tokens=1)
        return session.kept_tokens(image)
