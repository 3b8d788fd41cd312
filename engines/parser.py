"""The parser of the installed TensorRT or TensorRT-RTX, asked what it makes of a bundle's graphs; no GPU needed.

It knows what the rules of lint do not, and less than a build: limits that only the builder meets (K of TopK) pass it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeprune.bundle import Bundle
from edgeprune.engines import tensorrt
from edgeprune.engines.engine_plan import plans
from edgeprune.engines.lint import Finding
from edgeprune.engines.targets import Target
from edgeprune.errors import UserError

RULE = "parser"
_REMEDY = "Write it in operators that this parser reads, or use another target."


def require(target: Target) -> tensorrt.Module:
    """The module whose parser is asked.

    Raises:
        UserError: the target has no parser. DependencyError: the module is not installed; says from where.
    """
    if target.builder == "onnxruntime":
        raise UserError(f"{target.name} is run by onnxruntime: --parser asks TensorRT's or TensorRT-RTX's.")
    module: tensorrt.Module = "tensorrt_rtx" if target.builder == "tensorrt-rtx" else "tensorrt"
    tensorrt.require(module)
    return module


def check_bundle(bundle: Bundle, target: Target) -> list[Finding]:
    """What the parser refuses in the canonical graphs that become engines; it reads their weights."""
    module = require(target)
    return [found for plan in plans(bundle.manifest) for found in _check(bundle.file(plan.graph.file), module)]


def _check(graph: Path, module: tensorrt.Module) -> Iterator[Finding]:
    for node, operator, words in tensorrt.parser_errors(graph, module):
        problem = " ".join(words.split()).rstrip(".")
        yield Finding(graph.name, node or graph.name, RULE, f"{operator}: {problem}" if operator else problem, _REMEDY)
