"""Greedy methods against their oracles, in torch and as exported graphs in ONNX Runtime, and what they guarantee."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from edgeprune.pruning.base import VisualFeatures
from edgeprune.pruning.registry import parse
from tests.pruning import oracles
from tests.pruning.greedy_cases import (
    ORACLES,
    Case,
    cases,
    draw,
    exported,
    in_onnxruntime,
    in_torch,
)
from tests.pruning.oracles_greedy import cosines

SPECS = sorted(ORACLES)
KEEPS = (1, 29, 58, 64, 128, 192)


def compare(spec: str, count: int, keeps: tuple[int, ...], seeds: int, *, graph: bool) -> None:
    """Every seed alone, and all in batches of two, every K of `keeps` and N, against the oracle."""
    known = cases(spec, count, max(keeps), seeds)
    pairs = [[one, other] for one, other in zip(known, known[1:] + known[:1], strict=True)][::2]
    for batch in [*([case] for case in known), *pairs]:
        compare_batch(spec, batch, keeps, graph)


def compare_batch(spec: str, batch: list[Case], keeps: tuple[int, ...], graph: bool) -> None:
    method = parse(spec)
    tokens = np.stack([case.tokens for case in batch])
    attention = np.stack([case.attention for case in batch])
    count = tokens.shape[1]
    for keep in (*keeps, count):
        wanted = [list(range(count)) if keep == count else sorted(case.picks[:keep]) for case in batch]
        np.testing.assert_array_equal(in_torch(method, tokens, attention, keep), wanted, err_msg=f"keep {keep}")
        if graph:
            np.testing.assert_array_equal(in_onnxruntime(spec, tokens, attention, keep), wanted, err_msg=f"keep {keep}")


@pytest.mark.parametrize("spec", SPECS)
def test_fifty_small_seeds_equal_the_oracle(spec: str) -> None:
    compare(spec, 64, (1, 29, 58), 50, graph=False)


@pytest.mark.parametrize("spec", ["divprune", "todre", "todre:objective=k-center", "mmr", "scope", "zoo", "mmtok-vv"])
def test_torch_and_exported_graph_equal_the_oracle(spec: str) -> None:
    compare(spec, 256, KEEPS, 3, graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_fifty_seeds_equal_the_oracle(spec: str) -> None:
    compare(spec, 256, KEEPS, 50, graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_the_grid_of_llava_equals_the_oracle(spec: str) -> None:
    compare(spec, 576, KEEPS, 8, graph=True)


@pytest.mark.parametrize("spec", ["divprune", "todre", "mmr", "scope", "zoo", "mmtok-vv"])
def test_the_steps_are_one_scan(spec: str) -> None:
    """Not unrolled: the number of nodes is small and does not depend on K, which stays free."""
    graph = exported(spec, 256).graph
    operators = [node.op_type for node in graph]
    assert operators.count("Scan") == 1
    assert len(operators) < 60
    assert not {"Loop", "NonZero", "ScatterND"} & set(operators)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["random", "all alike", "zero", "pairs"])
def test_count_is_exact_and_indices_are_unique_even_among_ties(spec: str, kind: str) -> None:
    tokens, attention = draw(5, 36)
    tokens = {
        "random": tokens,
        "all alike": np.repeat(tokens[:1], 36, axis=0),
        "zero": np.zeros_like(tokens),
        "pairs": np.repeat(tokens[::2], 2, axis=0),
    }[kind]
    for keep in range(1, 37):
        index = in_torch(parse(spec), tokens[None], attention[None], keep)[0]
        assert index.shape == (keep,)
        assert (np.diff(index) > 0).all(), "ascending, so unique"
        assert index[0] >= 0
        assert index[-1] < 36


@pytest.mark.parametrize("spec", SPECS)
def test_a_lone_token_is_kept(spec: str) -> None:
    tokens, attention = draw(0, 1)
    assert in_torch(parse(spec), tokens[None], attention[None], 1).tolist() == [[0]]


@pytest.mark.parametrize("spec", SPECS)
def test_a_larger_keep_is_a_superset(spec: str) -> None:
    tokens, attention = draw(7, 64)
    kept = [set(in_torch(parse(spec), tokens[None], attention[None], k)[0].tolist()) for k in range(1, 65, 7)]
    assert all(small < large for small, large in itertools.pairwise(kept))


@pytest.mark.parametrize("spec", SPECS)
def test_padding_is_kept_last(spec: str) -> None:
    tokens, attention = (torch.from_numpy(item)[None] for item in draw(3, 64))
    pad = torch.zeros(1, 64, dtype=torch.bool)
    pad[0, ::4] = True
    method = parse(spec)
    signals = dict.fromkeys(method.needs, attention)
    features = VisualFeatures(tokens, signals, (8, 8), method.constants(64), batch=tokens, pad_mask=pad)
    for keep in (1, 20, 48, 50):
        kept = method.select(method.signal(features), torch.zeros(keep), features)
        assert int(pad[0, kept[0]].sum()) == max(0, keep - 48)


def random_subsets(count: int, keep: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.permutation(count)[:keep] for _ in range(50)]


def test_each_objective_beats_random_subsets() -> None:
    tokens, attention = draw(1, 64)
    near, keep = cosines(tokens), 16
    apart = 1 - near + 9 * np.eye(64)
    powers = np.exp(near / 0.2)
    shares = powers / powers.sum(1, keepdims=True)
    objectives = {
        "divprune": lambda s: apart[np.ix_(s, s)].min(),
        "todre": lambda s: -near[np.ix_(s, s)].sum(),
        "todre:objective=k-center": lambda s: apart[np.ix_(s, s)].min(),
        "scope:alpha=0": lambda s: np.maximum(near[:, s], 0).max(1).sum(),
        "mmtok-vv": lambda s: shares[:, s].max(1).sum(),
    }
    for spec, objective in objectives.items():
        found = objective(in_torch(parse(spec), tokens[None], attention[None], keep)[0])
        assert found > max(objective(subset) for subset in random_subsets(64, keep)), spec


def test_limits_of_mmr() -> None:
    """All importance: its top-k. None: max-min diversity from the most important token, which is todre's k-center."""
    tokens, attention = draw(2, 64)
    for keep in (1, 9, 40):
        alone = in_torch(parse("mmr:balance=1"), tokens[None], attention[None], keep)[0]
        assert alone.tolist() == oracles.highest_in_raster_order(attention, keep)
        diverse = in_torch(parse("mmr:balance=0"), tokens[None], attention[None], keep)
        centres = in_torch(parse("todre:objective=k-center"), tokens[None], attention[None], keep)
        np.testing.assert_array_equal(diverse, centres)


def test_length_of_tokens_does_not_matter_and_half_precision_is_computed_in_float32() -> None:
    tokens, attention = draw(4, 64)
    for spec in SPECS:
        wanted = in_torch(parse(spec), tokens[None], attention[None], 20)
        scaled = tokens * 2.0 ** np.arange(-8, 8).repeat(4)[:, None].astype(np.float32)
        if spec != "zoo:sensitivity=norm":  # which is a length
            found = in_torch(parse(spec), scaled[None], attention[None], 20)
            np.testing.assert_array_equal(found, wanted, err_msg=spec)
        half = tokens.astype(np.float16)
        found = in_torch(parse(spec), half[None], attention[None], 20)
        again = in_torch(parse(spec), half[None].astype(np.float32), attention[None], 20)
        np.testing.assert_array_equal(found, again, err_msg=spec)
