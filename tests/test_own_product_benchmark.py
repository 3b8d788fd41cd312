"""The graphs that benchmarks/own_product.py times."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import own_product
from tests.runtime.own_session import opened

#: bits of a weight, its share of the scales included
BITS = {"own": 4 + 8 / 32, "32": 4 + 32 / 32, "64": 4 + 32 / 64, "128": 4 + 32 / 128}


@pytest.mark.parametrize("form", own_product.FORMS)
def test_every_form_has_the_products_of_a_layer(form: str) -> None:
    model = own_product.products(form, 1)
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    weights = sum(depth * columns for depth, columns in own_product.SHAPES)
    # the own form has a factor of 4 bytes for each column besides
    assert stored == pytest.approx(weights * BITS[form] / 8, rel=5e-3)
    run = opened(model)
    feeds = {f"x{size}": np.ones((1, size), np.float32) for size in (2048, 5632)}
    results = run.run(None, feeds)
    assert [value.shape for value in results] == [(1, columns) for _, columns in own_product.SHAPES]
    assert all(np.isfinite(value).all() and value.std() > 0 for value in results)
