"""Time the int4 products of a decoder step by onnxruntime's MatMulNBits and by edgeprune:MatMulInt4, in turn.

    python -m benchmarks.own_product OUT.json [--layers N] [--rounds N]
The seven products of a layer of the 1.1 B decoder (2,048 wide, 5,632 in between), 8 layers, one token, random weights:
MatMulNBits with blocks of 32, 64 and 128, and the own operator with blocks of 32; one and two threads. Every form is a
process of its own, which sleeps while others run; clock time in milliseconds, raw. Needs 3 GB and two minutes;
docs/performance.md reads the result.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pathlib
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgeprune import machine, native_library
from edgeprune.engines import int4, own_attention, own_product

SHAPES = ((2048, 2048), (2048, 256), (2048, 256), (2048, 2048), (2048, 5632), (2048, 5632), (5632, 2048))
FORMS = ("own", "32", "64", "128")
THREADS = (1, 2)
TRIALS = 10


def products(form: str, layers: int) -> onnx.ModelProto:
    """Weights are random bits: equal ones would be stored once."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []

    def stored(values: np.ndarray[Any, Any]) -> str:
        weights.append(numpy_helper.from_array(values, f"w{len(weights)}"))
        return weights[-1].name

    def bits(*shape: int) -> str:
        return stored(rng.integers(0, 256, shape, dtype=np.uint8))

    for index, (depth, columns) in enumerate(SHAPES * layers):
        source, result = f"x{depth}", [f"y{index}"]
        if form == "own":
            low = rng.integers(0, 16, (columns, depth // int4.BLOCK, int4.BLOCK), dtype=np.uint8)
            packed = own_product.packed(low, rng.random(low.shape[:2], dtype=np.float32))
            nodes.append(helper.make_node(own_product.OPERATOR, [source, stored(packed)], result,
                                          domain=own_attention.DOMAIN, columns=columns))  # fmt: skip
        else:
            block = int(form)
            inputs = [source, bits(columns, depth // block, block // 2)]
            inputs.append(stored(rng.random(columns * depth // block, dtype=np.float32)))
            facts = {"bits": 4, "block_size": block, "accuracy_level": int4.INTEGER_ACTIVATIONS}
            nodes.append(helper.make_node("MatMulNBits", inputs, result, domain="com.microsoft", K=depth, N=columns,
                                          **facts))  # fmt: skip
    ports = [helper.make_tensor_value_info(f"x{depth}", TensorProto.FLOAT, [1, depth]) for depth in (2048, 5632)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for node in nodes for name in node.output]
    domains = [helper.make_opsetid(*pair) for pair in (("", 20), ("com.microsoft", 1), (own_attention.DOMAIN, 1))]
    return helper.make_model(helper.make_graph(nodes, "step", ports, outputs, weights), opset_imports=domains,
                             ir_version=9)  # fmt: skip


def serve(pipe: Connection, form: str, threads: int, layers: int) -> None:
    """Says how many bytes the weights have, then times TRIALS runs whenever it is asked."""
    model = products(form, layers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # others must not be slowed down by threads that wait here
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.register_custom_ops_library(str(native_library.path()))
    run = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pipe.send(sum(len(tensor.raw_data) for tensor in model.graph.initializer))
    del model
    feeds = {f"x{size}": np.random.default_rng(1).normal(size=(1, size)).astype(np.float32) for size in (2048, 5632)}
    run.run(None, feeds)
    while True:
        try:
            pipe.recv()
        except EOFError:  # nobody asks any more
            return
        trials = []
        for _ in range(TRIALS + 1):
            started = time.perf_counter()
            run.run(None, feeds)
            trials.append(1e3 * (time.perf_counter() - started))
        pipe.send(trials[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    cases: dict[tuple[str, int], tuple[Connection, int]] = {}
    for form in FORMS:
        for threads in THREADS:
            mine, theirs = spawn.Pipe()
            spawn.Process(target=serve, args=(theirs, form, threads, args.layers), daemon=True).start()
            cases[form, threads] = mine, mine.recv()
    trials: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(args.rounds):
        for case, (pipe, _) in cases.items():
            pipe.send(True)
            trials[case] += pipe.recv()
    rows = [
        {"form": form, "threads": threads, "bytes": size, "ms": [round(value, 3) for value in trials[form, threads]]}
        for (form, threads), (_, size) in cases.items()
    ]
    facts = {"machine": machine.facts(), "onnxruntime": onnxruntime.__version__, "layers": args.layers}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        middle = statistics.median(row["ms"])
        print(f"{row['form']:>4} {row['threads']} thread(s): median {middle:.2f} ms, least {min(row['ms']):.2f}, "
              f"{row['bytes'] / middle / 1e6:.1f} GB/s")  # fmt: skip


if __name__ == "__main__":
    main()
