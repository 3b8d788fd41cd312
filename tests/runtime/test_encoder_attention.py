"""The library's own attention of an encoder in onnxruntime against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.runtime.own_session import of_node

Array = np.ndarray[Any, Any]


def session(heads: int, scale: float, *, bfloat16: bool) -> Any:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("q", "k", "v", "y")]
    node = helper.make_node(
        "EncoderAttention", ["q", "k", "v"], ["y"], domain="edgeprune", heads=heads, scale=scale, bfloat16=int(bfloat16)
    )
    return of_node(node, ports[:3], ports[3:])


def rounded(x: Array) -> Array:
    """To bfloat16, nearest even, in float32."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def attention(q: Array, k: Array, v: Array, heads: int, scale: float, *, bfloat16: bool) -> Array:
    """Head by head in float64, what is multiplied rounded first."""
    batch, asking, columns = q.shape
    width = columns // heads
    made = np.zeros((batch, asking, columns))
    kept = rounded if bfloat16 else np.asarray
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scaled = kept((q[..., part] * np.float32(scale)).astype(np.float32)).astype(np.float64)
        logits = scaled @ kept(k[..., part]).astype(np.float64).transpose(0, 2, 1)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        total = weights.sum(-1, keepdims=True)
        made[..., part] = kept(weights).astype(np.float64) @ kept(v[..., part]).astype(np.float64) / total
    return made


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(
    ("batch", "heads", "asking", "asked", "width"),
    [
        (1, 16, 577, 577, 64), (2, 3, 5, 5, 4), (1, 2, 13, 33, 72), (3, 1, 1, 1, 1), (1, 4, 100, 17, 31),
        (1, 1, 7, 64, 600),
    ],
)  # fmt: skip
def test_operator_equals_numpy(batch: int, heads: int, asking: int, asked: int, width: int, bfloat16: bool) -> None:
    rng = np.random.default_rng(asked)
    q, k, v = (
        rng.normal(size=(batch, count, heads * width)).astype(np.float32) * 1.5 for count in (asking, asked, asked)
    )
    scale = width**-0.5
    (found,) = session(heads, scale, bfloat16=bfloat16).run(None, {"q": q, "k": k, "v": v})
    wanted = attention(q, k, v, heads, scale, bfloat16=bfloat16)
    assert found.shape == q.shape
    # a weight half way between two numbers of bfloat16 may round either way
    away = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert away < (2e-4 if bfloat16 else 2e-6)


def test_bfloat16_stays_near_float32() -> None:
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, 200, 256)).astype(np.float32) for _ in range(3))
    exact = attention(q, k, v, 4, 0.125, bfloat16=False)
    (found,) = session(4, 0.125, bfloat16=True).run(None, {"q": q, "k": k, "v": v})
    assert 1e-4 < np.linalg.norm(found - exact) / np.linalg.norm(exact) < 6e-3


@pytest.mark.parametrize("bfloat16", [False, True])
def test_large_logits_and_one_hot_weights(bfloat16: bool) -> None:
    q, k, v = (np.zeros((1, 40, 64), np.float32) for _ in range(3))
    q[0, :, 0] = k[0, 7, 0] = 300
    v[0] = np.arange(40)[:, None]
    (found,) = session(1, 1.0, bfloat16=bfloat16).run(None, {"q": q, "k": k, "v": v})
    np.testing.assert_array_equal(found, 7)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_is_no_number_comes_through(bfloat16: bool) -> None:
    """In its head, and nowhere else; a value reaches every row of its column."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.normal(size=(1, 20, 64)).astype(np.float32) for _ in range(3))
    run = session(2, 0.2, bfloat16=bfloat16)
    q[0, 3, 5] = v[0, 4, 50] = np.nan
    (found,) = run.run(None, {"q": q, "k": k, "v": v})
    assert np.isnan(found[0, 3, :32]).all()
    assert np.isnan(found[0, :, 50]).all()
    assert np.isfinite(np.delete(found[0, :, 32:], 18, 1)).all()
    assert np.isfinite(np.delete(found[0, :, :32], 3, 0)).all()


@pytest.mark.parametrize(
    ("shapes", "heads", "why"),
    [
        (((1, 5, 8), (1, 5, 4), (1, 5, 8)), 2, "queries, keys and values do not fit each other"),
        (((1, 5, 8), (2, 5, 8), (2, 5, 8)), 2, "queries, keys and values do not fit each other"),
        (((1, 5, 8), (1, 5, 8), (1, 5, 8)), 3, "rows of 8 are no 3 heads"),
        (((1, 5, 8), (1, 0, 8), (1, 0, 8)), 2, "there is no key"),
    ],
)
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], ...], heads: int, why: str) -> None:
    feeds = {name: np.ones(shape, np.float32) for name, shape in zip("qkv", shapes, strict=True)}
    with pytest.raises(Exception, match=f"EncoderAttention: {why}"):
        session(heads, 1.0, bfloat16=True).run(None, feeds)
