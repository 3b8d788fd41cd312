"""onnxruntime's own profile of a graph: which node took how long, in which run.

Its trace is a JSON list of events in microseconds. A run is an event of its own; the nodes inside it are those that
begin while it lasts. Scan, Loop and If last as long as the nodes of their bodies: what is left is their own time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.manifest import PRUNING_PREFIX

Shape = tuple[int, ...]

_FILE = re.compile(r"(.+)_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_\d+)?\.json")
_NODE = "_kernel_time"
_WITH_BODY = ("Scan", "Loop", "If")


@dataclass(frozen=True)
class Node:
    """One execution of a node.

    Args:
        own_ms: without the nodes of its body.
        pruner: its work belongs to the pruning method.
        inferred: that was concluded from its neighbours, because the runtime made it of several nodes and kept no name.
        inputs: shapes of the tensors it was given; weights that the runtime repacked are missing.
    """

    name: str
    op: str
    own_ms: float
    pruner: bool
    inferred: bool
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def graph_of(file: Path) -> str | None:
    """Name of the graph that a trace belongs to, None for any other file."""
    found = _FILE.fullmatch(file.name)
    return found and found[1]


def read_runs(file: Path) -> list[list[Node]]:
    """The nodes of every run of the graph, both in their order."""
    return runs_of(json.loads(file.read_text(encoding="utf-8")))


def runs_of(events: Iterable[dict[str, Any]]) -> list[list[Node]]:
    """The same of decoded events."""
    known = sorted((event for event in events if "dur" in event), key=lambda event: (event["ts"], -event["dur"]))
    spans = [event for event in known if event["name"] == "model_run"]
    nodes = [event for event in known if event["cat"] == "Node" and event["name"].endswith(_NODE)]
    return [_nodes([event for event in nodes if _inside(event, span)]) for span in spans]


def _inside(event: dict[str, Any], span: dict[str, Any]) -> bool:
    begin: int = span["ts"]
    return bool(begin <= event["ts"] < begin + span["dur"])


def _nodes(events: Sequence[dict[str, Any]]) -> list[Node]:
    """Of one run; events in the order of their beginning, a parent before its body."""
    own = [event["dur"] for event in events]
    parents: list[int | None] = []
    open_bodies: list[int] = []
    for index, event in enumerate(events):
        while open_bodies and not _inside(event, events[open_bodies[-1]]):
            open_bodies.pop()
        parents.append(open_bodies[-1] if open_bodies else None)
        if parents[-1] is not None:
            own[parents[-1]] -= event["dur"]
        if event["args"]["op_name"] in _WITH_BODY:
            open_bodies.append(index)
    marks = _marks(events, parents)
    return [_node(event, max(0, us), *mark) for event, us, mark in zip(events, own, marks, strict=True)]


def _marks(events: Sequence[dict[str, Any]], parents: Sequence[int | None]) -> list[tuple[bool, bool]]:
    """(pruner, inferred) of every node: by its name; in a body, by its parent; without a name, by its neighbours."""
    marks: list[tuple[bool, bool]] = []
    for index, event in enumerate(events):
        parent = parents[index]
        if parent is not None:
            marks.append(marks[parent])
        elif _nameless(event):
            sides = (range(index - 1, -1, -1), range(index + 1, len(events)))
            marks.append((all(_nearest(events, parents, side) for side in sides),) * 2)
        else:
            marks.append((event["name"].startswith(PRUNING_PREFIX), False))
    return marks


def _nearest(events: Sequence[dict[str, Any]], parents: Sequence[int | None], side: Iterable[int]) -> bool:
    """The next node outside bodies that has a name of the graph's is the pruner's."""
    names = (events[at]["name"] for at in side if parents[at] is None and not _nameless(events[at]))
    return next(names, "").startswith(PRUNING_PREFIX)


def _nameless(event: dict[str, Any]) -> bool:
    """A node that the runtime made is named after its operator where it is not named after one that it replaces."""
    name = event["name"].removesuffix(_NODE)
    return bool(re.fullmatch(rf"(?:{re.escape(event['args']['op_name'])}|\w*Fusion\w*)(?:[_/].*)?", name))


def _node(event: dict[str, Any], own_us: float, pruner: bool, inferred: bool) -> Node:
    args = event["args"]
    inputs, outputs = (_shapes(args.get(f"{side}_type_shape", ())) for side in ("input", "output"))
    return Node(event["name"].removesuffix(_NODE), args["op_name"], own_us / 1e3, pruner, inferred, inputs, outputs)


def _shapes(found: Iterable[dict[str, list[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for entry in found for shape in entry.values())
