"""The registry of lint rules: each is one small function with its remedy. Sources: see targets.toml."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx

from edgeprune.engines.graph_view import GraphView
from edgeprune.engines.targets import Target

#: (name of the node, input or weight; what is wrong)
Hit = tuple[str, str]
Check = Callable[[GraphView, Target], Iterator[Hit]]

RTX = frozenset({"tensorrt-rtx"})
TENSORRT = frozenset({"tensorrt", "tensorrt-rtx"})
ONNXRUNTIME = frozenset({"onnxruntime"})
EVERY = TENSORRT | ONNXRUNTIME
#: protobuf cannot read a message of this size.
MAX_GRAPH_BYTES = 2**31


@dataclass(frozen=True)
class Rule:
    """A thing that some libraries refuse.

    Attributes:
        name: letters and dashes. builders: the libraries that refuse it. remedy: one sentence.
        check: yields a hit per place.
    """

    name: str
    builders: frozenset[str]
    remedy: str
    check: Check


RULES: dict[str, Rule] = {}


def rule(name: str, builders: frozenset[str], remedy: str) -> Callable[[Check], Check]:
    """Registers a check under a name that no other has."""

    def register(check: Check) -> Check:
        if name in RULES:
            raise ValueError(f"two rules are called {name}")
        RULES[name] = Rule(name, builders, remedy, check)
        return check

    return register


def label(node: onnx.NodeProto) -> str:
    """How a finding names a node: its name, else its operator and first output."""
    return node.name or f"{node.op_type} -> {next(iter(node.output), '?')}"


@rule("graph-size", EVERY, "Store the weights as external data: `edgeprune export` does.")
def graph_size(view: GraphView, target: Target) -> Iterator[Hit]:
    found = oversized(view.name, view.size_bytes)
    if found is not None:
        yield view.name, found[1]


def oversized(name: str, size_bytes: int) -> tuple[str, str, str] | None:
    """(rule, problem, remedy) of a graph file that protobuf cannot read; asked before it is read."""
    if size_bytes < MAX_GRAPH_BYTES:
        return None
    problem = f"{name} has {size_bytes >> 20} MiB, and no ONNX file may reach {MAX_GRAPH_BYTES >> 20}"
    return "graph-size", problem, RULES["graph-size"].remedy
