"""TensorRT's timing cache: what its builder measured of kernels, kept so that the next build need not measure it again.

It lies beside the engines, belongs to the variant's files, and is taken over only by a build of the same library on the
same GPU. TensorRT-RTX has none: its calls are there in 1.7, deprecated, and do nothing (a test looks), because it times
no kernels while it builds. What it calls a runtime cache holds kernels that a GPU compiled when an engine first ran.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeprune import devices
from edgeprune.bundle import Bundle, sha256_of
from edgeprune.manifest import Variant

FILE = "timing.cache"
#: parts of a fingerprint that timings depend on
_DECIDES = ("module", "versions", *devices.FACTS)


def serves(module: str) -> bool:
    """Whether the library has a timing cache."""
    return module == "tensorrt"


def facts(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Library and machine that timings hold for, from the fingerprint of an engine."""
    return {name: fingerprint[name] for name in _DECIDES}


def seed(bundle: Bundle, wanted: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> str | None:
    """Copies the timings of the newest variant that fits into `folder`.

    Args:
        wanted: `facts` of the build that begins.

    Returns:
        The slug of that variant; None: no variant has timings of this library and machine.
    """
    for variant in reversed(bundle.manifest.variants):
        name = f"{variant.build.rpartition('/')[0]}/{FILE}"
        if name not in variant.files or _facts_of(bundle, variant) != wanted:
            continue
        if not (bundle.path / name).is_file() or sha256_of(bundle.path / name) != variant.files[name].sha256:
            say(f"{name} is damaged and not used: kernels are timed anew")
            continue
        shutil.copyfile(bundle.path / name, folder / FILE)
        return variant.slug
    return None


def _facts_of(bundle: Bundle, variant: Variant) -> Any:
    """What the timings of a variant hold for; None where its build.json does not say."""
    try:
        build = json.loads((bundle.path / variant.build).read_text(encoding="utf-8"))
        return build["timing_cache"]["facts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
