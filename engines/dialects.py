"""Graphs as TensorRT gets them: the canonical one, or passes over it, compared in onnxruntime before it is built.

Which operators they are made of is the target's dialect (passes/forms.py), which types the precision:

fp16 of an fp32 bundle: half.to_half, with the nodes that leave fp16's range on real inputs in fp32. int4: weights in
blocks (int4.quantise); int8: Q/DQ pairs around the products of the vision graph (qdq.quantise); the rest in fp16.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeprune.bundle import Bundle
from edgeprune.engines import half, int4, numerics, qdq, quantise
from edgeprune.engines.accuracy import distance, relative
from edgeprune.engines.passes import forms
from edgeprune.engines.weights import WeightFile
from edgeprune.errors import CheckFailed, UserError
from edgeprune.manifest import Graph, ParityRow
from edgeprune.tolerances import TOLERANCES

ROLES = {"vision": "visual_embeds", "decoder": "logits"}
#: products noisier than this stay in fp16; the first limit that meets the tolerance is taken.
LIMITS = {"fp16": (1.0,), "int8": (0.1, 0.05, 0.03, 0.02), "int4": (0.2, 0.15, 0.12, 0.1)}
#: part of a fingerprint: another number when a pass comes to make other graphs.
REVISION = 2
PLAIN = forms.FORMS["plain"]


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


def make(
    bundle: Bundle, graph: Graph, name: str, word: str, feeds: dict[str, Any], folder: Path, form: forms.Form = PLAIN
) -> Dialect:
    """One graph in a precision and a dialect, written to `folder` unless it is the canonical one.

    Raises:
        DialectError: the graph is not what a pass needs, or the dialect cannot hold it.
        CheckFailed: its results are not finite or too far from the canonical graph's.
    """
    source = bundle.file(graph.file)
    if word == bundle.manifest.recipe.get("dtype", "fp32"):
        return _as_it_is(graph, name, word, feeds, (source, folder), form)
    found = numerics.ranges(source, feeds, folder)
    fp32 = numerics.keep_fp32(source, found)
    facts: dict[str, Any] = {"fp32": fp32, "fp16_cannot_hold": [str(r) for r in found.values() if not r.fits]}
    caches = [tensor.name for tensor in (*graph.inputs, *graph.outputs) if tensor.role.startswith(("past", "present"))]
    path = folder / source.name
    for limit in LIMITS[word]:
        model = _quantised(source, word, limit, (feeds, folder), facts)
        formed = forms.apply(form.before, model)
        model = half.to_half(model, fp32, caches)
        facts["formed"] = formed | forms.apply(form.after, model)
        _write(model, path, form)
        row = _row(graph, name, word, feeds, source, path)
        if row.passed:
            return Dialect(path, row, facts)
    raise CheckFailed(
        f"{source.name} in {word}: {row.measure} is {row.value:.2g}, more than {row.tolerance:g}; nothing was changed, "
        "keep it in fp32 with --precision."
    )


def _as_it_is(
    graph: Graph, name: str, word: str, feeds: dict[str, Any], paths: tuple[Path, Path], form: forms.Form
) -> Dialect:
    """The type that the bundle has: the canonical graph, unless the dialect forms nodes of it."""
    source, folder = paths
    if not form.changes or graph.stage == "select":
        form_of_it = form if not form.changes else PLAIN
        form_of_it.require(onnx.load(source, load_external_data=False))
        return Dialect(source)
    model = quantise.load(source)
    formed = forms.apply((*form.before, *form.after), model)
    if not formed:
        return Dialect(source)
    path = folder / source.name
    _write(model, path, form)
    row = _row(graph, name, word, feeds, source, path)
    if not row.passed:
        raise CheckFailed(
            f"{source.name} in the dialect {form.name}: {row.measure} is {row.value:.2g}, more than {row.tolerance:g}; "
            "nothing was changed."
        )
    return Dialect(path, row, {"fp32": [], "formed": formed})


def _write(model: onnx.ModelProto, path: Path, form: forms.Form) -> None:
    """Into the folder of `path`, in place of an attempt before; DialectError when it is no graph of the dialect."""
    form.require(model)
    path.with_suffix(".data").unlink(missing_ok=True)
    WeightFile(path.with_suffix(".data")).save(model, path)


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
    kind = np.float32 if word == "fp32" else np.float16
    halves = {key: value.astype(kind) if key in caches else value for key, value in feeds.items()}
    (wanted,), (made,) = quantise.run(source, feeds, output), quantise.run(path, halves, output)
    measure, value = (
        (f"max difference of {role}, relative", relative(made, wanted))
        if word in ("fp16", "fp32")
        else (f"1 - cosine of {role}", distance(made, wanted))
    )
    tolerance = TOLERANCES[role if word == "fp32" else f"{role}_{word}"]
    return ParityRow(f"{stage}/{name}", f"{measure} ({word} in onnxruntime)", value, tolerance, value <= tolerance)
