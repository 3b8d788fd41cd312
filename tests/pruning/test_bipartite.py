"""One round of bipartite merging, of odd and even lists, and AIM's schedule of rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.errors import PruningError
from edgeprune.pruning.bipartite import merge_round
from edgeprune.pruning.registry import parse
from tests.pruning import oracles_similarity as oracles


@pytest.mark.parametrize(("count", "drop"), [(9, 4), (9, 2), (47, 22), (48, 24), (48, 5), (3, 1), (2, 1)])
def test_a_round_equals_the_oracle(count: int, drop: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tokens = rng.normal(size=(count, 16)).astype(np.float32)
        places = np.where(rng.random(count) < 0.3, -1, np.arange(count))
        try:
            expected = oracles.merge_round(list(zip(places.tolist(), tokens.astype(np.float64), strict=True)), drop)
        except oracles.Tie:
            continue
        made, index = merge_round(
            torch.from_numpy(tokens)[None], torch.from_numpy(places)[None], drop, torch.arange(count)
        )
        assert made.shape == (1, count - drop, 16)
        assert index[0].tolist() == [place for place, _ in expected]
        np.testing.assert_allclose(made[0].numpy(), np.stack([row for _, row in expected]), atol=1e-5)


def test_lengths_of_aim_are_halvings() -> None:
    assert list(parse("aim-merge").valid_k(576)) == [36, 72, 144, 288, 576]
    assert list(parse("aim-merge:rounds=8").valid_k(576)) == [3, 5, 9, 18, 36, 72, 144, 288, 576]
    assert list(parse("aim-merge").valid_k(729)) == [47, 92, 183, 365, 729]
    assert list(parse("aim-merge:rounds=8").valid_k(1)) == [1]
    with pytest.raises(PruningError, match=r"aim-merge cannot keep 58 of 576 .* is 72"):
        parse("aim-merge").check_k(58, 576)
    with pytest.raises(PruningError, match="rounds must be from 1 to 8"):
        parse("aim-merge:rounds=9")
