"""TensorRT and TensorRT-RTX through Polygraphy: one code path, two modules.

The graphs of a bundle carry their own types, so networks are strongly typed and no precision flag is set.
Source of the facts used here: TensorRT-RTX 1.7 and Polygraphy 0.53 as installed; see docs/adr/0007.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Final, Literal

from edgeprune.engines.shapes import ShapeRange
from edgeprune.errors import DependencyError, UserError

Module = Literal["tensorrt_rtx", "tensorrt"]
#: how every engine is built; part of its fingerprint.
OPTIONS: Final = {"strongly_typed": True, "tf32": True}


def require(module: Module) -> None:
    """Raises DependencyError when the module or Polygraphy is not installed."""
    missing = [name for name in (module, "polygraphy") if importlib.util.find_spec(name) is None]
    if not missing:
        return
    if module == "tensorrt":
        raise DependencyError(
            f"{' and '.join(missing)} not installed: on Jetson TensorRT comes with JetPack (libnvinfer), elsewhere "
            "`pip install edgeprune[tensorrt]` downloads it from the vendor's own index"
        )
    raise DependencyError(f"{' and '.join(missing)} not installed: pip install edgeprune[rtx]")


def _backend(module: Module) -> Any:
    """Polygraphy's TensorRT back end, bound to the module; Polygraphy reads the choice once, at import."""
    require(module)
    wanted = "1" if module == "tensorrt_rtx" else "0"
    loaded = "polygraphy.backend.trt" in sys.modules
    if loaded and os.environ.get("POLYGRAPHY_USE_TENSORRT_RTX", "0") != wanted:
        raise UserError("one process builds for TensorRT or for TensorRT-RTX, not both: start another process")
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = wanted
    return importlib.import_module("polygraphy.backend.trt")


def _config(
    module: Module, profiles: list[Any], compute_capabilities: Sequence[tuple[int, int]], timings: pathlib.Path | None
) -> Any:
    if module == "tensorrt_rtx":
        rtx = importlib.import_module("polygraphy.backend.tensorrt_rtx")
        return rtx.CreateConfigRTX(compute_capabilities=list(compute_capabilities), profiles=profiles)
    known = str(timings) if timings is not None and timings.exists() else None
    return _backend(module).CreateConfig(profiles=profiles, tf32=OPTIONS["tf32"], load_timing_cache=known)


def build_engine_bytes(
    graph: pathlib.Path,
    profiles: Sequence[Mapping[str, ShapeRange]],
    *,
    compute_capabilities: Sequence[tuple[int, int]],
    module: Module = "tensorrt_rtx",
    timings: pathlib.Path | None = None,
) -> bytes:
    """Builds one ONNX graph into a serialized engine.

    Args:
        graph: ONNX file; its external data lies beside it.
        profiles: one or more optimization profiles, input name -> ShapeRange.
        compute_capabilities: GPUs the engine is for, e.g. [(8, 6)]. TensorRT-RTX builds for GPUs that are not
            present; standard TensorRT builds for the GPU of this machine and takes an empty list.
        module: which of the two libraries.
        timings: a timing cache, which TensorRT reads when it is there and adds to; TensorRT-RTX writes an empty one.

    Raises:
        DependencyError: the module is not installed.
        UserError: no compute capability for TensorRT-RTX, or the library refuses the graph (its own words).
    """
    if module == "tensorrt_rtx" and not compute_capabilities:
        raise UserError("TensorRT-RTX needs the compute capabilities to build for, for example (8, 6)")
    trt = _backend(module)
    from polygraphy.exception import PolygraphyException

    network = trt.NetworkFromOnnxPath(str(graph), strongly_typed=OPTIONS["strongly_typed"])
    config = _config(module, polygraphy_profiles(profiles, module), compute_capabilities, timings)
    saved = None if timings is None else str(timings)
    log = io.StringIO()
    try:
        # Polygraphy writes pages to stdout; of those only the reason of a refusal is wanted.
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            engine = trt.EngineBytesFromNetwork(network, config=config, save_timing_cache=saved)()
    except PolygraphyException as error:
        raise UserError(f"{module} refuses {graph.name}: {_reason(log.getvalue()) or error}") from error
    finally:
        if timings is not None:  # Polygraphy's lock of the file
            timings.with_name(f"{timings.name}.lock").unlink(missing_ok=True)
    return bytes(engine)


def write_engine(
    graph: pathlib.Path, profiles: Sequence[Mapping[str, ShapeRange]], engine: pathlib.Path, **how: Any
) -> float:
    """`build_engine_bytes` into a file, for a process of its own; returns seconds without the loading of libraries."""
    _backend(how["module"])
    started = time.monotonic()
    engine.write_bytes(build_engine_bytes(graph, profiles, **how))
    return time.monotonic() - started


def polygraphy_profiles(profiles: Sequence[Mapping[str, ShapeRange]], module: Module = "tensorrt_rtx") -> list[Any]:
    """The same profiles as Polygraphy's type."""
    trt = _backend(module)
    made = []
    for ranges in profiles:
        profile = trt.Profile()
        for name, r in ranges.items():
            profile.add(name, min=r.min, opt=r.opt, max=r.max)
        made.append(profile)
    return made


def parser_errors(graph: pathlib.Path, module: Module) -> list[tuple[str, str, str]]:
    """What the module's ONNX parser says against a graph: node, operator, words; none: it reads the graph, weights
    included."""
    backend, library = _backend(module), importlib.import_module(module)
    _builder, network = backend.CreateNetwork(strongly_typed=OPTIONS["strongly_typed"])()
    parser = library.OnnxParser(network, library.Logger(library.Logger.INTERNAL_ERROR))
    log = io.StringIO()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        parser.parse_from_file(str(graph))
    errors = map(parser.get_error, range(parser.num_errors))  # their memory is the parser's
    return [(str(error.node_name()), str(error.node_operator()), str(error.desc())) for error in errors]


def versions(module: Module) -> dict[str, str]:
    """Versions of the module and of Polygraphy, as the packages state them; needs both installed."""
    return {module: str(importlib.import_module(module).__version__), "polygraphy": metadata.version("polygraphy")}


def _reason(log: str) -> str:
    """What the library says against a graph, on one line: a builder's first error message is the cause; a parser's last
    names the node, after the steps that it was in."""
    errors = [line.strip().removeprefix("[E]").strip() for line in log.splitlines() if line.strip().startswith("[E]")]
    return errors[-1 if "Could not parse ONNX" in log else 0] if errors else ""
