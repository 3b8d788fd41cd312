"""Random tie-free inputs of the methods that read the question, and the selections as torch and ONNX."""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch

from edgeprune.export.passes.attach import attach
from edgeprune.export.trace import Axis, Interface, trace
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.registry import parse
from tests.pruning import oracles_text as oracles
from tests.pruning.greedy_cases import TIE


class Case(NamedTuple):
    """tokens (N,D), the question's embeddings (M,D), and the oracle's picks in order."""

    tokens: np.ndarray
    words: np.ndarray
    picks: list[int]


#: SPEC -> oracle of (tokens, words, steps)
ORACLES: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[list[int], list[float]]]] = {
    "cdpruner": lambda x, t, k: oracles.cdpruner(x, t, k, 0.5),
    "cdpruner:weight=0.8": lambda x, t, k: oracles.cdpruner(x, t, k, 0.8),
    "cdpruner:preset=openvino-split": lambda x, t, k: oracles.cdpruner_in_halves(x, t, k, 0.5),
}


def draw(seed: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (N,D) around a common mean that grows with the seed, and 3 to 9 words (M,D)."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(count, width)) + (seed % 3) * 0.5 * rng.normal(size=width)
    words = rng.normal(size=(3 + seed % 7, width)) * rng.uniform(0.01, 3.0)
    return tokens.astype(np.float32), words.astype(np.float32)


@functools.cache
def cases(spec: str, count: int, width: int, steps: int, wanted: int) -> list[Case]:
    """The first `wanted` seeds whose first `steps` picks are no near ties."""
    found: list[Case] = []
    for seed in range(4 * wanted):
        tokens, words = draw(seed, count, width)
        picks, margins = ORACLES[spec](tokens, words, steps)
        if min(margins) > TIE:
            found.append(Case(tokens, words, picks))
        if len(found) == wanted:
            return found
    raise AssertionError(f"{spec}: {len(found)} of {4 * wanted} seeds are free of near ties")


def padded(words: list[np.ndarray], length: int, filler: float) -> tuple[np.ndarray, np.ndarray]:
    """Questions of any length -> text_embeds (B,length,D) padded with `filler`, text_mask (B,length)."""
    embeds = np.full((len(words), length, words[0].shape[1]), filler, np.float32)
    mask = np.zeros((len(words), length), np.float32)
    for row, question in enumerate(words):
        embeds[row, : len(question)] = question
        mask[row, : len(question)] = 1
    return embeds, mask


class Selection(torch.nn.Module):
    """tokens (B,N,D), text_embeds (B,M,D), text_mask (B,M), keep_slots (K,) -> keep_idx (B,K), scores (B,N)."""

    def __init__(self, method: PruningMethod, count: int) -> None:
        super().__init__()
        self.method = method
        constants = method.constants(count)
        self.names = sorted(constants)
        for key, value in constants.items():
            self.register_buffer(key, value, persistent=False)

    def forward(
        self, tokens: torch.Tensor, text_embeds: torch.Tensor, text_mask: torch.Tensor, keep_slots: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        constants = {key: getattr(self, key) for key in self.names}
        features = VisualFeatures(tokens, {}, (1, tokens.shape[1]), constants, tokens, None, text_embeds, text_mask)
        scores = self.method.signal(features)
        assert scores is not None
        return self.method.select(scores, keep_slots, features), scores


def in_torch(
    method: PruningMethod, tokens: np.ndarray, text: tuple[np.ndarray, np.ndarray], keep: int
) -> tuple[np.ndarray, np.ndarray]:
    """keep_idx (B,K), scores (B,N)."""
    module = Selection(method, tokens.shape[1])
    made = module(*(torch.from_numpy(item) for item in (tokens, *text)), torch.zeros(keep))
    return made[0].numpy(), made[1].numpy()


@functools.cache
def exported(spec: str, count: int, width: int) -> ir.Model:
    """The selection as a graph."""
    interface = Interface(
        (
            Axis("tokens", "tokens", "float32", ("B", count, width)),
            Axis("text_embeds", "text_embeds", "float32", ("B", "M", width)),
            Axis("text_mask", "text_mask", "float32", ("B", "M")),
            Axis("keep_slots", "keep_slots", "float32", ("K",)),
        ),
        (Axis("keep_idx", "keep_idx", "int64", ("B", "K")), Axis("scores", "scores", "float32", ("B", count))),
    )
    example = (torch.zeros(2, count, width), torch.zeros(2, 5, width), torch.zeros(2, 5), torch.zeros(6))
    model = trace(Selection(parse(spec), count), example, interface)
    with tempfile.TemporaryDirectory() as folder:
        assert attach(model, {}, pathlib.Path(folder)) == []
    return model


@functools.cache
def session(spec: str, count: int, width: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    proto = ir.to_proto(exported(spec, count, width)).SerializeToString()
    return onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def in_onnxruntime(
    spec: str, tokens: np.ndarray, text: tuple[np.ndarray, np.ndarray], keep: int
) -> tuple[np.ndarray, np.ndarray]:
    """keep_idx (B,K), scores (B,N)."""
    feeds = {
        "tokens": tokens,
        "text_embeds": text[0],
        "text_mask": text[1],
        "keep_slots": np.zeros(keep, np.float32),
    }
    made = session(spec, *tokens.shape[1:]).run(None, feeds)
    return made[0], made[1]
