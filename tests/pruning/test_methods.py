"""Every method against its oracle, in torch and as an exported graph in ONNX Runtime."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgeprune.export.passes.attach import attach
from edgeprune.export.trace import Axis, Interface, trace
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.registry import parse
from edgeprune.pruning.selectors import even_stride
from tests.pruning import oracles

COUNT = 576
KEEPS = (1, 29, 58, 64, 128, COUNT)
SEEDS = range(50)
#: one score per token, given; the others are in test_attention_methods.py and test_greedy.py
BY_SCORE = ("none", "random", "stride", "fastervlm", "received-attention", "background")


def tie_free(seed: int, batch: int) -> np.ndarray:
    """Scores (B,N) float32 without ties, in random order."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(COUNT) + rng.uniform(0.1, 0.4, COUNT) for _ in range(batch)]
    return np.stack(rows).astype(np.float32) / COUNT


def features_of(method: PruningMethod, scores: torch.Tensor) -> VisualFeatures:
    signals = dict.fromkeys(method.needs, scores)
    return VisualFeatures(None, signals, (24, 24), method.constants(COUNT), batch=scores)


def run(method: PruningMethod, scores: torch.Tensor, keep: int) -> np.ndarray:
    features = features_of(method, scores)
    return method.select(method.signal(features), torch.zeros(keep), features).numpy()


def expected(method: PruningMethod, scores: np.ndarray, keep: int) -> np.ndarray:
    """What the oracle keeps, (B,K)."""
    if method.name == "none":
        return np.tile(np.arange(COUNT), (len(scores), 1))
    if method.name == "stride":
        return np.tile(oracles.even_stride(COUNT, keep), (len(scores), 1))
    if method.name == "random":
        scores = np.tile(method.constants(COUNT)["order"].numpy(), (len(scores), 1))
    return np.array([oracles.highest_in_raster_order(row, keep) for row in scores])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", BY_SCORE)
def test_method_equals_oracle(name: str, batch: int) -> None:
    for seed in SEEDS:
        method = parse(f"random:seed={seed}") if name == "random" else parse(name)
        scores = tie_free(seed, batch)
        for keep in KEEPS if method.dynamic_keep else (COUNT,):
            found = run(method, torch.from_numpy(scores), keep)
            np.testing.assert_array_equal(found, expected(method, scores, keep), err_msg=f"seed {seed}, keep {keep}")


class Selector(torch.nn.Module):
    """A method's selection alone: scores (B,N), keep_slots (K,) -> keep_idx (B,K)."""

    def __init__(self, method: PruningMethod) -> None:
        super().__init__()
        self.method = method
        constants = method.constants(COUNT)
        self.names = sorted(constants)  # drawn here once: a random generator cannot be traced
        for key, value in constants.items():
            self.register_buffer(key, value, persistent=False)

    def forward(self, scores: torch.Tensor, keep_slots: torch.Tensor) -> tuple[torch.Tensor]:
        constants = {key: getattr(self, key) for key in self.names}
        signals = dict.fromkeys(self.method.needs, scores)
        features = VisualFeatures(None, signals, (24, 24), constants, batch=scores)
        return (self.method.select(self.method.signal(features), keep_slots, features),)


@pytest.mark.parametrize("name", ["fastervlm", "random:seed=3", "stride"])
def test_exported_selection_equals_oracle(name: str, tmp_path: pathlib.Path) -> None:
    import onnxruntime

    method = parse(name)
    interface = Interface(
        (Axis("scores", "scores", "float32", ("B", COUNT)), Axis("keep_slots", "keep_slots", "float32", ("K",))),
        (Axis("keep_idx", "keep_idx", "int64", ("B", "K")),),
    )
    model = trace(Selector(method), (torch.zeros(2, COUNT), torch.zeros(5)), interface)
    assert attach(model, {}, tmp_path) == []
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for seed in SEEDS:
        for batch in (1, 2):
            scores = tie_free(seed, batch)
            for keep in KEEPS:
                feeds = {"scores": scores, "keep_slots": np.zeros(keep, np.float32)}
                feeds = {item.name: feeds[item.name] for item in session.get_inputs()}
                found = session.run(None, feeds)[0]
                np.testing.assert_array_equal(found, expected(method, scores, keep))


def test_larger_keep_of_random_is_a_superset() -> None:
    method, scores = parse("random:seed=5"), torch.zeros(1, COUNT)
    small, large = (set(run(method, scores, keep)[0].tolist()) for keep in (20, 200))
    assert small < large
    assert small != set(run(parse("random:seed=6"), scores, 20)[0].tolist())


def test_stride_is_ascending_inside_the_range_and_whole_at_full() -> None:
    iota = torch.arange(COUNT)
    for keep in range(1, COUNT + 1):
        kept = even_stride(torch.zeros(keep), iota)
        assert kept.dtype == torch.int64
        assert int(kept[0]) >= 0
        assert int(kept[-1]) < COUNT
        assert bool((kept[1:] > kept[:-1]).all())
    assert kept.tolist() == list(range(COUNT))


def test_padding_is_kept_last() -> None:
    method = parse("fastervlm")
    scores = torch.from_numpy(tie_free(0, 1))
    pad = torch.zeros(1, COUNT, dtype=torch.bool)
    pad[0, :100] = True
    features = VisualFeatures(
        None, {method.needs[0]: scores}, (24, 24), method.constants(COUNT), batch=scores, pad_mask=pad
    )
    kept = method.select(scores, torch.zeros(COUNT - 100), features)
    assert kept.tolist() == [list(range(100, COUNT))]
