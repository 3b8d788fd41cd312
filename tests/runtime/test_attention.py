"""The library's own operator in onnxruntime against numpy, over a cache in float32 and one in float16."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.runtime.own_session import of_node

Array = np.ndarray[Any, Any]
#: batch, heads, key heads, new tokens, places, width, first new position
CASES = {
    "one token, grouped, long cache": (1, 32, 4, 1, 2048, 64, 2000),
    "one token, not grouped": (1, 6, 6, 1, 320, 128, 300),
    "empty cache": (1, 8, 2, 1, 64, 32, 0),
    "a prompt": (1, 8, 2, 78, 128, 64, 0),
    "a prompt behind a cache, all heads over one": (1, 12, 1, 17, 900, 64, 800),
    "odd widths": (2, 6, 3, 5, 70, 13, 60),
    "narrower than a vector": (2, 3, 3, 1, 9, 5, 7),
    "no new token": (1, 4, 2, 0, 64, 16, 0),
}


#: element types of the cache
STORED = (np.float32, np.float16)


def session(scale: float, stored: type[Any] = np.float32) -> onnxruntime.InferenceSession:
    shapes = {
        "query": ["B", "H", "T", "d"], "new_key": ["B", "K", "T", "d"], "new_value": ["B", "K", "T", "d"],
        "past_key": ["B", "K", "C", "d"], "past_value": ["B", "K", "C", "d"],
    }  # fmt: skip
    cache = helper.np_dtype_to_tensor_dtype(np.dtype(stored))

    def port(name: str, like: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, cache if "past" in like else TensorProto.FLOAT, shapes[like])

    inputs = [port(name, name) for name in shapes]
    inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["B", "T"]))
    outputs = {"mixed": "query", "present_key": "past_key", "present_value": "past_value"}
    node = helper.make_node("CachedAttention", [port.name for port in inputs], list(outputs), domain="edgeprune",
                            scale=scale)  # fmt: skip
    ports = [port(name, like) for name, like in outputs.items()]
    return of_node(node, inputs, ports)


def feeds_of(case: tuple[int, ...], stored: type[Any] = np.float32) -> dict[str, Array]:
    """Numbers that are no numbers lie behind the last visible place."""
    batch, heads, kv_heads, new, capacity, width, first = case
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    feeds = {"query": draw(batch, heads, new, width)}
    feeds |= {name: draw(batch, kv_heads, new, width) for name in ("new_key", "new_value")}
    feeds |= {name: draw(batch, kv_heads, capacity, width) for name in ("past_key", "past_value")}
    feeds |= {name: feeds[name].astype(stored) for name in ("past_key", "past_value")}
    for name in ("past_key", "past_value"):
        feeds[name][:, :, first + new :] = np.nan
    feeds["position_ids"] = np.tile(np.arange(first, first + new), (batch, 1))
    return feeds


def expected(feeds: dict[str, Array], scale: float) -> tuple[Array, Array, Array]:
    """In float64, each query over the places up to its own; keys and values as the cache's type rounds them."""
    stored = feeds["past_key"].dtype
    keys, values = (feeds[f"past_{name}"].astype(np.float64) for name in ("key", "value"))
    positions = feeds["position_ids"][0]
    keys[:, :, positions], values[:, :, positions] = (feeds[f"new_{name}"].astype(stored) for name in ("key", "value"))
    query = feeds["query"].astype(np.float64)
    share = query.shape[1] // keys.shape[1]
    mixed = np.zeros_like(query)
    for t, place in enumerate(positions):
        seen_keys, seen = (np.repeat(each[:, :, : place + 1], share, axis=1) for each in (keys, values))
        logits = np.einsum("bhd,bhjd->bhj", query[:, :, t], seen_keys) * scale
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed[:, :, t] = np.einsum("bhj,bhjd->bhd", weights / weights.sum(-1, keepdims=True), seen)
    return mixed, keys, values


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operator_equals_numpy(case: tuple[int, ...], stored: type[Any]) -> None:
    feeds, scale = feeds_of(case, stored), case[5] ** -0.5
    found = session(scale, stored).run(None, feeds)
    mixed, keys, values = expected(feeds, scale)
    assert found[0].shape == feeds["query"].shape
    np.testing.assert_allclose(found[0], mixed, atol=2e-6)
    np.testing.assert_array_equal(found[1], keys.astype(stored), strict=True)
    np.testing.assert_array_equal(found[2], values.astype(stored), strict=True)


