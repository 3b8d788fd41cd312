"""Builds the engines of a TensorRT or TensorRT-RTX variant. Nothing here runs one: that needs a GPU."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from edgeprune import devices
from edgeprune.bundle import Bundle
from edgeprune.engines import calibration, child, dialects, precisions, tensorrt, timing_cache
from edgeprune.engines.engine_plan import EnginePlan, plans
from edgeprune.engines.float_types import FP16, HALVES
from edgeprune.engines.passes import forms
from edgeprune.engines.targets import Target, has_precision
from edgeprune.errors import UserError
from edgeprune.manifest import ParityRow
from edgeprune.variant_writer import VariantWriter, to_json


def require(bundle: Bundle, target: Target, precision: dict[str, str]) -> None:
    """UserError unless this bundle can become this variant."""
    for word in precision.values():
        target.require_build(word)
        _require_gpu(target, word)
    dialects.require(bundle, precision)


def _require_gpu(target: Target, word: str) -> None:
    """UserError when the engine is for this machine's GPU, which is known and lacks the precision."""
    if target.compute_capabilities or word == "fp32":  # TensorRT has fp32 everywhere; TensorRT-RTX names its GPUs
        return
    here = re.fullmatch(r"(\d+)\.(\d+)", devices.facts()["compute_capability"] or "")
    if here is not None and not has_precision((int(here[1]), int(here[2])), word):
        raise UserError(f"the GPU of this machine has compute capability {here[0]}, which has no {word}: build fp16.")


@dataclasses.dataclass(frozen=True)
class Job:
    """What one build works with; `inputs` where graphs are changed and measured, `timings` where the library has such a
    cache; `say` tells the user how it goes."""

    bundle: Bundle
    target: Target
    precision: dict[str, str]
    writer: VariantWriter
    inputs: calibration.Inputs | None
    timings: Path | None
    say: Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """What a build may be told.

    Attributes:
        samples: to calibrate and judge with; None: the golden picture and question.
        timing_cache: keep and reuse timings of kernels, where the library has such a cache.
    """

    samples: calibration.Samples | None = None
    timing_cache: bool = True


def module_of(target: Target) -> tensorrt.Module:
    """The Python module that builds for a target."""
    return cast(tensorrt.Module, target.builder.replace("-", "_"))


def fingerprint(
    bundle: Bundle, plan: EnginePlan, target: Target, word: str, options: Options | None = None
) -> dict[str, Any]:
    """All that decides what an engine is; engines of one fingerprint serve the same, though their bytes may differ.

    TensorRT-RTX builds for compute capabilities, whatever the machine has; TensorRT builds for the machine's GPU, so
    its name, driver and JetPack count.
    """
    module, options = module_of(target), options or Options()
    names = (plan.graph.file, *plan.graph.data)
    nothing = dict.fromkeys(devices.FACTS)
    return {
        "module": module,
        "versions": tensorrt.versions(module),
        "compute_capabilities": [f"{major}.{minor}" for major, minor in target.compute_capabilities],
        **(nothing if module == "tensorrt_rtx" else devices.facts()),
        "options": {
            **tensorrt.OPTIONS,
            "precision": word,
            "dialect": target.dialect,
            "dialect_revision": dialects.REVISION,
            "calibration": None if options.samples is None else options.samples.sha256(),
            "timing_cache": timing_cache.serves(module) and options.timing_cache,
            "profiles": plan.profiles_json(),
        },
        "graph_sha256": {name: bundle.manifest.files[name].sha256 for name in names},
    }


def key_of(fingerprints: list[dict[str, Any]]) -> str:
    """Changes whenever any part of any fingerprint does."""
    return hashlib.sha256(json.dumps(fingerprints, sort_keys=True).encode()).hexdigest()[:16]


