"""Time every pruning method alone beside a ViT-L/14-336 encoder, trial by trial in turn; write the raw trials as JSON.

    python -m benchmarks.pruning_cost [--trials 12] [--write-docs | --only-docs]
Each method is the graph that tests/pruning checks (its signals are inputs), N = 576, C = 1024, K = 58, one picture, one
thread. Methods that read projected tokens are also timed on D = 4096, the width of LLaVA-1.5-7B's decoder, and what
projecting N instead of K tokens adds is a row of its own. Of methods that prune inside the encoder the steps of all
blocks are timed, not what they save. The encoder is two blocks with random weights, scaled to 23
(all that LLaVA-1.5 runs) without the patch embedding, in fp32 and with every product in dynamic int8 and attention in
bfloat16, as `edgeprune build --target cpu --precision int8` makes them. --write-docs puts the result into
docs/pruning.md, --only-docs the newest one that is there. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import copy
import json
import pathlib
import platform
import statistics
import tempfile
import time
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

from benchmarks import docs_tables, pruning_cost_docs
from benchmarks.pruning_work import GOALS, SIGNAL_FLOPS, TEXT_SPACE, WORK, Sizes, encoder_flops, projector_flops
from edgeprune import native_library
from edgeprune.engines import fused_attention, own_attention, own_int8
from edgeprune.engines.one_by_one import Products
from edgeprune.engines.weights import all_inside
from edgeprune.export.models.layers import Linear
from edgeprune.export.models.vit import Block, VitSpec
from edgeprune.export.trace import Axis, Interface, trace
from edgeprune.pruning.base import PruningMethod
from edgeprune.pruning.in_encoder import BlockView, InEncoder, Passing
from edgeprune.pruning.registry import method_names, parse
from edgeprune.pruning.selectors import gather_tokens
from tests.pruning.attention_cases import Stage, text_axes

N, K, C, D, HEADS, MLP = 576, 58, 1024, 4096, 16, 4096
TIMED_BLOCKS, BLOCKS = 2, 23
#: tokens of a question
WORDS = 16
#: methods timed with other parameters too: another graph
MORE = ("todre:objective=k-center", "cdpruner:preset=paper")
SIGNAL_SHAPES: dict[str, tuple[int, ...]] = {
    "cls_attention": (N,),
    "received_attention": (N,),
    "wide_cls_attention": (N,),
    "attention": (HEADS, N + 1, N + 1),
    "keys": (HEADS, N, C // HEADS),
    "hidden": (N, C),
    "cls_hidden": (1, C),
    "projector_sensitivity": (N,),
    "anchor_embeddings": (3, C),
    "foreground": (N,),
    "text_space": (N, TEXT_SPACE),
}
SPEC = VitSpec(C, HEADS, C // HEADS, 24, MLP, "quick_gelu", 1e-5, 14, (24, 24), 24, True, False, False, True, 2, 1, ())


class Timed:
    """A graph in ONNX Runtime with random inputs."""

    def __init__(
        self, module: torch.nn.Module, inputs: tuple[Axis, ...], outputs: tuple[Axis, ...], nested: int, keep: int = K
    ) -> None:
        """`nested`: how many inputs, from the first on, the module takes as one list. `keep`: what K stands for."""
        rng = np.random.default_rng(0)
        free = {"K": keep}
        drawn = {axis.name: rng.normal(size=[free.get(str(d), d) for d in axis.shape]) for axis in inputs}
        # what a softmax makes is positive and sums to one
        drawn = {name: np.abs(x) / np.abs(x).sum(-1, keepdims=True) if "attention" in name else x
                 for name, x in drawn.items()}  # fmt: skip
        drawn = {name: np.ones_like(x) if name == "text_mask" else x for name, x in drawn.items()}
        self.feeds = {name: value.astype(np.float32) for name, value in drawn.items()}
        values = [torch.from_numpy(value) for value in self.feeds.values()]
        example = (values[:nested], *values[nested:]) if nested >= 0 else tuple(values)
        model = trace(module, example, Interface(inputs, outputs))
        for name, value in model.graph.initializers.items():
            if name in dict(module.named_parameters()):
                value.const_value = ir.tensor(rng.normal(size=tuple(value.shape)).astype(np.float32) * 0.02, name=name)
        self._open(ir.to_proto(model))

    def _open(self, proto: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        if own_attention.used_by(proto):
            options.register_custom_ops_library(str(native_library.path()))
        self.proto = proto
        content = proto.SerializeToString()
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.feeds = {item.name: self.feeds[item.name] for item in self.session.get_inputs()}
        self.trials: list[float] = []

    def int8(self) -> Timed:
        """The same graph and inputs with every product of a weight in dynamic int8."""
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=folder) as parts:
            path = pathlib.Path(folder) / "graph.onnx"
            path.write_bytes(self.proto.SerializeToString())
            products = Products(path, path.parent, pathlib.Path(parts), own_int8.change)
            proto = all_inside(products.model([]), products.folder)
        own_int8.absorb(proto)
        fused_attention.rewrite(proto)
        made = copy.copy(self)
        made._open(proto)
        return made

    def products(self, *kinds: str) -> int:
        """How many nodes of these operators the graph has."""
        return sum(node.op_type in kinds for node in self.proto.graph.node)

    def run(self) -> None:
        """One trial, milliseconds."""
        began = time.perf_counter()
        made = self.session.run(None, self.feeds)
        self.trials.append(1e3 * (time.perf_counter() - began))
        assert all(np.isfinite(value).all() for value in made)

    @property
    def median(self) -> float:
        return statistics.median(self.trials)


class Steps(torch.nn.Module):
    """What a method that prunes inside the encoder does in all blocks, and nothing else of the blocks."""

    def __init__(self, method: InEncoder) -> None:
        super().__init__()
        self.method, self.counts = method, method.schedule(N, BLOCKS, K)
        self.register_buffer("iota", torch.arange(N), persistent=False)

    def forward(self, x: torch.Tensor, cls_attention: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (1,N+1,C) that stand for tokens, keys and values; (1,N+1) -> keep_idx (1,K), rows (1,K,C)."""
        passing = Passing(self.iota.unsqueeze(0))
        for index, count in enumerate(self.counts):
            heads = x.reshape(1, -1, HEADS, C // HEADS).transpose(1, 2)
            view = BlockView(index, heads, heads, partial(torch.narrow, cls_attention, 1, 0, x.shape[1]))
            thinned = self.method.thin(view, passing, count, K, self.iota)
            x, passing = thinned.rows(x), thinned.passing
        order, keep_idx = self.method.finish(passing)
        return keep_idx, x[:, 1:] if order is None else gather_tokens(x[:, 1:], order)


def stage(method: PruningMethod, width: int) -> Timed:
    """Signals, tokens (1,N,width), K slots -> keep_idx, kept features: selection and recycling."""
    if isinstance(method, InEncoder):
        given = (Axis("x", "x", "float32", (1, N + 1, C)), Axis("a", "cls_attention", "float32", (1, N + 1)))
        made = (Axis("i", "keep_idx", "int64", (1, K)), Axis("o", "out", "float32", (1, K, C)))
        return Timed(Steps(method), given, made, -1)
    shapes = {**SIGNAL_SHAPES, "anchor_embeddings": (3, width)}
    inputs = [Axis("s", f"s{i}_{s.kind}", "float32", (1, *shapes[s.kind])) for i, s in enumerate(method.needs)]
    nested = len(inputs)
    inputs += [Axis("tokens", "tokens", "float32", (1, N, width)), Axis("slots", "slots", "float32", ("K",))]
    # a text encoder makes one row of the whole question
    text = (1, TEXT_SPACE) if method.text_encoder else (WORDS, width)
    inputs += text_axes(1, *text) if method.text else []
    outputs = (Axis("i", "keep_idx", "int64", (1, "K")), Axis("o", "out", "float32", (1, "K", width)))
    # methods that serve only some counts: the nearest to K
    keep = min(method.valid_k(N), key=lambda count: abs(count - K))
    return Timed(Stage(method), tuple(inputs), outputs, nested, keep)


def encoder() -> Timed:
    blocks = torch.nn.Sequential(*(Block(SPEC, torch.float32) for _ in range(TIMED_BLOCKS)))
    axis = Axis("x", "x", "float32", (1, N + 1, C))
    return Timed(blocks, (axis,), (Axis("y", "y", "float32", axis.shape),), -1)


def projector(rows: int) -> Timed:
    layers = torch.nn.Sequential(Linear(C, D, True, torch.float32), torch.nn.GELU(), Linear(D, D, True, torch.float32))
    outputs = (Axis("y", "y", "float32", (1, rows, D)),)
    return Timed(layers, (Axis("x", "x", "float32", (1, rows, C)),), outputs, -1)


def paper(method: PruningMethod) -> dict[str, Any]:
    """The counted part of a method's row."""
    sizes, work = Sizes(N, K, C, C, HEADS), WORK[method.name]
    times = BLOCKS if method.where == "in_encoder" else 1
    return {
        "goal": GOALS[work.goal],
        "where": method.where,
        "flops": round(work.flops(sizes)),
        "signal_flops": round(times * sum(SIGNAL_FLOPS[need.kind](sizes) for need in method.needs)),
        "extra_bytes": round(work.extra_bytes(sizes)),
    }


def rows_of(timed: dict[str, Timed], encoder_ms: float, int8_ms: float) -> dict[str, dict[str, Any]]:
    """SPEC -> its row; `none` has no graph of its own and costs nothing. The goal is a share of the fp32 encoder."""
    rows: dict[str, dict[str, Any]] = {}
    for spec in (*method_names(), *MORE):
        row = paper(parse(spec))
        row["ratio_to_encoder"] = timed[spec].median / encoder_ms if spec in timed else 0.0
        row["ratio_to_int8_encoder"] = timed[spec].median / int8_ms if spec in timed else 0.0
        if f"{spec}@{D}" in timed:
            row[f"ratio_at_width_{D}"] = timed[f"{spec}@{D}"].median / encoder_ms
        row["meets_goal"] = row["ratio_to_encoder"] <= row["goal"]
        rows[spec] = row
    return rows


def measure(trials: int) -> dict[str, Any]:
    """Interleaved trials after one warm-up of each graph."""
    fp32 = encoder()
    timed = {"encoder": fp32, "encoder int8": fp32.int8(), "projector N": projector(N), "projector K": projector(K)}
    for spec in (*method_names(), *MORE):
        method = parse(spec)
        if method.where != "nowhere":
            timed[spec] = stage(method, C)
        if method.where == "after_projector":
            timed[f"{spec}@{D}"] = stage(method, D)
    for graph in timed.values():
        graph.run()
        graph.trials.clear()
    for _ in range(trials):
        for graph in timed.values():
            graph.run()
    encoder_ms, int8_ms = (timed[name].median * BLOCKS / TIMED_BLOCKS for name in ("encoder", "encoder int8"))
    sizes = Sizes(N, K, C, C, HEADS)
    projecting = (timed["projector N"].median - timed["projector K"].median) / encoder_ms
    return {
        "machine": {"machine": platform.machine(), "system": platform.system(), "threads": 1},
        "onnxruntime": onnxruntime.__version__,
        "sizes": {"N": N, "K": K, "C": C, "D": D, "heads": HEADS},
        "encoder": {
            "blocks": BLOCKS,
            "timed_blocks": TIMED_BLOCKS,
            "flops": round(encoder_flops(sizes, BLOCKS, MLP)),
            "without": "patch embedding; random weights; fp32",
        },
        "encoder_int8": {
            "ratio_to_encoder": int8_ms / encoder_ms,
            "products": timed["encoder int8"].products(own_int8.OPERATOR),
            "products_of_a_block": timed["encoder int8"].products(own_int8.OPERATOR) // TIMED_BLOCKS,
        },
        "projecting_all": {
            "ratio_to_encoder": projecting,
            "ratio_to_int8_encoder": projecting * encoder_ms / int8_ms,
            "flops": round(projector_flops(N, C, D) - projector_flops(K, C, D)),
            "paid_by": [name for name in method_names() if parse(name).where == "after_projector"],
        },
        "methods": rows_of(timed, encoder_ms, int8_ms),
        "trials_ms": {name: [round(t, 4) for t in graph.trials] for name, graph in timed.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--write-docs", action="store_true", help="measure, and put the result into docs/pruning.md")
    parser.add_argument("--only-docs", action="store_true", help="put the newest result there; measure nothing")
    args = parser.parse_args()
    if args.only_docs:
        pruning_cost_docs.write()
    else:
        record(measure(args.trials), write_docs=args.write_docs)


def record(result: dict[str, Any], *, write_docs: bool) -> None:
    """Keeps a result as JSON, in the docs when asked, and prints it."""
    target = docs_tables.RESULTS / f"{time.strftime('%Y-%m-%d')}-{pruning_cost_docs.NAME}.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if write_docs:
        pruning_cost_docs.write()
    for spec, row in result["methods"].items():
        state = "" if row["meets_goal"] else f"  over the goal of {row['goal']:.0%}"
        print(f"{spec:28} {row['ratio_to_encoder']:8.3%} of the encoder{state}")
    print(f"{'projecting all N':28} {result['projecting_all']['ratio_to_encoder']:8.3%} of the encoder")
    print(target.relative_to(docs_tables.REPO))


if __name__ == "__main__":
    main()
