"""Random inputs of the methods that read the question, with what the oracles make of them; torch and ONNX."""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch

from edgeprune.export.passes.attach import attach
from edgeprune.export.trace import Axis, Interface, trace
from edgeprune.pruning.base import VisualFeatures
from edgeprune.pruning.registry import parse
from tests.pruning import oracles_question as oracles
from tests.pruning import oracles_text
from tests.pruning.attention_cases import Stage, text_axes
from tests.pruning.greedy_cases import TIE

#: of encoder features, of the space of a text encoder
HIDDEN, SPACE = 24, 20
#: words with padding; the last picture of a batch has fewer
WORDS = 7


class Drawn(NamedTuple):
    """One picture and its question: tokens (N,D), each signal in the order of `needs`, text (M,D), mask (M,)."""

    tokens: np.ndarray
    signals: list[np.ndarray]
    text: np.ndarray
    mask: np.ndarray

    @property
    def words(self) -> np.ndarray:
        """The question without padding."""
        return self.text[self.mask > 0]


@dataclass(frozen=True)
class QuestionCase:
    """What a method makes of a picture.

    Attributes:
        width: tokens N -> D of projected tokens and text.
        oracle: (drawn, the counts K asked for) -> for each K keep_idx and the merged features, or None where the
            method gathers; None instead of all where a near tie decides.
    """

    oracle: Callable[[Drawn, tuple[int, ...]], list[tuple[list[int], np.ndarray | None]] | None]
    width: Callable[[int], int] = lambda count: 32


def greedy(
    rule: Callable[[Drawn, int], tuple[list[int], list[float]]], width: Callable[[int], int] = lambda count: 32
) -> QuestionCase:
    """A greedy method: picks of the largest K below N, of which smaller K are the beginnings."""

    def oracle(drawn: Drawn, keeps: tuple[int, ...]) -> list[tuple[list[int], np.ndarray | None]] | None:
        count = len(drawn.tokens)
        picks, margins = rule(drawn, max(keep for keep in keeps if keep < count))
        if min(margins) <= TIE:
            return None
        return [(list(range(count)) if keep == count else sorted(picks[:keep]), None) for keep in keeps]

    return QuestionCase(oracle, width)


def determinant(rule: Callable[[Drawn, int], tuple[list[int], list[float]]]) -> QuestionCase:
    """A greedy determinant: tokens wider than they are many, since beyond the rank of their cosines nothing is left to
    gain."""
    return greedy(rule, lambda count: count + 32)


def by_parts(question: float, merged: float) -> QuestionCase:
    """Recoverable Compression: every K by itself."""

    def oracle(drawn: Drawn, keeps: tuple[int, ...]) -> list[tuple[list[int], np.ndarray | None]] | None:
        made: list[tuple[list[int], np.ndarray | None]] = []
        for keep in keeps:
            hidden, cls = drawn.signals
            index, rows, margin = oracles.recoverable(hidden, cls, drawn.tokens, drawn.words, keep, question, merged)
            if margin <= TIE:
                return None
            made.append((index, rows))
        return made

    return QuestionCase(oracle)


QUESTION_CASES: dict[str, QuestionCase] = {
    "mmtok": greedy(lambda d, k: oracles.mmtok(d.signals[0], d.tokens, d.words, k, 0.5, 0.02, 0.2)),
    "mmtok:alpha=2.0,text_temperature=0.1,temperature=0.5": greedy(
        lambda d, k: oracles.mmtok(d.signals[0], d.tokens, d.words, k, 2.0, 0.1, 0.5)
    ),
    "cdpruner": determinant(lambda d, k: oracles_text.cdpruner(d.tokens, d.words, k, 0.5)),
    "cdpruner:weight=0.8": determinant(lambda d, k: oracles_text.cdpruner(d.tokens, d.words, k, 0.8)),
    "cdpruner:preset=openvino-split": determinant(
        lambda d, k: oracles_text.cdpruner_in_halves(d.tokens, d.words, k, 0.5)
    ),
    "cdpruner:preset=paper": determinant(
        lambda d, k: oracles_text.cdpruner_of_the_paper(d.signals[0], d.tokens, d.words, k)
    ),
    "cdpruner:preset=paper,weight=0.7": determinant(
        lambda d, k: oracles_text.cdpruner_of_the_paper(d.signals[0], d.tokens, d.words, k, 0.7)
    ),
    "recoverable": by_parts(0.25, 0.125),
    "recoverable:question=0.5,merged=0.3": by_parts(0.5, 0.3),
    "recoverable:question=0.4,merged=0.0": by_parts(0.4, 0.0),
}


