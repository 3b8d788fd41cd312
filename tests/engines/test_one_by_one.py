"""Product by product the libraries make what they make of a whole graph, bit for bit."""

from __future__ import annotations

import pathlib
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.bundle import Bundle
from edgeprune.engines import calibration, int4, one_by_one, quantise
from edgeprune.engines.weights import WeightFile, all_inside, inside
from edgeprune.errors import BundleError
from tests.engines.graphs import info, tensor

CHANGES = {"int8": quantise.integer, "int4": int4.blocks, "int4 step": int4.step}


def by_name(model: onnx.ModelProto) -> dict[str, tuple[int, bytes]]:
    """Stored tensors, as type and bytes."""
    return {t.name: (t.data_type, onnx.numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer}


def once(model: onnx.ModelProto) -> onnx.ModelProto:
    """What several products read is written once per product by the int4 library, under one name."""
    nodes: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        nodes.setdefault(node.output[0], onnx.NodeProto.FromString(node.SerializeToString()))
    tensors = {t.name: TensorProto.FromString(t.SerializeToString()) for t in model.graph.initializer}
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes.values())
    model.graph.initializer.extend(tensors.values())
    return model


@pytest.mark.parametrize("word", CHANGES)
@pytest.mark.parametrize("stage", ["fastervlm", "decoder"])
def test_equal_to_the_whole_graph(
    tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, scratch: pathlib.Path, stage: str, word: str
) -> None:
    bundle = Bundle.open(tiny_bundle)
    graphs, inputs = bundle.manifest.graphs, calibration.inputs(bundle)
    graph = graphs.decoder if stage == "decoder" else graphs.vision[stage][0]
    source = bundle.file(graph.file)
    whole = once(CHANGES[word](quantise.load(source)))
    products = one_by_one.Products(source, source.parent, scratch, CHANGES[word])
    trial = products.write(products.model([]))
    made = all_inside(products.model([]), products.folder)
    assert Counter(map(str, made.graph.node)) == Counter(map(str, whole.graph.node))
    assert by_name(made) == by_name(whole)
    assert {(e.domain, e.version) for e in made.opset_import} == {(e.domain, e.version) for e in whole.opset_import}
    feeds = inputs.decoder if stage == "decoder" else inputs.vision[stage]
    names = [tensor.name for tensor in graph.outputs]
    (tmp_path / "whole").mkdir()
    WeightFile(tmp_path / "whole" / "w.data").save(whole, tmp_path / "whole" / "whole.onnx")
    expected, found = (quantise.run(path, feeds, names) for path in (tmp_path / "whole" / "whole.onnx", trial))
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def product(operator: str, **attributes: Any) -> onnx.ModelProto:
    """x (B,64) times a weight, then the same activation times another."""
    weights = [tensor(name, np.random.default_rng(i).normal(size=(64, 64)), np.float32) for i, name in enumerate("vw")]
    nodes = [
        helper.make_node(operator, ["x", "v"], ["y"], name="first", **attributes),
        helper.make_node("MatMul", ["x", "w"], ["z"], name="second"),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", ["B", 64])], [info("y", ["B", 64]), info("z", ["B", 64])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("word", CHANGES)
def test_what_is_skipped_stays_as_it_was(tmp_path: pathlib.Path, word: str) -> None:
    """A Gemm too: the libraries rename it before they look for the names to leave out."""
    WeightFile(tmp_path / "w.data").save(product("Gemm", transB=1), tmp_path / "g.onnx")
    (tmp_path / "parts").mkdir()
    products = one_by_one.Products(tmp_path / "g.onnx", tmp_path, tmp_path / "parts", CHANGES[word])
    model = all_inside(products.model(["first"]), products.folder)
    (kept,) = [node for node in model.graph.node if node.name == "first"]
    stored = {t.name: t for t in model.graph.initializer}
    assert (kept.op_type, stored["v"].data_type) == ("Gemm", TensorProto.FLOAT)
    assert "w" not in stored
    feeds = {"x": np.random.default_rng(5).normal(size=(3, 64)).astype(np.float32)}
    exact = quantise.run(tmp_path / "g.onnx", feeds, ["y", "z"])
    found = quantise.run(products.write(products.model(["first"])), feeds, ["y", "z"])
    assert np.array_equal(exact[0], found[0])
    assert 0 < np.abs(exact[1] - found[1]).max() < np.abs(exact[1]).max()
    both = products.model([])
    operators = Counter(node.op_type for node in both.graph.node)
    assert operators["DynamicQuantizeLinear"] == (word == "int8"), "one activation, rounded once"
    assert operators["Gemm"] == 0


def test_weights_that_are_cut_short_are_one_sentence(tmp_path: pathlib.Path) -> None:
    WeightFile(tmp_path / "w.data").save(product("MatMul"), tmp_path / "g.onnx")
    (tmp_path / "w.data").write_bytes((tmp_path / "w.data").read_bytes()[:-5])
    stored = onnx.load(tmp_path / "g.onnx", load_external_data=False).graph.initializer
    with pytest.raises(BundleError, match=r"w.data is too short for w; export the bundle again"):
        inside(stored[1], tmp_path)


def test_weights_with_several_links_are_read(tmp_path: pathlib.Path) -> None:
    """onnx refuses them; a build that was killed leaves such links, and so does `cp --link`."""
    WeightFile(tmp_path / "w.data").save(product("MatMul"), tmp_path / "g.onnx")
    (tmp_path / "other").hardlink_to(tmp_path / "w.data")
    found = by_name(quantise.load(tmp_path / "g.onnx"))
    assert found == by_name(product("MatMul"))
