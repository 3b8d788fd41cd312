"""What a target cannot run, found in the graphs without a GPU and without weights, before anyone waits for a build."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeprune.bundle import Bundle
from edgeprune.engines import graph_view, rules_operators, rules_shapes, rules_types
from edgeprune.engines.graph_view import GraphView
from edgeprune.engines.rules import RULES, Rule, oversized
from edgeprune.engines.shapes import spans
from edgeprune.engines.targets import Target
from edgeprune.manifest import Graph

#: importing them fills the registry.
_RULE_MODULES = (rules_operators, rules_shapes, rules_types)


@dataclass(frozen=True)
class Finding:
    """One thing that a target refuses.

    Attributes:
        graph: file name. node: name of the node, input or weight. rule: name of the rule that found it.
        problem: what is wrong. remedy: what to do.
    """

    graph: str
    node: str
    rule: str
    problem: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        return dataclasses.asdict(self)


def check_bundle(bundle: Bundle, target: Target) -> list[Finding]:
    """Findings in every canonical graph of a bundle, in the order of the manifest.

    Raises:
        BundleError: a graph is no ONNX file.
    """
    return [finding for graph in bundle.manifest.graphs for finding in check_graph(bundle, graph, target)]


def check_graph(bundle: Bundle, graph: Graph, target: Target) -> Iterator[Finding]:
    """Findings in one graph; one that is too large to be read is one finding."""
    path = bundle.file(graph.file)
    too_large = oversized(path.name, path.stat().st_size)
    if too_large is not None:
        yield Finding(path.name, path.name, *too_large)
        return
    yield from check_view(view_of(bundle, graph, path), target)


def view_of(bundle: Bundle, graph: Graph, path: Path) -> GraphView:
    """A graph of a bundle with what the manifest says about its inputs."""
    declared = {tensor.name: tensor.shape for tensor in graph.inputs}
    return GraphView(path.name, graph_view.load(path), path.stat().st_size, declared, spans(bundle.manifest))


def check_view(view: GraphView, target: Target) -> Iterator[Finding]:
    """Findings of every rule that the target has."""
    for rule in rules_for(target):
        for node, problem in rule.check(view, target):
            yield Finding(view.name, node, rule.name, problem, rule.remedy)


def rules_for(target: Target) -> list[Rule]:
    """The rules that a target's library has."""
    return [rule for rule in RULES.values() if target.builder in rule.builders]
