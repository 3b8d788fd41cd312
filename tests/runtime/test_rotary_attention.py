"""The library's own operator that rotates queries and keys by itself, in onnxruntime against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.runtime.own_session import of_node
from tests.runtime.test_attention import CASES, STORED, expected, feeds_of

Array = np.ndarray[Any, Any]
#: heads of an even width only
EVEN = {name: case for name, case in CASES.items() if case[5] % 2 == 0}


def session(scale: float, stored: type[Any]) -> onnxruntime.InferenceSession:
    cache = helper.np_dtype_to_tensor_dtype(np.dtype(stored))
    ranks = {"query": 3, "new_key": 3, "new_value": 3, "cosines": 4, "sines": 4, "past_key": 4, "past_value": 4}

    def port(name: str, rank: int) -> onnx.ValueInfoProto:
        kind = cache if name.startswith(("past", "present")) else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, [None] * rank)

    inputs = [port(*item) for item in ranks.items()]
    inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, [None, None]))
    outputs = [port("mixed", 3), port("present_key", 4), port("present_value", 4)]
    names = [[info.name for info in side] for side in (inputs, outputs)]
    node = helper.make_node("RotaryAttention", *names, domain="edgeprune", scale=scale)
    return of_node(node, inputs, outputs)


def rows(heads: Array) -> Array:
    """(B,heads,T,d) as a product leaves it: (B,T,heads*d)."""
    batch, count, new, width = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(batch, new, count * width)


def rotated(heads: Array, cosines: Array, sines: Array) -> Array:
    first, second = np.split(heads, 2, axis=-1)
    return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)


def both(case: tuple[int, ...], stored: type[Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Feeds of the operator, and of attention alone once queries and keys are rotated."""
    feeds = feeds_of(case, stored)
    angles = feeds["position_ids"][:, None, :, None] * 0.9 ** np.arange(case[5] // 2)
    cosines, sines = (function(angles).astype(np.float32) for function in (np.cos, np.sin))
    own = {**feeds, **{name: rows(feeds[name]) for name in ("query", "new_key", "new_value")}}
    turned = {name: rotated(feeds[name], cosines, sines) for name in ("query", "new_key")}
    return {**own, "cosines": cosines, "sines": sines}, {**feeds, **turned}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("case", EVEN.values(), ids=EVEN)
def test_operator_equals_numpy(case: tuple[int, ...], stored: type[Any]) -> None:
    own, alone = both(case, stored)
    scale = case[5] ** -0.5
    found = session(scale, stored).run(None, own)
    mixed, keys, values = expected(alone, scale)
    np.testing.assert_allclose(found[0], rows(mixed), atol=3e-6)
    # float32 sums that round differently may be a step of float16 apart
    np.testing.assert_allclose(found[1], keys, rtol=2e-3 if stored is np.float16 else 0, atol=1e-6)
    np.testing.assert_array_equal(found[2], values.astype(stored), strict=True)


def test_what_float16_cannot_hold_is_refused_once_it_is_rotated() -> None:
    own, _ = both(CASES["one token, not grouped"], np.float16)
    own["new_key"][0, 0, [0, 64]] = 5e4
    own["cosines"][..., 0], own["sines"][..., 0] = 0.5**0.5, -(0.5**0.5)
    with pytest.raises(Exception, match=r"RotaryAttention: a key or value of 7071\d.* again with --kv-cache fp32"):
        session(1.0, np.float16).run(None, own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_ids": np.array([[64]])}, "position 64 is outside a cache of 64"),
        ({"position_ids": np.array([[3, 4]])}, "not one position for each query"),
        ({"query": np.zeros((1, 1, 96), np.float32)}, "no multiple of the key heads"),
        ({"new_key": np.zeros((1, 1, 32), np.float32)}, "do not fit"),
        ({"cosines": np.zeros((1, 1, 1, 32), np.float32)}, "not one cosine and one sine"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Array], message: str) -> None:
    own, _ = both(CASES["empty cache"], np.float32)
    with pytest.raises(Exception, match=f"RotaryAttention: .*{message}"):
        session(1.0, np.float32).run(None, {**own, **change})
