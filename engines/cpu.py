"""Builds int8 and int4 variants of the target cpu; they are compared with the canonical graphs before publication."""

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

from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.engines import (
    calibration,
    cpu_decoder,
    fused_attention,
    int4,
    one_by_one,
    own_attention,
    own_int8,
    own_product,
    precisions,
    quantise,
)
from edgeprune.engines.accuracy import distance
from edgeprune.engines.targets import Target
from edgeprune.engines.weights import WeightFile
from edgeprune.errors import CheckFailed, UserError
from edgeprune.manifest import Graph, ParityRow
from edgeprune.tolerances import TOLERANCES
from edgeprune.variant_writer import VariantWriter, to_json

WEIGHTS = "weights.data"
_PACKAGES = ("onnx", "onnxruntime")
_ROLES = {"vision": "visual_embeds", "decoder": "logits"}


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How the products of a graph get a precision.

    Attributes:
        noise: what the precision does to each product, on these inputs.
        limits: products noisier than this stay fp32; the first limit that meets the tolerance is taken.
        change: what a graph of one product becomes.
        min_onnxruntime: the oldest that runs such graphs.
    """

    noise: Callable[[Path, quantise.Arrays, Path], dict[str, float]]
    limits: tuple[float, ...]
    change: one_by_one.Change
    min_onnxruntime: str


STEP = "step"
SCHEMES = {
    "int8": Scheme(quantise.noise, (0.1, 0.05, 0.03, 0.02, 0.016, 0.013, 0.01), own_int8.change, "1.17"),
    "int4": Scheme(int4.noise, (0.2, 0.15, 0.12, 0.1), int4.blocks, int4.MIN_ONNXRUNTIME),
}
STEP_SCHEME = dataclasses.replace(SCHEMES["int4"], change=own_product.step)


@dataclasses.dataclass(frozen=True)
class Job:
    """What one build works with; `half_cache`: whether the decoder's cache may be float16; `say` tells the user how it
    goes."""

    bundle: Bundle
    writer: VariantWriter
    weights: WeightFile
    inputs: calibration.Inputs
    half_cache: bool
    say: Callable[[str], None]


def require(bundle: Bundle, target: Target, precision: dict[str, str]) -> None:
    """UserError unless this bundle can become this variant."""
    for word in set(precision.values()) - {"fp32"}:
        target.require_build(word)
    if precision["vision"] == precisions.TWO_GRAPHS:
        raise UserError(f"{precisions.TWO_GRAPHS} is for decoders: write vision=int8,decoder={precisions.TWO_GRAPHS}.")
    if set(precision.values()) == {"fp32"}:
        raise UserError("the bundle's own graphs are the fp32 ones: run it without a variant.")
    if bundle.manifest.recipe.get("dtype") == "fp16":
        raise UserError("int8 and int4 are made from fp32 graphs: export the bundle again with --dtype fp32.")


def build_key(bundle: Bundle, target: Target, precision: dict[str, str], *, half_cache: bool = True) -> str:
    """Changes whenever the graphs, their weights, the target, the precision, the options or the tools change."""
    names = sorted({name for graph in bundle.manifest.graphs for name in (graph.file, *graph.data)})
    parts = {
        "files": {name: bundle.manifest.files[name].sha256 for name in names},
        "target": target.name,
        "precision": precision,
        "options": {
            "noise_limits": {word: scheme.limits for word, scheme in SCHEMES.items()},
            "int4_block": int4.BLOCK,
            "decoder_revision": 4,
            "cache": ["float16", TOLERANCES["logits_cache_fp16"]] if half_cache else "float32",
            "products": "one by one",
            "vision_attention": f"{own_attention.DOMAIN}:{fused_attention.OPERATOR}, bfloat16",
            "int8_products": f"{own_attention.DOMAIN}:{own_int8.OPERATOR}, bias and swish inside",
            "step_products": f"{own_attention.DOMAIN}:{own_product.OPERATOR}, scales in int8",
            "tolerance": [TOLERANCES[f"{role}_{word}"] for role in _ROLES.values() for word in SCHEMES],
        },
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def min_onnxruntime(bundle: Bundle, precision: dict[str, str]) -> str:
    """The oldest onnxruntime that runs the bundle in this precision."""
    known = [
        bundle.manifest.min_onnxruntime,
        *(
            SCHEMES[word].min_onnxruntime
            for words in precision.values()
            for word in words.split("+")
            if word in SCHEMES
        ),
    ]
    return max(known, key=lambda text: tuple(map(int, text.split("."))))


def versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in _PACKAGES}


def build(
    bundle: Bundle, target: Target, precision: dict[str, str], *, rebuild: bool = False, half_cache: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[str, bool]:  # fmt: skip
    """Writes the variant into the bundle.

    Args:
        half_cache: whether keys and values may lie in float16; False: they stay float32.

    Returns:
        Its slug, and whether it was built; it is not when one of the same key is there.

    Raises:
        UserError: the target or the bundle cannot serve this precision, or the disk is full.
        CheckFailed: the quantised graphs stay too far from the canonical ones; nothing was changed.
    """
    require(bundle, target, precision)
    slug = precisions.slug(target.slug, precision)
    key = build_key(bundle, target, precision, half_cache=half_cache)
    if not rebuild and any(v.slug == slug and v.key == key for v in bundle.manifest.variants):
        bundle.variant(slug)
        return slug, False
    started = time.monotonic()
    with VariantWriter(bundle.path, slug, key) as writer:
        job = Job(bundle, writer, WeightFile(writer.path / WEIGHTS), calibration.inputs(bundle), half_cache, say)
        graphs, rows, made, cache = _graphs(job, precision)
        facts = {
            "target": target.name, "precision": precision, "measured_on": job.inputs.source, "graphs": made,
            "cache": cache,
            **({} if half_cache else {"asked": {"kv_cache": "fp32"}}),  # repeated by the command that rebuilds
            "min_onnxruntime": min_onnxruntime(bundle, precision), "versions": versions(),
            "machine": {key: machine.facts()[key] for key in ("processor", "cpu_flags")},
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        (writer.path / "build.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        entry = {"target": target.name, "precision": precision, "build": writer.name("build.json"), "graphs": graphs}
        writer.commit({**entry, "parity": to_json(rows)})
    return slug, True


def _graphs(
    job: Job, precision: dict[str, str]
) -> tuple[dict[str, Any], list[ParityRow], list[dict[str, Any]], dict[str, str]]:
    """The variant's `graphs` of the manifest, its parity rows, and what build.json says of each graph made and of how
    the decoder keeps its cache."""
    canonical = job.bundle.manifest.graphs
    written: dict[str, Any] = {"vision": {}, "embedding": canonical.embedding, "decoder": canonical.decoder}
    if canonical.text is not None:
        written["text"] = canonical.text
    rows: list[ParityRow] = []
    made: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=job.writer.path) as folder:
        decoder, cache = _decoder(job, precision["decoder"], Path(folder))
        rows += decoder.rows if decoder is not None else ()
        _write(job, precision, decoder, (written, rows, made))
    return to_json(written), rows, made, cache


def _decoder(job: Job, word: str, folder: Path) -> tuple[cpu_decoder.Decoder | None, dict[str, str]]:
    """What the decoder's precisions are made of, None for the canonical graph as it is; how that keeps its cache."""
    if word == "fp32":
        return None, {"kind": "growing", "dtype": "float32", "reason": "the canonical decoder is used unchanged"}
    decoder = cpu_decoder.prepare(job.bundle, job.inputs.decoder, folder, half=job.half_cache)
    if decoder.reason:
        job.say(f"the cache is not written in place: {decoder.reason}")
        return decoder, {"kind": "growing", "dtype": "float32", "reason": decoder.reason}
    if decoder.float32:
        job.say(f"the cache is float32: {decoder.float32}")
    assert decoder.graph.kv is not None
    why = {"reason": decoder.float32} if decoder.float32 else {}
    return decoder, {
        "kind": "fixed",
        "dtype": decoder.graph.kv.dtype,
        "attention": decoder.operators or "standard operators",
        **why,
    }


