"""Interleaved trials of a bundle: which cases, in which order, and what each answer cost.

The times are those that the runtime itself measures (`edgeprune.timings`); nothing is timed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeprune.errors import UserError
from edgeprune.keep import keep_count
from edgeprune.manifest import Manifest, Method
from edgeprune.runtime.answers import Answer
from edgeprune.runtime.session import Model, Picture

#: what is looked at when no keep is asked for, as far as the bundle serves it.
DEFAULT_KEEPS = (1.0, 0.5, 0.25, 0.1)


@dataclass(frozen=True)
class Case:
    """What a trial runs: the canonical graphs (None) or a variant, a method, a keep ratio."""

    variant: str | None
    method: str
    keep: float


@dataclass(frozen=True)
class Question:
    """The same for every trial; an answer always has `max_new_tokens` tokens, so that trials are comparable."""

    picture: Picture
    prompt: str
    max_new_tokens: int


@dataclass(frozen=True)
class Trial:
    """One answer; `round` and `place` say when it ran."""

    round: int
    place: int
    answer: Answer


@dataclass
class Measured:
    """The trials of every case, in the order of `cases`; `partial` when the run was interrupted."""

    cases: Sequence[Case]
    trials: dict[Case, list[Trial]] = field(default_factory=dict)
    partial: bool = False

    def __post_init__(self) -> None:
        self.trials = {case: [] for case in self.cases}


def choose_cases(
    manifest: Manifest,
    variants: Sequence[str | None],
    methods: Sequence[str] | None = None,
    keeps: Sequence[float] | None = None,
) -> list[Case]:
    """Every variant with every method with every keep ratio, without repetition.

    Args:
        methods: None: the bundle's default.
        keeps: None: those of DEFAULT_KEEPS that the method serves, or else its only one. A method without pruning
            is run at keep 1 alone.

    Raises:
        UserError: the bundle lacks a method, or the method does not serve a keep ratio.
    """
    chosen = [find_method(manifest, name) for name in methods or (manifest.methods.default,)]
    rows = [(method, _keeps(manifest, method, keeps)) for method in chosen]
    cases = [Case(variant, method.name, keep) for variant in variants for method, found in rows for keep in found]
    return list(dict.fromkeys(cases))


def find_method(manifest: Manifest, name: str) -> Method:
    """A method by its name; UserError when the bundle has no such."""
    found = manifest.methods.each.get(name)
    if found is None:
        raise UserError(f"the bundle has no method {name!r}; it has: {', '.join(sorted(manifest.methods.each))}.")
    return found


def refusal(manifest: Manifest, method: Method, keep: float) -> str:
    """Why a method does not serve a keep ratio, "" when it does."""
    count = keep_count(manifest.visual_tokens, keep)
    if method.static_keep is not None:
        fixed = method.static_keep
        return "" if count == fixed else f"{method.name} always keeps {fixed} of {manifest.visual_tokens} tokens"
    if not manifest.keep.min <= keep <= manifest.keep.max:
        return f"the bundle serves keep ratios from {manifest.keep.min:g} to {manifest.keep.max:g}"
    runs = method.keep_counts
    if runs is not None and not any(count in range(run.first, run.last + 1, run.step) for run in runs):
        return f"{method.name} does not serve {count} of {manifest.visual_tokens} tokens"
    return ""


def served_counts(manifest: Manifest, method: Method) -> dict[int, float]:
    """Every count K that the method serves -> a keep ratio that asks for it, ascending; one where nothing is pruned."""
    if method.where == "nowhere":
        return {manifest.visual_tokens: 1.0}
    low, high = manifest.keep.min, manifest.keep.max
    if method.static_keep is not None:
        return {method.static_keep: method.static_keep / manifest.visual_tokens}
    counts = range(keep_count(manifest.visual_tokens, low), keep_count(manifest.visual_tokens, high) + 1)
    ratios = {count: min(max(count / manifest.visual_tokens, low), high) for count in counts}
    return {count: ratio for count, ratio in ratios.items() if not refusal(manifest, method, ratio)}


def _keeps(manifest: Manifest, method: Method, keeps: Sequence[float] | None) -> list[float]:
    if method.where == "nowhere":
        return [1.0]
    if keeps is None:
        found = [keep for keep in DEFAULT_KEEPS if not refusal(manifest, method, keep)]
        return found or list(served_counts(manifest, method).values())[:1]
    for keep in keeps:
        reason = refusal(manifest, method, keep)
        if reason:
            raise UserError(f"keep {keep:g} cannot be measured: {reason}; leave it out.")
    return list(keeps)


def order(count: int, rounds: int) -> Iterator[tuple[int, int, int]]:
    """(round, place, case) of every trial: each round runs every case once and begins one case later.

    So slow drifts of the machine, and what a case leaves behind in its caches, fall on all cases alike.
    """
    for turn in range(rounds):
        for place in range(count):
            yield turn, place, (turn + place) % count


def measure(
    models: Mapping[str | None, Model],
    cases: Sequence[Case],
    question: Question,
    *,
    trials: int,
    warmup: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Runs every case `trials` times in turn, after `warmup` unrecorded rounds; each trial in a session of its own.

    Ctrl-C ends it early: what has been measured comes back marked `partial`.

    Args:
        models: the opened model of every variant that `cases` name.
        progress: called with the number of trials done and of all trials, warm-up included.
    """
    measured = Measured(cases)
    total = (warmup + trials) * len(cases)
    try:
        for done, (turn, place, index) in enumerate(order(len(cases), warmup + trials)):
            progress(done, total)
            answer = ask(models[cases[index].variant], cases[index], question)
            if turn >= warmup:
                measured.trials[cases[index]].append(Trial(turn - warmup, place, answer))
        progress(total, total)
    except KeyboardInterrupt:
        measured.partial = True
    return measured


def ask(model: Model, case: Case, question: Question) -> Answer:
    """One trial: the picture is encoded anew, and end-of-sequence ends nothing."""
    return model.ask(
        question.picture,
        question.prompt,
        keep=case.keep,
        method=case.method,
        max_new_tokens=question.max_new_tokens,
        ignore_eos=True,
    )


def generated_picture(width_px: int = 640, height_px: int = 480) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(height_px,width_px,3) RGB: a gradient with coloured rectangles and noise, equal on every call."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    ramp = np.stack([rows * 255 // height_px, columns * 255 // width_px, (rows + columns) % 256], axis=-1)
    picture = ramp.astype(np.float64)
    for _ in range(12):
        top, left = int(rng.integers(height_px)), int(rng.integers(width_px))
        tall, wide = (int(side) for side in rng.integers(20, 160, 2))
        picture[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    noisy = picture + rng.normal(scale=8, size=picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
