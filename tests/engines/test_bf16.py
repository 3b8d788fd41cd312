"""bf16 from an fp32 graph: which nodes become bf16, what onnxruntime compares in its place, and engines of it."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune import devices
from edgeprune.bundle import Bundle
from edgeprune.engines import (
    calibration,
    dialects,
    emulation,
    engine_plan,
    engine_variant,
    half,
    numerics,
    quantise,
    targets,
    tensorrt,
)
from edgeprune.engines.float_types import BF16, FP16
from edgeprune.engines.passes import forms
from edgeprune.engines.weightless import value_types
from edgeprune.errors import CheckFailed, UserError
from edgeprune.tolerances import TOLERANCES
from tests.cli.command import edgeprune
from tests.cli.test_check_show import reseal
from tests.engines.graphs import info, tensor

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (make test installs it)"
)
FLOAT, SHORT = TensorProto.FLOAT, TensorProto.BFLOAT16
FP32_OPERATORS = {"Softmax", "LayerNormalization", "RMSNormalization", "ReduceMean", "Pow", "Sqrt", "Cos", "Sin"}


def made_of(bundle: Bundle, stage: str, word: str, folder: pathlib.Path, form: str) -> dialects.Dialect:
    """The dialect of one graph, beside the bundle: its data files are linked, which takes one file system."""
    folder.mkdir()
    inputs, graphs = calibration.inputs(bundle), bundle.manifest.graphs
    if stage == "decoder":
        return dialects.make(bundle, graphs.decoder, stage, word, [inputs.decoder], folder, forms.find(form))
    return dialects.make(bundle, graphs.vision[stage][0], stage, word, [inputs.vision[stage]], folder, forms.find(form))


def rounded(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """To bf16 by hand: the upper 16 of the 32 bits, ties to the even one."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    up = np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))
    return (((bits + up) >> np.uint64(16)) << np.uint64(16)).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("form", ["opset20", "trt"])
@pytest.mark.parametrize("stage", ["fastervlm", "stride", "decoder"])
def test_products_are_bf16_and_what_decides_is_fp32(tiny_bundle: pathlib.Path, stage: str, form: str) -> None:
    made = made_of(Bundle.open(tiny_bundle), stage, "bf16", tiny_bundle.parent / f"bf16-{form}-{stage}", form)
    onnx.checker.check_model(str(made.path), full_check=True)
    model = onnx.load(made.path)
    kinds, weights = value_types(model), {t.name for t in model.graph.initializer}
    convolutions = []
    for node in model.graph.node:
        first = kinds.get(node.input[0]) if node.input else None
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights:
            assert first == SHORT, node.name
        if node.op_type in FP32_OPERATORS:
            assert first == FLOAT, node.name
        if node.op_type == "Attention":
            assert first == SHORT, node.name
        if node.op_type == "Conv":
            convolutions.append(first)
    assert convolutions == ([] if stage == "decoder" else [FLOAT if form == "opset20" else SHORT])
    read_in_fp32 = {name for node in model.graph.node for name in node.input if kinds.get(name) == FLOAT}
    assert {t.name for t in model.graph.initializer if t.data_type == FLOAT} <= read_in_fp32
    for value in (*model.graph.input, *model.graph.output):
        cache = value.name.startswith(("past", "present"))
        wanted = {TensorProto.FLOAT16} if cache else {FLOAT, TensorProto.INT64}
        assert value.type.tensor_type.elem_type in wanted, value.name
    halves = [v for v in (*model.graph.input, *model.graph.output) if v.name.startswith(("past", "present"))]
    assert len(halves) == (8 if stage == "decoder" else 0)
    assert made.facts["compared"] == emulation.HOW
    role = "logits" if stage == "decoder" else "visual_embeds"
    assert made.row is not None
    assert "every bf16 value rounded" in made.row.measure
    assert 1e-3 < made.row.value <= made.row.tolerance == TOLERANCES[f"{role}_bf16"], "it has 8 bits"


