"""What a build needs, estimated from the sizes of the weights before it starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import onnx

from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.engines import build_time, dialects
from edgeprune.engines.engine_plan import plans
from edgeprune.engines.graph_view import GraphView
from edgeprune.engines.passes import forms
from edgeprune.engines.targets import Target
from edgeprune.errors import UserError
from edgeprune.manifest import Graph

#: peak resident memory over the weights of one graph: 1.2 above the process itself for a decoder of 517 MiB, measured
#: with onnxruntime 1.31 (docs/performance.md); activations of large pictures and long prompts come on top
MEMORY_FACTOR = 2.0
#: the same where a graph is held whole while it becomes fp16: 4.6 was measured when int8 was made so
WHOLE_FACTOR = 5.0
#: the process itself, with onnx and onnxruntime loaded
BASE_BYTES = 300 << 20
#: a variant is at most as large as the graphs it is made of; what was quantised of one lies there once more meanwhile
DISK_FACTOR = 2.0

#: TensorRT-RTX 1.7.1: peak over the weights that are built in; 4.0 for two decoder layers of LLaVA-1.5 in fp16
ENGINE_FACTOR = 4.5
#: and when the graph is made from an fp32 one first: both are held, and onnxruntime runs each
CHANGE_FACTOR = 4.0
#: onnxruntime's peak over the weights of an fp16 graph that it runs on the CPU, to compare it with the dialect's form:
#: it holds them in fp16, in fp32 and packed; 8.4 for two decoder layers of LLaVA-1.5, 7.6 for ViT-L/14-336
HALF_FACTOR = 8.5
#: the library itself, and what an engine has besides its weights, per compute capability
ENGINE_BASE_BYTES = 1 << 30
ENGINE_BYTES = 16 << 20
#: bytes of a weight in an engine; int4 with a scale of two bytes for every 32
STORED = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "fp8": 1.0, "int4": 0.5625}


@dataclass(frozen=True)
class Needs:
    """What a build takes.

    Attributes:
        memory, disk: upper estimates in bytes: resident at the peak, and of the bundle's file system.
        seconds: of building the engines, an order of magnitude; None: there are no engines, or nothing was measured.
    """

    memory: int
    disk: int
    seconds: float | None = None


def needs(bundle: Bundle, precision: dict[str, str]) -> Needs:
    """What a build with this precision needs; graphs that have it already are taken over as they are."""
    graphs, has = bundle.manifest.graphs, bundle.manifest.recipe.get("dtype", "fp32")
    stages = {"vision": [graph for several in graphs.vision.values() for graph in several], "decoder": [graphs.decoder]}
    work = [(word, graph) for stage, word in precision.items() if word != has for graph in stages[stage]]
    chosen = [graph for _, graph in work]
    peaks = [_factor(word) * sum(bundle.manifest.files[n].bytes for n in (g.file, *g.data)) for word, g in work]
    names = {name for graph in chosen for name in (graph.file, *graph.data)}
    whole = sum(bundle.manifest.files[name].bytes for name in names)
    return Needs(BASE_BYTES + int(max(peaks, default=0)), int(DISK_FACTOR * whole))


def _factor(word: str) -> float:
    return MEMORY_FACTOR if word.startswith("int") else WHOLE_FACTOR


def engine_needs(bundle: Bundle, precision: dict[str, str], target: Target) -> Needs:
    """What the engines of a bundle need: one is built after the other, for every GPU of the target at once."""
    graphs = bundle.manifest.graphs
    has = bundle.manifest.recipe.get("dtype", "fp32")
    largest = disk = 0
    work = []
    for plan in plans(bundle.manifest):
        changed = precision[plan.stage] != has
        weights = sum(bundle.manifest.files[name].bytes for name in (plan.graph.file, *plan.graph.data))
        if plan.stage == "vision":  # the methods share one weight file, and each engine holds what it reads of it
            weights = min(weights, _stored(bundle, plan.graph))
        built = weights // 2 if changed else weights
        peak = ENGINE_FACTOR * built + (CHANGE_FACTOR * weights if changed else 0)
        if not changed and has != "fp32" and _is_formed(plan.graph, target):
            peak = max(peak, HALF_FACTOR * weights)
        largest = max(largest, int(peak))
        # An engine of two profiles may hold its weights twice, laid out for each: seen with both decoders tried.
        disk += int(1.1 * built) * len(plan.profiles) + (ENGINE_BYTES * max(1, len(target.compute_capabilities)))
        whole = weights * STORED[precision[plan.stage]] / STORED[has] * len(plan.profiles)
        work.append(build_time.Work(_nodes(bundle, plan.graph), len(plan.profiles), whole / 2**20))
    spare = max(sum(bundle.manifest.files[n].bytes for n in (g.file, *g.data)) for g in graphs)
    whole_disk = disk + (spare if set(precision.values()) != {has} else 0)
    return Needs(ENGINE_BASE_BYTES + largest, whole_disk, build_time.seconds(work))


def _is_formed(graph: Graph, target: Target) -> bool:
    """Whether the dialect may make another graph of it, which is then compared."""
    return forms.find(target.dialect).changes and graph.stage not in dialects.UNCHANGED


def _nodes(bundle: Bundle, graph: Graph) -> int:
    """Nodes of a graph at any depth."""
    model = onnx.load(bundle.file(graph.file), load_external_data=False)
    return sum(1 for _ in GraphView(graph.file, model).walk())


def _stored(bundle: Bundle, graph: Graph) -> int:
    """Bytes of the weights that a graph itself reads."""
    tensors = onnx.load(bundle.file(graph.file), load_external_data=False).graph.initializer
    return sum(int(entry.value) for t in tensors for entry in t.external_data if entry.key == "length")


def require(bundle: Bundle, wanted: Needs) -> None:
    """UserError with both numbers when this machine has less memory or disk free than the build needs."""
    free = {"memory": machine.memory_bytes()[1], "disk": shutil.disk_usage(bundle.path).free}
    for name, need in (("memory", wanted.memory), ("disk", wanted.disk)):
        if free[name] < need:
            raise UserError(
                f"the build needs about {need >> 20} MiB of {name} and {free[name] >> 20} MiB are free; free some, "
                "export with fewer methods, build on a larger machine (the variant can be copied with its bundle), or "
                "go on with --force."
            )
