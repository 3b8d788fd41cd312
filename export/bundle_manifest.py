"""manifest.json of a bundle, from the job that made it. Read by edgeprune/manifest.py and the runtime."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import edgeprune
from edgeprune.export import parity
from edgeprune.export.checkpoint import FOLDERS, Checkpoint
from edgeprune.export.job import Job
from edgeprune.export.tokens import Tokens
from edgeprune.export.trace import OPSET
from edgeprune.keep import count_runs
from edgeprune.pruning.base import PruningMethod
from edgeprune.recipe import ExportRecipe

#: the least ONNX Runtime whose CPU kernels cover opset 20
MIN_ONNXRUNTIME: Final = "1.17"

_PACKAGES: Final = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy")


def manifest(
    job: Job, name: str, tokens: Tokens, graphs: dict[str, Any], golden: dict[str, str], rows: list[parity.Row]
) -> dict[str, Any]:
    """The manifest of a bundle whose files are written."""
    checkpoint, family, recipe = job.checkpoint, job.family, job.recipe
    return {
        "schema_version": 1,
        "name": name,
        "family": family.model_type,
        "source": {
            "id": checkpoint.id,
            "revision": checkpoint.revision,
            "sha256": checkpoint.sha256(),
            "random_weights": checkpoint.random_weights,
        },
        "recipe": recorded(recipe, checkpoint),
        "notes": [
            *tokens.notes,
            *job.notes,
            *_unstable(job.methods),
            *about_background(job),
            *about_text_encoder(job),
        ],
        "visual_tokens": family.visual_tokens,
        "grid": list(family.grid),
        "keep": _keep(recipe, job.max_keep),
        "methods": {
            "default": job.default,
            "each": {key: _method(key, method, job) for key, (method, _) in job.methods.items()},
        },
        "preprocess": job.preprocess,
        "prompt": {"segments": tokens.segments},
        "tokens": tokens.manifest,
        **({} if job.text_encoder is None else {"text_encoder": job.text_encoder.manifest()}),
        "positions": family.positions,
        "context_length": family.config.text_config.max_position_embeddings,
        "graphs": graphs,
        "opset": OPSET,
        "min_onnxruntime": MIN_ONNXRUNTIME,
        "variants": [],
        "golden": golden,
        "parity": rows,
        "versions": {
            "edgeprune": edgeprune.__version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in _PACKAGES},
        },
    }


def _keep(recipe: ExportRecipe, most: float) -> dict[str, Any]:
    bounds = {"default": recipe.keep, "min": recipe.keep_range[0], "max": most}
    return bounds if recipe.auto is None else {**bounds, "auto": dataclasses.asdict(recipe.auto)}


def _unstable(methods: dict[str, tuple[PruningMethod, int]]) -> list[str]:
    """A sentence for each method that has no golden tensors."""
    return [
        f"{key} has no golden tensors and its kept tokens are not compared with torch: rounding may change them"
        for key, (method, _) in methods.items()
        if not method.stable
    ]


def about_background(job: Job) -> list[str]:
    """Sentences on the scorer's weights and on a keep range that ends below the one asked for."""
    if job.background is None:
        return []
    notes = [job.background.describe()]
    if job.max_keep < job.recipe.keep_range[1]:
        notes.append(f"keep ends at {job.max_keep:g}: no more patches enter the encoder")
    return notes


def about_text_encoder(job: Job) -> list[str]:
    """A sentence on the text encoder, if there is one."""
    return [] if job.text_encoder is None else [job.text_encoder.describe()]


def recorded(recipe: ExportRecipe, checkpoint: Checkpoint) -> dict[str, Any]:
    """The recipe without paths of this machine."""
    fields = recipe.to_dict()
    fields["overrides"] = {k: Path(v).name if k in FOLDERS else v for k, v in fields["overrides"].items()}
    if recipe.background_weights is not None:
        fields["background_weights"] = Path(recipe.background_weights).name
    if recipe.text_encoder is not None:
        fields["text_encoder"] = Path(recipe.text_encoder).resolve().name
    return {**fields, "model": checkpoint.id if Path(recipe.model).is_dir() else recipe.model}


def _method(key: str, method: PruningMethod, job: Job) -> dict[str, Any]:
    static, total = job.graphs.static_keep(key), job.family.visual_tokens
    valid = method.valid_k(total)
    restricted = {} if static or len(valid) == total else {"keep_counts": count_runs(valid)}
    return {
        "name": key,
        "spec": method.spec,
        "parameters": method.parameters,
        "stages": list(method.stages),
        "where": method.where,
        "scope": method.scope,
        "text": method.text,
        **({"text_encoder": True} if method.text_encoder else {}),
        "dynamic_keep": static is None,
        "static_keep": static,
        "has_scores": method.has_scores,
        **restricted,
    }
