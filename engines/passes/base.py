"""What a graph pass is: a change with a precondition and a postcondition, both checked, and the checks they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx
from onnx import helper

from edgeprune.engines.graph_view import GraphView
from edgeprune.errors import DialectError

#: yields what is wrong, in words that follow "the graph"; nothing: it holds.
Check = Callable[[onnx.ModelProto], Iterator[str]]
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class GraphPass:
    """One change of a graph.

    Attributes:
        name: for messages and build.json.
        needs, gives: what has to hold before and after it.
        change: changes the model in place; says how many nodes it made.
    """

    name: str
    needs: tuple[Check, ...]
    gives: tuple[Check, ...]
    change: Callable[[onnx.ModelProto], int]

    def __call__(self, model: onnx.ModelProto) -> int:
        """Applies it; DialectError when the graph is not what it needs, or did not become what it promises."""
        self._hold(self.needs, model, "needs another graph")
        made = self.change(model)
        self._hold(self.gives, model, "made a wrong graph")
        return made

    def _hold(self, checks: Iterable[Check], model: onnx.ModelProto, verdict: str) -> None:
        found = next((wrong for check in checks for wrong in check(model)), None)
        if found is not None:
            raise DialectError(f"the pass {self.name} {verdict}: it {found}; build for another target.")


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default domain."""
    return GraphView("", model).opset()


def opset_between(low: int, high: int) -> Check:
    """The default domain's version lies in low..high."""

    def check(model: onnx.ModelProto) -> Iterator[str]:
        if not low <= opset_of(model) <= high:
            yield f"is of opset {opset_of(model)}, outside {low}..{high}"

    return check


def standard_only(model: onnx.ModelProto) -> Iterator[str]:
    """Operators of the standard domain, each known to the opset that the graph names; no local functions."""
    version = opset_of(model)
    yield from (f"has the local function {function.name}" for function in model.functions)
    for node, _ in GraphView("", model).walk():
        if node.domain not in _STANDARD:
            yield f"has {node.name}, an operator of {node.domain}"
        elif not _known(node.op_type, version):
            yield f"has {node.name}, and {node.op_type} is not part of opset {version}"


def in_order(model: onnx.ModelProto) -> Iterator[str]:
    """Every value is made once, before it is read, and every output of the graph is made."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer} | {info.name for info in graph.input} | {""}
    for node in graph.node:
        yield from (f"reads {name} in {node.name} before it is made" for name in node.input if name not in known)
        yield from (f"makes {name} twice" for name in node.output if name and name in known)
        known.update(node.output)
    yield from (f"does not make its output {info.name}" for info in graph.output if info.name not in known)


def attention_has_one_output(model: onnx.ModelProto) -> Iterator[str]:
    """Keys and values are joined outside of Attention: TensorRT takes no present outputs."""
    for node in model.graph.node:
        if node.op_type == "Attention" and (len([name for name in node.output if name]) > 1 or any(node.input[4:])):
            yield f"has {node.name}, which joins keys and values itself"


def scans(model: onnx.ModelProto) -> bool:
    """Whether there is a Scan at any depth: the loop of a greedy method."""
    return any(node.op_type == "Scan" for node, _ in GraphView("", model).walk())


def no_attention_beside_scan(model: onnx.ModelProto) -> Iterator[str]:
    """TensorRT-RTX 1.7.1 dies of SIGSEGV while it builds a graph that holds both, connected or not. Where the queries,
    keys and values come right from products it does not; behind a Mul or behind int8's pairs it does."""
    if scans(model):
        for node, _ in GraphView("", model).walk():
            if node.op_type == "Attention":
                yield f"has {node.name} beside a Scan, which crashes TensorRT-RTX"


def _known(operator: str, version: int) -> bool:
    try:
        return not onnx.defs.get_schema(operator, version, "").deprecated
    except onnx.defs.SchemaError:
        return False


def set_opset(model: onnx.ModelProto, version: int) -> None:
    """Names another version of the default domain; the caller knows that no operator means another thing there."""
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", version))
