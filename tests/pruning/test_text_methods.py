"""Methods that read the question against their oracles, in torch and as exported graphs, and what they guarantee."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprune.errors import PruningError
from edgeprune.pruning.registry import parse
from edgeprune.tolerances import TOLERANCES
from tests.pruning import oracles_text as oracles
from tests.pruning.text_cases import ORACLES, Case, cases, draw, exported, in_onnxruntime, in_torch, padded

SPECS = sorted(ORACLES)


def served(spec: str, keeps: tuple[int, ...], count: int) -> list[int]:
    return [keep for keep in keeps if keep in parse(spec).valid_k(count)]


def compare(spec: str, count: int, width: int, keeps: tuple[int, ...], seeds: int, *, graph: bool) -> None:
    """Every seed alone and in a batch of two, every K of `keeps`, against the oracle."""
    counts = served(spec, keeps, count)
    known = cases(spec, count, width, max(counts), seeds)
    for seed in range(seeds):
        for batch in ([known[seed]], [known[seed], known[seed - 1]]):
            compare_batch(spec, batch, [*counts, count], graph)


def compare_batch(spec: str, batch: list[Case], keeps: list[int], graph: bool) -> None:
    tokens = np.stack([case.tokens for case in batch])
    text = padded([case.words for case in batch], max(len(case.words) for case in batch) + len(batch), 1e6)
    count = tokens.shape[1]
    for keep in keeps:
        wanted = [list(range(count)) if keep == count else sorted(case.picks[:keep]) for case in batch]
        np.testing.assert_array_equal(in_torch(parse(spec), tokens, text, keep)[0], wanted, err_msg=f"keep {keep}")
        if graph:
            found = in_onnxruntime(spec, tokens, text, keep)[0]
            np.testing.assert_array_equal(found, wanted, err_msg=f"keep {keep} in onnxruntime")


@pytest.mark.parametrize("spec", SPECS)
def test_fifty_small_seeds_equal_the_oracle(spec: str) -> None:
    compare(spec, 64, 96, (1, 2, 29, 30, 58), 50, graph=False)


@pytest.mark.parametrize("spec", ["cdpruner", "cdpruner:preset=openvino-split"])
def test_torch_and_exported_graph_equal_the_oracle(spec: str) -> None:
    compare(spec, 256, 300, (1, 2, 29, 58, 64, 128, 192), 2, graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_the_grid_of_llava_equals_the_oracle(spec: str) -> None:
    compare(spec, 576, 640, (1, 2, 29, 58, 64, 128, 192), 6, graph=True)


def test_the_oracle_is_the_definition() -> None:
    """Schur complements pick what the determinants themselves pick."""
    for seed in range(20):
        tokens, words = draw(seed, 12, 32)
        assert oracles.cdpruner(tokens, words, 8, 0.5)[0] == oracles.cdpruner_by_determinants(tokens, words, 8, 0.5)


@pytest.mark.parametrize("spec", ["cdpruner", "cdpruner:preset=openvino-split"])
def test_the_steps_are_one_scan(spec: str) -> None:
    operators = [node.op_type for node in exported(spec, 256, 300).graph]
    assert operators.count("Scan") == 1
    assert len(operators) < 100, "whatever K is"
    assert not {"Loop", "NonZero", "ScatterND"} & set(operators)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("filler", [0.0, -1e6, np.nan, np.inf])
def test_padding_of_the_question_changes_nothing(spec: str, filler: float) -> None:
    tokens, words = draw(4, 64, 96)
    plain_idx, plain = in_torch(parse(spec), tokens[None], padded([words], len(words), 0.0), 20)
    for extra in (1, 5, 40):
        index, scores = in_torch(parse(spec), tokens[None], padded([words], len(words) + extra, filler), 20)
        np.testing.assert_array_equal(index, plain_idx)
        np.testing.assert_allclose(scores, plain, rtol=TOLERANCES["scores"])


@pytest.mark.parametrize("spec", SPECS)
def test_scores_are_the_relevance(spec: str) -> None:
    tokens, words = draw(9, 64, 96)
    weight = parse(spec).parameters["weight"]
    parts = 2 if "split" in spec else 1
    wanted = np.concatenate([oracles.relevance(part, words, weight) for part in np.split(tokens, parts)])
    scores = in_torch(parse(spec), tokens[None], padded([words], len(words), 0.0), 2)[1][0]
    np.testing.assert_allclose(scores, wanted, rtol=TOLERANCES["scores"])
    assert scores.min() >= 1


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["random", "all alike", "zero", "pairs", "few dimensions"])
def test_count_is_exact_and_indices_are_unique_even_among_ties(spec: str, kind: str) -> None:
    tokens, words = draw(5, 36, 64)
    tokens = {
        "random": tokens,
        "all alike": np.repeat(tokens[:1], 36, axis=0),
        "zero": np.zeros_like(tokens),
        "pairs": np.repeat(tokens[::2], 2, axis=0),
        "few dimensions": tokens * (np.arange(64) < 3),
    }[kind].astype(np.float32)
    for keep in parse(spec).valid_k(36):
        index = in_torch(parse(spec), tokens[None], padded([words], 12, 0.0), keep)[0][0]
        assert index.shape == (keep,)
        assert (np.diff(index) > 0).all(), "ascending, so unique"
        assert 0 <= index[0] <= index[-1] < 36


def test_another_question_keeps_other_tokens_and_no_weight_none() -> None:
    tokens, words = draw(6, 64, 96)
    other = draw(7, 64, 96)[1]
    text, others = (padded([item], 12, 0.0) for item in (words, other))
    for spec, differ in (("cdpruner:weight=0.9", True), ("cdpruner:weight=0", False)):
        first, second = (in_torch(parse(spec), tokens[None], item, 16)[0].tolist() for item in (text, others))
        assert (first != second) == differ, spec


def test_what_is_refused() -> None:
    for spec, words in (
        ("cdpruner:preset=clip", "preset must be one of llm, openvino-split"),
        ("cdpruner:weight=1", "between 0 and 0.99"),
    ):
        with pytest.raises(PruningError, match=words):
            parse(spec)
    split = parse("cdpruner:preset=openvino-split")
    with pytest.raises(PruningError, match="cannot keep 29 of 576"):
        split.check_k(29, 576)
    with pytest.raises(PruningError, match="729 of them have no halves"):
        split.check_k(10, 729)


def test_half_precision_is_computed_in_float32() -> None:
    tokens, words = draw(8, 64, 96)
    embeds, mask = padded([words], len(words), 0.0)
    half = tokens[None].astype(np.float16)
    found = in_torch(parse("cdpruner"), half, (embeds, mask), 20)[0]
    assert torch.from_numpy(half).dtype == torch.float16
    np.testing.assert_array_equal(found, in_torch(parse("cdpruner"), half.astype(np.float32), (embeds, mask), 20)[0])
