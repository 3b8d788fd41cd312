"""Graphs as TensorRT gets them: the canonical one, or passes over it, compared in onnxruntime before it is built.

Which operators they are made of is the target's dialect (passes/forms.py), which types the precision:

fp16 and bf16 of an fp32 bundle: half.to_half, with the nodes that leave the type's range on real inputs in fp32. int4:
weights in blocks (int4.blocks); int8 and fp8: Q/DQ pairs around products (qdq.quantise, fp8.quantise); the rest, and
the noisiest products, in fp16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from edgeprune.bundle import Bundle
from edgeprune.engines import emulation, fp8, half, int4, numerics, one_by_one, qdq, quantise
from edgeprune.engines.accuracy import distance, relative
from edgeprune.engines.float_types import BF16, FP16, HALVES
from edgeprune.engines.passes import forms
from edgeprune.engines.weights import WeightFile, all_inside
from edgeprune.errors import CheckFailed, UserError
from edgeprune.manifest import Graph, ParityRow
from edgeprune.tolerances import TOLERANCES

ROLES = {"vision": "visual_embeds", "decoder": "logits"}
#: products whose weights are noisier than this in int4 stay in fp16; the first limit that meets the tolerance is taken.
INT4_LIMITS = (0.2, 0.15, 0.12, 0.1)
#: how many of the products stay in fp16 instead of int8, the noisiest first; the first share that meets the tolerance.
INT8_SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)
#: part of a fingerprint: another number when a pass comes to make other graphs.
REVISION = 5
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


def make(
    bundle: Bundle, graph: Graph, name: str, word: str, sets: Sequence[quantise.Arrays], folder: Path,
    form: forms.Form = PLAIN,
) -> Dialect:  # fmt: skip
    """One graph in a precision and a dialect, written to `folder` unless it is the canonical one.

    Args:
        sets: feeds of the graph, one per calibration input: they give the ranges, and the worst of them judges.

    Raises:
        DialectError: the graph is not what a pass needs, or the dialect cannot hold it.
        CheckFailed: its results are not finite or too far from the canonical graph's, or fp16 cannot hold its cache.
    """
    source = bundle.file(graph.file)
    if word == bundle.manifest.recipe.get("dtype", "fp32"):
        return _accepted(formed_of(bundle, graph, name, sets, folder, form))
    found, kind = numerics.ranges(source, sets, folder), HALVES.get(word, FP16)
    fp32 = numerics.keep_fp32(source, found, kind)
    beyond = [r.said(kind) for r in found.values() if not r.fits(kind)]
    caches = _caches(graph, found, word)
    facts: dict[str, Any] = {"fp32": fp32, f"{kind.word}_cannot_hold": beyond}
    if kind is BF16:
        facts["compared"] = emulation.HOW
    path = folder / source.name
    wanted = _results(graph, source, sets)
    for model, more in _quantised(source, word, sets, folder):
        formed = forms.apply(form.before, model)
        half.to_half(model, fp32, caches, kind)
        formed |= forms.apply(form.after, model)
        _write(model, path, form)
        del model
        runs = emulation.emulated(path) if kind is BF16 else path
        row = _row(graph, name, word, wanted, _results(graph, runs, sets, set(caches)))
        if row.passed:
            return Dialect(path, row, {**facts, **more, "formed": formed})
    raise CheckFailed(
        f"{source.name} in {word}: {row.measure} is {row.value:.2g}, more than {row.tolerance:g}; nothing was changed, "
        "keep it in fp32 with --precision."
    )


def _caches(graph: Graph, found: Mapping[str, numerics.Range], word: str) -> list[str]:
    """Inputs and outputs that become fp16: keys and values.

    They are fp16 in a bf16 graph too, since the runtime binds no bf16.

    Raises:
        CheckFailed: they reach beyond fp16, where a comparison of a prefill does not look.
    """
    names = [tensor.name for tensor in (*graph.inputs, *graph.outputs) if tensor.role.startswith(("past", "present"))]
    large = next((found[name] for name in names if name in found and not found[name].fits()), None)
    if large is not None:
        raise CheckFailed(
            f"{Path(graph.file).name} in {word}: {large.said()}, and the KV cache is fp16; nothing was changed, "
            "keep it in fp32 with --precision."
        )
    return names


#: stages whose graphs stay as exported, since what they pick by must not lose digits: a select graph has at most the
#: projector's products, a text encoder is small
UNCHANGED: Final = ("select", "text")


def formed_of(
    bundle: Bundle, graph: Graph, name: str, sets: Sequence[quantise.Arrays], folder: Path, form: forms.Form
) -> Dialect:
    """A graph in a dialect and the type that the bundle has: the canonical one, unless the dialect forms nodes of it.

    Its row may say that it is too far from the canonical one.

    Raises:
        DialectError: as of `make`.
    """
    source, word = bundle.file(graph.file), bundle.manifest.recipe.get("dtype", "fp32")
    if not form.changes or graph.stage in UNCHANGED:
        holds = PLAIN if form.changes else form
        holds.require(onnx.load(source, load_external_data=False))
        return Dialect(source)
    model = quantise.load(source)
    formed = forms.apply((*form.before, *form.after), model)
    if not formed:
        return Dialect(source)
    path = folder / source.name
    _write(model, path, form)
    del model
    row = _row(graph, name, word, _results(graph, source, sets), _results(graph, path, sets))
    return Dialect(path, row, {"fp32": [], "formed": formed})


def _accepted(made: Dialect) -> Dialect:
    row = made.row
    if row is None or row.passed:
        return made
    raise CheckFailed(
        f"{made.path.name}: {row.measure} is {row.value:.2g}, more than {row.tolerance:g}; nothing was changed."
    )


def _write(model: onnx.ModelProto, path: Path, form: forms.Form) -> None:
    """Into the folder of `path`, in place of an attempt before; DialectError when it is no graph of the dialect."""
    form.require(model)
    path.with_suffix(".data").unlink(missing_ok=True)
    WeightFile(path.with_suffix(".data")).save(model, path)


def _quantised(
    source: Path, word: str, sets: Sequence[quantise.Arrays], scratch: Path
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The fp32 graph with some products in int8 or int4, fewer each time, and what build.json says of them."""
    fixed = quantise.choosing(source)
    if word in HALVES:
        yield quantise.load(source), {}
    elif word == "int4":
        noise = int4.noise(source, sets[0], scratch)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            products = one_by_one.Products(source, source.parent, Path(folder), int4.blocks)
            for limit in INT4_LIMITS:
                higher = sorted(node for node, value in noise.items() if value > limit or node in fixed)
                yield all_inside(products.model(higher), products.folder), {"fp16": higher}
    else:
        ranges = qdq.activations(source, sets, scratch)
        write = fp8.quantise if word == "fp8" else qdq.quantise
        order = sorted(ranges.keys() - fixed, key=lambda node: (-ranges[node].noise, node))
        for share in INT8_SHARES:
            count = int(share * len(order))
            higher = sorted({*order[:count], *fixed})
            rows = [{"node": node, **_shown(ranges[node], word)} for node in sorted(order[count:])]
            yield write(source, higher, ranges), {"fp16": higher, word: rows}