def _write(
    job: Job, precision: dict[str, str], decoder: cpu_decoder.Decoder | None,
    to: tuple[dict[str, Any], list[ParityRow], list[dict[str, Any]]],
) -> None:  # fmt: skip
    """Every graph of the variant; `to`: graphs of the manifest, parity rows, facts of build.json."""
    written, rows, made = to
    canonical = job.bundle.manifest.graphs
    for stage, name, word, graph, feeds in _work(job, precision):
        if word in SCHEMES:
            form = decoder if stage == "decoder" else None
            quantised, row, facts = _quantised(job, (stage, name, word), graph, feeds, form)
            rows.append(row)
            made.append(facts)
        else:
            quantised = graph
        if stage == "vision":
            # a select graph has at most the projector's products; what it picks by must not lose digits
            written["vision"][name] = (quantised, *canonical.vision[name][1:])
        else:
            written["decoder_step" if name == STEP else stage] = quantised


def _work(job: Job, precision: dict[str, str]) -> Iterator[tuple[str, str, str, Graph, dict[str, Any]]]:
    """(stage, method or stage or STEP, precision, graph, inputs) of every graph that may be quantised."""
    graphs = job.bundle.manifest.graphs
    for method, stages in graphs.vision.items():
        yield "vision", method, precision["vision"], stages[0], job.inputs.vision[method]
    for name, word in zip(("decoder", STEP), precision["decoder"].split("+"), strict=False):
        yield "decoder", name, word, graphs.decoder, job.inputs.decoder


