"""Runs of the raster sequence, their budgets, and what becomes of a budget that a run cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.registry import parse
from edgeprune.pruning.windows import budgets, in_runs, run_constants
from tests.pruning.attention_cases import CASES, COUNT, inputs, run_torch
from tests.pruning.oracles_attention import Tie
from tests.pruning.oracles_windows import holov_budgets, runs_of


@pytest.mark.parametrize(("count", "runs"), [(576, 16), (576, 7), (17, 16), (9, 16), (1, 16)])
def test_runs_are_contiguous_and_the_first_are_longer(count: int, runs: int) -> None:
    constants = run_constants(count, runs)
    laid = in_runs(torch.arange(count)[None], constants["places"])[0]
    found = [row[member > 0].tolist() for row, member in zip(laid, constants["member"], strict=True)]
    assert found == runs_of(count, min(runs, count))
    assert laid.flatten()[constants["slot"]].tolist() == list(range(count))


def test_budgets_add_up_to_k() -> None:
    rng = np.random.default_rng(0)
    for keep in (1, 5, 58, 576):
        shares = torch.from_numpy(rng.dirichlet(np.ones(16), 9).astype(np.float32) * np.float32(1 - 1e-6))
        given = budgets(shares, torch.zeros(keep))
        assert given.sum(1).tolist() == [keep] * 9
        assert (torch.floor(shares * keep) <= given).all()
        assert (given <= torch.floor(shares * keep) + 1).all()


@pytest.mark.parametrize("spec", ["holov", "holov:runs=7,variance=5.0,importance=received"])
def test_a_run_that_overflows_is_kept_whole_and_the_rest_goes_to_the_highest_attention(spec: str) -> None:
    case, method, overflowed = CASES[spec], parse(spec), 0
    windows = runs_of(COUNT, method.parameters["runs"])
    for seed in range(4):
        (attention,), tokens = inputs(case, seed, 1)
        attention[0, windows[3]] *= 40
        try:
            expected = case.expected([attention], tokens, 192)[0]
            given = holov_budgets(attention[0], tokens[0], 192, windows, method.parameters["variance"])
        except Tie:
            continue
        overflowed += given[3] > len(windows[3])
        found = run_torch(case, [attention], tokens, 192)[0]
        np.testing.assert_array_equal(found, expected)
        assert set(windows[3]) <= set(found[0].tolist())
    assert overflowed >= 2


def kept_with_padding(method: PruningMethod, attention: np.ndarray, tokens: np.ndarray, keep: int) -> torch.Tensor:
    """Every fourth token lies in padding; -> how many of those are kept, (B,)."""
    pad = torch.zeros(1, COUNT, dtype=torch.bool)
    pad[0, ::4] = True
    x = torch.from_numpy(tokens)
    signals = dict.fromkeys(method.needs, torch.from_numpy(attention))
    features = VisualFeatures(x, signals, (24, 24), method.constants(COUNT), batch=x, pad_mask=pad)
    index = method.select(method.signal(features), torch.zeros(keep), features)
    return torch.gather(pad, 1, index).sum(1)


def test_padding_is_kept_last() -> None:
    (attention,), tokens = inputs(CASES["holov"], 0, 1)
    for keep, padding in ((58, 0), (432, 0), (440, 8)):
        assert kept_with_padding(parse("holov"), attention, tokens, keep).tolist() == [padding]


@pytest.mark.parametrize("runs", ["0", "-3"])
def test_bad_parameter_is_refused(runs: str) -> None:
    from edgeprune.errors import PruningError

    with pytest.raises(PruningError, match="runs must be at least 1"):
        parse(f"holov:runs={runs}")
