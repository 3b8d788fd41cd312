"""What JetPack 6 can read: canonical graphs and their fp16 form hold operators of opset 20 at most, none contrib."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import onnx
import pytest

from edgeprune.bundle import Bundle
from edgeprune.engines import calibration, dialects, lint, quantise, targets
from edgeprune.engines.graph_view import GraphView, load
from edgeprune.tolerances import TOLERANCES

JETPACK_6 = targets.find("tensorrt:orin-nano")


def assert_opset_20(view: GraphView) -> None:
    """Each operator exists in opset 20 and in no other domain; lint for TensorRT 10.3 finds nothing."""
    assert [(entry.domain, entry.version) for entry in view.model.opset_import] == [("", 20)]
    assert not view.model.functions
    for node, _scope in view.walk():
        assert node.domain == "", node.name
        schema = onnx.defs.get_schema(node.op_type, 20, "")  # raises for an operator that came later
        assert schema.since_version <= 20
    assert list(lint.check_view(view, JETPACK_6)) == []


def test_canonical_graphs_of_every_method(tiny_bundle: pathlib.Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    graphs = list(bundle.manifest.graphs)
    assert len(graphs) == 7
    for graph in graphs:
        assert_opset_20(lint.view_of(bundle, graph, bundle.file(graph.file)))


@pytest.mark.parametrize("stage", ["fastervlm", "decoder"])
def test_the_fp16_form_too_and_it_agrees(tiny_bundle: pathlib.Path, stage: str) -> None:
    """fp32 for TensorRT 10.3 is the canonical file itself; fp16 is compared in onnxruntime."""
    bundle = Bundle.open(tiny_bundle)
    graphs, inputs = bundle.manifest.graphs, calibration.inputs(bundle)
    graph = graphs.decoder if stage == "decoder" else graphs.vision[stage][0]
    feeds = inputs.decoder if stage == "decoder" else inputs.vision[stage]
    folder = tiny_bundle.parent / f"opset20-{stage}"
    folder.mkdir()
    assert dialects.make(bundle, graph, stage, "fp32", [feeds], folder).path == bundle.file(graph.file)
    made = dialects.make(bundle, graph, stage, "fp16", [feeds], folder)
    view = lint.view_of(bundle, graph, bundle.file(graph.file))
    assert_opset_20(dataclasses.replace(view, model=load(made.path)))
    role = "logits" if stage == "decoder" else "visual_embeds"
    caches = {tensor.name for tensor in graph.inputs if tensor.role.startswith("past")}
    halves = {name: value.astype(np.float16) if name in caches else value for name, value in feeds.items()}
    (exact,), (found,) = quantise.run(bundle.file(graph.file), feeds, [role]), quantise.run(made.path, halves, [role])
    assert np.abs(found - exact).max() <= TOLERANCES[f"{role}_fp16"] * np.abs(exact).max()
    assert np.isfinite(found).all()
