"""Background and stages: SPEC strings, caps, the gate, and the way back to the original grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.errors import PruningError
from edgeprune.pruning.background import FOREGROUND
from edgeprune.pruning.base import Signal, VisualFeatures
from edgeprune.pruning.registry import parse
from edgeprune.pruning.stages import Staged, on_grid, rows_of, spread


@pytest.mark.parametrize(
    ("spec", "name", "stages", "where"),
    [
        ("background", "background", ("background",), "before_encoder"),
        ("background:trunk=2", "background", ("background:trunk=2",), "before_projector"),
        ("background:gate=true", "background", ("background:gate=True",), "before_projector"),
        ("background@0.5", "background@0.5", ("background@0.5",), "before_encoder"),
        ("background:gate=true@0.25", "background@0.25", ("background:gate=True@0.25",), "before_encoder"),
        (
            " background @ .5 + fastervlm:layer=-3", "background@0.5+fastervlm",
            ("background@0.5", "fastervlm:layer=-3"), "before_projector",
        ),
        ("background@5e-1+divprune", "background@0.5+divprune", ("background@0.5", "divprune"), "after_projector"),
    ],
)  # fmt: skip
def test_spec_of_stages_parses(spec: str, name: str, stages: tuple[str, ...], where: str) -> None:
    method = parse(spec)
    assert (method.name, method.stages, method.where) == (name, stages, where)
    assert parse(method.spec) == method


def test_a_composed_method_answers_for_its_second_stage() -> None:
    merging, picky = parse("background@0.5+visionzip"), parse("background@0.5+divprune")
    assert (merging.gathers, merging.reads_tokens, merging.has_scores) == (False, True, True)
    assert (picky.gathers, picky.reads_tokens) == (True, True)
    assert FOREGROUND in merging.needs
    assert merging.parameters["ratio"] == 0.5
    assert merging.parameters["visionzip"] == parse("visionzip").parameters
    assert (parse("fastervlm").max_keep, picky.max_keep) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("background@", ("background@RATIO needs a number", "''")),
        ("background@half", ("number", "'half'")),
        ("background@0", ("above 0 and at most 1", "0.0")),
        ("background@1.5+fastervlm", ("at most 1", "1.5")),
        ("background@nan", ("at most 1", "nan")),
        ("fastervlm@0.5+divprune", ("fastervlm cannot stand before the encoder", "only background")),
        ("background+fastervlm", ("NAME@RATIO+NAME",)),
        ("background@0.5+background", ("background cannot follow background",)),
        ("background@0.5+fastervlm@0.5", ("takes no ratio",)),
        ("background@0.5+none", ("none cannot follow",)),
        ("background@0.5+tome", ("tome cannot follow",)),
        ("background@0.5+embedlens", ("embedlens is measured at export", "must be given")),
        ("background@0.5+hiprune", ("hiprune reads rows and columns",)),
        ("background@0.5+fopru:mode=row", ("fopru reads rows and columns",)),
        ("background@0.5+", ("unknown pruning method ''",)),
        ("background:trunk=1@0.5", ("not before it",)),
        ("background:gate=true@0.5+fastervlm", ("leave out gate",)),
        ("background:layer=3", ("gate=true",)),
    ],
)
def test_stages_that_do_not_fit_are_refused_in_one_sentence(spec: str, words: tuple[str, ...]) -> None:
    with pytest.raises(PruningError) as caught:
        parse(spec)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_keep_above_the_cap_is_refused_with_the_numbers() -> None:
    method = parse("background@0.5+fastervlm")
    method.check_k(288, 576)
    with pytest.raises(PruningError, match=r"lets 288 of 576 visual tokens .* cannot keep 289: ask for keep 0\.5"):
        method.check_k(289, 576)
    assert list(parse("background@0.5").valid_k(5)) == [1, 2, 3]  # floor(2.5 + 0.5)
    with pytest.raises(PruningError, match=r"background@0.5\+visionzip cannot keep 288 of 576"):
        parse("background@0.5+visionzip").check_k(288, 576)


def test_the_counts_are_those_of_the_original_grid() -> None:
    method = parse("background@0.3+fastervlm")
    assert isinstance(method, Staged)
    for n in (1, 16, 256, 576):
        assert method.stage(n).kept == max(1, int(np.floor(n * 0.3 + 0.5))) == len(method.valid_k(n))
    assert parse("background").stage(256).kept is None
    assert parse("background:gate=true").stage(256) is None


@pytest.mark.parametrize("batch", [1, 2])
def test_gate_puts_foreground_first_then_cls_attention(batch: int) -> None:
    method = parse("background:gate=true,trunk=1")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(batch, 64)).astype(np.float32)
        attention = rng.permutation(64 * batch).reshape(batch, 64).astype(np.float32) / (64 * 64)
        signals = {Signal("foreground", 1): torch.from_numpy(logits)}
        signals[Signal("cls_attention")] = torch.from_numpy(attention)
        features = VisualFeatures(None, signals, (8, 8), method.constants(64), batch=signals[Signal("cls_attention")])
        scores = method.signal(features)
        assert scores is not None
        for keep in (1, 7, 30, 64):
            found = method.select(scores, torch.zeros(keep), features).numpy()
            for row in range(batch):
                order = sorted(range(64), key=lambda i: (logits[row, i] <= 0, -attention[row, i]))
                assert found[row].tolist() == sorted(order[:keep])


def test_survivors_find_their_way_back_to_the_grid() -> None:
    places = torch.tensor([[1, 4, 6], [0, 2, 7]])
    assert on_grid(torch.tensor([[2, -1], [0, 1]]), places).tolist() == [[6, -1], [0, 2]]
    scores = spread(torch.tensor([[0.5, 0.1, 0.9], [3.0, 2.0, 4.0]]), places, 8)
    assert scores[0].tolist() == pytest.approx([0.1, 0.5, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1])
    assert scores[1].tolist() == [3, 2, 2, 2, 2, 2, 2, 4]
    tokens = torch.arange(18.0).reshape(2, 9, 1)
    assert rows_of(tokens, places).squeeze(-1).tolist() == [[0, 2, 5, 7], [9, 10, 12, 17]]
