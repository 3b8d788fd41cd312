"""Which methods at which keep ratios an evaluation runs, and what it has to say about those it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.errors import UserError
from edgeprune.keep import keep_count
from edgeprune.manifest import Manifest, Method
from edgeprune.measure.profile import find_method, refusal

RANDOM = "random"
LEAST_SEEDS = 5
TEXT_ONLY = "text-only"


@dataclass(frozen=True)
class Case:
    """One method of the bundle at one keep ratio, or the question without its picture.

    Attributes:
        method: its name in the bundle; None: text only.
        group: cases of one group differ in the seed alone; otherwise the method's name.
        kept: K; 0 for text only.
    """

    method: str | None
    group: str
    keep: float
    kept: int

    @property
    def name(self) -> str:
        """`METHOD@KEEP`, or `text-only`."""
        return TEXT_ONLY if self.method is None else f"{self.method}@{self.keep:g}"


@dataclass(frozen=True)
class Grid:
    """The cases in the order in which they run, and sentences about what is missing."""

    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()


def plan(
    manifest: Manifest, methods: Sequence[str] | None, keeps: Sequence[float] | None, *, text_only: bool = False
) -> Grid:
    """Every method with every keep ratio.

    Args:
        methods: names in the bundle; `random` stands for all its seeds. More than one: the random baseline is added.
            None: the bundle's default method alone.
        keeps: None: the bundle's default. A method without pruning runs at keep 1 alone.
        text_only: also ask every question without its picture.

    Raises:
        UserError: the bundle lacks a method, or nothing that was asked for can be served.
    """
    chosen, notes = _methods(manifest, methods)
    cases: list[Case] = []
    refused: list[str] = []
    for method in chosen:
        for keep in keeps or (manifest.keep.default,):
            ratio = 1.0 if method.where == "nowhere" else keep
            reason = "" if method.where == "nowhere" else refusal(manifest, method, ratio)
            if reason:
                refused.append(f"{method.name}@{keep:g} is left out: {reason}")
            else:
                kept = keep_count(manifest.visual_tokens, ratio)
                cases.append(Case(method.name, group_of(method), ratio, kept))
    if not cases:
        raise UserError(refused[0].replace(" is left out", " cannot be evaluated") + ".")
    if text_only:
        cases.append(Case(None, TEXT_ONLY, 0.0, 0))
    return Grid(tuple(dict.fromkeys(cases)), (*notes, *refused))


def group_of(method: Method) -> str:
    """`random` for every seed of it, otherwise the method's own name."""
    return RANDOM if method.spec.partition(":")[0] == RANDOM else method.name


def _methods(manifest: Manifest, names: Sequence[str] | None) -> tuple[list[Method], list[str]]:
    """The methods that names ask for, each once, and what is to be said about the random baseline."""
    seeds = [method for method in manifest.methods.each.values() if group_of(method) == RANDOM]
    wanted = list(names or (manifest.methods.default,))
    if len(wanted) > 1 and RANDOM not in wanted:
        wanted.append(RANDOM)
    found: list[Method] = []
    notes: list[str] = []
    for name in wanted:
        if name == RANDOM and (seeds or name not in (names or ())):
            found += seeds
            notes += _seeds_note(len(seeds))
        else:
            found.append(find_method(manifest, name))
    return list({method.name: method for method in found}.values()), notes


def _seeds_note(count: int) -> list[str]:
    if count >= LEAST_SEEDS:
        return []
    options = " ".join(f"--prune {RANDOM}:seed={seed}" for seed in range(LEAST_SEEDS))
    return [f"the random baseline needs {LEAST_SEEDS} seeds and the bundle has {count}: export it again with {options}"]