def draw(spec: str, seed: int, count: int) -> Drawn:
    """Tokens and text around a common mean; even seeds have padding in the text, in the middle and at the end."""
    rng = np.random.default_rng(seed)
    width = QUESTION_CASES[spec].width(count)
    centre = (seed % 3) * 0.5 * rng.normal(size=width)
    tokens = (rng.normal(size=(count, width)) + centre).astype(np.float32)
    text = (rng.normal(size=(WORDS, width)) + centre).astype(np.float32)
    if parse(spec).text_encoder:
        text = rng.normal(size=(WORDS, SPACE)).astype(np.float32)
    mask = np.ones(WORDS, np.float32)
    mask[[2, 6] if seed % 2 == 0 else []] = 0
    attention = (rng.permutation(count) + rng.uniform(0.1, 0.4, count)) * 2 / count**2
    made = {"hidden": rng.normal(size=(count, HIDDEN)), "cls_attention": attention}
    made["cls_hidden"] = rng.normal(size=(1, HIDDEN))
    made["text_space"] = rng.normal(size=(count, SPACE))
    return Drawn(tokens, [made[need.kind].astype(np.float32) for need in parse(spec).needs], text, mask)


class Known(NamedTuple):
    drawn: Drawn
    expected: dict[int, tuple[list[int], np.ndarray]]


@functools.cache
def known(spec: str, count: int, keeps: tuple[int, ...], wanted: int) -> list[Known]:
    """The first `wanted` seeds that no near tie decides; expected by K."""
    found: list[Known] = []
    for seed in range(4 * wanted):
        drawn = draw(spec, seed, count)
        rows = QUESTION_CASES[spec].oracle(drawn, keeps)
        if rows is not None:
            made = [(index, drawn.tokens[index] if merged is None else merged) for index, merged in rows]
            found.append(Known(drawn, dict(zip(keeps, made, strict=True))))
        if len(found) == wanted:
            return found
    raise AssertionError(f"{spec}: {len(found)} of {4 * wanted} seeds are free of near ties")


def batch_of(drawn: list[Drawn]) -> list[np.ndarray]:
    """-> signals..., tokens, text, mask; each with a batch."""
    signals = [np.stack(parts) for parts in zip(*(d.signals for d in drawn), strict=True)]
    return [*signals, *(np.stack(parts) for parts in zip(*((d.tokens, d.text, d.mask) for d in drawn), strict=True))]


def in_torch(spec: str, drawn: list[Drawn], keep: int) -> list[np.ndarray]:
    """keep_idx (B,K) and features (B,K,D)."""
    *signals, tokens, text, mask = (torch.from_numpy(value) for value in batch_of(drawn))
    with torch.inference_mode():
        made = Stage(parse(spec), tokens.shape[1])(signals, tokens, torch.zeros(keep), text, mask)
    return [value.numpy() for value in made]


def scores_of(spec: str, drawn: Drawn) -> np.ndarray:
    """(N,) scores in torch."""
    method = parse(spec)
    *signals, tokens, text, mask = (torch.from_numpy(value) for value in batch_of([drawn]))
    given = dict(zip(method.needs, signals, strict=True))
    constants = method.constants(tokens.shape[1])
    scores = method.signal(VisualFeatures(tokens, given, (1, tokens.shape[1]), constants, tokens, None, text, mask))
    assert scores is not None
    return scores[0].numpy()


@functools.cache
def exported(spec: str, count: int) -> ir.Model:
    """The method as a graph; batch, K and the number of words are free."""
    method = parse(spec)
    shapes = {"hidden": (count, HIDDEN), "cls_attention": (count,), "cls_hidden": (1, HIDDEN)}
    shapes["text_space"] = (count, SPACE)
    width = QUESTION_CASES[spec].width(count)
    axes = [Axis(f"s{i}", f"s{i}", "float32", ("B", *shapes[need.kind])) for i, need in enumerate(method.needs)]
    nested = len(axes)
    axes += [Axis("tokens", "tokens", "float32", ("B", count, width)), Axis("slots", "slots", "float32", ("K",))]
    axes += text_axes("B", "M", SPACE if method.text_encoder else width)
    outputs = (Axis("keep_idx", "keep_idx", "int64", ("B", "K")), Axis("out", "out", "float32", ("B", "K", width)))
    free = {"B": 2, "K": 5, "M": 4}
    values = [torch.ones([free.get(str(d), d) for d in axis.shape]) for axis in axes]
    model = trace(Stage(method, count), (values[:nested], *values[nested:]), Interface(tuple(axes), outputs))
    with tempfile.TemporaryDirectory() as folder:
        assert attach(model, {}, pathlib.Path(folder)) == []
    return model


@functools.cache
def session(spec: str, count: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = ir.to_proto(exported(spec, count)).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def in_onnxruntime(spec: str, drawn: list[Drawn], keep: int) -> list[np.ndarray]:
    """keep_idx (B,K) and features (B,K,D)."""
    *signals, tokens, text, mask = batch_of(drawn)
    running = session(spec, tokens.shape[1])
    feeds = {f"s{i}": value for i, value in enumerate(signals)}
    feeds |= {"tokens": tokens, "text_embeds": text, "text_mask": mask, "slots": np.zeros(keep, np.float32)}
    made: list[np.ndarray] = running.run(None, {item.name: feeds[item.name] for item in running.get_inputs()})
    return made
