"""Graphs as TensorRT gets them: the canonical one, or a pass over it, compared in onnxruntime before it is built.

fp16 of an fp32 bundle: half.to_half, with the nodes that leave fp16's range on real inputs in fp32. int4: weights in
blocks (int4.quantise); int8: Q/DQ pairs around the products of the vision graph (qdq.quantise); the rest in fp16.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.bundle import Bundle
from edgeprune.engines import half, int4, numerics, qdq, quantise
from edgeprune.engines.accuracy import distance, relative
from edgeprune.engines.weights import WeightFile
from edgeprune.errors import CheckFailed, UserError
from edgeprune.manifest import Graph, ParityRow
from edgeprune.tolerances import TOLERANCES

ROLES = {"vision": "visual_embeds", "decoder": "logits"}
#: products noisier than this stay in fp16; the first limit that meets the tolerance is taken.
LIMITS = {"fp16": (1.0,), "int8": (0.1, 0.05, 0.03, 0.02), "int4": (0.2, 0.15, 0.12, 0.1)}
#: part of a fingerprint: another number when a pass comes to make other graphs.
REVISION = 1


@dataclass(frozen=True)
class Dialect:
    """One graph for TensorRT.

    Attributes:
        path: the ONNX file, its weights beside it.
        row: how far it lies from the canonical graph in onnxruntime; None for the canonical graph itself.
        facts: what build.json says of it.
    """

    path: Path
    row: ParityRow | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def require(bundle: Bundle, precision: dict[str, str]) -> None:
    """UserError unless every graph of the bundle can take the precision asked for."""
    has = bundle.manifest.recipe.get("dtype", "fp32")
    for graph, word in precision.items():
        if word != has and has != "fp32":
            raise UserError(
                f"the bundle's {graph} graph is {has}: export the bundle again with --dtype fp32 to build {word}, or "
                f"build --precision {has}."
            )
    if precision["decoder"] == "int8":
        raise UserError("int8 engines are made of vision graphs only: write --precision vision=int8,decoder=fp16.")


def make(bundle: Bundle, graph: Graph, name: str, word: str, feeds: dict[str, Any], folder: Path) -> Dialect:
    """One graph in a precision, written to `folder` unless it is the canonical one.

    Raises:
        CheckFailed: its results are not finite or too far from the canonical graph's.
    """
    source = bundle.file(graph.file)
    if word == bundle.manifest.recipe.get("dtype", "fp32"):
        return Dialect(source)
    found = numerics.ranges(source, feeds, folder)
    fp32 = numerics.keep_fp32(source, found)
    facts: dict[str, Any] = {"fp32": fp32, "fp16_cannot_hold": [str(r) for r in found.values() if not r.fits]}
    caches = [tensor.name for tensor in (*graph.inputs, *graph.outputs) if tensor.role.startswith(("past", "present"))]
    path = folder / source.name
    for limit in LIMITS[word]:
        model = _quantised(source, word, limit, (feeds, folder), facts)
        model = half.to_half(model, fp32, caches)
        path.with_suffix(".data").unlink(missing_ok=True)
        WeightFile(path.with_suffix(".data")).save(model, path)
        row = _row(graph, name, word, feeds, source, path)
        if row.passed:
            return Dialect(path, row, facts)
    raise CheckFailed(
        f"{source.name} in {word}: {row.measure} is {row.value:.2g}, more than {row.tolerance:g}; nothing was changed, "
        "keep it in fp32 with --precision."
    )


def _quantised(source: Path, word: str, limit: float, work: tuple[dict[str, Any], Path], facts: dict[str, Any]) -> Any:
    """The fp32 graph with the products whose noise is below `limit` in int8 or int4; others go to `facts`."""
    if word == "fp16":
        return quantise.load(source)
    measure = quantise.noise if word == "int8" else int4.noise
    feeds, scratch = work
    noise = measure(source, feeds, scratch)
    facts["fp16"] = sorted(node for node, value in noise.items() if value > limit)
    if word == "int4":
        return int4.quantise(source, facts["fp16"])
    return qdq.quantise(source, facts["fp16"], feeds, scratch)


def _row(graph: Graph, name: str, word: str, feeds: dict[str, Any], source: Path, path: Path) -> ParityRow:
    """The dialect against the canonical graph, both in onnxruntime."""
    stage = "decoder" if graph.stage == "decoder" else "vision"
    role = ROLES[stage]
    output = [next(tensor.name for tensor in graph.outputs if tensor.role == role)]
    caches = {tensor.name for tensor in graph.inputs if tensor.role.startswith("past")}
    halves = {key: value.astype(np.float16) if key in caches else value for key, value in feeds.items()}
    (wanted,), (made,) = quantise.run(source, feeds, output), quantise.run(path, halves, output)
    measure, value = (
        (f"max difference of {role}, relative", relative(made, wanted))
        if word == "fp16"
        else (f"1 - cosine of {role}", distance(made, wanted))
    )
    tolerance = TOLERANCES[f"{role}_{word}"]
    return ParityRow(f"{stage}/{name}", f"{measure} ({word} in onnxruntime)", value, tolerance, value <= tolerance)
