"""fp8 (E4M3) from an fp32 graph: pairs around the products, rounded as the type rounds, and engines of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.bundle import Bundle
from edgeprune.engines import engine_plan, fp8, lint, qdq, quantise, targets, tensorrt
from edgeprune.engines.graph_view import load
from edgeprune.engines.weightless import value_types
from edgeprune.errors import UserError
from edgeprune.tolerances import TOLERANCES
from tests.cli.command import edgeprune
from tests.engines.graphs import info, tensor
from tests.engines.test_bf16 import made_of

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (make test installs it)"
)
#: every finite E4M3 number that is not negative, by its definition: bias 7, 3 bits of mantissa, no infinity
NUMBERS = np.array(
    [m / 8 * 2.0**-6 for m in range(8)]
    + [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
)


def nearest(values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:  # type: ignore[type-arg]
    """Values as E4M3 times a scale stands for them, found among all numbers of the type."""
    exact = np.asarray(values, np.float64) / scale
    place = np.abs(np.abs(exact)[..., None] - NUMBERS).argmin(-1)
    return np.asarray(np.sign(exact) * NUMBERS[place] * scale)


def test_products_are_rounded_as_the_type_rounds(tmp_path: pathlib.Path) -> None:
    """x w, both rounded to the nearest of the 127 numbers; a column of zeros and an unread range do no harm."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(5, 4)).astype(np.float32) * np.array([1, 100, 1e-4, 0], np.float32)
    x = rng.normal(size=(2, 5)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
        helper.make_node("MatMul", ["x", "w"], ["again"], name="second"),
        helper.make_node("MatMul", ["x", "w"], ["exact"], name="left"),
    ]
    ends = [info(name, ["B", 4]) for name in ("y", "again", "exact")]
    graph = helper.make_graph(nodes, "g", [info("x", ["B", 5])], ends, [tensor("w", weight, np.float32)])
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    ranges = qdq.activations(path, [{"x": x}], tmp_path)
    model = fp8.quantise(path, ["left"], ranges)
    assert [node.op_type for node in model.graph.node] == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul", "MatMul", "MatMul",
    ]  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "two.onnx")
    y, again, exact = quantise.run(tmp_path / "two.onnx", {"x": x}, ["y", "again", "exact"])
    largest = np.abs(weight).max(0)
    wanted = nearest(x, np.abs(x).max() / 448) @ nearest(weight, np.where(largest > 0, largest / 448, 1))
    assert np.abs(y - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert np.array_equal(y, again)
    assert np.abs(exact - x @ weight).max() <= 1e-5 * np.abs(exact).max()
    none = fp8.quantise(path, ["product", "second", "left"], ranges)
    assert [node.op_type for node in none.graph.node] == ["MatMul"] * 3


@pytest.mark.parametrize(("stage", "form"), [("fastervlm", "trt"), ("fastervlm", "plain"), ("decoder", "trt")])
def test_it_is_in_pairs_and_in_parity(tiny_bundle: pathlib.Path, stage: str, form: str) -> None:
    bundle = Bundle.open(tiny_bundle)
    made = made_of(bundle, stage, "fp8", tiny_bundle.parent / f"fp8-{form}-{stage}", form)
    onnx.checker.check_model(str(made.path), full_check=True)
    model = onnx.load(made.path)
    kinds, makers = value_types(model), {name: node for node in model.graph.node for name in node.output}
    quantised = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in makers
                 and makers[n.input[1]].op_type == "DequantizeLinear"]  # fmt: skip
    assert len(quantised) == len(made.facts["fp8"]) > 0
    assert len(quantised) + len(made.facts["fp16"]) == 15, "as many as int8 finds"
    stored = {t.name: t for t in model.graph.initializer}
    for node in quantised:
        first, weight = (makers[name] for name in node.input)
        assert makers[first.input[0]].op_type == "QuantizeLinear"
        assert kinds[first.input[0]] == stored[weight.input[0]].data_type == TensorProto.FLOAT8E4M3FN
        assert kinds[node.output[0]] == kinds[first.input[1]] == TensorProto.FLOAT16
        assert list(stored[weight.input[1]].dims) == [stored[weight.input[0]].dims[1]], "a scale per output channel"
    for row in made.facts["fp8"]:
        assert row["scale"] == pytest.approx(max(-row["low"], row["high"]) / 448, rel=1e-5)
        assert "noise" not in row
    graphs = bundle.manifest.graphs
    graph = graphs.decoder if stage == "decoder" else graphs.vision[stage][0]
    built = dataclasses.replace(lint.view_of(bundle, graph, bundle.file(graph.file)), model=load(made.path))
    for name in ("tensorrt-rtx:sm89", "tensorrt-rtx:sm120,sm121", "tensorrt:thor"):
        assert list(lint.check_view(built, targets.find(name))) == []
    for name, gpu in (("tensorrt-rtx:sm86,sm89", "sm86"), ("tensorrt:orin-nano", "sm87")):
        found = [f.problem for f in lint.check_view(built, targets.find(name)) if f.rule == "type-of-gpu"]
        assert f"DequantizeLinear in fp8, which is not documented for {gpu}" in found
    role = "logits" if stage == "decoder" else "visual_embeds"
    assert made.row is not None
    assert 0 < made.row.value <= made.row.tolerance == TOLERANCES[f"{role}_fp8"]