def small() -> onnx.ModelProto:
    """y = relu(x w + b), and the sum over a Scan that reads the product from outside."""
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "product"], ["next"]), helper.make_node("Identity", ["next"], ["row"])],
        "body", [info("state", [1, 3]), info("step", [])], [info("next", [1, 3]), info("row", [1, 3])],
    )  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="product"),
        helper.make_node("Add", ["product", "b"], ["sum"], name="sum"),
        helper.make_node("Relu", ["sum"], ["y"], name="relu"),
        helper.make_node("Scan", ["start", "steps"], ["end", "rows"], name="scan", body=body, num_scan_inputs=1),
    ]
    rng = np.random.default_rng(5)
    stored = [tensor("w", rng.normal(size=(4, 3)), np.float32), tensor("b", rng.normal(size=3), np.float32)]
    graph = helper.make_graph(
        nodes, "g", [info("x", [1, 4]), info("steps", ["K"])], [info("y", [1, 3]), info("end", [1, 3])],
        [*stored, tensor("start", np.zeros((1, 3)), np.float32)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_emulation_rounds_every_step(tmp_path: pathlib.Path) -> None:
    """Against rounding by bits: nothing is merged away, and weights, products, sums are rounded, each once."""
    model = small()
    w, b = (numpy_helper.to_array(t) for t in model.graph.initializer[:2])
    x = np.array([[1 + 2**-9, -0.3, 7.77, 1e30]], np.float32)
    half.to_half(model, half=BF16)
    assert {t.name: t.data_type for t in model.graph.initializer} == {"start": FLOAT, "w_bf16": SHORT, "b_bf16": SHORT}
    onnx.save(model, tmp_path / "small.onnx")
    y, end = quantise.run(
        emulation.emulated(tmp_path / "small.onnx"), {"x": x, "steps": np.zeros(2, np.float32)}, ["y", "end"]
    )
    product = rounded((rounded(x).astype(np.float64) @ rounded(w)).astype(np.float32))
    assert np.array_equal(y, np.maximum(rounded(product + rounded(b)), 0))
    assert np.array_equal(end, product + product), "the subgraph is fp32, and reads the rounded product"
    assert not np.array_equal(end, 2 * (x @ w))


def test_the_emulation_needs_ends_of_another_type(tmp_path: pathlib.Path) -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [info("x", [2], SHORT)],
                              [info("y", [2], SHORT)])  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "ends.onnx")
    with pytest.raises(ValueError, match=r"ends.onnx: x is bf16 and an end of the graph"):
        emulation.emulated(tmp_path / "ends.onnx")


def test_nan_and_what_is_beyond_its_range_stay_fp32(tmp_path: pathlib.Path) -> None:
    """65504 is no limit; the least float32, which masks are made of, is beyond bf16, and NaN is found as for fp16."""
    nodes = [
        helper.make_node("Log", ["x"], ["a"], name="log"),
        helper.make_node("Mul", ["x", "huge"], ["b"], name="large"),
        helper.make_node("Add", ["a", "b"], ["c"], name="sum"),
        helper.make_node("Where", ["yes", "x", "least"], ["y"], name="mask"),
    ]
    stored = [tensor("huge", 1e6, np.float32), tensor("least", np.finfo(np.float32).min, np.float32),
              tensor("yes", [True, False], np.bool_)]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [info("x", [2])], [info("c", [2]), info("y", [2])], stored)
    path = tmp_path / "nan.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    found = numerics.ranges(path, [{"x": np.array([-1, 2], np.float32)}], tmp_path)
    assert {name for name, r in found.items() if not r.fits(BF16)} == {"a", "c", "y"}
    assert not found["b"].fits(FP16)
    assert set(numerics.keep_fp32(path, found, BF16)) == {"log", "sum", "mask"}
    assert found["y"].said(BF16) == "mask (Where) makes up to 3.4e+38, and bf16 ends at 3.3895e+38"
    assert np.isfinite(BF16.rounded(np.array([np.finfo(np.float32).min], np.float32)).astype(np.float32)).all()


def test_values_that_are_not_finite_end_the_build(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A product whose weights hold a NaN: no type helps, and nothing is written."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "nan.bundle")
    with_weights(copy, "down_proj", np.nan)
    with pytest.raises(CheckFailed, match=r"decoder.onnx in bf16: .*nothing was changed"):
        made_of(Bundle.open(copy), "decoder", "bf16", tmp_path / "scratch", "trt")


def with_weights(bundle: pathlib.Path, word: str, factor: float, back: str = "") -> None:
    """Multiplies a weight of the decoder's first layer, and divides another by the same."""
    path = bundle / "onnx" / "decoder.onnx"
    model = quantise.load(path)
    for name, by in ((word, factor), (back, 1 / factor)):
        for stored in [t for t in model.graph.initializer if name and name in t.name and "layers.0" in t.name]:
            values = numpy_helper.to_array(stored) * np.float32(by)
            stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), stored.name))
    path.unlink()
    onnx.save(model, path)
    reseal(bundle)


