"""Keep ratios that `profile --target-ms X --save` found, stored on this machine outside every bundle.

Nothing reads them by itself: `run --keep tuned` does, and says so in its answer. Why: docs/adr/0018.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.errors import UserError
from edgeprune.measure.evaluate import identity
from edgeprune.measure.target import Target


@dataclass(frozen=True)
class Tuned:
    """What was found for one method in one variant of a bundle, when, and on which machine."""

    bundle: str
    variant: str | None
    method: str
    keep: float
    kept_tokens: int
    target_ms: float
    ttft_p90_ms: float
    date: str
    machine: str
    provider: str

    @property
    def source(self) -> str:
        """Where the keep ratio of an answer came from."""
        return f"profile --target-ms {self.target_ms:g} of {self.date}, TTFT {self.ttft_p90_ms:.1f} ms (p90) then"


def file() -> Path:
    """$XDG_CONFIG_HOME/edgeprune/tuned.json, below ~/.config where that is not set."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgeprune" / "tuned.json"


def require_place() -> None:
    """UserError unless the file can be written and, if it is there, read; asked before anything is measured."""
    place = file()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {place.parent}: {error.strerror}; set XDG_CONFIG_HOME elsewhere.") from error
    if not os.access(place.parent, os.W_OK):
        raise UserError(f"cannot write into {place.parent}; set XDG_CONFIG_HOME elsewhere.")
    _entries()


def store(bundle: Bundle, found: Target, provider: str) -> Tuned:
    """Keeps a target that was met, in place of an earlier one of the same bundle, variant and method."""
    assert found.keep is not None
    assert found.kept_tokens is not None
    taken = next(probe.ttft_p90_ms for probe in found.probes if probe.kept_tokens == found.kept_tokens)
    made = Tuned(
        bundle.path.name, found.variant, found.method, found.keep, found.kept_tokens, found.target_ms, taken,
        time.strftime("%Y-%m-%d"), _machine(), provider,
    )  # fmt: skip
    entries = _entries()
    entries.setdefault(identity(bundle, found.variant), {})[found.method] = asdict(made)
    place = file()
    whole = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        whole.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        whole.replace(place)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror}.") from error
    return made


def read(bundle: Bundle, variant: str | None, method: str, provider: str) -> Tuned:
    """The stored keep ratio of a method.

    Raises:
        UserError: none is stored, or on another machine or provider; the sentence holds the command that finds one.
    """
    entry = _entries().get(identity(bundle, variant), {}).get(method)
    options = f" --variant {variant}" if variant else ""
    remedy = f"run `edgeprune profile {bundle.path} --prune {method}{options} --target-ms X --save`"
    if entry is None:
        where = f"{method} in {variant}" if variant else method
        raise UserError(f"no keep is stored on this machine for {where} of {bundle.path.name}: {remedy}.")
    try:
        found = Tuned(**entry)
    except TypeError as error:
        raise _broken() from error
    before, now = f"{found.machine}, {found.provider}", f"{_machine()}, {provider}"
    if before != now:
        raise UserError(f"the stored keep was measured on {before}, and this is {now}: {remedy}.")
    return found


def _machine() -> str:
    facts = machine.facts()
    return f"{facts['processor']}, {facts['cores']} cores, {' '.join(facts['cpu_flags'])}"


def _entries() -> dict[str, dict[str, Any]]:
    """Identity of a bundle's variant -> method -> fields of Tuned."""
    place = file()
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot read {place}: {error.strerror}.") from error
    except ValueError as error:
        raise _broken() from error
    if not isinstance(found, dict) or not all(
        isinstance(methods, dict) and all(isinstance(entry, dict) for entry in methods.values())
        for methods in found.values()
    ):
        raise _broken()
    return found


def _broken() -> UserError:
    return UserError(f"{file()} is not what `profile --save` writes; remove it to begin again.")
