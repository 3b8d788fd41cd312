"""Trace a graph module to an ONNX model: fixed names, standard ops, opset 20, weights left as placeholders."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir
import torch
import torch._dynamo
from torch import nn

from edgeprune.export.passes.mark import mark
from edgeprune.export.passes.optimise import optimise
from edgeprune.export.passes.repeat import Run, repeat
from edgeprune.export.passes.strip import strip

OPSET: Final = 20
PRODUCER: Final = "edgeprune"


@dataclass(frozen=True)
class Axis:
    """One input or output of a graph: role and name for the manifest, shape with letters for free dimensions."""

    role: str
    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def numbered(self, run: Run, index: int) -> Axis:
        """The same input or output of another layer of the run."""
        shape = tuple(run.numbered(dim, index) if isinstance(dim, str) else dim for dim in self.shape)
        return Axis(run.numbered(self.role, index), run.numbered(self.name, index), self.dtype, shape)

    def to_manifest(self) -> dict[str, Any]:
        return {"role": self.role, "name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a traced module, flattened in order."""

    inputs: tuple[Axis, ...]
    outputs: tuple[Axis, ...]
    runs: tuple[Run, ...] = ()

    def expanded(self) -> Interface:
        """With the inputs and outputs of every repeated layer, in the order of the graph."""
        inputs, outputs = list(self.inputs), list(self.outputs)
        for run in self.runs:
            for index in range(run.first + 1, run.first + run.count):
                inputs += [axis.numbered(run, index) for axis in self.inputs if axis.name in run.inputs]
                outputs += [axis.numbered(run, index) for axis in self.outputs if axis.name in run.outputs]
        return Interface(tuple(inputs), tuple(outputs))


def trace(
    module: nn.Module, example: tuple[Any, ...], interface: Interface, canonical: Callable[[str], str] = str
) -> ir.Model:
    """Exports `module` called with `example`.

    Free dimensions are those that `interface` writes as letters. Layers listed in `interface.runs` are traced once and
    repeated. Weights come out as initialisers without values, named by `canonical` of their parameter names.
    """
    weights = [name for name, _ in module.named_parameters()]
    # torch's cache of fake tensors costs more than half the time of a trace with symbolic shapes, and saves nothing
    faster = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with _quiet(), _one_registry(), faster, torch.no_grad():
        program = torch.export.export(module.eval(), example, dynamic_shapes=_dynamic(example, interface), strict=False)
        made = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
    model: ir.Model = made.model  # type: ignore[union-attr]
    _name(model.graph, interface)
    optimise(model, weights)
    mark(model.graph)
    _rename_weights(model.graph, weights, canonical)
    for run in interface.runs:
        repeat(model, run)
    _letter(model.graph, interface)
    strip(model, PRODUCER)
    return model


def _dynamic(example: tuple[Any, ...], interface: Interface) -> Any:
    """dynamic_shapes in the structure of `example`: free where the interface has a letter."""
    axes = iter(interface.inputs)
    free = torch.export.Dim.AUTO

    def of(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return {index: free for index, dim in enumerate(next(axes).shape) if isinstance(dim, str)}
        return type(value)(of(item) for item in value)

    return of(example)


def _name(graph: ir.Graph, interface: Interface) -> None:
    """Gives inputs and outputs their names, and letters to their free dimensions."""
    for values, axes in ((graph.inputs, interface.inputs), (graph.outputs, interface.outputs)):
        if len(values) != len(axes):
            raise RuntimeError(f"the trace has {[v.name for v in values]} where {[a.name for a in axes]} are declared")
        for value, axis in zip(values, axes, strict=True):
            _require_shape(value, axis)
            value.name = axis.name


def _rename_weights(graph: ir.Graph, weights: list[str], canonical: Callable[[str], str]) -> None:
    for name in weights:
        value = graph.initializers.pop(name, None)
        if value is not None:
            value.name = canonical(name)
            graph.initializers.add(value)


def _require_shape(value: ir.Value, axis: Axis) -> None:
    """RuntimeError where the trace fixed a dimension that must be free, or freed one that is fixed."""
    found = [dim if isinstance(dim, int) else None for dim in value.shape]
    wanted = [dim if isinstance(dim, int) else None for dim in axis.shape]
    if found != wanted:
        raise RuntimeError(f"{axis.name} was traced with shape {value.shape}, declared is {axis.shape}")


def _letter(graph: ir.Graph, interface: Interface) -> None:
    """Writes the declared letters on the free dimensions."""
    full = interface.expanded()
    for values, axes in ((graph.inputs, full.inputs), (graph.outputs, full.outputs)):
        if [value.name for value in values] != [axis.name for axis in axes]:
            raise RuntimeError(f"the graph has {[v.name for v in values]} where {[a.name for a in axes]} are declared")
        for value, axis in zip(values, axes, strict=True):
            value.shape = ir.Shape(axis.shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's notes about packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _one_registry() -> Iterator[None]:
    """Builds the exporter's table of operators once per process; it does so anew in every call, which is a fifth of
    the time of a small trace. A private name: where it moves, only that time is lost."""
    from torch.onnx._internal.exporter import _registration

    owner: Any = getattr(_registration, "ONNXRegistry", object)
    original = vars(owner).get("from_torchlib")
    if original is None:
        yield
        return
    owner.from_torchlib = staticmethod(functools.partial(_registry, original))
    try:
        yield
    finally:
        owner.from_torchlib = original


@functools.cache
def _registry(original: Any, opset_version: int) -> Any:
    """The table of one opset; `original` is the class method that builds it."""
    from torch.onnx._internal.exporter import _registration

    return original.__func__(_registration.ONNXRegistry, opset_version=opset_version)
