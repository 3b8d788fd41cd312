"""The dialects of engines: what their passes form and refuse, and that the canonical graph's results stay.

onnxruntime has CPU kernels for the formed operators; TensorRT-RTX parses and builds them in the slow test.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.bundle import Bundle
from edgeprune.engines import (
    calibration,
    child,
    dialects,
    engine_plan,
    engine_variant,
    lint,
    quantise,
    shapes,
    targets,
    tensorrt,
)
from edgeprune.engines.passes import attention, base, forms, newer_opset, rms_norm, rotary
from edgeprune.errors import DialectError, UserError
from edgeprune.manifest import Graph
from edgeprune.tolerances import TOLERANCES
from tests.engines.graphs import attention_beside

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
RTX = targets.find("tensorrt-rtx:sm86")
JETPACK_6 = targets.find("tensorrt:orin-nano")
TRT = forms.FORMS["trt"]
#: operators of the decoder in fp32 -> how many the passes make: two layers, queries and keys rotated, five norms
FORMED = {"RMSNormalization": 5, "RotaryEmbedding": 4, "Attention": 2}


@pytest.fixture(scope="module", params=["tiny", "tiny-mha"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Grouped queries, and as many key heads as query heads."""
    if request.param == "tiny":
        return Bundle.open(request.getfixturevalue("tiny_bundle"))
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    out = tmp_path_factory.mktemp("mha") / "mha.bundle"
    return Bundle.open(export(ExportRecipe(model="tiny-mha", prune=("fastervlm",), keep=0.25), out))


def work(bundle: Bundle) -> list[tuple[str, Graph, dict[str, Any]]]:
    """Name, graph and inputs of every graph that becomes an engine."""
    inputs, graphs = calibration.inputs(bundle), bundle.manifest.graphs
    vision = [(name, stages[0], inputs.vision[name]) for name, stages in graphs.vision.items()]
    return [*vision, ("decoder", graphs.decoder, inputs.decoder)]


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def formed_in_fp32(path: pathlib.Path, folder: pathlib.Path) -> tuple[pathlib.Path, onnx.ModelProto]:
    """The graph with everything formed, attention too, which TensorRT takes in fp16 only."""
    model = quantise.load(path)
    forms.apply(TRT.before, model)
    attention.change(model, TensorProto.FLOAT)
    onnx.checker.check_model(model)
    onnx.save(model, folder / path.name)
    return folder / path.name, model


def second_step(graph: Graph, feeds: dict[str, Any], exact: dict[str, Any]) -> dict[str, Any]:
    """Inputs of one decode step behind a prefill with these results."""
    length = feeds["attention_mask"].shape[1]
    step = {
        "inputs_embeds": feeds["inputs_embeds"][:, -1:], "position_ids": np.array([[length]]),
        "attention_mask": np.ones((1, length + 1), np.int64),
    }  # fmt: skip
    past = {t.role: t.name for t in graph.inputs if t.role.startswith("past")}
    return step | {name: exact[role.replace("past", "present")] for role, name in past.items()}


def assert_equal(graph: Graph, exact: list[Any], found: list[Any]) -> None:
    for tensor, a, b in zip(graph.outputs, exact, found, strict=True):
        assert np.abs(b.astype(np.float64) - a).max() <= 1e-4 * max(np.abs(a).max(), 1e-30), tensor.name


def test_formed_nodes_compute_what_the_canonical_graph_does(bundle: Bundle, tmp_path: pathlib.Path) -> None:
    for name, graph, feeds in work(bundle):
        source = bundle.file(graph.file)
        path, model = formed_in_fp32(source, tmp_path)
        count = operators(model)
        if name == "decoder":
            assert {operator: count[operator] for operator in FORMED} == FORMED
            assert "Softmax" not in count
        else:
            assert (count["Attention"] > 0, count["Softmax"]) == (
                True,
                operators(quantise.load(source))["Softmax"] - count["Attention"],
            )
        outputs = [tensor.name for tensor in graph.outputs]
        exact = quantise.run(source, feeds, outputs)
        assert_equal(graph, exact, quantise.run(path, feeds, outputs))
        if name == "decoder":
            roles = [tensor.role for tensor in graph.outputs]
            step = second_step(graph, feeds, dict(zip(roles, exact, strict=True)))
            assert_equal(graph, quantise.run(source, step, outputs), quantise.run(path, step, outputs))


@pytest.mark.parametrize("word", ["fp32", "fp16", "int4"])
def test_trt_as_build_makes_it(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, word: str) -> None:
    """Attention only in fp16; compared in onnxruntime, and nothing for TensorRT-RTX to refuse."""
    bundle = Bundle.open(tiny_bundle)
    name, graph, feeds = work(bundle)[-1]
    made = dialects.make(bundle, graph, name, word, [feeds], tmp_path, TRT)
    attentions = {} if word == "fp32" else {"attention": 2}
    assert made.facts["formed"] == {"rms-norm": 5, "rotary": 4, **attentions}
    assert made.row is not None
    assert (made.row.passed, 0 < made.row.value <= made.row.tolerance) == (True, True)
    assert made.row.tolerance == TOLERANCES["logits" if word == "fp32" else f"logits_{word}"]
    assert list(lint.check_view(lint.view_of(bundle, graph, made.path), RTX)) == []
    assert {"newer-operator", "opset"} <= {
        f.rule for f in lint.check_view(lint.view_of(bundle, graph, made.path), JETPACK_6)
    }