def build(
    bundle: Bundle, target: Target, precision: dict[str, str], *, rebuild: bool = False,
    options: Options | None = None, say: Callable[[str], None] = lambda text: None,
) -> tuple[str, bool]:  # fmt: skip
    """Writes the variant into the bundle: an engine per vision graph, one for the text encoder if there is one, and
    one for the decoder with two profiles.

    Returns:
        Its slug, and whether it was built; it is not when one of the same fingerprint is there.

    Raises:
        UserError: the target or the bundle cannot serve this precision, TensorRT is not installed or refuses a graph,
            or the disk is full; the bundle is as it was before.
    """
    require(bundle, target, precision)
    tensorrt.require(module_of(target))
    todo, options = plans(bundle.manifest), options or Options()
    prints = [fingerprint(bundle, plan, target, precision[plan.stage], options) for plan in todo]
    slug, key = precisions.slug(target.slug, precision), key_of(prints)
    if not rebuild and any(v.slug == slug and v.key == key for v in bundle.manifest.variants):
        bundle.variant(slug)
        return slug, False
    for line in [head_line(prints[0]), *(line for plan in todo for line in config_lines(plan))]:
        say(line)
    with VariantWriter(bundle.path, slug, key) as writer:
        timings = writer.path / timing_cache.FILE if prints[0]["options"]["timing_cache"] else None
        job = Job(bundle, target, precision, writer, _inputs(bundle, precision, target, options.samples), timings, say)
        known = timings and timing_cache.seed(bundle, timing_cache.facts(prints[0]), writer.path, say)
        made = [_engine(job, plan) for plan in todo]
        engines = [facts | {"fingerprint": found} for (facts, _), found in zip(made, prints, strict=True)]
        facts = {
            "target": target.name, "precision": precision, "dialect": target.dialect, "engines": engines,
            "run": "never: no GPU was used",
        }  # fmt: skip
        if job.inputs is not None:
            facts["measured_on"] = job.inputs.source
        if timings is not None:
            facts["timing_cache"] = {"facts": timing_cache.facts(prints[0]), "begun_with": known}
        (writer.path / "build.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        entry = {"target": target.name, "precision": precision, "build": writer.name("build.json")}
        writer.commit({**entry, "parity": to_json([row for _, row in made if row is not None])})
    return slug, True


def _inputs(
    bundle: Bundle, precision: dict[str, str], target: Target, samples: calibration.Samples | None
) -> calibration.Inputs | None:
    """Inputs to measure with, where a graph becomes another."""
    has = bundle.manifest.recipe.get("dtype", "fp32")
    same = set(precision.values()) == {has} and not forms.find(target.dialect).changes
    return None if same else calibration.inputs(bundle, samples)


def _engine(job: Job, plan: EnginePlan) -> tuple[dict[str, Any], ParityRow | None]:
    """Builds and writes one engine; what build.json says of it, and how far its graph is from the canonical one."""
    with tempfile.TemporaryDirectory(dir=job.writer.path) as folder:
        dialect = _dialect(job, plan, Path(folder))
        seconds = round(_in_a_process(job, plan, dialect.path), 1)
    size = (job.writer.path / plan.file).stat().st_size
    job.say(f"{plan.file}: {seconds} s, {size / 2**20:.1f} MiB")
    return {"file": plan.file, "bytes": size, "seconds": seconds, **dialect.facts}, dialect.row


def _in_a_process(job: Job, plan: EnginePlan, graph: Path) -> float:
    """Builds and writes one engine in a process that the library may crash; seconds."""
    module = module_of(job.target)
    try:
        return child.call(
            tensorrt.write_engine,
            graph,
            list(plan.profiles.values()),
            job.writer.path / plan.file,
            compute_capabilities=job.target.compute_capabilities,
            module=module,
            timings=job.timings,
        )
    except child.Crashed as crash:
        short = "free memory or build on a larger machine, since the system ends a process so when memory runs out"
        other = (
            f"build it with another --precision for {plan.stage} than {job.precision[plan.stage]}, for fewer GPUs at "
            f"once or with another version of {module}"
        )
        raise UserError(
            f"{module} {tensorrt.versions(module)[module]} crashed ({crash}) while it built {plan.file}; the bundle is "
            f"as it was before: {short if crash.signal == 'SIGKILL' else other}."
        ) from crash


def _dialect(job: Job, plan: EnginePlan, folder: Path) -> dialects.Dialect:
    """The graph that becomes the engine, and what it is told about it."""
    word, unchanged = job.precision[plan.stage], plan.graph.stage in dialects.UNCHANGED
    if unchanged:
        word = job.bundle.manifest.recipe.get("dtype", "fp32")
    sets = [] if job.inputs is None or unchanged else job.inputs.sets(plan.stage, plan.name)
    made = dialects.make(job.bundle, plan.graph, plan.name, word, sets, folder, forms.find(job.target.dialect))
    if made.row is not None:
        facts = made.facts
        half = HALVES.get(word, FP16).word
        left = f"left in fp32, beyond {half}: {len(facts['fp32'])} node(s)"
        told = [f"{made.row.measure} {made.row.value:.2g}", left]
        if "fp16" in facts:
            told.append(f"left in fp16, too noisy in {word}: {len(facts['fp16'])} product(s)")
        job.say(f"{plan.file}: {'; '.join(told)}")
    return made


def head_line(found: dict[str, Any]) -> str:
    """For people: what builds, and for which GPUs."""
    tools = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    meant = ", ".join(found["compute_capabilities"]) or found["gpu"] or "the GPU of this machine"
    return f"{tools}, strongly typed, TF32 allowed, for {meant}"


def config_lines(plan: EnginePlan) -> list[str]:
    """For people: a line per profile with min/opt/max of every letter in the graph's shapes."""
    lines = []
    for name, ranges in plan.profiles.items():
        letters: dict[str, str] = {}
        for tensor in plan.graph.inputs:
            r = ranges[tensor.name]
            for letter, *sizes in zip(tensor.shape, r.min, r.opt, r.max, strict=True):
                if isinstance(letter, str):
                    text, stem = "/".join(map(str, sizes)), letter.rstrip("0123456789")  # P0 to P29: one entry
                    letters[stem if letters.get(stem, text) == text else letter] = text
        shown = ", ".join(f"{letter} {sizes}" for letter, sizes in letters.items())
        lines.append(f"{plan.file}: profile {name}, min/opt/max: {shown}")
    return lines
