"""What CDPruner guarantees beside its oracles (test_question_methods.py), in each of its presets."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import PruningError
from edgeprune.pruning.registry import parse
from edgeprune.tolerances import TOLERANCES
from tests.pruning import oracles_text as oracles
from tests.pruning.question_cases import QUESTION_CASES, Drawn, draw, exported, in_torch, scores_of

SPECS = sorted(spec for spec in QUESTION_CASES if spec.startswith("cdpruner"))
PRESETS = ("cdpruner", "cdpruner:preset=openvino-split", "cdpruner:preset=paper")


def relevance(spec: str, drawn: Drawn) -> np.ndarray:
    """(N,) by the oracles."""
    method = parse(spec)
    weight = method.parameters["weight"]
    if method.text_encoder:
        return oracles.relevance_of_the_paper(drawn.signals[0], drawn.words, weight)
    parts = np.split(drawn.tokens, 2 if "split" in spec else 1)
    return np.concatenate([oracles.relevance(part, drawn.words, weight or 0.5) for part in parts])


def test_the_oracle_is_the_definition() -> None:
    """Schur complements pick what the determinants themselves pick."""
    for seed in range(20):
        drawn = draw("cdpruner", seed, 12)
        matrix = oracles.kernel(drawn.tokens, drawn.words, 0.5)
        assert oracles.by_gain(matrix, 8)[0] == oracles.by_determinants(matrix, 8)


@pytest.mark.parametrize("spec", PRESETS)
def test_the_steps_are_one_scan(spec: str) -> None:
    operators = [node.op_type for node in exported(spec, 240).graph]
    assert operators.count("Scan") == 1
    assert len(operators) < 100, "whatever K is"
    assert not {"Loop", "NonZero", "ScatterND"} & set(operators)


@pytest.mark.parametrize("spec", SPECS)
def test_scores_are_the_relevance(spec: str) -> None:
    for seed in (8, 9):
        drawn = draw(spec, seed, 64)
        scores = scores_of(spec, drawn)
        wanted = relevance(spec, drawn)
        np.testing.assert_allclose(scores, wanted, atol=TOLERANCES["scores"] * wanted.max())
        assert scores.min() > 0
        assert scores.min() >= 1 or spec == "cdpruner:preset=paper"


def test_the_papers_relevance_is_negated() -> None:
    """The token that is most like the question is the least relevant one, as in the paper's code; 1e-6 / range."""
    spec = "cdpruner:preset=paper"
    drawn = draw(spec, 1, 64)
    alike = (drawn.signals[0] / np.linalg.norm(drawn.signals[0], axis=1, keepdims=True)) @ (
        drawn.words / np.linalg.norm(drawn.words, axis=1, keepdims=True)
    ).mean(0)
    scores = scores_of(spec, drawn)
    assert scores.argmin() == alike.argmax()
    assert scores.argmax() == alike.argmin()
    np.testing.assert_allclose(scores.min(), 1e-6 / (alike.max() - alike.min()), rtol=1e-3)
    np.testing.assert_allclose(scores.max(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["random", "all alike", "zero", "pairs", "few dimensions"])
def test_count_is_exact_and_indices_are_unique_even_among_ties(spec: str, kind: str) -> None:
    drawn = draw(spec, 5, 36)

    def of(values: np.ndarray) -> np.ndarray:
        made = {
            "random": values,
            "all alike": np.repeat(values[:1], 36, axis=0),
            "zero": np.zeros_like(values),
            "pairs": np.repeat(values[::2], 2, axis=0),
            "few dimensions": values * (np.arange(values.shape[1]) < 3),
        }[kind]
        return made.astype(np.float32)

    drawn = drawn._replace(tokens=of(drawn.tokens), signals=[of(signal) for signal in drawn.signals])
    assert np.isfinite(scores_of(spec, drawn)).all()
    for keep in parse(spec).valid_k(36):
        index = in_torch(spec, [drawn], keep)[0][0]
        assert index.shape == (keep,)
        assert (np.diff(index) > 0).all(), "ascending, so unique"
        assert 0 <= index[0] <= index[-1] < 36


def test_another_question_keeps_other_tokens_and_no_weight_none() -> None:
    for spec, differ in (
        ("cdpruner:weight=0.8", True), ("cdpruner:preset=paper", True),
        ("cdpruner:weight=0", False), ("cdpruner:preset=paper,weight=0", False),
    ):  # fmt: skip
        known = spec if spec in QUESTION_CASES else spec.replace(",weight=0", "").replace(":weight=0", "")
        drawn = draw(known, 6, 64)
        other = drawn._replace(text=draw(known, 7, 64).text)
        first, second = (in_torch(spec, [item], 16)[0].tolist() for item in (drawn, other))
        assert (first != second) == differ, spec


def test_what_is_refused() -> None:
    for spec, words in (
        ("cdpruner:preset=clip", "preset must be one of llm, openvino-split, paper"),
        ("cdpruner:weight=1", "between 0 and 0.99"),
        ("cdpruner:weight=nan", "between 0 and 0.99"),
    ):
        with pytest.raises(PruningError, match=words):
            parse(spec)
    split = parse("cdpruner:preset=openvino-split")
    with pytest.raises(PruningError, match="cannot keep 29 of 576"):
        split.check_k(29, 576)
    with pytest.raises(PruningError, match="729 of them have no halves"):
        split.check_k(10, 729)


@pytest.mark.parametrize("spec", PRESETS)
def test_half_precision_is_computed_in_float32(spec: str) -> None:
    drawn = draw(spec, 8, 64)
    half = drawn._replace(tokens=drawn.tokens.astype(np.float16))
    wide = half._replace(tokens=half.tokens.astype(np.float32))
    np.testing.assert_array_equal(in_torch(spec, [half], 20)[0], in_torch(spec, [wide], 20)[0])