def test_opset20_is_the_canonical_graph_and_its_fp16_form(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bundle, form = Bundle.open(tiny_bundle), forms.find(JETPACK_6.dialect)
    for name, graph, feeds in work(bundle):
        source = bundle.file(graph.file)
        exact = dialects.make(bundle, graph, name, "fp32", [feeds], tmp_path, form)
        assert (form.name, exact.path) == ("opset20", source), "so its results are the canonical graph's, exactly"
        half = dialects.make(bundle, graph, name, "fp16", [feeds], tmp_path, form)
        for made in (exact, half):
            model = onnx.load(made.path, load_external_data=False)
            assert base.opset_of(model) <= 20
            assert list(lint.check_view(lint.view_of(bundle, graph, made.path), JETPACK_6)) == []
    with pytest.raises(DialectError, match="no graph of the dialect opset20: it is of opset 21"):
        dialects.make(bundle, graph, name, "int4", [feeds], tmp_path, form)


def one(operator: str, *, opset: int = 20, domain: str = "", reads: tuple[str, ...] = ("x",)) -> onnx.ModelProto:
    made = helper.make_node(operator, list(reads), ["y"], name="planted", domain=domain)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4, 4]) for name in "xy"]
    graph = helper.make_graph([made], "g", info[:1], info[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("local", 1)])


def with_function() -> onnx.ModelProto:
    model = one("Relu")
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: one("Relu", opset=21), "is of opset 21, outside 9..20"),
        (lambda: one("Attention", reads=("x", "x", "x")), "has planted, and Attention is not part of opset 20"),
        (lambda: one("FusedMatMul", domain="com.microsoft"), "has planted, an operator of com.microsoft"),
        (with_function, "has the local function F"),
        (lambda: one("Relu", reads=("z",)), "reads z in planted before it is made"),
    ],
)
def test_opset20_refuses(make: Callable[[], onnx.ModelProto], words: str) -> None:
    forms.FORMS["opset20"].require(one("Relu"))
    with pytest.raises(DialectError, match=f"no graph of the dialect opset20: it {words}"):
        forms.FORMS["opset20"].require(make())


@pytest.mark.parametrize("change", [rms_norm.PASS, rotary.PASS, attention.PASS], ids=lambda change: change.name)
def test_a_pass_says_what_it_needs(change: base.GraphPass) -> None:
    with pytest.raises(
        DialectError, match=rf"the pass {change.name} needs another graph: it is of opset 20, outside 23"
    ):
        change(one("Relu"))
    assert change(one("Relu", opset=23)) == 0


def test_the_newer_opset_needs_operators_that_mean_the_same() -> None:
    model = one("Relu")
    newer_opset.PASS(model)
    assert base.opset_of(model) == 23
    with pytest.raises(DialectError, match="GroupNormalization means something else in opset 23"):
        newer_opset.PASS(one("GroupNormalization", opset=21, reads=("x", "x", "x")))
    with pytest.raises(DialectError, match="needs another graph: it is of opset 23"):
        newer_opset.PASS(model)


def test_a_pass_that_breaks_the_graph_is_caught() -> None:
    def lose(model: onnx.ModelProto) -> int:
        del model.graph.node[:]
        return 1

    with pytest.raises(DialectError, match="the pass lose made a wrong graph: it does not make its output y"):
        base.GraphPass("lose", (), (base.in_order,), lose)(one("Relu"))
    with pytest.raises(DialectError, match="has planted, which joins keys and values itself"):
        attention.PASS(one("Attention", opset=23, reads=("x", "x", "x", "", "x", "x")))
    with pytest.raises(UserError, match="there is no dialect 'ort' of engines; there are: plain, opset20, trt"):
        forms.find("ort")


def changed(tiny_bundle: pathlib.Path, change: Callable[[onnx.NodeProto], None]) -> Counter[str]:
    """Operators formed of the tiny decoder after a change of its nodes."""
    model = quantise.load(Bundle.open(tiny_bundle).file("onnx/decoder.onnx"))
    for node in model.graph.node:
        change(node)
    forms.apply(TRT.before, model)
    attention.change(model, TensorProto.FLOAT)
    return operators(model)


def test_what_only_looks_alike_stays(tiny_bundle: pathlib.Path) -> None:
    """A defect that a blind rewrite would hide: each stays as it stands."""

    def swap_sine(node: onnx.NodeProto) -> None:
        if node.op_type == "Sub":
            node.input[:] = node.input[::-1]

    def cube(node: onnx.NodeProto) -> None:
        if node.op_type == "Pow":
            node.input[1] = "val_24"

    def other_axis(node: onnx.NodeProto) -> None:
        if node.op_type == "Softmax":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("axis", 1))

    assert {k: changed(tiny_bundle, lambda node: None)[k] for k in FORMED} == FORMED
    assert changed(tiny_bundle, swap_sine)["RotaryEmbedding"] == 0
    assert changed(tiny_bundle, cube)["RMSNormalization"] == 0
    assert changed(tiny_bundle, other_axis)["Attention"] == 0


