"""What an export was asked for: one frozen dataclass, checked on construction, kept in the manifest, read from TOML."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import DependencyError, UserError
from edgeprune.keep import AutoKeep, parse_auto

DTYPES = ("fp32", "fp16")


@dataclass(frozen=True)
class ExportRecipe:
    """The question an export answers; equal recipes on equal checkpoints give equal bundles.

    Args:
        model: alias, checkpoint directory or hub id.
        revision: branch, tag or commit of a hub id.
        prune: pruning methods as asked for, `NAME[:param=value,...]`; the first is the bundle's default.
        keep: default keep ratio K/N, in (0, 1].
        keep_range: smallest and largest keep ratio that a request may ask for.
        auto_keep: `auto:mass=...,min=...,max=...`: K from each image's scores where a request names no keep ratio;
            every method with a free K is then written as two graphs.
        static_keep: bake K into the graphs instead of taking it as an input.
        random_weights: build the architecture from its config without weights.
        overrides: (dotted config key, value as text) pairs, for example ("text.num_hidden_layers", "2").
        dtype: weights and activations, "fp32" or "fp16"; scores stay fp32.
        letterbox: pad pictures to a square with the mean colour, instead of cropping them; the graphs are told which
            patches are padding and keep them last.
        background_weights: safetensors file of the background scorer; None: those of the package.
        text_encoder: CLIP checkpoint directory whose text encoder reads the question, for methods that want one.

    Raises:
        UserError: a field is out of its range.
    """

    model: str
    revision: str | None = None
    prune: tuple[str, ...] = ("fastervlm",)
    keep: float = 0.1
    keep_range: tuple[float, float] = (0.01, 1.0)
    auto_keep: str | None = None
    static_keep: bool = False
    random_weights: bool = False
    overrides: tuple[tuple[str, str], ...] = ()
    dtype: str = "fp32"
    letterbox: bool = False
    background_weights: str | None = None
    text_encoder: str | None = None

    def __post_init__(self) -> None:
        _check_text(self)
        _check_prune(self.prune)
        _check_keep(self.keep, self.keep_range)
        _check_auto(self)
        _check_overrides(self.overrides)
        if self.letterbox and self.static_keep:
            raise UserError(
                "letterbox lowers K where a picture has few patches, which static-keep bakes in; leave out one."
            )
        if self.dtype not in DTYPES:
            raise UserError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; `overrides` becomes an object."""
        return {
            **dataclasses.asdict(self),
            "prune": list(self.prune),
            "keep_range": list(self.keep_range),
            "overrides": dict(self.overrides),
        }

    @property
    def auto(self) -> AutoKeep | None:
        """`auto_keep` with both bounds: those of the keep range where it names none."""
        if self.auto_keep is None:
            return None
        asked = parse_auto(self.auto_keep)
        return AutoKeep(asked.mass, asked.min or self.keep_range[0], asked.max or self.keep_range[1])

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ExportRecipe:
        """The inverse of `to_dict`; unknown or missing fields are a UserError."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise UserError(f"unknown recipe field {unknown[0]!r}; known are {', '.join(sorted(known))}.")
        if "model" not in fields:
            raise UserError("a recipe needs the field 'model'.")
        values = dict(fields)
        for name in ("prune", "keep_range"):
            if name in values:
                values[name] = tuple(_typed(values[name], (list, tuple), name, "a list"))
        if "overrides" in values:
            values["overrides"] = tuple(_typed(values["overrides"], Mapping, "overrides", "a table").items())
        return cls(**values)

    def to_toml(self) -> str:
        """One `key = value` line per field that is set, and an [overrides] table."""
        fields = self.to_dict()
        overrides = fields.pop("overrides")
        lines = [f"{name} = {_toml(value)}" for name, value in fields.items() if value is not None]
        if overrides:
            lines += ["", "[overrides]", *(f"{_toml(key)} = {_toml(value)}" for key, value in overrides.items())]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> ExportRecipe:
        """Reads what `to_toml` writes. Needs Python 3.11, or the package tomli on 3.10."""
        toml = toml_module()
        try:
            fields = toml.loads(text)
        except ValueError as error:
            raise UserError(f"the recipe is not valid TOML: {error}.") from error
        return cls.from_dict(fields)

    @classmethod
    def read(cls, path: str | Path) -> ExportRecipe:
        """Reads a recipe file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the recipe {path}: {_reason(error)}.") from error
        return cls.from_toml(text)


