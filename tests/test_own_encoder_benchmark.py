"""The graphs that benchmarks/own_encoder.py times."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import own_encoder


@pytest.mark.parametrize("form", ["library", "own"])
def test_products_of_either_form_are_in_integers_and_near_each_other(form: str) -> None:
    model, feeds = own_encoder.product(form, 7, 64, 40, nodes=3)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("MatMulInt8" if form == "own" else "MatMulInteger") == 3
    assert operators.count("DynamicQuantizeLinear") == (form == "library")
    results = own_encoder.opened(model, 2).run(None, feeds)
    rng = np.random.default_rng(0)
    for found in results:
        exact = feeds["x"] @ rng.normal(0, 0.02, (40, 64)).astype(np.float32).T + 1
        np.testing.assert_allclose(found, exact, atol=0.03)


def test_attention_of_every_form_is_the_same() -> None:
    made = [own_encoder.attention(form, nodes=1) for form in ("library", "own float32", "own bfloat16")]
    wanted, exact, rounded = (own_encoder.opened(model, 2).run(None, feeds)[0] for model, feeds in made)
    np.testing.assert_allclose(exact, wanted, atol=1e-5)
    np.testing.assert_allclose(rounded, wanted, atol=5e-3)
    assert not np.array_equal(rounded, exact)
