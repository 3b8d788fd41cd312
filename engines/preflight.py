"""What an int8 or int4 build needs, estimated from the sizes of the weights before it starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.errors import UserError

#: peak resident memory over the weights of one graph: 4.6 for a decoder of 513 MiB, measured with onnxruntime 1.31
MEMORY_FACTOR = 5.0
#: the process itself, with onnx and onnxruntime loaded
BASE_BYTES = 300 << 20
#: a variant is at most as large as the graphs it is made of, and its largest graph is on the disk once more as a trial
DISK_FACTOR = 2.0


@dataclass(frozen=True)
class Needs:
    """Upper estimates in bytes: resident memory at the peak, and disk of the bundle's file system."""

    memory: int
    disk: int


def needs(bundle: Bundle, precision: dict[str, str]) -> Needs:
    """What a build with this precision needs."""
    graphs = bundle.manifest.graphs
    stages = {"vision": [graph for several in graphs.vision.values() for graph in several], "decoder": [graphs.decoder]}
    chosen = [graph for stage, word in precision.items() if word != "fp32" for graph in stages[stage]]
    sizes = [sum(bundle.manifest.files[name].bytes for name in (graph.file, *graph.data)) for graph in chosen]
    names = {name for graph in chosen for name in (graph.file, *graph.data)}
    whole = sum(bundle.manifest.files[name].bytes for name in names)
    return Needs(BASE_BYTES + int(MEMORY_FACTOR * max(sizes)), int(DISK_FACTOR * whole))


def require(bundle: Bundle, precision: dict[str, str]) -> None:
    """UserError with both numbers when this machine has less memory or disk free than the build needs."""
    wanted = needs(bundle, precision)
    free = {"memory": machine.memory_bytes()[1], "disk": shutil.disk_usage(bundle.path).free}
    for name, need in (("memory", wanted.memory), ("disk", wanted.disk)):
        if free[name] < need:
            raise UserError(
                f"the build needs about {need >> 20} MiB of {name} and {free[name] >> 20} MiB are free; free some, "
                "build on a larger machine (the variant can be copied with its bundle), or go on with --force."
            )
