"""Random inputs, oracles and graphs of the attention and key based methods, shared by their tests."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edgeprune.export.passes.attach import attach
from edgeprune.export.trace import Axis, Interface, trace
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.registry import parse
from tests.pruning import oracles, oracles_attention, oracles_similarity, oracles_windows

COUNT, COLUMNS, WIDTH, HEADS, HEAD_WIDTH = 576, 24, 12, 3, 5
KEEPS = (1, 29, 58, 64, 128, 192, COUNT)

#: kind -> shape behind the batch
SHAPES: dict[str, tuple[int, ...]] = {
    "cls_attention": (COUNT,),
    "received_attention": (COUNT,),
    "wide_cls_attention": (COUNT,),
    "keys": (HEADS, COUNT, HEAD_WIDTH),
    "cls_hidden": (1, WIDTH),
    "attention": (HEADS, COUNT + 1, COUNT + 1),
    "anchor_embeddings": (3, WIDTH),
}


def scores(rng: np.random.Generator, batch: int) -> np.ndarray:
    """(B,N) float32 without ties, positive, rows sum to about 1 as attention does."""
    rows = [rng.permutation(COUNT) + rng.uniform(0.1, 0.4, COUNT) for _ in range(batch)]
    return (2 * np.stack(rows) / COUNT**2).astype(np.float32)


def draw(kind: str, rng: np.random.Generator, batch: int) -> np.ndarray:
    """A random signal of a kind, (B, *SHAPES[kind]) float32."""
    if SHAPES[kind] == (COUNT,):
        return scores(rng, batch)
    made = rng.normal(size=(batch, *SHAPES[kind]))
    if kind == "attention":
        made = np.exp(made + rng.normal(size=(batch, HEADS, 1, COUNT + 1)))
        made = made / made.sum(-1, keepdims=True)
    return made.astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A method and its oracle.

    Attributes:
        oracle: (signals of one picture in the order of `needs`, tokens (N,C), K) -> keep_idx, and the merged
            features (K,C) or None where the method gathers.
    """

    spec: str
    oracle: Callable[[list[np.ndarray], np.ndarray, int], tuple[list[int], np.ndarray | None]]
    keeps: tuple[int, ...] = field(default=KEEPS)
    #: seeds of the fast tests; the slow ones take 50
    seeds: int = 50

    @property
    def method(self) -> PruningMethod:
        return parse(self.spec)

    @property
    def counts(self) -> list[int]:
        """The counts to try that the method serves."""
        valid = self.method.valid_k(COUNT)
        return [keep for keep in self.keeps if keep in valid]

    def expected(self, signals: list[np.ndarray], tokens: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
        """keep_idx (B,K) and features (B,K,C) by the oracle, picture by picture."""
        rows = [self.oracle([s[b] for s in signals], tokens[b], keep) for b in range(len(tokens))]
        made = [tokens[b][index] if merged is None else merged for b, (index, merged) in enumerate(rows)]
        return np.array([index for index, _ in rows]), np.stack(made)


def gathered(rule: Callable[..., list[int]], *more: Any) -> Callable[..., tuple[list[int], None]]:
    """An oracle of a method that gathers: rule(*signals, keep, *more)."""
    return lambda signals, tokens, keep: (rule(*signals, keep, *more), None)


def merging(rule: Callable[..., tuple[list[int], np.ndarray]], *more: Any) -> Callable[..., Any]:
    """An oracle of a method that merges: rule(*signals, tokens, keep, *more)."""
    return lambda signals, tokens, keep: rule(*signals, tokens, keep, *more)


def by_tokens(rule: Callable[..., list[int]], *more: Any) -> Callable[..., tuple[list[int], None]]:
    """An oracle of a method that gathers and reads tokens: rule(*signals, tokens, keep, *more)."""
    return lambda signals, tokens, keep: (rule(*signals, tokens, keep, *more), None)


def holov(runs: int, weight: float) -> Callable[..., tuple[list[int], None]]:
    return lambda signals, tokens, keep: (oracles_windows.holov(*signals, tokens, keep, runs, weight), None)


def vispruner(ratio: float) -> Callable[..., tuple[list[int], None]]:
    return lambda signals, tokens, keep: (oracles_attention.vispruner(*signals, tokens, keep, ratio), None)


def embedlens(weight: float) -> Callable[..., tuple[list[int], None]]:
    return lambda signals, tokens, keep: (oracles_attention.embedlens(signals, tokens, keep, weight), None)


CASES = {
    case.spec: case
    for case in (
        Case("hiprune", gathered(oracles_attention.hiprune, COLUMNS, 0.1)),
        Case("hiprune:alpha=1.0", gathered(oracles_attention.hiprune, COLUMNS, 1.0)),
        Case("fopru", gathered(oracles.highest_in_raster_order)),
        Case("fopru:mode=row", gathered(oracles_attention.fopru_rows, COLUMNS), (24, 48, 192, 264, COUNT)),
        Case("visionzip", merging(oracles_attention.visionzip, 0.15625), seeds=6),
        Case("visionzip:contextual=0.5", merging(oracles_attention.visionzip, 0.5), seeds=3),
        Case("prumerge", merging(oracles_attention.prumerge, 32), seeds=4),
        Case("pagerank", gathered(oracles_attention.pagerank, 5), seeds=1),
        Case("holov", holov(16, 0.09), seeds=10),
        Case("holov:runs=7,variance=5.0,importance=received", holov(7, 5.0), seeds=5),
        Case("embedlens", embedlens(1.0), seeds=6),
        Case("embedlens:weight=0.4", embedlens(0.4), seeds=3),
        Case("vflowopt", merging(partial(oracles_windows.vflowopt, threshold=39.26, window=17.39)), seeds=1),
        Case(
            "vflowopt:threshold=1.3,window=5.5",
            merging(partial(oracles_windows.vflowopt, threshold=1.3, window=5.5)),
            seeds=1,
        ),
        Case("agileprune", by_tokens(oracles_similarity.agileprune, 5.0, 0.5), seeds=2),
        Case(
            "agileprune:average=20.0,limit=1.0,importance=received",
            by_tokens(oracles_similarity.agileprune, 20.0, 1.0),
            seeds=2,
        ),
        Case("dart-pre", by_tokens(oracles_similarity.dart_pre, 4), seeds=5),
        Case("dart-pre:pivots=7", by_tokens(oracles_similarity.dart_pre, 7), seeds=2),
        Case("aim-merge", merging(oracles_similarity.aim_merge, 4), (36, 72, 144, 288, COUNT), seeds=5),
        Case("vispruner", vispruner(0.5), seeds=1),
        Case("vispruner:important_ratio=0.75", vispruner(0.75), (29, 192), seeds=1),
    )
}


#: integers whose squares sum to 2**24
BASE = (262, 365, 708, 1082, 443, 745, 313, 1119, 545, 1069, 1288, 3115)


def exact_tokens(rng: np.random.Generator, batch: int) -> np.ndarray:
    """Tokens (B,N,C) whose cosines float32 computes without any rounding: permutations of BASE with random signs. A
    rule that sorts hundreds of cosines again and again would turn on rounding otherwise."""
    rows = rng.permuted(np.tile(np.array(BASE, np.float32), (batch * COUNT, 1)), axis=1)
    return (rows * rng.choice([-1, 1], rows.shape)).reshape(batch, COUNT, WIDTH).astype(np.float32)


def inputs(case: Case, seed: int, batch: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Signals in the order of the method's `needs`, and tokens (B,N,C)."""
    rng = np.random.default_rng(seed)
    made = [draw(need.kind, rng, batch) for need in case.method.needs]
    if not case.method.stable:
        return made, exact_tokens(rng, batch)
    return made, rng.normal(size=(batch, COUNT, WIDTH)).astype(np.float32)


#: signals in the order of the method's `needs`, tokens, and what the oracle makes of them; each with a leading batch
Picture = tuple[list[np.ndarray], np.ndarray, tuple[np.ndarray, np.ndarray]]


def tie_free(case: Case, seeds: int, keep: int) -> list[Picture]:
    """One picture for each of as many seeds without ties; the oracle runs once for each."""
    found: list[Picture] = []
    for seed in itertools.count():
        signals, tokens = inputs(case, seed, 1)
        with contextlib.suppress(oracles_attention.Tie):
            found.append((signals, tokens, case.expected(signals, tokens, keep)))
        if len(found) == seeds:
            break
    return found


def together(first: Picture, second: Picture) -> Picture:
    """Two pictures as a batch."""

    def join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a, b])

    signals = [join(a, b) for a, b in zip(first[0], second[0], strict=True)]
    index, features = (join(a, b) for a, b in zip(first[2], second[2], strict=True))
    return signals, join(first[1], second[1]), (index, features)


