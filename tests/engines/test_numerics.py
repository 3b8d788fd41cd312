"""fp16 from an fp32 graph: what leaves its range is named and stays fp32, and the rest is really fp16."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeprune.bundle import Bundle
from edgeprune.engines import calibration, dialects, half, int4, lint, numerics, qdq, quantise, targets
from edgeprune.engines.accuracy import relative
from edgeprune.engines.float_types import FP16
from edgeprune.engines.graph_view import load
from edgeprune.engines.weightless import value_types
from edgeprune.errors import CheckFailed
from edgeprune.tolerances import TOLERANCES
from tests.cli.command import edgeprune
from tests.cli.test_check_show import reseal
from tests.engines.graphs import info, tensor

PLANTED = "planted_overflow"


@pytest.fixture(scope="module")
def planted(tiny_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The bundle with the visual embeddings of one method multiplied by 10^4 twice and divided by it twice."""
    copy = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("planted") / "copy.bundle")
    path = copy / "onnx" / "vision-fastervlm.onnx"
    model = onnx.load(path, load_external_data=False)
    last = next(node for node in model.graph.node if "visual_embeds" in node.output)
    last.output[list(last.output).index("visual_embeds")] = "plain"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e4, np.float32), "factor"))
    steps = [("Mul", "planted_first"), ("Mul", PLANTED), ("Div", "planted_back"), ("Div", "planted_last")]
    values = ["plain", "large", "overflown", "back", "visual_embeds"]
    for index, (operator, name) in enumerate(steps):
        model.graph.node.append(helper.make_node(operator, [values[index], "factor"], [values[index + 1]], name=name))
    path.unlink()
    onnx.save(model, path)
    reseal(copy)
    return copy


def test_a_planted_overflow_is_named(planted: pathlib.Path, tiny_bundle: pathlib.Path) -> None:
    done = edgeprune("check", planted, "--precision", "fp16", "--json", "-")
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    (row,) = report["fp16"]
    assert (row["graph"], row["node"], row["operator"], report["ok"]) == (
        "vision-fastervlm.onnx",
        PLANTED,
        "Mul",
        False,
    )
    assert row["largest"] > FP16.largest
    text = edgeprune("check", planted, "--precision", "vision=fp16,decoder=fp32").stdout
    assert f"vision-fastervlm.onnx: {PLANTED} (Mul) makes up to" in text
    assert "1 node(s) leave its range" in text
    sound = edgeprune("check", tiny_bundle, "--precision", "fp16")
    assert (sound.returncode, "vision and decoder stay within its range" in sound.stdout) == (0, True), sound.stdout


def dialect(bundle: Bundle, stage: str, word: str, folder: pathlib.Path) -> dialects.Dialect:
    folder.mkdir()
    inputs = calibration.inputs(bundle)
    if stage == "decoder":
        return dialects.make(bundle, bundle.manifest.graphs.decoder, stage, word, [inputs.decoder], folder)
    return dialects.make(bundle, bundle.manifest.graphs.vision[stage][0], stage, word, [inputs.vision[stage]], folder)


def in_fp16(path: pathlib.Path, feeds: dict[str, Any], names: list[str]) -> list[Any]:
    """Outputs as numpy computes them, every step in its type: onnxruntime's CPU computes much of fp16 in fp32."""
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(onnx.load(path)).run(names, feeds))


