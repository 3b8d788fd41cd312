"""Time int8 products and an encoder's attention by onnxruntime's operators and by libedgeprune's own, in turn.

    python -m benchmarks.own_encoder OUT.json [--rounds N]
Products: the shapes of a block of ViT-L/14-336 (577 tokens) and of a layer of the 1.1 B decoder behind a pruned prompt
(96 tokens), a bias each, random weights, by onnxruntime's dynamic quantisation and by edgeprune:MatMulInt8. Attention
of a block: MultiHeadAttention and edgeprune:EncoderAttention with operands in float32 and bfloat16. One and two
threads. Every form has a session of its own whose threads sleep while others run; clock time of one node in
milliseconds, raw. Needs 1 GB and two minutes; docs/performance.md reads the result.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgeprune import machine, native_library
from edgeprune.engines import own_int8, quantise

#: tokens, rows and columns of the weight
PRODUCTS = (
    (577, 1024, 1024),
    (577, 1024, 4096),
    (577, 4096, 1024),
    (96, 2048, 2048),
    (96, 2048, 5632),
    (96, 5632, 2048),
)
TOKENS, HEADS, WIDTH = 577, 16, 64
#: nodes of a graph, each with a weight of its own: more than the processor's cache holds
NODES = 12
THREADS = (1, 2)
Feeds = dict[str, "np.ndarray[Any, Any]"]


def product(form: str, tokens: int, depth: int, columns: int, nodes: int = NODES) -> tuple[onnx.ModelProto, Feeds]:
    """`nodes` products of one input, quantised as `build` does it or by the library's operators."""
    rng = np.random.default_rng(0)
    parts = []
    for index in range(nodes):
        weight = rng.normal(0, 0.02, (columns, depth)).astype(np.float32)
        stored = [numpy_helper.from_array(weight, f"w{index}")]
        stored.append(numpy_helper.from_array(np.ones(columns, np.float32), f"b{index}"))
        ports = _ports("x", f"y{index}")
        node = helper.make_node("Gemm", ["x", f"w{index}", f"b{index}"], [f"y{index}"], f"n{index}", transB=1)
        graph = helper.make_graph([node], "product", ports[:1], ports[1:], stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        parts.append((own_int8.change if form == "own" else quantise.integer)(model))
    feeds: Feeds = {"x": rng.normal(size=(tokens, depth)).astype(np.float32)}
    return _merged(parts), feeds


def attention(form: str, nodes: int = NODES) -> tuple[onnx.ModelProto, Feeds]:
    """`nodes` attentions over the same rows."""
    made = []
    for index in range(nodes):
        facts: dict[str, Any] = {"domain": "com.microsoft", "num_heads": HEADS}
        if form != "library":
            facts = {"domain": own_int8.DOMAIN, "heads": HEADS, "bfloat16": int(form == "own bfloat16")}
        operator = "MultiHeadAttention" if form == "library" else "EncoderAttention"
        made.append(helper.make_node(operator, list("qkv"), [f"y{index}"], scale=WIDTH**-0.5, **facts))
    graph = helper.make_graph(made, "attention", _ports(*"qkv"), _ports(*(node.output[0] for node in made)))
    rng = np.random.default_rng(0)
    feeds: Feeds = {name: rng.normal(size=(1, TOKENS, HEADS * WIDTH)).astype(np.float32) for name in "qkv"}
    return helper.make_model(graph, opset_imports=_domains(), ir_version=9), feeds


def cases() -> Iterator[tuple[str, str, int, onnx.ModelProto, Feeds]]:
    """(what, form, multiply-adds, graph, inputs)."""
    for shape in PRODUCTS:
        for form in ("library", "own"):
            yield "product " + " x ".join(map(str, shape)), form, int(np.prod(shape)), *product(form, *shape)
    for form in ("library", "own float32", "own bfloat16"):
        yield "attention", form, 2 * TOKENS * TOKENS * HEADS * WIDTH, *attention(form)


def opened(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # others must not be slowed down by threads that wait here
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.register_custom_ops_library(str(native_library.path()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(rounds: int) -> list[dict[str, Any]]:
    """A row per case and number of threads, with its trials."""
    rows, sessions = [], []
    for what, form, adds, model, feeds in cases():
        for threads in THREADS:
            session = opened(model, threads)
            session.run(None, feeds)
            sessions.append((session, feeds))
            rows.append({"what": what, "form": form, "threads": threads, "multiply_adds": adds, "ms": []})
    for _ in range(rounds):
        for row, (session, feeds) in zip(rows, sessions, strict=True):
            session.run(None, feeds)  # wakes its threads
            started = time.perf_counter()
            session.run(None, feeds)
            row["ms"].append(round(1e3 * (time.perf_counter() - started) / NODES, 4))
    return rows


def _ports(*names: str) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]


def _domains() -> list[onnx.OperatorSetIdProto]:
    return [helper.make_opsetid(*pair) for pair in (("", 20), ("com.microsoft", 1), (own_int8.DOMAIN, 1))]


def _merged(parts: list[onnx.ModelProto]) -> onnx.ModelProto:
    """One graph of graphs with the same input; what they have in common, as the rounded input, is made once."""
    nodes = {node.output[0]: node for part in parts for node in part.graph.node}
    stored = {tensor.name: tensor for part in parts for tensor in part.graph.initializer}
    outputs = [info for part in parts for info in part.graph.output]
    graph = helper.make_graph(list(nodes.values()), "products", _ports("x"), outputs, list(stored.values()))
    return helper.make_model(graph, opset_imports=_domains(), ir_version=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    rows = run(args.rounds)
    facts = {"machine": machine.facts(), "onnxruntime": onnxruntime.__version__, "nodes": NODES}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        middle = statistics.median(row["ms"])
        print(f"{row['what']:<28} {row['form']:<13} {row['threads']} thread(s): median {middle:.3f} ms, "
              f"{2e-6 * row['multiply_adds'] / middle:,.0f} Gop/s")  # fmt: skip


if __name__ == "__main__":
    main()
