"""Whose work a node is: what runs inside this module is the pruner's, and its nodes are named so.

The exporter writes the modules that a node came through into its metadata; `passes/mark.py` turns that into a name,
which survives the runtime's fusions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from edgeprune.export.passes.mark import MODULE

Result = TypeVar("Result")


class PruningPart(nn.Module):
    """Calls what it is given. Without weights; a graph holds it under the name `pruning`."""

    def forward(self, work: Callable[..., Result], *arguments: object) -> Result:
        return work(*arguments)


def add_pruning_part(owner: nn.Module) -> PruningPart:
    """The part of a graph, registered under the name that the pass looks for."""
    part = PruningPart()
    owner.add_module(MODULE, part)
    return part
