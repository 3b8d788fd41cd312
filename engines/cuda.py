"""Builds variants of the target cuda: graphs for onnxruntime's CUDA and TensorRT providers, in fp32 or fp16.

They are compared with the canonical graphs on onnxruntime's CPU provider before publication; no GPU is needed, and none
has run them. The operators stay the canonical ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeprune import devices
from edgeprune.bundle import Bundle
from edgeprune.engines import calibration, dialects, precisions, quantise
from edgeprune.engines.targets import Target
from edgeprune.engines.weights import WeightFile
from edgeprune.manifest import Graph, KvSpec, ParityRow, Tensor
from edgeprune.tolerances import TOLERANCES
from edgeprune.variant_writer import VariantWriter, to_json

WEIGHTS = "weights.data"
_PACKAGES = ("onnx", "onnxruntime", "onnxruntime-gpu")
#: of a graph that is taken over as it is.
_UNCHANGED = "the canonical graph itself, values that differ"


def require(bundle: Bundle, target: Target, precision: dict[str, str]) -> None:
    """UserError unless this bundle can become this variant."""
    for word in precision.values():
        target.require_build(word)
    dialects.require(bundle, precision)


def build_key(bundle: Bundle, target: Target, precision: dict[str, str]) -> str:
    """Changes whenever the graphs, their weights, the target, the precision, the passes or the tools change."""
    names = sorted({name for graph in bundle.manifest.graphs for name in (graph.file, *graph.data)})
    parts = {
        "files": {name: bundle.manifest.files[name].sha256 for name in names},
        "target": target.name,
        "precision": precision,
        "revision": dialects.REVISION,
        "tolerance": [TOLERANCES[f"{role}_fp16"] for role in dialects.ROLES.values()],
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def build(
    bundle: Bundle, target: Target, precision: dict[str, str], *, rebuild: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[str, bool]:  # fmt: skip
    """Writes the variant into the bundle.

    Returns:
        Its slug, and whether it was built; it is not when one of the same key is there.

    Raises:
        UserError: the target or the bundle cannot serve this precision, or the disk is full.
        CheckFailed: a graph stays too far from the canonical one; nothing was changed.
    """
    require(bundle, target, precision)
    slug, key = precisions.slug(target.slug, precision), build_key(bundle, target, precision)
    if not rebuild and any(v.slug == slug and v.key == key for v in bundle.manifest.variants):
        bundle.variant(slug)
        return slug, False
    started = time.monotonic()
    with VariantWriter(bundle.path, slug, key) as writer:
        inputs = calibration.inputs(bundle) if _changes(bundle, precision) else None
        job = _Job(bundle, precision, writer, WeightFile(writer.path / WEIGHTS), inputs, say)
        made = [_made(job, name, graph) for name, graph in _work(bundle)]
        facts = {
            "target": target.name, "precision": precision,
            "measured_on": None if inputs is None else inputs.source,
            "graphs": [one.facts for one in made],
            "fingerprint": {"versions": versions(), **devices.facts(), "cuda": devices.cuda_version()},
            "run": "never: no GPU was used",
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        (writer.path / "build.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        entry = {"target": target.name, "precision": precision, "build": writer.name("build.json")}
        writer.commit({**entry, "graphs": _graphs(bundle, made), "parity": to_json([one.row for one in made])})
    return slug, True


@dataclasses.dataclass(frozen=True)
class _Job:
    bundle: Bundle
    precision: dict[str, str]
    writer: VariantWriter
    weights: WeightFile
    inputs: calibration.Inputs | None
    say: Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class _Made:
    """One graph of the variant, how far it lies from the canonical one, and what build.json says of it."""

    name: str
    graph: Graph
    row: ParityRow
    facts: dict[str, Any]


def _changes(bundle: Bundle, precision: dict[str, str]) -> bool:
    return set(precision.values()) != {bundle.manifest.recipe.get("dtype", "fp32")}


def _work(bundle: Bundle) -> Iterator[tuple[str, Graph]]:
    """(method or "decoder", graph) of every graph that may take another type; a `select` graph chooses the tokens and
    must not lose digits."""
    for method, stages in bundle.manifest.graphs.vision.items():
        yield method, stages[0]
    yield "decoder", bundle.manifest.graphs.decoder


def _made(job: _Job, name: str, graph: Graph) -> _Made:
    stage = "decoder" if graph.stage == "decoder" else "vision"
    word = job.precision[stage]
    digests = {file: job.bundle.manifest.files[file].sha256 for file in (graph.file, *graph.data)}
    facts = {"file": graph.file, "precision": word, "graph_sha256": digests}
    if word == job.bundle.manifest.recipe.get("dtype", "fp32"):
        return _Made(name, graph, ParityRow(f"{stage}/{name}", _UNCHANGED, 0.0, 0.0, True), facts)
    assert job.inputs is not None
    source = job.bundle.file(graph.file)
    with tempfile.TemporaryDirectory(dir=job.writer.path) as folder:
        dialect = dialects.make(job.bundle, graph, name, word, job.inputs.sets(stage, name), Path(folder))
        assert dialect.row is not None
        job.weights.save(quantise.load(dialect.path), job.writer.path / source.name)
    kept = len(dialect.facts["fp32"])
    job.say(f"{source.name}: {dialect.row.measure} {dialect.row.value:.2g}; left in fp32, beyond fp16: {kept} node(s)")
    described = half_caches(graph, job.writer.name(source.name), (job.writer.name(WEIGHTS),))
    return _Made(name, described, dialect.row, {**facts, "file": source.name, **dialect.facts})


def half_caches(graph: Graph, file: str, data: tuple[str, ...]) -> Graph:
    """How the manifest describes a graph in fp16: `dialects.make` leaves every type but the cache's."""
    kv = None if graph.kv is None else dataclasses.replace(graph.kv, dtype="float16")
    inputs, outputs = ([_half_cache(tensor, kv) for tensor in side] for side in (graph.inputs, graph.outputs))
    return dataclasses.replace(graph, file=file, data=data, inputs=tuple(inputs), outputs=tuple(outputs), kv=kv)


def _half_cache(tensor: Tensor, kv: KvSpec | None) -> Tensor:
    cache = kv is not None and tensor.role.startswith(("past_", "present_"))
    return dataclasses.replace(tensor, dtype="float16") if cache else tensor


def _graphs(bundle: Bundle, made: list[_Made]) -> dict[str, Any]:
    """The variant's `graphs` of the manifest."""
    canonical = bundle.manifest.graphs
    by_name = {one.name: one.graph for one in made}
    vision = {method: (by_name[method], *stages[1:]) for method, stages in canonical.vision.items()}
    return dict(to_json({"vision": vision, "embedding": canonical.embedding, "decoder": by_name["decoder"]}))
