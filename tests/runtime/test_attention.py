"""The library's own operator in onnxruntime against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeprune import native_library

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


def session(scale: float) -> onnxruntime.InferenceSession:
    shapes = {
        "query": ["B", "H", "T", "d"], "new_key": ["B", "K", "T", "d"], "new_value": ["B", "K", "T", "d"],
        "past_key": ["B", "K", "C", "d"], "past_value": ["B", "K", "C", "d"],
    }  # fmt: skip
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    inputs.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["B", "T"]))
    outputs = {"mixed": "query", "present_key": "past_key", "present_value": "past_value"}
    node = helper.make_node("CachedAttention", [port.name for port in inputs], list(outputs), domain="edgeprune",
                            scale=scale)  # fmt: skip
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[like]) for name, like in outputs.items()]
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("edgeprune", 1)]
    model = helper.make_model(helper.make_graph([node], "g", inputs, ports), opset_imports=domains, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(native_library.path()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds_of(case: tuple[int, ...]) -> dict[str, Array]:
    """Numbers that are no numbers lie behind the last visible place."""
    batch, heads, kv_heads, new, capacity, width, first = case
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    feeds = {"query": draw(batch, heads, new, width)}
    feeds |= {name: draw(batch, kv_heads, new, width) for name in ("new_key", "new_value")}
    feeds |= {name: draw(batch, kv_heads, capacity, width) for name in ("past_key", "past_value")}
    for name in ("past_key", "past_value"):
        feeds[name][:, :, first + new :] = np.nan
    feeds["position_ids"] = np.tile(np.arange(first, first + new), (batch, 1))
    return feeds


def expected(feeds: dict[str, Array], scale: float) -> tuple[Array, Array, Array]:
    """In float64, each query over the places up to its own."""
    keys, values = (feeds[f"past_{name}"].astype(np.float64) for name in ("key", "value"))
    positions = feeds["position_ids"][0]
    keys[:, :, positions], values[:, :, positions] = feeds["new_key"], feeds["new_value"]
    query = feeds["query"].astype(np.float64)
    share = query.shape[1] // keys.shape[1]
    mixed = np.zeros_like(query)
    for t, place in enumerate(positions):
        seen_keys, seen = (np.repeat(each[:, :, : place + 1], share, axis=1) for each in (keys, values))
        logits = np.einsum("bhd,bhjd->bhj", query[:, :, t], seen_keys) * scale
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed[:, :, t] = np.einsum("bhj,bhjd->bhd", weights / weights.sum(-1, keepdims=True), seen)
    return mixed, keys, values


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operator_equals_numpy(case: tuple[int, ...]) -> None:
    feeds, scale = feeds_of(case), case[5] ** -0.5
    found = session(scale).run(None, feeds)
    mixed, keys, values = expected(feeds, scale)
    assert found[0].shape == feeds["query"].shape
    np.testing.assert_allclose(found[0], mixed, atol=2e-6)
    np.testing.assert_array_equal(found[1], keys.astype(np.float32))
    np.testing.assert_array_equal(found[2], values.astype(np.float32))


def test_one_memory_as_past_and_present_is_written_where_it_lies() -> None:
    case = CASES["a prompt behind a cache, all heads over one"]
    feeds, scale = feeds_of(case), 0.125
    mixed, keys, values = expected(feeds, scale)
    run = session(scale)
    binding = run.io_binding()
    held = {name: onnxruntime.OrtValue.ortvalue_from_numpy(feeds[name]) for name in ("past_key", "past_value")}
    for name, value in feeds.items():
        if name in held:
            binding.bind_ortvalue_input(name, held[name])
            binding.bind_ortvalue_output(name.replace("past", "present"), held[name])
        else:
            binding.bind_cpu_input(name, value)
    binding.bind_output("mixed", "cpu")
    run.run_with_iobinding(binding)
    np.testing.assert_allclose(binding.get_outputs()[-1].numpy(), mixed, atol=2e-6)
    np.testing.assert_array_equal(held["past_key"].numpy(), keys.astype(np.float32))
    np.testing.assert_array_equal(held["past_value"].numpy(), values.astype(np.float32))


def test_large_logits_do_not_overflow() -> None:
    """The softmax takes the largest logit off, whichever tile it stands in."""
    feeds = feeds_of((1, 2, 2, 1, 300, 8, 290))
    feeds["query"] *= 1e3
    mixed, *_ = expected(feeds, 1.0)
    np.testing.assert_allclose(session(1.0).run(["mixed"], feeds)[0], mixed, atol=1e-5)


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