def test_attention_that_something_else_reads_stays(tiny_bundle: pathlib.Path) -> None:
    model = quantise.load(Bundle.open(tiny_bundle).file("onnx/decoder.onnx"))
    weights = next(node.output[0] for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output.append(onnx.ValueInfoProto(name=weights))
    newer_opset.PASS(model)
    assert attention.change(model, TensorProto.FLOAT) == 1, "the other layer's"


def test_a_head_whose_length_is_left_open_is_not_formed(tiny_bundle: pathlib.Path) -> None:
    """Queries of the kept tokens as bundles had them once: TensorRT-RTX ends the build over such a node."""
    model = quantise.load(Bundle.open(tiny_bundle).file("onnx/vision-stride.onnx"))
    newer_opset.PASS(model)
    lengths = [node for node in model.graph.node if node.op_type == "Concat" and len(node.input) == 4]
    wanted = onnx.ModelProto.FromString(model.SerializeToString())
    assert attention.change(wanted, TensorProto.FLOAT) == 2
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), "open"))
    for node in lengths:
        node.input[3] = "open"
    assert attention.change(model, TensorProto.FLOAT) == 1, "the one of all tokens"


@pytest.mark.parametrize("loop", ["Scan", "Loop"])
def test_no_attention_is_formed_beside_a_scan(tiny_bundle: pathlib.Path, loop: str) -> None:
    """And none that comes from elsewhere is taken; a Loop harms nothing."""
    given = attention_beside(loop).model
    assert list(base.no_attention_beside_scan(given)) == (
        ["has the-node beside a Scan, which crashes TensorRT-RTX"] if loop == "Scan" else []
    )
    model = quantise.load(Bundle.open(tiny_bundle).file("onnx/decoder.onnx"))
    newer_opset.PASS(model)
    model.graph.node.append(next(node for node in given.graph.node if node.op_type == loop))
    assert attention.change(model, TensorProto.FLOAT) == (0 if loop == "Scan" else 2)
    if loop == "Scan":
        with pytest.raises(DialectError, match="no graph of the dialect trt: it has the-node beside a Scan"):
            TRT.require(given)


@needs_rtx
@pytest.mark.parametrize("loop", ["Scan", "Loop"])
def test_tensorrt_rtx_dies_of_attention_beside_a_scan(tmp_path: pathlib.Path, loop: str) -> None:
    """The reason for the rule, tried in a process of its own; when this fails, the library is mended and it may go."""
    model = attention_beside(loop).model
    model.ir_version = 10
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "both.onnx")
    heads, row, slots = (1, 2, 16, 64), (1, 16), ((1,), (4,), (16,))
    profile = dict.fromkeys("qkv", shapes.ShapeRange(heads, heads, heads))
    profile |= {"x": shapes.ShapeRange(row, row, row), "slots": shapes.ShapeRange(*slots)}
    given = (tmp_path / "both.onnx", [profile], tmp_path / "both.engine")
    if loop == "Loop":
        child.call(tensorrt.write_engine, *given, compute_capabilities=[(8, 6)], module="tensorrt_rtx")
        assert (tmp_path / "both.engine").stat().st_size > 1000
        return
    with pytest.raises(child.Crashed, match="SIGSEGV"):
        child.call(tensorrt.write_engine, *given, compute_capabilities=[(8, 6)], module="tensorrt_rtx")


@needs_rtx
@pytest.mark.parametrize("word", ["fp16", "int8"])
def test_a_greedy_method_builds(tmp_path: pathlib.Path, word: str) -> None:
    """Its picks are a Scan, so its attention stays MatMul, Softmax, MatMul, and that of the decoder does not."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    out = export(ExportRecipe(model="tiny", prune=("divprune",), keep=0.25), tmp_path / "greedy.bundle")
    bundle = Bundle.open(out)
    target = targets.find("tensorrt-rtx:sm86,sm89,sm120")
    slug, _ = engine_variant.build(bundle, target, {"vision": word, "decoder": "fp16"})
    vision, decoder = json.loads((out / Bundle.open(out).variant(slug).build).read_text())["engines"]
    assert ("attention" in vision["formed"], "attention" in decoder["formed"]) == (False, True)
    assert (word == "int8") == bool(vision.get("int8"))


@pytest.mark.slow
@needs_rtx
@pytest.mark.parametrize("word", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_them(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, word: str) -> None:
    bundle = Bundle.open(tiny_bundle)
    given = {name: (graph, feeds) for name, graph, feeds in work(bundle)}
    for plan in engine_plan.plans(bundle.manifest):
        if plan.name in ("fastervlm", "decoder"):
            graph, feeds = given[plan.name]
            made = dialects.make(bundle, graph, plan.name, word, [feeds], tmp_path, TRT)
            engine = tensorrt.build_engine_bytes(made.path, list(plan.profiles.values()), compute_capabilities=[(8, 6)])
            assert int.from_bytes(engine[16:24], "little") == len(engine)