def test_the_rebuilt_graph_is_finite_and_in_parity(planted: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(planted)
    # Beside the bundle: its data files are linked, which takes one file system.
    made = dialect(bundle, "fastervlm", "fp16", planted.parent / "guarded")
    assert set(made.facts["fp32"]) == {PLANTED, "planted_back"}
    feeds = calibration.inputs(bundle).vision["fastervlm"]
    names = ["visual_embeds", "keep_idx"]
    wanted = quantise.run(planted / "onnx" / "vision-fastervlm.onnx", feeds, names)
    for run in (quantise.run, in_fp16):
        found = run(made.path, feeds, names)
        assert np.isfinite(found[0]).all()
        assert relative(found[0], wanted[0]) <= TOLERANCES["visual_embeds_fp16"]
        assert len(set(found[1].ravel()) & set(wanted[1].ravel())) >= 0.9 * wanted[1].size
    monkeypatch.setattr(numerics, "keep_fp32", lambda graph, found, half: [])
    bare = dialect(bundle, "fastervlm", "fp16", planted.parent / "unguarded")
    assert not np.isfinite(in_fp16(bare.path, feeds, names)[0]).all()


@pytest.mark.parametrize("stage", ["fastervlm", "stride", "received-attention", "decoder"])
def test_products_are_fp16_and_accumulations_fp32(tiny_bundle: pathlib.Path, stage: str) -> None:
    made = dialect(Bundle.open(tiny_bundle), stage, "fp16", tiny_bundle.parent / f"scratch-{stage}")
    model = onnx.load(made.path)
    onnx.checker.check_model(str(made.path), full_check=True)
    kinds = value_types(model)
    weights = {t.name for t in model.graph.initializer}
    for node in model.graph.node:
        kind = kinds.get(node.input[0]) if node.input else None
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
            assert kind == TensorProto.FLOAT16, node.name
        if node.op_type in ("Softmax", "LayerNormalization", "ReduceMean", "Pow", "Sqrt", "Cos", "Sin"):
            assert kind == TensorProto.FLOAT, node.name
    for name in ("scores", "logits", "visual_embeds"):
        assert kinds.get(name, TensorProto.FLOAT) == TensorProto.FLOAT
    ends = [value for value in (*model.graph.input, *model.graph.output) if value.name.startswith(("past", "present"))]
    assert len(ends) == (8 if stage == "decoder" else 0)
    assert all(value.type.tensor_type.elem_type == TensorProto.FLOAT16 for value in ends)


@pytest.mark.parametrize("word", ["int4"])
def test_int4_holds_blocks_with_fp16_scales(tiny_bundle: pathlib.Path, word: str) -> None:
    made = dialect(Bundle.open(tiny_bundle), "decoder", word, tiny_bundle.parent / "scratch-int4")
    model = onnx.load(made.path, load_external_data=False)
    kinds = value_types(onnx.load(made.path))
    blocks = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert {kinds[name] for node in blocks for name in node.input} == {TensorProto.INT4, TensorProto.FLOAT16}
    assert len(blocks) + len(made.facts["fp16"]) == 15
    assert made.row is not None
    assert made.row.value <= made.row.tolerance == TOLERANCES["logits_int4"]


@pytest.mark.parametrize("stage", ["fastervlm", "decoder"])
def test_int8_is_symmetric_and_in_pairs(tiny_bundle: pathlib.Path, stage: str) -> None:
    bundle = Bundle.open(tiny_bundle)
    made = dialect(bundle, stage, "int8", tiny_bundle.parent / f"scratch-int8-{stage}")
    model = onnx.load(made.path)
    onnx.checker.check_model(str(made.path), full_check=True)
    kinds, makers = value_types(model), {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantised = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in makers
                 and makers[n.input[1]].op_type == "DequantizeLinear"]  # fmt: skip
    assert len(quantised) == len(made.facts["int8"]) > 0
    assert len(quantised) + len(made.facts["fp16"]) == 15, "as many as cpu int8 finds"
    said = {row["node"]: row["scale"] for row in made.facts["int8"]}
    for node in quantised:
        first, weight = (makers[name] for name in node.input)
        assert first.op_type == "DequantizeLinear"
        assert kinds[node.output[0]] == TensorProto.FLOAT16
        assert float(stored[first.input[1]]) == pytest.approx(said[node.name.removesuffix(int4.OF_GEMM)], rel=2e-3)
        assert stored[weight.input[0]].dtype == np.int8
        assert stored[weight.input[1]].size == stored[weight.input[0]].shape[1], "a scale per output channel"
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            assert not stored[node.input[2]].any()
    graphs = bundle.manifest.graphs
    graph = graphs.decoder if stage == "decoder" else graphs.vision[stage][0]
    view = lint.view_of(bundle, graph, bundle.file(graph.file))
    built = dataclasses.replace(view, model=load(made.path))
    assert list(lint.check_view(built, targets.find("tensorrt:orin-nano"))) == []
    role = "logits" if stage == "decoder" else "visual_embeds"
    assert made.row is not None
    assert 0 < made.row.value <= made.row.tolerance == TOLERANCES[f"{role}_int8"]


def test_the_noisiest_products_stay_fp16(tiny_bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tolerance that int8 everywhere does not meet: some products leave, in the order of their measured noise."""
    bundle = Bundle.open(tiny_bundle)
    everywhere = dialect(bundle, "decoder", "int8", tiny_bundle.parent / "scratch-everywhere")
    assert everywhere.row is not None
    assert everywhere.facts["fp16"] == []
    monkeypatch.setitem(TOLERANCES, "logits_int8", everywhere.row.value * 0.7)
    made = dialect(bundle, "decoder", "int8", tiny_bundle.parent / "scratch-noisiest")
    noise = {row["node"]: row["noise"] for row in everywhere.facts["int8"]}
    left = made.facts["fp16"]
    assert 0 < len(left) < len(noise)
    assert min(noise[name] for name in left) >= max(noise[name] for name in noise if name not in left)
    monkeypatch.setitem(TOLERANCES, "logits_int8", 0.0)
    with pytest.raises(CheckFailed, match=r"decoder.onnx in int8: 1 - cosine of logits.*nothing was changed"):
        dialect(bundle, "decoder", "int8", tiny_bundle.parent / "scratch-never")


def test_ranges_are_those_of_all_samples(tmp_path: pathlib.Path) -> None:
    weight = np.eye(3, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    graph = helper.make_graph(
        nodes, "g", [info("x", ["B", 3])], [info("y", ["B", 3])], [tensor("w", weight, np.float32)]
    )
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    sets = [{"x": np.array([[-1.0, 2, 0]], np.float32)}, {"x": np.array([[0.5, -3, 0]], np.float32)}]
    (found,) = qdq.activations(path, sets, tmp_path).values()
    assert (found.low, found.high) == (-3, 2)
    assert found.rms == pytest.approx(np.sqrt(np.mean([1, 4, 0, 0.25, 9, 0])))
    assert found.scale == pytest.approx(3 / 127)
    assert found.noise == pytest.approx(3 / 127 / 12**0.5 / found.rms)
    model = qdq.quantise(path, [], {"product": found})
    onnx.save(model, tmp_path / "two.onnx")
    (made,) = quantise.run(tmp_path / "two.onnx", sets[0], ["y"])
    assert np.abs(made - sets[0]["x"]).max() <= found.scale / 2 + 3e-7
    none = qdq.quantise(path, ["product"], {"product": found})
    assert [node.op_type for node in none.graph.node] == ["MatMul"]


def scanned() -> onnx.ModelProto:
    """x -> Relu -> a Scan that adds, in each step, a value of the graph around it."""
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "outer"], ["next"]), helper.make_node("Identity", ["next"], ["row"])],
        "body", [info("state", [2]), info("step", [])], [info("next", [2]), info("row", [2])],
    )  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["outer"], name="product"),
        helper.make_node("Scan", ["start", "steps"], ["end", "rows"], name="scan", body=body, num_scan_inputs=1),
        helper.make_node("Relu", ["end"], ["y"], name="last"),
    ]
    weights = [tensor("w", np.eye(2), np.float32), tensor("start", [0, 0], np.float32)]
    graph = helper.make_graph(
        nodes, "g", [info("x", [2]), info("steps", ["K"])], [info("y", [2]), info("rows", ["K", 2])], weights
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_what_a_subgraph_reads_from_outside_is_cast_back(tmp_path: pathlib.Path) -> None:
    feeds: dict[str, Any] = {"x": np.array([1.5, -2], np.float32), "steps": np.zeros(3, np.float32)}
    model = half.to_half(scanned())
    onnx.save(model, tmp_path / "half.onnx")
    found = quantise.run(tmp_path / "half.onnx", feeds, ["y", "rows"])
    assert np.array_equal(found[0], [4.5, 0])
    assert np.array_equal(found[1], [[1.5, -2], [3, -4], [4.5, -6]])
    kinds = value_types(model)
    assert kinds["outer"] == TensorProto.FLOAT16
    assert kinds["y"] == TensorProto.FLOAT


def test_nan_is_found(tmp_path: pathlib.Path) -> None:
    nodes = [
        helper.make_node("Log", ["x"], ["a"], name="log"),
        helper.make_node("Exp", ["x"], ["b"], name="exp"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", [2])], [info("y", [2])])
    path = tmp_path / "nan.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    found = numerics.ranges(path, [{"x": np.array([-1, 2], np.float32)}], tmp_path)
    assert {name: r.finite for name, r in found.items()} == {"a": False, "b": True, "y": False}
    assert "log (Log) makes NaN or Inf" in [r.said() for r in numerics.offenders(path, found)]
    assert set(numerics.keep_fp32(path, found)) == {"log", "sum"}
