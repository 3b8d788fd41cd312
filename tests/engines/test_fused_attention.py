"""Attention as one node of the library's in vision graphs: what becomes one, what stays, and that it means the same."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.bundle import Bundle
from edgeprune.engines import fused_attention
from edgeprune.engines.calibration import inputs
from tests.cli.command import edgeprune
from tests.runtime.own_session import opened

B, T, H, D = 2, 5, 3, 4


def attention(
    *, mask: bool = False, map_read: bool = False, heads: tuple[int, int, int] = (H, H, H)
) -> onnx.ModelProto:
    """q, k, v (B,T,H*d) -> rows (B,T,H*d), as the exported encoders write it."""
    numbers = {f"split_{x}": [-1, T, n, H * D // n] for x, n in zip("qkv", heads, strict=True)} | {
        "merge": [-1, T, H * D]
    }
    stored = [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in numbers.items()]
    stored.append(helper.make_tensor("scale", TensorProto.FLOAT, [], [0.3]))
    nodes = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [name, f"split_{name}"], [f"{name}s"]))
        nodes.append(helper.make_node("Transpose", [f"{name}s"], [f"{name}t"], perm=perm))
    logits = "masked" if mask else "logits"
    nodes += [
        helper.make_node("Mul", ["qt", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "kt"], ["logits"]),
        *([helper.make_node("Add", ["logits", "mask"], ["masked"])] if mask else []),
        helper.make_node("Softmax", [logits], ["map"], name="softmax_0", axis=-1),
        helper.make_node("MatMul", ["map", "vt"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "merge"], ["rows"]),
    ]
    floats = {"q": [B, T, H * D], "k": [B, T, H * D], "v": [B, T, H * D], **({"mask": [B, 1, T, T]} if mask else {})}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()]
    made = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [B, T, H * D])]
    if map_read:
        made.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, [B, H, T, T]))
    graph = helper.make_graph(nodes, "attention", given, made, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_it_is_softmax_attention_of_each_head() -> None:
    model = attention()
    assert fused_attention.rewrite(model) == 1
    (node,) = model.graph.node
    assert node.op_type == "EncoderAttention"
    assert node.name.startswith("softmax_0"), "a pruner's attention has to keep the mark at the beginning of its name"
    in_float32(model)
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(B, T, H * D)).astype(np.float32) for name in "qkv"}
    (found,) = opened(model).run(None, feeds)
    for head in range(H):
        part = slice(head * D, (head + 1) * D)
        q, k, v = (feeds[name][..., part].astype(np.float64) for name in "qkv")
        logits = 0.3 * q @ k.transpose(0, 2, 1)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        np.testing.assert_allclose(found[..., part], weights / weights.sum(-1, keepdims=True) @ v, atol=1e-6)


def test_what_chooses_tokens_stays_in_float32() -> None:
    model = attention()
    next(node for node in model.graph.node if node.op_type == "Softmax").name = "pruning/softmax_0"
    assert fused_attention.rewrite(model) == 1
    (node,) = model.graph.node
    assert {item.name: item.i for item in node.attribute}["bfloat16"] == 0


def in_float32(model: onnx.ModelProto) -> None:
    """The nodes compute in float32, so that nothing but rounding may differ."""
    for node in model.graph.node:
        for item in node.attribute if node.op_type == "EncoderAttention" else ():
            if item.name == "bfloat16":
                item.i = 0


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(attention(mask=True), id="a mask"),
        pytest.param(attention(map_read=True), id="a map that something else reads"),
        pytest.param(attention(heads=(H, H, 1)), id="heads of another count"),
    ],
)
def test_other_attention_stays(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert fused_attention.rewrite(model) == 0
    assert [node.op_type for node in model.graph.node if node.op_type == "EncoderAttention"] == []
    assert len(model.SerializeToString()) == len(before)


@pytest.mark.parametrize("method", ["fastervlm", "none", "received-attention"])
def test_a_vision_graph_means_the_same(tiny_bundle: pathlib.Path, scratch: pathlib.Path, method: str) -> None:
    """fp32 before and after: all outputs within float32's own noise, the kept set equal."""
    bundle = Bundle.open(tiny_bundle)
    graph = bundle.manifest.graphs.vision[method][0]
    model = onnx.load(str(bundle.file(graph.file)), load_external_data=True)
    feeds = inputs(bundle).vision[method]
    wanted = run(model, feeds)
    count = sum(node.op_type == "Softmax" for node in model.graph.node)
    fused = fused_attention.rewrite(model)
    left = sum(node.op_type == "Softmax" for node in model.graph.node)
    assert fused >= 1
    assert count - left == fused
    in_float32(model)
    for name, found in run(model, feeds).items():
        if found.dtype.kind == "f":
            np.testing.assert_allclose(found, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found, wanted[name], err_msg=name)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = opened(model)
    names = [value.name for value in session.get_outputs()]
    known = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in known}), strict=True))


def test_a_build_says_how_many(tiny_bundle: pathlib.Path, scratch: pathlib.Path) -> None:
    import shutil

    copy = scratch / "tiny.bundle"
    shutil.copytree(tiny_bundle, copy)
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "vision=int8,decoder=fp32")
    assert done.returncode == 0, done.stderr
    (facts,) = (json.loads(path.read_text()) for path in copy.glob("variants/*/*/build.json"))
    counted = {made["file"]: made["fused_attention"] for made in facts["graphs"]}
    assert {made["attention"] for made in facts["graphs"]} == {"bfloat16"}
    assert counted["vision-none.onnx"] > counted["vision-fastervlm.onnx"] >= 1
    for file, count in counted.items():
        (path,) = copy.glob(f"variants/*/*/{file}")
        nodes = onnx.load(str(path), load_external_data=False).graph.node
        assert sum(node.op_type == "EncoderAttention" for node in nodes) == count
