"""Show what of edgeprune works on this machine, and the remedy where something does not.

Nothing heavy is imported: packages are looked up by their metadata. Exit code 1: a bundle cannot be run here.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import sys
from typing import Any

from edgeprune import __version__, machine, requirements
from edgeprune.cli import accelerators
from edgeprune.cli.arguments import add_json
from edgeprune.cli.output import table, write_json
from edgeprune.errors import DependencyError, UserError

PACKAGES = (
    "numpy", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "safetensors", "pillow",
    "tqdm", "polygraphy", "tensorrt", "tensorrt-rtx",
)  # fmt: skip
#: what image files need, as the loader names it; jpeg depends on what the system's headers were.
IMAGE_LIBRARIES = {
    "libjpeg": (("libjpeg.so.62", "libjpeg.so.8", "libjpeg.so.9"), "install libjpeg62-turbo or libjpeg-turbo8"),
    "libpng": (("libpng16.so.16",), "install libpng16-16"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    report = examine()
    if args.json is not None:
        write_json(report, args.json)
    if args.json != "-":
        print(_text(report))
    return 0 if report["can_run"] else 1


def examine() -> dict[str, Any]:
    """Everything doctor knows, JSON-ready."""
    libraries = {"libedgeprune": _edgeprune_library(), "libonnxruntime": _onnxruntime_library()}
    can_run = all(entry["works"] for entry in libraries.values())
    libraries.update({name: _image_library(name) for name in IMAGE_LIBRARIES})
    return {
        "edgeprune": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "machine": machine.facts(),
        "libraries": libraries,
        "accelerators": accelerators.examine(),
        "providers": accelerators.providers(),
        "packages": {name: requirements.installed_version(name) for name in PACKAGES},
        **_extras(),
        "can_run": can_run,
    }


def _extras() -> dict[str, Any]:
    """ "extras", and why there are none in "extras_problem", "" otherwise."""
    try:
        needed = requirements.extras()
    except DependencyError as error:
        return {"extras": [], "extras_problem": str(error)}
    return {"extras": [_extra(name, items) for name, items in needed.items()], "extras_problem": ""}


def _extra(name: str, needed: list[requirements.Requirement]) -> dict[str, Any]:
    problems = [requirement.problem for requirement in needed if requirement.problem]
    remedy = f"pip install 'edgeprune[{name}]'" if problems else ""
    return {"name": name, "works": not problems, "problems": problems, "remedy": remedy}


def _edgeprune_library() -> dict[str, Any]:
    from edgeprune.runtime import library

    try:
        found = library.load()
    except UserError as error:
        return _broken(str(error), "make native, or pip install edgeprune")
    return {"works": True, "path": str(found.path), "version": found.version, "problem": "", "remedy": ""}


def _onnxruntime_library() -> dict[str, Any]:
    from edgeprune.runtime import library

    remedy = "pip install 'edgeprune[cpu]' or 'edgeprune[gpu]', or set EDGEPRUNE_ORT_LIB"
    names = [str(place) for place in library.onnxruntime_candidates()]
    for name in names:
        version = onnxruntime_version(name)
        if version is not None:
            return {"works": True, "path": name, "version": version, "problem": "", "remedy": ""}
    return _broken(f"no libonnxruntime can be loaded: tried {', '.join(names)}", remedy)


def onnxruntime_version(path: str) -> str | None:
    """Version that a libonnxruntime states by OrtGetApiBase()->GetVersionString(); None when it cannot be loaded."""

    class ApiBase(ctypes.Structure):
        _fields_ = (("get_api", ctypes.c_void_p), ("get_version_string", ctypes.CFUNCTYPE(ctypes.c_char_p)))

    try:
        base = ctypes.CDLL(path).OrtGetApiBase
    except (OSError, AttributeError):
        return None
    base.restype = ctypes.POINTER(ApiBase)
    return bytes(base().contents.get_version_string()).decode()


def _image_library(name: str) -> dict[str, Any]:
    files, remedy = IMAGE_LIBRARIES[name]
    for file in files:
        try:
            ctypes.CDLL(file)
        except OSError:
            continue
        return {"works": True, "path": file, "version": "", "problem": "", "remedy": ""}
    return _broken(f"tried {', '.join(files)}; image files of this kind cannot be read, buffers can", remedy)


def _broken(problem: str, remedy: str) -> dict[str, Any]:
    return {"works": False, "path": "", "version": "", "problem": problem, "remedy": remedy}


def _text(report: dict[str, Any]) -> str:
    facts = report["machine"]
    head = [
        f"edgeprune {report['edgeprune']}, Python {report['python']} ({report['executable']})",
        f"{facts['system']}, {facts['machine']}, {facts['processor']}, {facts['cores']} cores",
        f"instruction sets: {' '.join(facts['cpu_flags']) or '-'}",
        f"memory {facts['memory_free_mib']} of {facts['memory_mib']} MiB free, disk {facts['disk_free_mib']} MiB free",
    ]
    rows = [("library", "state", "where")]
    rows += [(name, _state(entry), entry["path"] or entry["problem"]) for name, entry in report["libraries"].items()]
    rows += [(name, _state(entry), entry["problem"]) for name, entry in report["accelerators"].items()]
    usable = [f"{row['name']} {'runs' if row['works'] else 'fails: ' + row['problem']}" for row in report["providers"]]
    packages = [f"{name} {version}" for name, version in report["packages"].items() if version]
    extras = [("extra", "state", "remedy")]
    extras += [(entry["name"], _state(entry), _remedy(entry)) for entry in report["extras"]]
    named = {**report["libraries"], **report["accelerators"], **{row["name"]: row for row in report["providers"]}}
    remedies = [f"{name}: {entry['remedy']}" for name, entry in named.items() if entry["remedy"]]
    known = table(extras) if report["extras"] else f"extras: {report['extras_problem']}"
    parts = [
        "\n".join(head),
        table(rows),
        "onnxruntime's providers: " + (", ".join(usable) or "none: no onnxruntime package"),
        "packages: " + ", ".join(packages),
        known,
        *remedies,
    ]
    return "\n\n".join(parts)


def _state(entry: dict[str, Any]) -> str:
    return ("ok " + entry.get("version", "")).strip() if entry["works"] else "missing"


def _remedy(entry: dict[str, Any]) -> str:
    return "" if entry["works"] else f"{'; '.join(entry['problems'])}: {entry['remedy']}"
