"""Export every pruning method's vision graph at ViT-L width, lint it for every TensorRT target, and build it for sm86
with TensorRT-RTX, without a GPU; write one JSON row per method.

    python -m benchmarks.method_graphs [--methods NAME,...] [--write-docs]
A CLIP tower of width 1024 with 2 blocks of 16 heads, N = 576, random weights, projector of width 1024, fp32, any K.
Export seconds are tracing the method's vision graphs and writing their files without the weights. Seconds by the clock
depend on what else the machine does, so the JSON holds those of the processor too, and docs/targets.md shows these.
tests/engines/test_method_graphs.py runs the same functions.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import tempfile
import time
from typing import Any, Final

import torch

from benchmarks import docs_tables
from edgeprune.engines import graph_view, lint, targets, tensorrt
from edgeprune.engines.rules import TENSORRT
from edgeprune.engines.shapes import ShapeRange, Span, shape_range
from edgeprune.export.models.background import ScorerSpec
from edgeprune.export.models.llava import Llava
from edgeprune.export.weights import RandomSource
from edgeprune.export.writer import GraphSet
from edgeprune.pruning.registry import method_names, parse

N: Final = 576
K: Final = 58
#: of methods inside the encoder: two blocks that halve at most do not come down to 58
K_IN_ENCODER: Final = 192
NAME: Final = "method-graphs"
PAGE: Final = docs_tables.REPO / "docs" / "targets.md"


def family() -> Llava:
    """The model of the docstring; its decoder is as small as can be, for nobody looks at it."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=16, image_size=336,
        patch_size=14, hidden_act="quick_gelu",
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=1024, intermediate_size=64, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=8,
        head_dim=128, vocab_size=64, max_position_embeddings=1024,
    )  # fmt: skip
    made = Llava(LlavaConfig(vision_config=vision, text_config=text, vision_feature_layer=-1), 336)
    made.background = ScorerSpec(made.grid, made.patch_px, (0.5,) * 3, (0.25,) * 3)
    return made


def export(spec: str, folder: pathlib.Path) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Writes a method's graphs below `folder`; -> its vision graphs as the manifest has them, and the seconds that
    tracing them took, by the clock and of the processor."""
    method = parse(spec)
    keep = {"nowhere": N, "in_encoder": K_IN_ENCODER}.get(method.where, K)
    model = family()
    model.require(method)
    graphs = GraphSet(model, {method.name: (method, keep)}, static_keep=False, dtype=torch.float32)
    began: list[tuple[float, float]] = []
    parts = 0

    def note(step: str, done: int, total: int) -> None:
        nonlocal parts
        if step == "trace the graphs":
            began.append((time.perf_counter(), time.process_time()))
            parts = total

    made = graphs.write(folder, RandomSource(), note)
    first, behind = began[0], began[parts - 2]  # the last two parts are embedding and decoder
    return made["vision"][method.name], (behind[0] - first[0], behind[1] - first[1])


def bounds(spec: str) -> dict[str, Span]:
    """Letter -> what it may become: one view, any count that the method serves, a question of 1 to 64 tokens."""
    valid = parse(spec).valid_k(N)
    kept = Span(valid[0], min(valid, key=lambda k: abs(k - K)), valid[-1])
    return {"B": Span(1, 1, 1), "K": kept, "M": Span(1, 16, 64)}


def profile(graph: dict[str, Any], known: dict[str, Span]) -> dict[str, ShapeRange]:
    """TensorRT's profile of a graph."""
    return {tensor["name"]: shape_range(tensor["shape"], known) for tensor in graph["inputs"]}


def tensorrt_targets() -> list[targets.Target]:
    """Every row of targets.toml that TensorRT or TensorRT-RTX builds for; the latter for the GPUs its name lists."""
    return [targets.find(target.name) for target in targets.all_targets() if target.builder in TENSORRT]


def inspect(graph: dict[str, Any], path: pathlib.Path, known: dict[str, Span]) -> dict[str, Any]:
    """Nodes at every depth, operators, and what the targets' rules refuse."""
    declared = {tensor["name"]: tensor["shape"] for tensor in graph["inputs"]}
    view = graph_view.GraphView(path.name, graph_view.load(path), path.stat().st_size, declared, known)
    operators = [node.op_type for node, _ in view.walk()]
    findings = [
        f"{target.name}: {f.rule}: {f.node}" for target in tensorrt_targets() for f in lint.check_view(view, target)
    ]
    return {"nodes": len(operators), "scans": operators.count("Scan"), "findings": findings}


def row(spec: str, *, build: bool = True) -> dict[str, Any]:
    """One method: export seconds, nodes, findings, build seconds and MiB of its engines."""
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        folder = pathlib.Path(scratch) / "onnx"
        graphs, (export_s, export_cpu_s) = export(spec, folder)
        paths = [folder / pathlib.Path(graph["file"]).name for graph in graphs]
        known = bounds(spec)
        seen = [inspect(graph, path, known) for graph, path in zip(graphs, paths, strict=True)]
        made: dict[str, Any] = {
            "export_s": round(export_s, 2),
            "export_cpu_s": round(export_cpu_s, 2),
            "nodes": sum(item["nodes"] for item in seen),
            "scans": sum(item["scans"] for item in seen),
            "findings": [finding for item in seen for finding in item["findings"]],
        }
        if build:
            began, began_cpu = time.perf_counter(), time.process_time()
            sizes = [
                len(tensorrt.build_engine_bytes(path, [profile(graph, known)], compute_capabilities=[(8, 6)]))
                for graph, path in zip(graphs, paths, strict=True)
            ]
            made |= {
                "build_s": round(time.perf_counter() - began, 2),
                "build_cpu_s": round(time.process_time() - began_cpu, 2),
                "engine_mib": round(sum(sizes) / 2**20, 1),
            }
        return made


def table(result: dict[str, Any]) -> str:
    """The rows as docs/targets.md shows them."""
    rows = [
        [f"`{spec}`", f"{r['export_cpu_s']:.1f}", str(r["nodes"]), f"{r['build_cpu_s']:.1f}", f"{r['engine_mib']:.0f}"]
        for spec, r in result["methods"].items()
    ]
    return docs_tables.markdown(("method", "export, CPU s", "nodes", "build, CPU s", "engine MiB"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(method_names()))
    parser.add_argument("--write-docs", action="store_true", help="put the newest result into docs/targets.md")
    args = parser.parse_args()
    rows = {}
    for spec in args.methods.split(","):
        rows[spec] = row(spec)
        print(spec, json.dumps(rows[spec]), flush=True)
    result = {
        "machine": {"machine": platform.machine(), "system": platform.system()},
        "tensorrt": tensorrt.versions("tensorrt_rtx"),
        "torch": torch.__version__,
        "sizes": {"N": N, "K": K, "width": 1024, "blocks": 2, "capability": "8.6"},
        "methods": rows,
    }
    target = docs_tables.RESULTS / f"{time.strftime('%Y-%m-%d')}-{NAME}.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.write_docs:
        docs_tables.replace(PAGE, NAME, table(result))
    print(target.relative_to(docs_tables.REPO))


if __name__ == "__main__":
    main()