def parse_ratio(text: str, name: str = "keep") -> float:
    """A keep ratio from text, in (0, 1]; UserError otherwise."""
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{name} must be a number above 0 and at most 1, not {text!r}.") from None
    return check_ratio(value, name)


def check_ratio(value: float, name: str = "keep") -> float:
    """Returns `value` when it lies in (0, 1]; UserError otherwise, NaN and infinities included."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 < value <= 1:
        raise UserError(f"{name} must be a number above 0 and at most 1, not {value!r}.")
    return float(value)


def _check_text(recipe: ExportRecipe) -> None:
    if not isinstance(recipe.model, str) or not recipe.model.strip():
        raise UserError("model must name an alias, a checkpoint directory or a hub id.")
    if recipe.revision is not None and (not isinstance(recipe.revision, str) or not recipe.revision.strip()):
        raise UserError("revision must name a branch, a tag or a commit.")
    if recipe.background_weights is not None and not str(recipe.background_weights).strip():
        raise UserError("background_weights must name a safetensors file.")
    if recipe.text_encoder is not None and not str(recipe.text_encoder).strip():
        raise UserError("text_encoder must name a CLIP checkpoint directory.")
    for name in ("static_keep", "random_weights"):
        _typed(getattr(recipe, name), bool, name, "true or false")


def _check_prune(specs: tuple[str, ...]) -> None:
    if not specs or not all(isinstance(spec, str) and spec.strip() for spec in specs):
        raise UserError("prune needs at least one method, written NAME or NAME:param=value,...")
    repeated = [spec for place, spec in enumerate(specs) if spec in specs[:place]]
    if repeated:
        raise UserError(f"the pruning method {repeated[0]!r} is asked for twice; name it once.")


def _check_keep(keep: float, keep_range: tuple[float, float]) -> None:
    check_ratio(keep, "keep")
    if len(keep_range) != 2:
        raise UserError("keep_range must hold two numbers, the smallest and the largest keep ratio.")
    low, high = (check_ratio(bound, "keep range") for bound in keep_range)
    if low > high:
        raise UserError(f"the keep range {low:g}:{high:g} is empty; write it as smallest:largest.")
    if not low <= keep <= high:
        raise UserError(f"keep {keep:g} is outside the keep range {low:g}:{high:g}; change one of them.")


def _check_auto(recipe: ExportRecipe) -> None:
    _typed(recipe.auto_keep, (str, type(None)), "auto_keep", "written as auto:mass=...,min=...,max=...")
    auto = recipe.auto
    if auto is None:
        return
    if recipe.static_keep:
        raise UserError("static_keep bakes one K into the graphs; an automatic keep needs it free.")
    low, high = recipe.keep_range
    assert auto.min is not None
    assert auto.max is not None
    if not low <= auto.min <= auto.max <= high:
        raise UserError(f"{auto} is outside the keep range {low:g}:{high:g}; change one of them.")


def _check_overrides(overrides: tuple[tuple[str, str], ...]) -> None:
    seen = set()
    for key, value in overrides:
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", key):
            raise UserError(f"{key!r} is not a config key; write it like text.num_hidden_layers=2.")
        if not isinstance(value, str):
            raise UserError(f"the value of {key} must be text, not {value!r}.")
        if key in seen:
            raise UserError(f"the config key {key} is set twice; set it once.")
        seen.add(key)


def _typed(value: Any, kind: Any, name: str, meaning: str) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{name} must be {meaning}, not {value!r}.")
    return value


def _toml(value: object) -> str:
    # Strings, numbers, booleans and lists of them are written alike in JSON and in TOML, except DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_module() -> Any:
    """The TOML reader of this Python: `loads(text)`. DependencyError on Python 3.10 without tomli."""
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise DependencyError("reading TOML needs Python 3.11 or newer, or `pip install tomli`.")


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
