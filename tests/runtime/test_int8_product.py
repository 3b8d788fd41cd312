"""The library's own int8 product in onnxruntime against numpy, and the layout of its weights."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.engines import own_int8, quantise
from tests.runtime.own_session import opened as session

Array = np.ndarray[Any, Any]


def product(weight: Array, bias: Array | None = None, operator: str = "MatMul") -> onnx.ModelProto:
    """x (B,T,K) times a stored weight (K,N), in fp32; a Gemm takes (T,K) and a turned weight."""
    depth, columns = weight.shape
    leading = ["B", "T"] if operator == "MatMul" else ["T"]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [*leading, size])
        for name, size in (("x", depth), ("y", columns))
    ]
    stored = [numpy_helper.from_array(weight if operator == "MatMul" else weight.T.copy(), "w")]
    inputs = ["x", "w"]
    if bias is not None:
        stored.append(numpy_helper.from_array(bias, "b"))
        inputs.append("b")
    facts = {"transB": 1} if operator == "Gemm" else {}
    node = helper.make_node(operator, inputs, ["y"], "product", **facts)
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def own(weight: Array, bias: Array | None = None, operator: str = "MatMul") -> onnx.ModelProto:
    made = own_int8.change(product(weight, bias, operator))
    assert [(node.op_type, node.name) for node in made.graph.node] == [("MatMulInt8", "product")]
    return made


def meant(model: onnx.ModelProto, depth: int) -> Array:
    """The weight (K,N) that a node's stored bytes mean, one by one as int8_product.h says, in float64."""
    node = model.graph.node[0]
    columns = next(item.i for item in node.attribute if item.name == "columns")
    stored = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == node.input[1]))
    made = np.zeros((depth, columns))
    for column in range(columns):
        panel, place = stored[column // 32], column % 32
        factor = float(panel[:128].view("<f4")[place])
        whole = [int(panel[256 + 128 * (row // 4) + 4 * place + row % 4]) - 128 for row in range(depth)]
        assert panel[128:256].view("<i4")[place] == sum(whole)
        made[:, column] = factor * np.array(whole)
    return made


def rounded(x: Array) -> Array:
    """Each row in 255 steps between its least and largest number, 0 among them, in float64."""
    low, high = np.minimum(x.min(-1), 0).astype(np.float64), np.maximum(x.max(-1), 0).astype(np.float64)
    step = ((high - low) / 255)[..., None]
    zero = np.rint(-128 - np.divide(low[..., None], step, out=np.zeros_like(step), where=step > 0))
    whole = np.rint(np.divide(x, step, out=np.zeros(x.shape), where=step > 0)) + zero
    made: Array = step * (np.clip(whole, -128, 127) - zero)
    return made


@pytest.mark.parametrize(("depth", "columns"), [(64, 32), (100, 37), (31, 1), (576, 130), (1024, 64)])
@pytest.mark.parametrize("biased", [False, True])
def test_operator_equals_numpy(depth: int, columns: int, biased: bool) -> None:
    rng = np.random.default_rng(depth)
    weight = rng.normal(0, 0.02, (depth, columns)).astype(np.float32)
    bias = rng.normal(size=columns).astype(np.float32) if biased else None
    model = own(weight, bias, "Gemm") if biased else own(weight)
    run = session(model)
    for shape in ((1, 1), (2, 3), (1, 30), (5, 40)):
        x = rng.normal(rng.normal(size=(*shape, 1)), 1, size=(*shape, depth)).astype(np.float32)
        fed = x.reshape(-1, depth) if biased else x
        (found,) = run.run(None, {"x": fed})
        wanted = rounded(fed) @ meant(model, depth) + (0 if bias is None else bias)
        assert found.shape == (*fed.shape[:-1], columns)
        # a value half way between two steps may round either way in float32
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


def test_weights_are_those_of_the_library() -> None:
    weight = np.random.default_rng(2).normal(0, 0.02, (80, 40)).astype(np.float32)
    made = quantise.integer(product(weight))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    np.testing.assert_array_equal(meant(own(weight), 80), stored["w_quantized"] * stored["w_scale"].astype(np.float64))


@pytest.mark.parametrize("large", [1.0, 50.0])
def test_result_is_nearer_than_the_library_s(large: float) -> None:
    """Where one row is much larger than others, their digits are kept."""
    rng = np.random.default_rng(4)
    weight, x = rng.normal(0, 0.02, (512, 256)).astype(np.float32), rng.normal(size=(1, 40, 512)).astype(np.float32)
    x[0, 3] *= large
    exact = x.astype(np.float64) @ weight
    library = session(quantise.integer(product(weight))).run(None, {"x": x})[0]
    found = session(own(weight)).run(None, {"x": x})[0]
    away, theirs = (np.delete(np.abs(y - exact)[0], 3, 0).mean() for y in (found, library))
    assert away < (1.01 if large == 1 else 0.2) * theirs


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_comes_through(odd: float) -> None:
    run = session(own(np.eye(100, 32, dtype=np.float32)))
    for place in (50, 99):
        x = np.ones((1, 3, 100), np.float32)
        x[0, 1, place] = odd
        (found,) = run.run(None, {"x": x})
        assert np.isnan(found[0, 1]).all()
        assert np.isfinite(found[0, [0, 2]]).all()


@pytest.mark.parametrize("size", [3e38, 1e20, 1e-20, 1e-33, 0])
def test_inputs_of_any_size(size: float) -> None:
    """Too small ones count as nothing."""
    weight = np.random.default_rng(1).normal(size=(64, 32)).astype(np.float32)
    weight /= np.abs(weight).sum()
    x = (np.random.default_rng(2).uniform(-1, 1, (1, 2, 64)) * size).astype(np.float32)
    (found,) = session(own(weight)).run(None, {"x": x})
    exact = x.astype(np.float64) @ weight
    assert np.linalg.norm(found - exact) <= 0.05 * np.linalg.norm(exact) or (size < 1e-30 and not found.any())


def test_a_weight_of_nothing_is_the_bias() -> None:
    model = own(np.zeros((64, 32), np.float32), np.arange(32, dtype=np.float32), "Gemm")
    (found,) = session(model).run(None, {"x": np.ones((3, 64), np.float32)})
    np.testing.assert_array_equal(found, np.tile(np.arange(32, dtype=np.float32), (3, 1)))


def test_no_row() -> None:
    (found,) = session(own(np.eye(64, 32, dtype=np.float32))).run(None, {"x": np.ones((1, 0, 64), np.float32)})
    assert found.shape == (1, 0, 32)


def test_weights_of_another_shape_are_refused() -> None:
    model = own(np.eye(64, 32, dtype=np.float32))
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    run = session(model)
    with pytest.raises(Exception, match="MatMulInt8: the weights have another shape than an input of 96 and 32"):
        run.run(None, {"x": np.ones((1, 1, 96), np.float32)})


def behind(model: onnx.ModelProto, *nodes: onnx.NodeProto, **stored: Array) -> onnx.ModelProto:
    """The model with nodes that make y of what the product now calls raw."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    made.graph.node[0].output[0] = "raw"
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    made.graph.node.extend(nodes)
    return made


def absorbed(model: onnx.ModelProto) -> list[str]:
    """Operators behind `absorb`, which must not change what the model means."""
    x = np.random.default_rng(6).normal(size=(1, 3, 64)).astype(np.float32)
    (wanted,) = session(model).run(["y"], {"x": x})
    own_int8.absorb(model)
    np.testing.assert_allclose(session(model).run(["y"], {"x": x})[0], wanted, rtol=1e-5, atol=1e-5)
    return [node.op_type for node in model.graph.node]


WEIGHT = np.random.default_rng(5).normal(0, 0.3, (64, 32)).astype(np.float32)
ROW = np.random.default_rng(7).normal(size=32).astype(np.float32)
ADD = helper.make_node("Add", ["row", "raw"], ["y"])
SIGMOID = helper.make_node("Sigmoid", ["raw"], ["gate"])
SCALED = (helper.make_node("Mul", ["raw", "a"], ["scaled"]), helper.make_node("Sigmoid", ["scaled"], ["gate"]))
LAST = helper.make_node("Mul", ["gate", "raw"], ["y"])
BIASED = [
    helper.make_node("Add", ["raw", "row"], ["biased"]),
    helper.make_node("Sigmoid", ["biased"], ["gate"]),
    helper.make_node("Mul", ["biased", "gate"], ["y"]),
]


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([ADD], id="a bias"),
        pytest.param([SIGMOID, LAST], id="silu"),
        pytest.param([*SCALED, LAST], id="quick gelu"),
        pytest.param(
            BIASED,
            id="a bias, then silu",
        ),
    ],
)
def test_what_follows_a_product_moves_into_it(nodes: list[onnx.NodeProto]) -> None:
    model = behind(own(WEIGHT), *nodes, row=ROW, a=np.float32(1.702))
    assert absorbed(model) == ["MatMulInt8"]


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([helper.make_node("Add", ["raw", "few"], ["y"])], id="a bias of another size"),
        pytest.param([SIGMOID, helper.make_node("Mul", ["gate", "row"], ["y"])], id="a gate of something else"),
        pytest.param([SIGMOID, helper.make_node("Add", ["gate", "raw"], ["y"])], id="no Mul"),
        pytest.param([SIGMOID, LAST, helper.make_node("Neg", ["raw"], ["z"])], id="a result that is read again"),
    ],
)
def test_other_nodes_stay(nodes: list[onnx.NodeProto]) -> None:
    model = behind(own(WEIGHT), *nodes, row=ROW, few=ROW[:1])
    if nodes[-1].output[0] == "z":
        model.graph.output.append(onnx.ValueInfoProto(name="z"))
    assert absorbed(model) == ["MatMulInt8", *(node.op_type for node in nodes)]


@pytest.mark.parametrize("swish", [1.0, 1.702, -0.5])
def test_swish_equals_numpy(swish: float) -> None:
    model = own(WEIGHT * 20)
    next(item for item in model.graph.node[0].attribute if item.name == "swish").f = swish
    x = np.random.default_rng(8).normal(size=(1, 50, 64)).astype(np.float32)
    (found,) = session(model).run(None, {"x": x})
    y = rounded(x) @ meant(model, 64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, y / (1 + np.exp(-np.float32(swish) * y)), atol=2e-3 * np.abs(y).max())


LISTENER = """
import ctypes
import numpy as np
from edgeprune import native_library
from tests.runtime.own_session import opened
from tests.runtime.test_int8_product import own
library = ctypes.CDLL(str(native_library.path()))
hook = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)(
    lambda level, message, user: print(level, message.decode())
)
library.ep_set_log.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)
library.ep_set_log(ctypes.cast(hook, ctypes.c_void_p), 1, None)
for _ in range(2):
    opened(own(np.eye(64, 32, dtype=np.float32)))
library.ep_set_log(None, 0, None)
"""


def test_the_log_says_once_which_form_computes() -> None:
    done = subprocess.run([sys.executable, "-c", LISTENER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "int8 products" in line]
    names = ("amx", "avx512 vnni", "avx vnni", "avx2", "dot product", "portable")
    assert line in {f"1 int8 products: {name}" for name in names}
