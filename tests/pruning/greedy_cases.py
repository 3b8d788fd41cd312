"""Random tie-free inputs of the greedy methods with what the oracles pick, and the selections as torch and ONNX."""

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
from tests.pruning import oracles_greedy as oracles

WIDTH = 32
#: a pick that wins by less, relative to the largest score, may fall otherwise in float32: such seeds are not used
TIE = 2e-6


class Case(NamedTuple):
    """tokens (N,C), attention (N,), and the oracle's picks in order."""

    tokens: np.ndarray
    attention: np.ndarray
    picks: list[int]


def _random_order(seed: int, count: int) -> np.ndarray:
    return parse(f"todre:pivot=random,seed={seed}").constants(count)["order"].numpy()


#: SPEC -> oracle of (tokens, attention, steps)
ORACLES: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[list[int], list[float]]]] = {
    "divprune": lambda x, a, k: oracles.divprune(x, k),
    "todre": lambda x, a, k: oracles.todre(x, a, k, "max-sum"),
    "todre:objective=k-center": lambda x, a, k: oracles.todre(x, a, k, "k-center"),
    "todre:pivot=random,seed=3": lambda x, a, k: oracles.todre(x, _random_order(3, len(x)), k, "max-sum"),
    "mmr": lambda x, a, k: oracles.mmr(x, a, k, 0.5),
    "mmr:balance=0.2,importance=received": lambda x, a, k: oracles.mmr(x, a, k, 0.2),
    "scope": lambda x, a, k: oracles.scope(x, a, k, 1.0),
    "scope:alpha=0.5,importance=cls": lambda x, a, k: oracles.scope(x, a, k, 0.5),
    "zoo": lambda x, a, k: oracles.zoo(x, a, k),
    "zoo:sensitivity=norm": lambda x, a, k: oracles.zoo(x, np.sqrt((x.astype(np.float64) ** 2).sum(1)), k),
    "mmtok-vv": lambda x, a, k: oracles.mmtok_vv(x, k, 0.2),
    "mmtok-vv:temperature=0.1": lambda x, a, k: oracles.mmtok_vv(x, k, 0.1),
}


def draw(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (N,C) around a common mean that grows with the seed, attention (N,) without ties that sums to about 1."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(count, WIDTH)) + (seed % 3) * 0.5 * rng.normal(size=WIDTH)
    attention = (rng.permutation(count) + rng.uniform(0.1, 0.4, count)) * 2 / count**2
    return tokens.astype(np.float32), attention.astype(np.float32)


@functools.cache
def cases(spec: str, count: int, steps: int, wanted: int) -> list[Case]:
    """The first `wanted` seeds whose first `steps` picks are no near ties."""
    found: list[Case] = []
    for seed in range(4 * wanted):
        tokens, attention = draw(seed, count)
        picks, margins = ORACLES[spec](tokens, attention, steps)
        if min(margins) > TIE:
            found.append(Case(tokens, attention, picks))
        if len(found) == wanted:
            return found
    raise AssertionError(f"{spec}: {len(found)} of {4 * wanted} seeds are free of near ties")


class Selection(torch.nn.Module):
    """A method's selection alone: tokens (B,N,C), attention (B,N), keep_slots (K,) -> keep_idx (B,K)."""

    def __init__(self, method: PruningMethod, count: int) -> None:
        super().__init__()
        self.method = method
        constants = method.constants(count)
        self.names = sorted(constants)
        for key, value in constants.items():
            self.register_buffer(key, value, persistent=False)

    def forward(self, tokens: torch.Tensor, attention: torch.Tensor, keep_slots: torch.Tensor) -> tuple[torch.Tensor]:
        constants = {key: getattr(self, key) for key in self.names}
        signals = dict.fromkeys(self.method.needs, attention)
        features = VisualFeatures(tokens, signals, (1, tokens.shape[1]), constants, batch=tokens)
        return (self.method.select(self.method.signal(features), keep_slots, features),)


def in_torch(method: PruningMethod, tokens: np.ndarray, attention: np.ndarray, keep: int) -> np.ndarray:
    """keep_idx (B,K)."""
    module = Selection(method, tokens.shape[1])
    return module(torch.from_numpy(tokens), torch.from_numpy(attention), torch.zeros(keep))[0].numpy()


@functools.cache
def exported(spec: str, count: int) -> ir.Model:
    """The selection as a graph."""
    interface = Interface(
        (
            Axis("tokens", "tokens", "float32", ("B", count, WIDTH)),
            Axis("attention", "attention", "float32", ("B", count)),
            Axis("keep_slots", "keep_slots", "float32", ("K",)),
        ),
        (Axis("keep_idx", "keep_idx", "int64", ("B", "K")),),
    )
    example = (torch.zeros(2, count, WIDTH), torch.zeros(2, count), torch.zeros(3))
    model = trace(Selection(parse(spec), count), example, interface)
    with tempfile.TemporaryDirectory() as folder:
        assert attach(model, {}, pathlib.Path(folder)) == []
    return model


@functools.cache
def session(spec: str, count: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    proto = ir.to_proto(exported(spec, count)).SerializeToString()
    return onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def in_onnxruntime(spec: str, tokens: np.ndarray, attention: np.ndarray, keep: int) -> np.ndarray:
    """keep_idx (B,K)."""
    running = session(spec, tokens.shape[1])
    feeds = {"tokens": tokens, "attention": attention, "keep_slots": np.zeros(keep, np.float32)}
    return running.run(None, {item.name: feeds[item.name] for item in running.get_inputs()})[0]