class Stage(torch.nn.Module):
    """A method alone: signals, tokens (B,N,C), keep_slots (K,) [, text_embeds (B,M,C), text_mask (B,M)]
    -> keep_idx (B,K), features (B,K,C)."""

    def __init__(self, method: PruningMethod, count: int = COUNT) -> None:
        super().__init__()
        self.method = method
        self.grid = (count // COLUMNS, COLUMNS) if count % COLUMNS == 0 else (1, count)
        constants = method.constants(count)
        self.names = sorted(constants)
        for key, value in constants.items():
            self.register_buffer(key, value, persistent=False)

    def forward(
        self,
        signals: list[torch.Tensor],
        tokens: torch.Tensor,
        keep_slots: torch.Tensor,
        text_embeds: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        constants = {key: getattr(self, key) for key in self.names}
        given = dict(zip(self.method.needs, signals, strict=True))
        features = VisualFeatures(tokens, given, self.grid, constants, tokens, None, text_embeds, text_mask)
        index = self.method.select(self.method.signal(features), keep_slots, features)
        return index, self.method.recycle(tokens, index, features)


def text_axes(batch: str | int, words: str | int, width: int) -> list[Axis]:
    """Inputs of a method that reads the question."""
    embeds = Axis("text_embeds", "text_embeds", "float32", (batch, words, width))
    return [embeds, Axis("text_mask", "text_mask", "float32", (batch, words))]


def exported(case: Case, folder: pathlib.Path) -> tuple[Any, ir.Model]:
    """An ONNX Runtime session of the method's stage, and its graph."""
    import onnxruntime

    method = case.method
    names = [f"signal_{place}" for place in range(len(method.needs))]
    shapes = [(("B", *SHAPES[need.kind])) for need in method.needs]
    axes = [Axis(name, name, "float32", shape) for name, shape in zip(names, shapes, strict=True)]
    axes += [Axis("tokens", "tokens", "float32", ("B", COUNT, WIDTH)), Axis("slots", "slots", "float32", ("K",))]
    outputs = (Axis("keep_idx", "keep_idx", "int64", ("B", "K")), Axis("out", "out", "float32", ("B", "K", WIDTH)))
    *given, tokens, slots = [
        torch.zeros([2 if d == "B" else 5 if d == "K" else d for d in axis.shape]) for axis in axes
    ]
    model = trace(Stage(method), (given, tokens, slots), Interface(tuple(axes), outputs))
    assert attach(model, {}, folder) == []
    content = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), model


def run_torch(case: Case, signals: list[np.ndarray], tokens: np.ndarray, keep: int) -> list[np.ndarray]:
    """keep_idx and features by torch."""
    given = [torch.from_numpy(value) for value in signals]
    with torch.inference_mode():
        made = Stage(case.method)(given, torch.from_numpy(tokens), torch.zeros(keep))
    return [value.numpy() for value in made]


def run_exported(session: Any, signals: list[np.ndarray], tokens: np.ndarray, keep: int) -> list[np.ndarray]:
    """keep_idx and features of the graph."""
    feeds = {f"signal_{place}": value for place, value in enumerate(signals)}
    feeds |= {"tokens": tokens, "slots": np.zeros(keep, np.float32)}
    made: list[np.ndarray] = session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})
    return made