@pytest.mark.parametrize("share", [1, 3, 4, 5, 8, 9, 32])
@pytest.mark.parametrize("stored", STORED)
def test_groups_and_lengths_around_the_edges_of_tiles(share: int, stored: type[Any]) -> None:
    """Tiles hold 64 places, blocks 8 rows."""
    run = session(0.2, stored)
    for length in (1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 193):
        for new in {1, min(2, length), min(9, length)}:
            feeds = feeds_of((1, 2 * share, 2, new, 256, 24, length - new), stored)
            np.testing.assert_allclose(run.run(["mixed"], feeds)[0], expected(feeds, 0.2)[0], atol=3e-6)


@pytest.mark.parametrize("stored", STORED)
def test_one_memory_as_past_and_present_is_written_where_it_lies(stored: type[Any]) -> None:
    case = CASES["a prompt behind a cache, all heads over one"]
    feeds, scale = feeds_of(case, stored), 0.125
    mixed, keys, values = expected(feeds, scale)
    run = session(scale, stored)
    binding = run.io_binding()
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(feeds[name]) for name in ("past_key", "past_value")}
    feeds |= {name: feeds[name].astype(stored) for name in ("past_key", "past_value")}
    for name, value in feeds.items():
        if name in held:
            binding.bind_ortvalue_input(name, held[name])
            binding.bind_ortvalue_output(name.replace("past", "present"), held[name])
        else:
            binding.bind_cpu_input(name, value)
    binding.bind_output("mixed", "cpu")
    run.run_with_iobinding(binding)
    np.testing.assert_allclose(binding.get_outputs()[-1].numpy(), mixed, atol=2e-6)
    np.testing.assert_array_equal(held["past_key"].numpy(), keys.astype(stored))
    np.testing.assert_array_equal(held["past_value"].numpy(), values.astype(stored))


@pytest.mark.parametrize("stored", STORED)
def test_large_logits_do_not_overflow(stored: type[Any]) -> None:
    """The softmax takes the largest logit off, whichever tile it stands in."""
    feeds = feeds_of((1, 2, 2, 1, 300, 8, 290), stored)
    feeds["query"] *= 1e3
    mixed, *_ = expected(feeds, 1.0)
    np.testing.assert_allclose(session(1.0, stored).run(["mixed"], feeds)[0], mixed, atol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("new_key", 65520.0), ("new_value", -1e5), ("new_key", np.inf)])
def test_what_float16_cannot_hold_is_refused_and_never_becomes_infinite(name: str, value: float) -> None:
    feeds = feeds_of(CASES["one token, not grouped"], np.float16)
    feeds[name][0, 3, 0, 17] = value
    with pytest.raises(Exception, match=r"does not fit a cache in float16.*build .* again with --kv-cache fp32"):
        session(1.0, np.float16).run(None, feeds)
    feeds[name][0, 3, 0, 17] = 65519.0  # rounds to the largest half
    assert np.isfinite(session(1.0, np.float16).run(None, feeds)[0]).all()
    floats = {name: feeds[name].astype(np.float32) for name in ("past_key", "past_value")}
    feeds[name][0, 3, 0, 17] = value if np.isfinite(value) else 1e30
    assert np.isfinite(session(1.0).run(["present_key", "present_value"], {**feeds, **floats})[0][:, :, :301]).all()


def test_a_cache_of_integers_has_no_operator() -> None:
    with pytest.raises(Exception, match="CachedAttention"):
        session(1.0, np.int32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_ids": np.array([[64]])}, "position 64 is outside a cache of 64"),
        ({"position_ids": np.array([[-1]])}, "position -1 is outside"),
        ({"position_ids": np.array([[3, 4]])}, "not one position for each query"),
        ({"query": np.zeros((1, 3, 1, 32), np.float32)}, "no multiple of the key heads"),
        ({"new_key": np.zeros((1, 2, 2, 32), np.float32)}, "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Array], message: str) -> None:
    feeds = feeds_of(CASES["empty cache"])
    with pytest.raises(Exception, match=message):
        session(1.0).run(None, {**feeds, **change})