def test_which_gpus_have_it() -> None:
    for name in ("tensorrt-rtx:sm89", "tensorrt-rtx:sm120", "tensorrt-rtx:sm89,sm121"):
        targets.find(name).require_build("fp8")
    targets.find("tensorrt:thor").require_precision("fp8")
    for name in ("tensorrt-rtx:sm86", "tensorrt-rtx:sm86,sm120", "tensorrt:orin-nano", "tensorrt:agx-orin", "cpu"):
        with pytest.raises(UserError, match="has no precision 'fp8'; it has: "):
            targets.find(name).require_build("fp8")


@needs_rtx
def test_tensorrt_rtx_itself_refuses_it_below_8_9(tiny_bundle: pathlib.Path) -> None:
    """What the table of targets says is what the library does; a graph for both is refused for the older one."""
    bundle = Bundle.open(tiny_bundle)
    plan = next(plan for plan in engine_plan.plans(bundle.manifest) if plan.name == "fastervlm")
    made = made_of(bundle, "fastervlm", "fp8", tiny_bundle.parent / "fp8-refused", "trt")
    for capabilities in ([(8, 6)], [(8, 6), (8, 9)]):
        with pytest.raises(UserError, match=r"Cannot compile for target\(s\) sm86.*fp8_e4m3"):
            tensorrt.build_engine_bytes(made.path, list(plan.profiles.values()), compute_capabilities=capabilities)


@needs_rtx
def test_engines_for_two_gpus_beside_bf16(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "mixed.bundle")
    done = edgeprune("build", copy, "--target", "tensorrt-rtx:sm89,sm120", "--precision", "vision=bf16,decoder=fp8")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "left in fp16, too noisy in fp8: " in done.stdout
    (variant,) = Bundle.open(copy).manifest.variants
    assert variant.slug == "tensorrt-rtx-sm89-sm120-vision.bf16-decoder.fp8"
    assert all(row.passed for row in variant.parity)
    folder = (copy / variant.build).parent
    facts = json.loads((copy / variant.build).read_text())
    assert len(facts["engines"][-1]["fp8"]) + len(facts["engines"][-1]["fp16"]) == 15
    for engine in facts["engines"]:
        content = (folder / engine["file"]).read_bytes()
        assert engine["fingerprint"]["compute_capabilities"] == ["8.9", "12.0"]
        assert (b"vtrt" in content[:32], int.from_bytes(content[16:24], "little")) == (True, len(content))
