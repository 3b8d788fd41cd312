"""Targets: what a variant is built for, read from targets.toml beside this file, which also names the sources."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import re
from dataclasses import dataclass
from typing import Any, Literal

from edgeprune.errors import UserError
from edgeprune.recipe import toml_module

Builder = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
ComputeCapability = tuple[int, int]

#: precision -> the compute capabilities that have it; those not named here or below are had by every GPU.
GPU_PRECISIONS: dict[str, frozenset[ComputeCapability]] = {
    "fp4": frozenset({(12, 0)}),
}
#: precision -> the least compute capability that has it
SINCE: dict[str, ComputeCapability] = {"int4": (8, 0), "bf16": (8, 0), "fp8": (8, 9)}


@dataclass(frozen=True)
class Target:
    """One row of targets.toml, or a part of one: `tensorrt-rtx:sm86` of `tensorrt-rtx:sm86,sm89,sm120`.

    Attributes:
        compute_capabilities: of the GPUs meant, ascending; empty: no GPU, or the one of this machine.
        memory_mib: of the whole device, the sizes that are sold; empty: whatever the machine has.
        tensorrt, jetpack: versions, the oldest first.
        opset: newest default-domain opset known to be read there.
        newer_ops: operators known to be read there that the oldest supported TensorRT lacks.
        precisions: what the target computes in.
        builds: those that `edgeprune build` makes today.
        dialect: the operators that its graphs are made of: canonical for onnxruntime; opset20, trt or plain (canonical,
            and any opset that the target reads) for engines, see passes/forms.py.
    """

    name: str
    summary: str
    builder: Builder
    opset: int
    precisions: tuple[str, ...]
    builds: tuple[str, ...]
    compute_capabilities: tuple[ComputeCapability, ...] = ()
    memory_mib: tuple[int, ...] = ()
    tensorrt: tuple[str, ...] = ()
    jetpack: tuple[str, ...] = ()
    newer_ops: tuple[str, ...] = ()
    dialect: str = "canonical"

    @property
    def slug(self) -> str:
        """The name in letters, digits and dashes."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready row of `list targets`."""
        row = dataclasses.asdict(self)
        row["compute_capabilities"] = [f"{major}.{minor}" for major, minor in self.compute_capabilities]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}

    def require_precision(self, precision: str) -> None:
        """UserError unless the target computes in `precision`; names those it has."""
        if precision not in self.precisions:
            raise UserError(
                f"the target {self.name} has no precision {precision!r}; it has: {', '.join(self.precisions)}."
            )

    def require_build(self, precision: str) -> None:
        """UserError unless `edgeprune build` makes `precision` for this target; names those it makes."""
        self.require_precision(precision)
        if precision not in self.builds:
            made = f"only {', '.join(self.builds)}" if self.builds else "nothing"
            raise UserError(f"`edgeprune build` makes {made} for {self.name} so far, not {precision}: {self.summary}.")


@functools.cache
def all_targets() -> tuple[Target, ...]:
    """Every row, in the order of the file."""
    text = importlib.resources.files("edgeprune.engines").joinpath("targets.toml").read_text(encoding="utf-8")
    return tuple(_read_row(name, row) for name, row in toml_module().loads(text).items())


def find(name: str) -> Target:
    """The target of that name; a row that lists compute capabilities serves any of them (`tensorrt-rtx:sm86,sm89`).

    Raises:
        UserError: no such target, or a compute capability that it does not serve; names those there are.
    """
    for target in all_targets():
        if target.name == name:
            return _narrowed(target, name) if target.builder == "tensorrt-rtx" else target
        family, colon, _ = target.name.partition(":")
        if target.builder == "tensorrt-rtx" and colon and name.partition(":")[0] == family:
            return _narrowed(target, name)
    known = ", ".join(target.name for target in all_targets())
    raise UserError(f"there is no target {name!r}; there are: {known}.")


def _narrowed(row: Target, name: str) -> Target:
    """The row for the compute capabilities that `name` lists, with the precisions that all of them have."""
    asked = []
    for word in name.partition(":")[2].split(","):
        found = re.fullmatch(r"sm(\d+)(\d)", word.strip())
        capability = (int(found[1]), int(found[2])) if found else None
        if capability not in row.compute_capabilities:
            served = ", ".join(f"sm{major}{minor}" for major, minor in row.compute_capabilities)
            raise UserError(f"{name!r} asks for {word.strip()!r}; {row.name.partition(':')[0]} builds for: {served}.")
        asked.append(capability)
    wanted = tuple(sorted({capability for capability in asked if capability is not None}))
    precisions = tuple(precision for precision in row.precisions if all(has_precision(c, precision) for c in wanted))
    builds = tuple(precision for precision in row.builds if precision in precisions)
    spelled = row.name.partition(":")[0] + ":" + ",".join(f"sm{major}{minor}" for major, minor in wanted)
    return dataclasses.replace(row, name=spelled, compute_capabilities=wanted, precisions=precisions, builds=builds)


def has_precision(capability: ComputeCapability, precision: str) -> bool:
    """Whether GPUs of a compute capability compute in a precision, as far as the sources of targets.toml say."""
    if precision == "fp32":
        return capability != (7, 5)  # TensorRT-RTX has no fp32 matrix product there
    if precision in SINCE:
        return capability >= SINCE[precision]
    return capability in GPU_PRECISIONS.get(precision, {capability})


def _read_row(name: str, row: dict[str, Any]) -> Target:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    pairs = (text.partition(".") for text in row.get("compute_capabilities", ()))
    values["compute_capabilities"] = tuple((int(major), int(minor)) for major, _, minor in pairs)
    return Target(name=name, **values)