def _shown(found: qdq.Activation, word: str) -> dict[str, float]:
    """JSON-ready range statistics of what a product reads; the noise of fp8 hardly depends on the range."""
    values = {"low": found.low, "high": found.high, "rms": found.rms}
    values |= {"scale": fp8.scale_of(found)} if word == "fp8" else {"scale": found.scale, "noise": found.noise}
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def _results(
    graph: Graph, path: Path, sets: Sequence[quantise.Arrays], halves: Collection[str] = ()
) -> list[np.ndarray[Any, Any]]:
    """What the stage is judged by, for each set of feeds; those named in `halves` are given in fp16."""
    output = next(tensor.name for tensor in graph.outputs if tensor.role == _role(graph))
    given = [{n: v.astype(np.float16) if n in halves else v for n, v in feeds.items()} for feeds in sets]
    return [found[0] for found in quantise.run_each(path, given, [output])]


def _role(graph: Graph) -> str:
    return "tokens" if graph.stage == "encode" else ROLES["decoder" if graph.stage == "decoder" else "vision"]


def _row(graph: Graph, name: str, word: str, wanted: list[Any], made: list[Any]) -> ParityRow:
    """The dialect against the canonical graph, both in onnxruntime; the worst of all inputs."""
    stage = "decoder" if graph.stage == "decoder" else "vision"
    how, text = (
        (relative, f"max difference of {_role(graph)}, relative")
        if word in (*HALVES, "fp32")
        else (distance, f"1 - cosine of {_role(graph)}")
    )
    value = max(how(found, exact) for found, exact in zip(made, wanted, strict=True))
    tolerance = TOLERANCES[ROLES[stage] if word == "fp32" else f"{ROLES[stage]}_{word}"]
    worst = f", worst of {len(made)} inputs" if len(made) > 1 else ""
    where = emulation.HOW if word == BF16.word else f"{word} in onnxruntime"
    return ParityRow(f"{stage}/{name}", f"{text} ({where}{worst})", value, tolerance, value <= tolerance)
