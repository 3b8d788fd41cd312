"""The attention and key based methods against their oracles, in torch and as exported graphs in ONNX Runtime."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import torch

from edgeprune.tolerances import TOLERANCES
from tests.pruning.attention_cases import CASES, COUNT, exported, inputs, run_exported, run_torch

#: operators that TensorRT's parser refuses
REFUSED = {"NonZero", "Compress", "Unique", "SequenceAt", "SplitToSequence", "ConcatFromSequence"}
SEEDS = range(50)


def compare(case, found: list[np.ndarray], signals: list[np.ndarray], tokens: np.ndarray, keep: int, what: str) -> None:
    index, features = case.expected(signals, tokens, keep)
    np.testing.assert_array_equal(found[0], index, err_msg=what)
    assert np.abs(found[1] - features).max() <= TOLERANCES["merged"] * max(1.0, float(np.abs(features).max())), what
    if case.method.gathers:
        np.testing.assert_array_equal(found[1], features)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("spec", CASES)
def test_method_equals_oracle(spec: str, batch: int) -> None:
    case = CASES[spec]
    for seed in SEEDS:
        signals, tokens = inputs(case, seed, batch)
        for keep in case.counts:
            found = run_torch(case, signals, tokens, keep)
            compare(case, found, signals, tokens, keep, f"seed {seed}, keep {keep}")


@pytest.mark.parametrize("spec", CASES)
def test_exported_graph_equals_oracle(spec: str, tmp_path: pathlib.Path) -> None:
    case = CASES[spec]
    session, model = exported(case, tmp_path)
    operators = {node.op_type for node in model.graph}
    assert not operators & REFUSED
    assert not any("reduction" in node.attributes for node in model.graph if node.op_type.startswith("Scatter"))
    for seed in SEEDS:
        for batch in (1, 2):
            signals, tokens = inputs(case, seed, batch)
            for keep in case.counts:
                found = run_exported(session, signals, tokens, keep)
                compare(case, found, signals, tokens, keep, f"seed {seed}, batch {batch}, keep {keep}")


@pytest.mark.parametrize("spec", [spec for spec, case in CASES.items() if case.method.identity_at_full])
def test_identity_at_full(spec: str) -> None:
    case = CASES[spec]
    signals, tokens = inputs(case, 0, 1)
    index, features = run_torch(case, signals, tokens, COUNT)
    assert index.tolist() == [list(range(COUNT))]
    np.testing.assert_array_equal(features, tokens)


@pytest.mark.parametrize(
    ("anchors", "near"),
    [
        ([0], {0, 1, 24}),  # i - 1 and i - columns are clamped to 0
        ([575], {575, 574, 551}),
        ([5], {5, 4, 6, 29, 0}),  # above the picture: the first patch
        ([560], {560, 559, 561, 536, 575}),
        ([47], {47, 46, 48, 23, 71}),  # no guard at the row's end
        ([100, 101], {100, 99, 101, 76, 124, 102, 77, 125}),  # adjacent
    ],
)
def test_neighbourhood_of_anchors(anchors: list[int], near: set[int]) -> None:
    from edgeprune.pruning.hiprune import neighbourhood

    marked = torch.zeros(1, COUNT, dtype=torch.bool)
    marked[0, anchors] = True
    assert set(neighbourhood(marked, 24, torch.arange(COUNT)).nonzero()[:, 1].tolist()) == near


def test_rows_are_kept_whole() -> None:
    case = CASES["fopru:mode=row"]
    signals, tokens = inputs(case, 3, 2)
    index, _ = run_torch(case, signals, tokens, 96)
    for row in index:
        assert set(np.bincount(row // 24, minlength=24)) == {0, 24}