@dataclasses.dataclass(frozen=True)
class _Choice:
    """A limit, and the names of the products that it leaves in fp32."""

    limit: float
    fp32: list[str]


def _choices(noise: dict[str, float], fixed: set[str], limits: tuple[float, ...]) -> Iterator[_Choice]:
    """Without limits that leave out no more than the one before."""
    before: list[str] | None = None
    for limit in limits:
        fp32 = sorted(node for node, value in noise.items() if value > limit or node in fixed)
        if fp32 != before:
            yield _Choice(limit, fp32)
        before = fp32


def _quantised(
    job: Job, what: tuple[str, str, str], graph: Graph, feeds: dict[str, Any], form: cpu_decoder.Decoder | None
) -> tuple[Graph, ParityRow, dict[str, Any]]:
    """One graph in a precision with the fewest products in fp32 that meet the tolerance; `what`: stage, name, word;
    `form`: another graph of the same products that takes the precision in its place."""
    stage, name, word = what
    source, scheme = job.bundle.file(graph.file), STEP_SCHEME if name == STEP else SCHEMES[word]
    made = job.writer.path / (f"decoder-{STEP}.onnx" if name == STEP else source.name)
    role = "tokens" if graph.stage == "encode" else _ROLES[stage]
    output = next(tensor.name for tensor in graph.outputs if tensor.role == role)
    (wanted,) = quantise.run(source, feeds, [output])
    noise, fixed = scheme.noise(source, feeds, job.writer.path), quantise.choosing(source)
    tolerance = TOLERANCES[f"{_ROLES[stage]}_{word}"]
    with tempfile.TemporaryDirectory(dir=job.writer.path) as folder:
        products = one_by_one.Products(form.path if form else source, source.parent, Path(folder), scheme.change)
        for choice in _choices(noise, fixed, scheme.limits):
            model = products.model(choice.fp32)
            model = form.finished(model) if form else model
            own_int8.absorb(model)
            fused = fused_attention.rewrite(model) if stage == "vision" else 0
            (found,) = quantise.run(products.write(model), form.feeds if form else feeds, [output])
            away, kept = distance(found, wanted), len(noise) - len(choice.fp32)
            job.say(f"{made.name}: {kept} of {len(noise)} products in {word}, 1 - cosine of {role} {away:.2g}")
            if away <= tolerance:
                break
        else:
            other = ",".join(f"{graph}={'fp32' if graph == stage else word}" for graph in precisions.GRAPHS)
            raise CheckFailed(
                f"{made.name}: 1 - cosine of {role} is {away:.2g} in {word}, more than {tolerance:g}; nothing was "
                f"changed, keep it in fp32 with --precision {other}."
            )
        job.weights.save(model, made, products.folder)
    digests = {name: job.bundle.manifest.files[name].sha256 for name in (graph.file, *graph.data)}
    facts = {
        "file": made.name, "precision": word, "graph_sha256": digests, "noise_limit": choice.limit, "fp32": choice.fp32,
        **({"fused_attention": fused, "attention": "bfloat16" if fused else "float32"} if stage == "vision" else {}),
        **({"own_products": own} if (own := own_product.count(model) + own_int8.count(model)) or name == STEP else {}),
    }  # fmt: skip
    row = ParityRow(f"{stage}/{name}", f"1 - cosine of {role}", away, tolerance, True)
    data = (job.writer.name(WEIGHTS),)
    return dataclasses.replace(form.graph if form else graph, file=job.writer.name(made.name), data=data), row, facts
