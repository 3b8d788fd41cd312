"""The extras of this package and whether what they ask for is installed, without importing any of it."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import DependencyError
from edgeprune.recipe import toml_module

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[(?P<extras>[^]]*)\])?(?P<range>[^;]*)(;(?P<marker>.*))?")
_MARKER = re.compile(r"""extra\s*==\s*['"]([A-Za-z0-9._-]+)['"]""")


@dataclass(frozen=True)
class Requirement:
    """A package with its version range, for example ("torch", ">=2.13,<2.14")."""

    name: str
    range: str

    @property
    def problem(self) -> str:
        """Why it is not met, "" when it is."""
        found = installed_version(self.name)
        if found is None:
            return f"{self.name} is not installed"
        return "" if in_range(found, self.range) else f"{self.name} {found} is outside {self.range}"


def extras() -> dict[str, list[Requirement]]:
    """Extra -> its requirements, from the installed package or else from the source folder's pyproject.toml.

    Extras that stand for others of this package, like dev, list theirs too.

    Raises:
        DependencyError: neither can be read.
    """
    declared = _declared()
    nested = {extra: [item for item in items if item[0] == "edgeprune"] for extra, items in declared.items()}
    result = {}
    for extra, items in declared.items():
        own = [Requirement(name, bounds) for name, _, bounds in items if name != "edgeprune"]
        for _, others, _ in nested[extra]:
            for other in others:
                own += [Requirement(name, bounds) for name, _, bounds in declared.get(other, [])]
        result[extra] = list(dict.fromkeys(own))
    return result


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, None when there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def in_range(version: str, bounds: str) -> bool:
    """Whether the release numbers of a version meet every comma-separated bound; knows ==, >=, >, <=, <."""
    return all(_meets(release(version), bound.strip()) for bound in bounds.split(",") if bound.strip())


def release(version: str) -> tuple[int, ...]:
    """(2, 13, 0) of "2.13.0+cpu"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _meets(found: tuple[int, ...], bound: str) -> bool:
    sign = re.match(r"[=<>!~]*", bound)
    operator = sign[0] if sign else ""
    pairs = list(itertools.zip_longest(found, release(bound[len(operator) :].strip()), fillvalue=0))
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    outcomes = {"==": left == right, ">=": left >= right, ">": left > right, "<=": left <= right, "<": left < right}
    return outcomes[operator]


def _declared() -> dict[str, list[tuple[str, list[str], str]]]:
    """Extra -> (package, its extras, version range)."""
    try:
        lines: Iterable[tuple[str, str]] = _from_metadata()
    except importlib.metadata.PackageNotFoundError:
        lines = _from_source()
    declared: dict[str, list[tuple[str, list[str], str]]] = {}
    for extra, line in lines:
        match = _REQUIREMENT.fullmatch(line.strip())
        if match is not None:
            parts = [part.strip() for part in (match["extras"] or "").split(",") if part.strip()]
            declared.setdefault(extra, []).append((match["name"], parts, match["range"].strip(" ()")))
    return declared


def _from_metadata() -> list[tuple[str, str]]:
    lines = importlib.metadata.requires("edgeprune") or []
    marked = [(line.partition(";")[0], _MARKER.search(line)) for line in lines]
    return [(marker[1], line) for line, marker in marked if marker is not None]


def _from_source() -> list[tuple[str, str]]:
    """From pyproject.toml, for a source folder that was never installed."""
    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DependencyError("edgeprune is neither installed nor a source folder with a pyproject.toml.") from error
    groups = toml_module().loads(text)["project"]["optional-dependencies"]
    return [(extra, line) for extra, lines in groups.items() for line in lines]
