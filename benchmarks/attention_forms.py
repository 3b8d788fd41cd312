"""Time one attention core on the CPU in three forms, trial by trial in turn, and write the raw trials as JSON.

    python benchmarks/attention_forms.py [--trials 30]
Forms: MatMul, Softmax, MatMul at opset 20 (what the canonical graphs hold), com.microsoft MultiHeadAttention, the
Attention node of opset 23. Shapes: a ViT-L/14-336 block, a demo vision block, a 600-token prefill of the demo decoder.
Takes about half a minute. docs/adr/0001 reads the result.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

REPO = pathlib.Path(__file__).resolve().parent.parent
SHAPES = {"vit-l-336": (577, 16, 64), "demo-vision": (257, 6, 64), "demo-prefill": (600, 9, 64)}  # tokens, heads, width
TOLERANCE = 1e-4


def decomposed(tokens: int, heads: int, width: int) -> onnx.ModelProto:
    """q, k, v (1,T,H*d) -> (1,T,H*d), split and merged by Reshape and Transpose."""
    split = helper.make_tensor("split", TensorProto.INT64, [4], [0, 0, heads, width])
    merge = helper.make_tensor("merge", TensorProto.INT64, [3], [0, 0, heads * width])
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [width**-0.5])
    nodes = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [name, "split"], [f"{name}s"]))
        nodes.append(helper.make_node("Transpose", [f"{name}s"], [f"{name}t"], perm=perm))
    nodes += [
        helper.make_node("Mul", ["qt", "scale"], ["qm"]),
        helper.make_node("MatMul", ["qm", "kt"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "vt"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["rows"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["rows", "merge"], ["out"]),
    ]
    return model(nodes, tokens, heads * width, 20, [split, merge, scale])


def contrib(tokens: int, heads: int, width: int) -> onnx.ModelProto:
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft", num_heads=heads)
    return model([node], tokens, heads * width, 20)


def attention_23(tokens: int, heads: int, width: int) -> onnx.ModelProto:
    node = helper.make_node("Attention", ["q", "k", "v"], ["out"], q_num_heads=heads, kv_num_heads=heads)
    return model([node], tokens, heads * width, 23)


FORMS: dict[str, Callable[[int, int, int], onnx.ModelProto]] = {
    "decomposed": decomposed,
    "contrib_mha": contrib,
    "attention_23": attention_23,
}


def model(
    nodes: list[onnx.NodeProto], tokens: int, width: int, opset: int, constants: list[onnx.TensorProto] | None = None
) -> onnx.ModelProto:
    """A model with inputs q, k, v and output out, all (1,T,W) float32."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, tokens, width]) for name in ("q", "k", "v")]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, tokens, width])
    graph = helper.make_graph(nodes, "attention", infos, [out], constants or [])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def time_shape(tokens: int, heads: int, width: int, trials: int) -> dict[str, list[float]]:
    """Milliseconds per run of each form, interleaved; refuses to time forms that disagree."""
    sessions = {
        name: onnxruntime.InferenceSession(
            form(tokens, heads, width).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for name, form in FORMS.items()
    }
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((1, tokens, heads * width), np.float32) for name in ("q", "k", "v")}
    outputs = {name: session.run(None, feeds)[0] for name, session in sessions.items()}
    for name, found in outputs.items():
        worst = float(np.abs(found - outputs["decomposed"]).max())
        if worst > TOLERANCE:
            raise SystemExit(f"{name} differs from the decomposed form by {worst:g}")
    raw: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(trials):
        for name, session in sessions.items():
            began = time.perf_counter()
            session.run(None, feeds)
            raw[name].append(1e3 * (time.perf_counter() - began))
    return raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    args = parser.parse_args()
    result: dict[str, object] = {"machine": platform.machine(), "onnxruntime": onnxruntime.__version__}
    for shape, sizes in SHAPES.items():
        raw = time_shape(*sizes, args.trials)
        medians = {name: statistics.median(times) for name, times in raw.items()}
        ratios = {name: round(value / medians["decomposed"], 3) for name, value in medians.items()}
        result[shape] = {
            "tokens_heads_width": sizes,
            "medians_ms": medians,
            "ratio_to_decomposed": ratios,
            "trials_ms": raw,
        }
        print(shape, ratios)
    target = REPO / "benchmarks" / "results" / f"{time.strftime('%Y-%m-%d')}-attention-forms.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
