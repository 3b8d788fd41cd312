"""checkpoint -> bundle: resolve, trace, stream the weights, check against torch, commit.

Public: `export(recipe, output)` and `plan(recipe)`.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune import retention
from edgeprune.bundle import BundleWriter
from edgeprune.errors import PruningError
from edgeprune.export import bundle_manifest, calibrate, parity, text_encoder
from edgeprune.export import golden as golden_files
from edgeprune.export.background_weights import find
from edgeprune.export.checkpoint import resolve
from edgeprune.export.job import Job
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.models.registry import family_class
from edgeprune.export.preprocess import (
    letterboxed,
    normalise,
    output_px,
    padding_mask,
    preprocess_manifest,
    reference_pixels,
)
from edgeprune.export.reference import Reference
from edgeprune.export.reference_text import TextReference
from edgeprune.export.tokens import Tokens, read_tokens, write_tokenizer
from edgeprune.export.weights import WeightSource
from edgeprune.export.writer import DTYPES, GraphSet
from edgeprune.keep import keep_count
from edgeprune.pruning.base import PruningMethod
from edgeprune.pruning.in_encoder import InEncoder
from edgeprune.pruning.registry import parse
from edgeprune.recipe import ExportRecipe

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ExportPlan:
    """What an export will do, known before a weight is touched.

    Attributes:
        tokens_before, tokens_after: visual tokens of one picture, at the default keep ratio.
        graphs: file names.
        disk_mib: size of the bundle.
        memory_mib: peak memory of the export.
        notes: sentences about what is made up, skipped or assumed.
        warnings: sentences about accuracy that methods lost elsewhere at such a keep ratio.
    """

    tokens_before: int
    tokens_after: int
    graphs: tuple[str, ...]
    disk_mib: float
    memory_mib: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def plan(recipe: ExportRecipe) -> ExportPlan:
    """What `export` would do; reads configuration files only."""
    job = prepare(recipe, None)
    count = job.methods[job.default][1]
    notes = []
    if job.checkpoint.random_weights:
        notes.append("random weights: for tests and latency work, the answers mean nothing")
    if job.checkpoint.random_weights and job.checkpoint.tokenizer_folder is None:
        notes.append("no tokenizer at hand: a byte-level one that covers the vocabulary is built (--set tokenizer=DIR)")
    notes += [
        f"{key} selects on projected tokens, so the projector runs on all {job.family.visual_tokens}, not on {kept}"
        for key, (method, kept) in job.methods.items()
        if method.where == "after_projector"
    ]
    notes += [
        f"{key} is calibrated on {calibrate.MADE} made pictures; --set calibration=DIR takes real ones"
        for key, (method, _) in job.methods.items()
        if calibrate.uncalibrated(method) and dict(recipe.overrides).get("calibration") is None
    ]
    notes += [*bundle_manifest.about_background(job), *bundle_manifest.about_text_encoder(job)]
    reason = job.reason_without_reference()
    if reason:
        notes.append(f"no parity check and no golden tensors: {reason}")
    size = job.graphs.data_bytes()
    peak = job.graphs.largest_tensor_bytes() * 3 if reason else job.reference_bytes() + size
    return ExportPlan(
        tokens_before=job.family.visual_tokens,
        tokens_after=count,
        graphs=tuple(job.graphs.files),
        disk_mib=size / 2**20 + 4,
        memory_mib=peak / 2**20 + 600,
        notes=tuple(notes),
        warnings=() if job.checkpoint.random_weights else tuple(_warnings(job)),
    )


def export(recipe: ExportRecipe, output: Path, *, force: bool = False, progress: Progress | None = None) -> Path:
    """Writes the bundle of a recipe.

    Args:
        output: the bundle's directory.
        force: replace a bundle that is there.
        progress: called with (step, steps done, steps in all).

    Returns:
        The bundle's directory.

    Raises:
        CheckpointError, PruningError, UserError: the recipe cannot be served; one sentence.
        CheckFailed: a graph disagrees with the torch reference. Nothing is left behind.
    """
    report = progress or (lambda step, done, total: None)
    with _without_foreign_bars(), tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        report("read the checkpoint", 0, 1)
        job = _calibrated(prepare(recipe, Path(scratch)), report)
        with BundleWriter(output, force=force, estimate_bytes=job.graphs.data_bytes() + (8 << 20)) as writer:
            return writer.commit(_write(job, writer.path, Path(output).name.removesuffix(".bundle"), report))


@contextlib.contextmanager
def _without_foreign_bars() -> Iterator[None]:
    """transformers draws progress bars into pipes, too; `progress` is the only one an export has."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def prepare(recipe: ExportRecipe, scratch: Path | None) -> Job:
    """Everything a recipe names, looked up. `scratch`: where a checkpoint may be put together; None: config only."""
    methods = _parsed(recipe)
    checkpoint = resolve(recipe, scratch)
    family_type = family_class(str(checkpoint.config.get("model_type")))
    processor = letterboxed(checkpoint.preprocessor) if recipe.letterbox else checkpoint.preprocessor
    preprocess = preprocess_manifest(processor)
    family = family_type(checkpoint.model_config, output_px(preprocess), letterbox=recipe.letterbox)
    if recipe.letterbox:
        preprocess["pad_mask"] = {"patch_px": family.patch_px}
    for method in methods.values():
        family.require(method)
    background = find(
        methods.values(), recipe.background_weights, family.grid, family.patch_px, preprocess,
        random_weights=checkpoint.random_weights,
    )  # fmt: skip
    family.background = None if background is None else background.spec
    encoder = text_encoder.find(methods, recipe.text_encoder, family, random_weights=checkpoint.random_weights)
    family.text_encoder = None if encoder is None else encoder.spec
    counted = {key: (method, _count(method, family, recipe)) for key, method in methods.items()}
    graphs = _graph_set(recipe, family, counted)
    return Job(recipe, checkpoint, family, processor, preprocess, counted, graphs, background, encoder)


