"""Find a checkpoint (alias, directory or hub id) and read everything of it but the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from edgeprune.errors import CheckpointError
from edgeprune.export.aliases import ALIASES, DEMO, Alias
from edgeprune.export.weights import RandomSource, SafetensorsSource, WeightSource, weight_files
from edgeprune.recipe import ExportRecipe

#: --set prefix -> key of config.json
#: `--set` keys that name a directory
FOLDERS: Final = ("tokenizer", "calibration")
_SECTIONS: Final = {"text": "text_config", "vision": "vision_config"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files, decoded.

    Attributes:
        id: what the manifest calls it.
        revision: commit of a hub id, else None.
        folder: where weights and tokenizer files lie; None for a shipped config.
        config: config.json with the overrides applied.
        preprocessor: preprocessor_config.json, or the image_processor part of processor_config.json.
        generation: generation_config.json, or {}.
        tokenizer_folder: where the tokenizer lies; None: one is built.
        alias: the shipped alias it was made from, or None.
        random_weights: weights are drawn instead of read.
    """

    id: str
    revision: str | None
    folder: Path | None
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    generation: dict[str, Any]
    tokenizer_folder: Path | None
    alias: Alias | None
    random_weights: bool

    @cached_property
    def model_config(self) -> Any:
        """The transformers config object.

        Raises:
            CheckpointError: transformers refuses the config.
        """
        from transformers import LlavaConfig

        try:
            return LlavaConfig.from_dict(self.config)
        except Exception as error:  # strict configs raise many kinds; all of them mean the config is wrong
            raise CheckpointError(f"{self.id}: config.json is not usable: {' '.join(str(error).split())}") from error

    def source(self, canonical: Callable[[str], str]) -> WeightSource:
        """Where the weights come from."""
        if self.random_weights:
            return RandomSource()
        return SafetensorsSource(self.require_folder(), canonical)

    def require_folder(self) -> Path:
        if self.folder is None:
            raise CheckpointError(f"{self.id} has no weights here; add --random-weights")
        return self.folder

    def sha256(self) -> str | None:
        """Of config.json followed by the weight files in name order; None with random weights."""
        if self.random_weights:
            return None
        return folder_sha256(self.require_folder())


def folder_sha256(folder: Path) -> str:
    """Of a checkpoint directory: config.json followed by the weight files in name order."""
    digest = hashlib.sha256()
    for file in (folder / "config.json", *weight_files(folder)):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def resolve(recipe: ExportRecipe, scratch: Path | None) -> Checkpoint:
    """The checkpoint of a recipe.

    Args:
        scratch: an empty directory for a checkpoint that is assembled; None: look at the configuration only and
            fetch no weights.

    Raises:
        CheckpointError: it cannot be found or read; one sentence that says what to do.
    """
    alias = ALIASES.get(recipe.model)
    if alias is DEMO:
        found = _demo(scratch)
    elif alias is not None and (recipe.random_weights or alias.hub_id is None):
        found = _shipped(alias)
    elif alias is not None and scratch is None and recipe.revision is None:
        # A plan needs the sizes only, and those ship with the alias: it works without the hub.
        found = replace(_shipped(alias), random_weights=False)
    elif Path(recipe.model).is_dir():
        found = _read_folder(Path(recipe.model), Path(recipe.model).resolve().name, None)
    else:
        found = _from_hub((alias and alias.hub_id) or recipe.model, recipe.revision, weights=scratch is not None)
    found = replace(found, random_weights=found.random_weights or recipe.random_weights)
    return _overridden(found, recipe.overrides)


def _demo(scratch: Path | None) -> Checkpoint:
    from edgeprune.export import demo

    if scratch is not None:
        return _read_folder(demo.assemble_demo(scratch), DEMO.name, None)
    about = demo.description()
    config = demo._config(about).to_dict()
    return Checkpoint(DEMO.name, None, Path(), config, about["preprocess"], {}, Path(), DEMO, False)


def _shipped(alias: Alias) -> Checkpoint:
    return Checkpoint(
        id=alias.hub_id or alias.name,
        revision=None,
        folder=None,
        config=alias.config,
        preprocessor=alias.preprocessor,
        generation=alias.generation,
        tokenizer_folder=None,
        alias=alias,
        random_weights=True,
    )


def _read_folder(folder: Path, name: str, revision: str | None) -> Checkpoint:
    config = read_json(folder / "config.json", required=True)
    preprocessor = read_json(folder / "preprocessor_config.json")
    if not preprocessor:
        preprocessor = read_json(folder / "processor_config.json").get("image_processor", {})
    if not preprocessor:
        raise CheckpointError(f"{folder} has no preprocessor_config.json; pictures cannot be prepared without it")
    generation = read_json(folder / "generation_config.json")
    return Checkpoint(name, revision, folder, config, preprocessor, generation, folder, None, False)


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """A decoded JSON object, {} where it is missing and not required. CheckpointError: it cannot be read."""
    if not path.is_file() and not required:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}; pass a Hugging Face checkpoint directory") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return value


def _from_hub(hub_id: str, revision: str | None, *, weights: bool) -> Checkpoint:
    """Downloads a hub checkpoint, or uses the cached copy; without `weights` its small files only."""
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        raise CheckpointError(
            f"there is no model {hub_id!r}: pass an alias ({', '.join(ALIASES)}), a checkpoint directory, "
            "or a hub id OWNER/NAME"
        )
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.model", "*.jinja", "*.txt", *(["*.safetensors"] if weights else [])]
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted))
    except Exception as error:  # network, HTTP, authentication and cache errors have no common base
        at = f" at revision {revision}" if revision else ""
        raise CheckpointError(
            f"cannot get {hub_id}{at} from the hub ({type(error).__name__}): download it elsewhere with "
            f"`hf download {hub_id}` and pass its directory, or add --random-weights to an alias"
        ) from error
    return _read_folder(folder, hub_id, folder.name)


def _overridden(found: Checkpoint, overrides: tuple[tuple[str, str], ...]) -> Checkpoint:
    """Applies `--set` pairs; those that name a directory are taken out, the others go into the config."""
    config = json.loads(json.dumps(found.config))
    folder = found.tokenizer_folder
    for key, text in overrides:
        if key in FOLDERS:
            if not Path(text).is_dir():
                raise CheckpointError(f"--set {key}={text}: there is no such directory")
            folder = Path(text) if key == "tokenizer" else folder
            continue
        section, _, name = key.rpartition(".")
        if section and section not in _SECTIONS:
            raise CheckpointError(f"--set {key}: sections are text. and vision., other keys stand alone")
        part = config.setdefault(_SECTIONS[section], {}) if section else config
        part[name] = _typed(found, section, name, text)
    return replace(found, config=config, tokenizer_folder=folder)


def _typed(found: Checkpoint, section: str, name: str, text: str) -> Any:
    """`text` as a value of the type that the config has."""
    config = found.model_config
    known = getattr(config, _SECTIONS[section]).to_dict() if section else config.to_dict()
    own = found.config.get(_SECTIONS[section], {}) if section else found.config
    if name not in known and name not in own:
        where = f"{found.id}'s {section or 'top-level'} config"
        raise CheckpointError(f"--set {name}: {where} has no such key")
    current = known.get(name, own.get(name))
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if current is not None and type(value) is not type(current):
        raise CheckpointError(f"--set {name}={text}: it must be {type(current).__name__}, like {current!r}")
    return value
