"""The attention and key based methods against their oracles, in torch and as exported graphs in ONNX Runtime."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from edgeprune.tolerances import TOLERANCES
from tests.pruning.attention_cases import (
    CASES,
    COUNT,
    Case,
    exported,
    inputs,
    run_exported,
    run_torch,
    tie_free,
    together,
)

#: operators that TensorRT's parser refuses
REFUSED = {"NonZero", "Compress", "Unique", "SequenceAt", "SplitToSequence", "ConcatFromSequence"}


def compare(case: Case, found: list[np.ndarray], expected: tuple[np.ndarray, np.ndarray], what: str) -> None:
    index, features = expected
    np.testing.assert_array_equal(found[0], index, err_msg=what)
    assert np.abs(found[1] - features).max() <= TOLERANCES["merged"] * max(1.0, float(np.abs(features).max())), what
    if case.method.gathers:
        np.testing.assert_array_equal(found[1], features)


def compare_all(
    case: Case, runs: list[Callable[..., list[np.ndarray]]], seeds: int, counts: list[int] | None = None
) -> None:
    """Every seed alone, and all in batches of two."""
    for keep in counts or case.counts:
        known = tie_free(case, max(2, seeds), keep)
        pairs = [together(*pair) for pair in zip(known[::2], known[1::2], strict=False)]
        for signals, tokens, expected in [*known, *pairs]:
            for run in runs:
                compare(case, run(signals, tokens, keep), expected, f"batch {len(tokens)}, keep {keep}")


@pytest.mark.parametrize("spec", CASES)
def test_method_equals_oracle(spec: str) -> None:
    case = CASES[spec]
    counts = case.counts if case.method.stable else case.counts[::3]  # rounds are slow in eager torch
    compare_all(case, [partial(run_torch, case)], case.seeds, counts)


@pytest.mark.parametrize("spec", CASES)
def test_exported_graph_equals_oracle(spec: str, tmp_path: pathlib.Path) -> None:
    case = CASES[spec]
    session, model = exported(case, tmp_path)
    operators = {node.op_type for node in model.graph}
    assert not operators & REFUSED
    modes = [node.attributes.get_string("reduction", "none") for node in model.graph if "Scatter" in node.op_type]
    assert set(modes) <= {"none"}
    assert len(list(model.graph)) < 120, "unrolled"
    compare_all(case, [partial(run_exported, session)], min(case.seeds, 5))


@pytest.mark.slow
@pytest.mark.parametrize("spec", CASES)
def test_fifty_seeds(spec: str, tmp_path: pathlib.Path) -> None:
    case = CASES[spec]
    session, _ = exported(case, tmp_path)
    compare_all(case, [partial(run_torch, case), partial(run_exported, session)], 50)


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


def test_visionzip_emits_cls_dominant_and_contextual_tokens() -> None:
    case = CASES["visionzip"]
    signals, tokens = inputs(case, 1, 2)
    index, features = run_torch(case, signals, tokens, 64)
    np.testing.assert_array_equal(features[:, :1], signals[2])
    assert (index[:, 0] == -1).all()
    assert (index[:, 54:] == -1).all(), "10 of 64 are contextual"
    assert (np.diff(index[:, 1:54], axis=1) > 0).all()


def test_prumerge_orders_by_attention_and_counts_its_extra_token() -> None:
    case = CASES["prumerge"]
    signals, tokens = inputs(case, 1, 2)
    index, features = run_torch(case, signals, tokens, 64)
    assert features.shape == (2, 64, tokens.shape[2])
    assert (np.diff(np.take_along_axis(signals[0], index[:, :63], 1), axis=1) < 0).all()
    assert (index[:, 63] == -1).all()


@pytest.mark.parametrize("spec", CASES)
def test_indices_are_unique_and_in_range(spec: str) -> None:
    case = CASES[spec]
    signals, tokens = inputs(case, 2, 1)
    for keep in case.counts:
        index, features = run_torch(case, signals, tokens, keep)
        patches = index[index >= 0]
        assert index.shape == features.shape[:2] == (1, keep)
        assert len(set(patches.tolist())) == len(patches)
        assert patches.max(initial=0) < COUNT
