"""Whether a built variant still fits the graphs it was made from, and the machine that opens it.

Its build.json says what decided it. What this machine does not know (no GPU, a library that is not installed) is not
compared: whoever then tries to run the variant is refused by the runtime.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeprune import devices
from edgeprune.errors import BundleError
from edgeprune.manifest import Manifest, Variant

_SHOWN = 12  # digits of a SHA-256 that people compare


@dataclass(frozen=True)
class Difference:
    """One fact that decided the variant and is another here; `target` is what to build for instead, if not the same,
    `where` what "here" is."""

    what: str
    built: str
    here: str
    target: str | None = None
    where: str = "here"

    def __str__(self) -> str:
        return f"{self.what} was {self.built} when it was built and is {self.here} {self.where}"


def require(root: Path, manifest: Manifest, variant: Variant, *, to_run: bool) -> None:
    """Raises BundleError, one sentence with both sides and the command that rebuilds, when the variant does not fit.

    Args:
        root: the bundle's directory.
        to_run: compare with this machine too; a variant may well be kept for another one.
    """
    path = root / variant.build
    try:
        build = json.loads(path.read_text(encoding="utf-8"))
        found = [*_of_graphs(build, manifest), *(_of_machine(build) if to_run else ()), *_of_target(build, variant)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        command = rebuild_command(root, variant)
        raise BundleError(f"{path} does not say how the variant was built; run `{command}`.") from error
    if found:
        target = next((difference.target for difference in found if difference.target), None)
        shown = "; ".join(map(str, dict.fromkeys(found)))
        command = rebuild_command(root, variant, target)
        raise BundleError(f"variant {variant.slug} does not fit: {shown}; run `{command}`.")


def rebuild_command(root: Path, variant: Variant, target: str | None = None) -> str:
    """The command that makes the variant again, or for another target, from the graphs that the bundle carries; with
    what was asked for beyond its precision, where build.json can be read."""
    words = set(variant.precision.values())
    pairs = ",".join(f"{graph}={word}" for graph, word in variant.precision.items())
    precision = words.pop() if len(words) == 1 else pairs
    asked = ("--target", target or variant.target, "--precision", precision, *_asked(root / variant.build), "--rebuild")
    return shlex.join(["edgeprune", "build", str(root), *asked])


def _asked(path: Path) -> tuple[str, ...]:
    """Options of the build that decided what it is and that neither target nor precision says."""
    try:
        build = json.loads(path.read_text(encoding="utf-8"))
        return ("--kv-cache", "fp32") if build["asked"]["kv_cache"] == "fp32" else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _of_graphs(build: Mapping[str, Any], manifest: Manifest) -> Iterator[Difference]:
    """Graphs that a build.json names and that are others now."""
    for graph in build.get("graphs", ()):
        yield from _graphs(graph["graph_sha256"], manifest)
    for engine in build.get("engines", ()):
        yield from _graphs(engine["fingerprint"]["graph_sha256"], manifest)


def _of_machine(build: Mapping[str, Any]) -> Iterator[Difference]:
    """Libraries and GPU that engines were built for and that are others here."""
    for engine in build.get("engines", ()):
        yield from _machine(engine["fingerprint"])


def _of_target(build: Mapping[str, Any], variant: Variant) -> Iterator[Difference]:
    """Engines for other compute capabilities than those of the target that the manifest names: no GPU is needed to
    see it."""
    if variant.target.partition(":")[0] != "tensorrt-rtx":
        return
    meant = [f"{major}.{minor}" for major, minor in re.findall(r"sm(\d+)(\d)", variant.target)]
    for engine in build.get("engines", ()):
        built = engine["fingerprint"]["compute_capabilities"]
        if built and sorted(built) != sorted(meant):
            where = f"in the manifest's target {variant.target}"
            yield Difference("compute capability", ", ".join(built), ", ".join(meant), where=where)


def _graphs(built: Mapping[str, str], manifest: Manifest) -> Iterator[Difference]:
    for name, digest in sorted(built.items()):
        entry = manifest.files.get(name)
        if entry is None or entry.sha256 != digest:
            here = f"{entry.sha256[:_SHOWN]}..." if entry else "missing"
            yield Difference(f"sha256 of {name}", f"{digest[:_SHOWN]}...", here)


def _machine(built: Mapping[str, Any]) -> Iterator[Difference]:
    """TensorRT-RTX builds for compute capabilities, TensorRT for the GPU and the JetPack of the building machine.

    The driver is part of the key of a build but not compared here: engines run on any driver that the library takes.
    """
    module, gpu = built["module"], devices.facts()
    yield from _unequal(module, built["versions"][module], library_version(module))
    asked = built["compute_capabilities"]
    here = gpu["compute_capability"]
    if asked and here is not None and here not in asked:
        yield Difference("compute capability", ", ".join(asked), here, f"tensorrt-rtx:sm{here.replace('.', '')}")
    for fact in ("gpu", "jetpack", "compute_capability") if not asked else ():
        yield from _unequal(fact.replace("_", " "), built[fact], gpu[fact])


def _unequal(what: str, built: str | None, here: str | None) -> Iterator[Difference]:
    if here is not None and here != built:
        yield Difference(what, str(built), here)


def library_version(module: str) -> str | None:
    """Version of an installed package without importing it, None where it is not installed."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return None
