"""The library's own product in onnxruntime against numpy, and the layout of its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.engines import int4, own_product
from tests.runtime.own_session import opened as session

Array = np.ndarray[Any, Any]


def product(weight: Array, leading: tuple[int, ...] = ("B", "T")) -> onnx.ModelProto:
    """x (B,T,K) times a stored weight (K,N), in fp32."""
    depth, columns = weight.shape
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [*leading, size])
        for name, size in (("x", depth), ("y", columns))
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def own(weight: Array) -> onnx.ModelProto:
    made = own_product.step(product(weight))
    assert [node.op_type for node in made.graph.node] == ["MatMulInt4"]
    return made


def meant(model: onnx.ModelProto, depth: int) -> Array:
    """The weight (K,N) that a node's stored bytes mean, one by one as product_kernel.h says, in float64."""
    node = model.graph.node[0]
    columns = next(item.i for item in node.attribute if item.name == "columns")
    stored = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == node.input[1]))
    made = np.zeros((depth, columns))
    for row in range(depth):
        for column in range(columns):
            tile = stored[column // 16]
            factor = float(tile[:64].view("<f4")[column % 16])
            block = tile[64 + 272 * (row // 32) :]
            scale = int(block[:16].view(np.int8)[column % 16])
            line, place = divmod(row % 32, 8)
            two = int(block[16 + 64 * line + 4 * (column % 16) + place % 4])
            made[row, column] = factor * scale * ((two >> 4 if place >= 4 else two & 15) - 8)
    return made


def rounded(x: Array) -> Array:
    """Each block of 32 as 127 steps of its largest magnitude, in float64."""
    *leading, depth = x.shape
    blocks = np.pad(x, [*[(0, 0)] * len(leading), (0, -depth % 32)]).reshape(*leading, -1, 32).astype(np.float64)
    step = np.abs(blocks).max(-1, keepdims=True) / 127
    whole = np.rint(np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0))
    made: Array = (whole * step).reshape(*leading, -1)[..., :depth]
    return made


@pytest.mark.parametrize(("depth", "columns"), [(32, 16), (64, 48), (100, 37), (31, 1), (576, 130)])
def test_operator_equals_numpy(depth: int, columns: int) -> None:
    rng = np.random.default_rng(depth)
    weight = rng.normal(0, 0.02, (depth, columns)).astype(np.float32)
    model = own(weight)
    run = session(model)
    for shape in ((1, 1), (2, 3)):
        x = rng.normal(size=(*shape, depth)).astype(np.float32)
        (found,) = run.run(None, {"x": x})
        wanted = rounded(x) @ meant(model, depth)
        assert found.shape == (*shape, columns)
        # a value half way between two steps may round either way in float32
        np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_weights_are_those_of_the_library() -> None:
    """Those of onnxruntime.quantization, but for scales that are a whole number of 127ths of a column's largest."""
    weight = np.random.default_rng(2).normal(0, 0.02, (80, 40)).astype(np.float32)
    wanted = int4.rounded(weight)
    assert (np.abs(meant(own(weight), 80) - wanted) <= 1.01 * np.abs(wanted).max(0) / 254).all()


def test_result_is_as_near_as_the_library_s() -> None:
    rng = np.random.default_rng(4)
    weight, x = rng.normal(0, 0.02, (512, 256)).astype(np.float32), rng.normal(size=(1, 4, 512)).astype(np.float32)
    exact = x.astype(np.float64) @ weight
    library = session(int4.step(product(weight))).run(None, {"x": x})[0]
    found = session(own(weight)).run(None, {"x": x})[0]
    assert np.linalg.norm(found - exact) < 1.01 * np.linalg.norm(library - exact)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_no_number_comes_through(odd: float) -> None:
    run = session(own(np.eye(64, 32, dtype=np.float32)))
    x = np.ones((1, 3, 64), np.float32)
    x[0, 1, 50] = odd
    (found,) = run.run(None, {"x": x})
    assert np.isnan(found[0, 1]).all()
    assert np.isfinite(found[0, [0, 2]]).all()


@pytest.mark.parametrize("size", [1e8, 1e-9])
def test_weights_of_any_size(size: float) -> None:
    rng = np.random.default_rng(1)
    weight = (rng.normal(size=(64, 32)) * size).astype(np.float32)
    x = rng.normal(size=(1, 1, 64)).astype(np.float32)
    exact = x.astype(np.float64) @ weight
    (found,) = session(own(weight)).run(None, {"x": x})
    assert np.linalg.norm(found - exact) < 0.15 * np.linalg.norm(exact)


def test_a_weight_of_nothing_is_nothing() -> None:
    model = own(np.zeros((64, 32), np.float32))
    np.testing.assert_array_equal(session(model).run(None, {"x": np.ones((1, 1, 64), np.float32)})[0], 0)


def test_weights_of_another_shape_are_refused() -> None:
    model = own(np.eye(64, 32, dtype=np.float32))
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    run = session(model)
    with pytest.raises(Exception, match="MatMulInt4: the weights have another shape than an input of 96 and 32"):
        run.run(None, {"x": np.ones((1, 1, 96), np.float32)})