def _graph_set(recipe: ExportRecipe, family: ModelFamily, methods: dict[str, tuple[PruningMethod, int]]) -> GraphSet:
    dtype, adaptive = DTYPES[recipe.dtype], recipe.auto is not None
    return GraphSet(family, methods, static_keep=recipe.static_keep, dtype=dtype, adaptive=adaptive)


def _calibrated(job: Job, report: Progress) -> Job:
    """The job with everything measured that its methods wait for."""
    waiting = [key for key, (method, _) in job.methods.items() if calibrate.uncalibrated(method)]
    if not waiting:
        return job
    report("calibrate", 0, 1)
    folder = dict(job.recipe.overrides).get("calibration")
    pictures = calibrate.read_pictures(None if folder is None else Path(folder), job.processor, job.preprocess)
    source = job.checkpoint.source(job.family.canonical)
    methods = calibrate.calibrated(job.methods, job.family, source, pictures)
    what = "made pictures" if folder is None else "pictures of the folder given"
    notes = tuple(f"{key} was calibrated on {len(pictures)} {what}" for key in waiting)
    return replace(job, methods=methods, graphs=_graph_set(job.recipe, job.family, methods), notes=notes)


def _warnings(job: Job) -> list[str]:
    methods = [method.spec for method, _ in job.methods.values()]
    return retention.warnings(job.family.model_type, methods, job.recipe.keep, job.family.visual_tokens)


def _parsed(recipe: ExportRecipe) -> dict[str, PruningMethod]:
    """Methods by key: the name, or the whole spec where a name is asked for twice."""
    parsed = [parse(spec) for spec in recipe.prune]
    names = [method.name for method in parsed]
    methods: dict[str, PruningMethod] = {}
    for method in parsed:
        plain = re.sub("[:=,]", "-", method.spec)
        key = method.name if names.count(method.name) == 1 else plain
        if key in methods:
            raise PruningError(f"{method.spec} is asked for twice; name it once")
        methods[key] = method
    return methods


def _count(method: PruningMethod, family: ModelFamily, recipe: ExportRecipe) -> int:
    """K at the default keep ratio; N where the method keeps everything."""
    path = family.path(method)
    if recipe.auto is not None and not method.has_mass and method.where != "nowhere":
        raise PruningError(
            f"{method.name} has no scores whose mass could choose K; export it with a number instead of --keep auto"
        )
    total = family.visual_tokens
    count = total if method.where == "nowhere" else keep_count(total, recipe.keep)
    method.check_k(count, total)
    if isinstance(method, InEncoder):
        method.schedule(total, path.blocks, count)
    return count


def _write(job: Job, folder: Path, name: str, report: Progress) -> dict[str, Any]:
    """Writes every file of the bundle and returns its manifest."""
    source = job.source()
    tokens = read_tokens(job.checkpoint, job.family.template)
    write_tokenizer(tokens, folder / "tokenizer")
    if job.text_encoder is not None:
        job.text_encoder.tokens.write(folder / text_encoder.TOKENIZER)
    graphs = job.graphs.write(folder / "onnx", source, report)
    reason = job.reason_without_reference()
    rows: list[parity.Row] = []
    golden: dict[str, str] = {"reason": reason} if reason else {}
    if not reason:
        report("compare with torch", 0, 1)
        rows = _check(job, folder, tokens, source)
        golden = {"inputs": "golden/inputs.npz", "outputs": "golden/outputs.npz"}
    return bundle_manifest.manifest(job, name, tokens, graphs, golden, rows)


def _check(job: Job, folder: Path, tokens: Tokens, source: WeightSource) -> list[parity.Row]:
    """Golden tensors and parity rows."""
    reader = None if job.text_encoder is None else TextReference(job.text_encoder, source)
    reference = Reference(job.checkpoint, job.family, source, reader)
    image = golden_files.picture(wide=job.recipe.letterbox)
    pixels = reference_pixels(job.processor, image)
    padding = (
        padding_mask(job.preprocess, image.shape[0], image.shape[1], job.family.grid) if job.recipe.letterbox else None
    )
    seen = golden_files.Seen(image, pixels, normalise(pixels, job.preprocess), padding)
    made = golden_files.make(
        reference, job.methods, golden_files.asked(tokens, job.text_encoder), job.recipe.keep, seen
    )
    made.write(folder / "golden")
    files = {key: job.graphs.vision_files(key) for key in job.methods}
    return parity.check(folder / "onnx", made, reference, job.methods, files, job.default, job.recipe.dtype)
