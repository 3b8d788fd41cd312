"""Which nodes leave the range of fp16 or bf16 on real inputs, found by running the fp32 graph in onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.bundle import Bundle
from edgeprune.engines import calibration
from edgeprune.engines.float_types import FP16, Half
from edgeprune.engines.half import fp32_nodes
from edgeprune.engines.quantise import Arrays, linked, load, run_each
from edgeprune.engines.weightless import value_types
from edgeprune.errors import UserError

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Range:
    """What one node made: the largest absolute value, and whether all values were finite."""

    node: str
    operator: str
    largest: float
    finite: bool

    def fits(self, half: Half = FP16) -> bool:
        """Whether the type holds every value."""
        return self.finite and self.largest <= half.largest

    def said(self, half: Half = FP16) -> str:
        """One line for people about a value that does not fit."""
        ends = f"{half.word} ends at {half.largest:.5g}"
        problem = f"up to {self.largest:.3g}, and {ends}" if self.finite else "NaN or Inf"
        return f"{self.node} ({self.operator}) makes {problem}"


def ranges(graph: Path, sets: Sequence[Arrays], scratch: Path) -> dict[str, Range]:
    """First output of every node that makes floats -> its range over all sets of feeds; a probe in the folder `scratch`
    is removed again."""
    model = onnx.load(graph, load_external_data=False)
    kinds = value_types(model)
    nodes = [node for node in model.graph.node if kinds.get(node.output[0]) in _FLOATS]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "probe_zero")
    model.graph.initializer.append(zero)
    for index, node in enumerate(nodes):
        _watch(model.graph, node.output[0], index)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        probe = linked(model, graph.parent, Path(folder))
        names = [f"probe_{what}_{index}" for index in range(len(nodes)) for what in ("largest", "finite")]
        table = np.array([[float(value) for value in found] for found in run_each(probe, sets, names)])
    values = table.max(0).tolist()  # NaN in one is NaN in all
    made = zip(nodes, values[::2], values[1::2], strict=True)
    return {n.output[0]: Range(n.name or n.output[0], n.op_type, size, zero == 0) for n, size, zero in made}


@dataclass(frozen=True)
class Outlier:
    """A node that fp16 would compute and whose values it cannot hold."""

    graph: str
    node: str
    operator: str
    largest: float | None
    finite: bool

    def __str__(self) -> str:
        return f"{self.graph}: {Range(self.node, self.operator, self.largest or 0.0, self.finite).said()}"


def check_bundle(bundle: Bundle, stages: Collection[str]) -> list[Outlier]:
    """Outliers of the graphs of `stages` ("vision", "decoder") on the bundle's golden inputs; it is not changed."""
    inputs = calibration.inputs(bundle)
    graphs = bundle.manifest.graphs
    work = [(several[0], inputs.vision[name]) for name, several in graphs.vision.items() if "vision" in stages]
    work += [(graphs.decoder, inputs.decoder)] if "decoder" in stages else []
    found = []
    for graph, feeds in work:
        path = bundle.file(graph.file)
        # The data files are linked, so the probe has to lie on the file system of the bundle.
        try:
            rows = offenders(path, ranges(path, [feeds], bundle.path.parent))
        except OSError as error:
            raise UserError(f"cannot write beside {bundle.path}, as this check must: {error.strerror}.") from error
        found += [Outlier(path.name, r.node, r.operator, r.largest if r.finite else None, r.finite) for r in rows]
    return found


def offenders(graph: Path, found: dict[str, Range]) -> list[Range]:
    """The nodes that fp16 would compute and whose values it cannot hold."""
    kept = fp32_nodes(load(graph))
    return [r for name, r in found.items() if not r.fits() and name not in kept]


def keep_fp32(graph: Path, found: dict[str, Range], half: Half = FP16) -> list[str]:
    """Names of the nodes to leave in fp32: those that make values beyond the type, and those that read them."""
    outside = {name for name, r in found.items() if not r.fits(half)}
    nodes = onnx.load(graph, load_external_data=False).graph.node
    return [node.name for node in nodes if outside & {*node.input, *node.output}]


def _watch(graph: onnx.GraphProto, name: str, index: int) -> None:
    """Adds two numbers to the outputs: max |x|, and 0 when every x is finite, else NaN."""
    whole, size, none = (f"probe_{what}_{index}" for what in ("whole", "size", "none"))
    graph.node.extend([
        helper.make_node("Cast", [name], [whole], to=TensorProto.FLOAT),
        helper.make_node("Abs", [whole], [size]),
        helper.make_node("ReduceMax", [size], [f"probe_largest_{index}"], keepdims=0),
        helper.make_node("Mul", [whole, "probe_zero"], [none]),
        helper.make_node("ReduceSum", [none], [f"probe_finite_{index}"], keepdims=0),
    ])  # fmt: skip
    for what in ("largest", "finite"):
        graph.output.append(onnx.ValueInfoProto(name=f"probe_{what}_{index}"))