@pytest.mark.parametrize("word", ["bf16", "fp16", "int4"])
def test_a_cache_that_fp16_cannot_hold_is_refused(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, word: str) -> None:
    """Values 10^6 times as large, of which the next product takes as much away: the same logits of a prefill."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "large.bundle")
    with_weights(copy, "v_proj", 1e6, "o_proj")
    with pytest.raises(CheckFailed, match=rf"decoder.onnx in {word}: .* makes up to .*the KV cache is fp16; nothing"):
        made_of(Bundle.open(copy), "decoder", word, tmp_path / "scratch", "trt")


def test_which_gpus_have_it() -> None:
    for name in ("tensorrt-rtx:sm80", "tensorrt-rtx:sm86,sm120", "tensorrt:local"):
        targets.find(name).require_build("bf16")
    for name in ("tensorrt:orin-nano", "tensorrt:orin-nx", "tensorrt:agx-orin", "tensorrt:thor"):
        targets.find(name).require_precision("bf16")
    for name in ("tensorrt-rtx:sm75", "tensorrt-rtx:sm75,sm86", "cpu", "cuda"):
        with pytest.raises(UserError, match="has no precision 'bf16'; it has: "):
            targets.find(name).require_build("bf16")


def test_the_gpu_of_this_machine_has_to_have_it(tiny_bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, local = Bundle.open(tiny_bundle), targets.find("tensorrt:local")
    both = {"vision": "bf16", "decoder": "fp32"}
    for capability in (None, "[N/A]", "8.7", "12.0"):
        monkeypatch.setattr(devices, "facts", lambda c=capability: {"compute_capability": c})
        engine_variant.require(bundle, local, both)
    monkeypatch.setattr(devices, "facts", lambda: {"compute_capability": "7.5"})
    with pytest.raises(UserError, match=r"has compute capability 7\.5, which has no bf16: build fp16"):
        engine_variant.require(bundle, local, both)
    engine_variant.require(bundle, local, {"vision": "fp16", "decoder": "fp32"})


@needs_rtx
@pytest.mark.parametrize("name", ["fastervlm", "decoder"])
def test_tensorrt_rtx_builds_it(tiny_bundle: pathlib.Path, name: str) -> None:
    bundle = Bundle.open(tiny_bundle)
    (plan,) = (plan for plan in engine_plan.plans(bundle.manifest) if plan.name == name)
    made = made_of(bundle, name, "bf16", tiny_bundle.parent / f"bf16-built-{name}", "trt")
    engine = tensorrt.build_engine_bytes(
        made.path, list(plan.profiles.values()), compute_capabilities=[(8, 0), (12, 0)]
    )
    assert (b"vtrt" in engine[:32], int.from_bytes(engine[16:24], "little")) == (True, len(engine))


@needs_rtx
def test_each_graph_has_its_own(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """bf16 beside int4: the command, what it says, build.json, and that another word is another engine."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "mixed.bundle")
    done = edgeprune("build", copy, "--target", "tensorrt-rtx:sm86", "--precision", "vision=bf16,decoder=int4")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "left in fp32, beyond bf16: 0 node(s)" in done.stdout
    (variant,) = Bundle.open(copy).manifest.variants
    assert variant.slug == "tensorrt-rtx-sm86-vision.bf16-decoder.int4"
    facts = json.loads((copy / variant.build).read_text())
    *vision, decoder = facts["engines"]
    assert {engine["compared"] for engine in vision} == {emulation.HOW}
    assert "compared" not in decoder
    assert [engine["fingerprint"]["options"]["precision"] for engine in facts["engines"]] == ["bf16"] * 5 + ["int4"]
    assert {path.suffix for path in (copy / variant.build).parent.iterdir()} == {".engine", ".json"}
    assert all(row.passed for row in variant.parity)
