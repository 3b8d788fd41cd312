"""Methods that read the question against their oracles, in torch and as exported graphs, and what they guarantee."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgeprune.pruning.base import VisualFeatures
from edgeprune.pruning.registry import parse
from edgeprune.tolerances import TOLERANCES
from tests.pruning import oracles_question
from tests.pruning.greedy_cases import in_torch as without_text
from tests.pruning.question_cases import QUESTION_CASES, Drawn, draw, exported, in_onnxruntime, in_torch, known
from tests.pruning.test_attention_methods import REFUSED

SPECS = sorted(QUESTION_CASES)
NAMES = sorted({spec.partition(":")[0] for spec in SPECS})
#: graphs that differ in more than a number
GRAPHS = [*NAMES, "cdpruner:preset=openvino-split", "cdpruner:preset=paper"]
KEEPS = (1, 29, 58, 64, 128, 192)
Run = Callable[[str, list[Drawn], int], list[np.ndarray]]


def served(spec: str, count: int, keeps: tuple[int, ...]) -> tuple[int, ...]:
    valid = parse(spec).valid_k(count)
    return tuple(keep for keep in (*keeps, count) if keep in valid)


def compare(spec: str, count: int, keeps: tuple[int, ...], seeds: int, *runs: Run) -> None:
    """Every seed alone and in a batch of two, every K that is served, N too, against the oracle."""
    keeps = served(spec, count, keeps)
    cases = known(spec, count, keeps, seeds)
    for seed in range(seeds):
        for batch in ([cases[seed]], [cases[seed], cases[seed - 1]]):
            for keep in keeps:
                index, features = (np.array([case.expected[keep][part] for case in batch]) for part in (0, 1))
                for run in runs:
                    found = run(spec, [case.drawn for case in batch], keep)
                    np.testing.assert_array_equal(found[0], index, err_msg=f"seed {seed}, keep {keep}")
                    largest = max(1.0, float(np.abs(features).max()))
                    assert np.abs(found[1] - features).max() <= TOLERANCES["merged"] * largest


@pytest.mark.parametrize("spec", SPECS)
def test_fifty_small_seeds_equal_the_oracle(spec: str) -> None:
    compare(spec, 64, (1, 29, 58), 50, in_torch)


@pytest.mark.parametrize("spec", GRAPHS)
def test_torch_and_exported_graph_equal_the_oracle(spec: str) -> None:
    compare(spec, 240, KEEPS, 2, in_torch, in_onnxruntime)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_fifty_seeds_equal_the_oracle(spec: str) -> None:
    compare(spec, 240, KEEPS, 50, in_torch, in_onnxruntime)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_the_grid_of_llava_equals_the_oracle(spec: str) -> None:
    compare(spec, 576, KEEPS, 5, in_torch, in_onnxruntime)


@pytest.mark.parametrize("spec", NAMES)
def test_the_graph_is_not_unrolled_and_holds_nothing_that_tensorrt_refuses(spec: str) -> None:
    graph = exported(spec, 240).graph
    operators = [node.op_type for node in graph]
    assert len(operators) < 120
    assert not (REFUSED | {"Loop"}) & set(operators)
    modes = [node.attributes.get_string("reduction", "none") for node in graph if "Scatter" in node.op_type]
    assert set(modes) <= {"none"}


def padded(drawn: Drawn, rows: int, filler: float) -> Drawn:
    """As drawn, with `rows` more rows of padding."""
    text = np.concatenate([drawn.text, np.full((rows, drawn.text.shape[1]), filler, np.float32)])
    return drawn._replace(text=text, mask=np.concatenate([drawn.mask, np.zeros(rows, np.float32)]))


@pytest.mark.parametrize("spec", SPECS)
def test_padding_of_the_question_changes_nothing(spec: str) -> None:
    for seed in range(4):
        drawn = draw(spec, seed, 64)
        bare = drawn._replace(text=drawn.words, mask=np.ones(len(drawn.words), np.float32))
        for keep in served(spec, 64, (1, 20, 40)):
            for other in (bare, padded(drawn, 1, 1e6), padded(drawn, 9, np.nan)):
                found, wanted = in_torch(spec, [other], keep), in_torch(spec, [drawn], keep)
                np.testing.assert_array_equal(found[0], wanted[0])
                np.testing.assert_allclose(found[1], wanted[1], atol=1e-5)


@pytest.mark.parametrize("spec", NAMES)
def test_another_question_keeps_other_tokens(spec: str) -> None:
    drawn = draw(spec, 1, 64)
    other = drawn._replace(text=draw(spec, 5, 64).text)
    assert in_torch(spec, [drawn], 20)[0].tolist() != in_torch(spec, [other], 20)[0].tolist()


@pytest.mark.parametrize("spec", SPECS)
def test_patches_are_unique_and_in_range(spec: str) -> None:
    drawn = draw(spec, 3, 64)
    alike = drawn._replace(tokens=np.repeat(drawn.tokens[:1], 64, axis=0))
    for case in (drawn, alike, drawn._replace(tokens=np.zeros_like(drawn.tokens))):
        for keep in parse(spec).valid_k(64):
            index, features = in_torch(spec, [case], keep)
            assert index.shape == features.shape[:2] == (1, keep)
            patches = index[0][index[0] >= 0]
            assert len(set(patches.tolist())) == len(patches)
            assert patches.max(initial=0) < 64
            assert np.isfinite(features).all()


def test_mmtok_without_weight_on_the_question_is_mmtok_vv() -> None:
    """An empty question leaves the image alone, whose coverage reads the encoder's features."""
    drawn = draw("mmtok", 2, 64)
    for keep in (1, 9, 40):
        alone = without_text(parse("mmtok-vv"), drawn.signals[0][None], drawn.signals[0][None, :, 0], keep)
        blank = drawn._replace(mask=np.zeros_like(drawn.mask))
        np.testing.assert_array_equal(in_torch("mmtok", [blank], keep)[0], alone)


def test_mmtok_leaves_out_padding_of_the_picture() -> None:
    drawn = draw("mmtok", 1, 64)
    tokens, hidden, text, mask = (
        torch.from_numpy(x)[None] for x in (drawn.tokens, drawn.signals[0], drawn.text, drawn.mask)
    )
    method, pad = parse("mmtok"), torch.zeros(1, 64, dtype=torch.bool)
    pad[0, ::4] = True
    features = VisualFeatures(
        tokens, {method.needs[0]: hidden}, (8, 8), method.constants(64), batch=tokens, text_embeds=text, text_mask=mask
    )
    free = dataclasses.replace(features, pad_mask=pad)
    for keep in (1, 20, 48, 50):
        assert int(pad[0, method.select(None, torch.zeros(keep), free)[0]].sum()) == max(0, keep - 48)


def test_coverage_gains_of_mmtok_never_grow() -> None:
    """Facility location is submodular: the oracle's own property."""
    drawn = draw("mmtok", 4, 64)
    p = oracles_question.shares(oracles_question.cosines_between(drawn.words, drawn.tokens), 0.02) / len(drawn.words)
    picks = oracles_question.mmtok(drawn.signals[0], drawn.tokens, drawn.words, 40, 0.0, 0.02, 0.2)[0]
    covered = [p[:, picks[:k]].max(1).sum() for k in range(1, 41)]
    assert (np.diff(covered, n=2) <= 1e-12).all()
