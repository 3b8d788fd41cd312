"""The names by which a profile tells the pruner's nodes from the encoder's, in exported graphs."""

from __future__ import annotations

import pathlib

import onnx
import pytest

from edgeprune.export.pipeline import export
from edgeprune.manifest import PRUNING_PREFIX
from edgeprune.recipe import ExportRecipe

METHODS = ("fastervlm", "none", "divprune", "background@0.5+fastervlm", "cdpruner", "tome")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    recipe = ExportRecipe(model="tiny", prune=METHODS, keep=0.25, random_weights=True)
    return export(recipe, tmp_path_factory.mktemp("mark") / "tiny.bundle")


def nodes(bundle: pathlib.Path, stem: str) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
    """(the pruner's, the others) of a graph."""
    graph = onnx.load(bundle / "onnx" / f"{stem}.onnx", load_external_data=False).graph
    ours = [node for node in graph.node if node.name.startswith(PRUNING_PREFIX)]
    return ours, [node for node in graph.node if not node.name.startswith(PRUNING_PREFIX)]


def weights(found: list[onnx.NodeProto]) -> set[str]:
    """The weights that nodes read, by their names; numbers of blocks left out."""
    names = {name for node in found for name in node.input if name.endswith(".weight")}
    return {".".join(part for part in name.split(".") if not part.isdigit()) for name in names}


def test_signal_selection_and_gather_are_the_pruners(bundle: pathlib.Path) -> None:
    ours, rest = nodes(bundle, "vision-fastervlm")
    # the [CLS] row's query and its product with the keys; queries of kept tokens are the encoder's
    assert weights(ours) == {"vision_tower.blocks.q_proj.weight"}
    kinds = [node.op_type for node in ours]
    assert (kinds.count("MatMul"), kinds.count("Softmax"), kinds.count("GatherElements")) == (2, 1, 2)
    assert not {"TopK", "GatherElements"} & {node.op_type for node in rest}
    assert "vision_tower.blocks.q_proj.weight" in weights(rest)


def test_without_pruning_nothing_is_computed_for_it(bundle: pathlib.Path) -> None:
    ours, _ = nodes(bundle, "vision-none")
    assert not {"MatMul", "TopK", "Softmax", "GatherElements"} & {node.op_type for node in ours}


def test_a_greedy_loop_is_the_pruners(bundle: pathlib.Path) -> None:
    ours, rest = nodes(bundle, "vision-divprune")
    assert "Scan" in {node.op_type for node in ours}
    assert not weights(ours)
    assert not {"Scan", "TopK"} & {node.op_type for node in rest}


def test_the_scorer_before_the_encoder_is_the_pruners(bundle: pathlib.Path) -> None:
    ours, rest = nodes(bundle, "vision-background-0.5-fastervlm")
    assert any(name.startswith("background.scorer") for name in weights(ours))
    assert not any(name.startswith("background.") for name in weights(rest))
    assert {name for name in weights(ours) if name.startswith("vision")} == {"vision_tower.blocks.q_proj.weight"}


def test_two_graphs_and_pruning_in_the_encoder(bundle: pathlib.Path) -> None:
    files = sorted(path.stem for path in (bundle / "onnx").glob("vision-cdpruner*.onnx"))
    assert len(files) == 2
    for stem in [*files, "vision-tome"]:
        _, rest = nodes(bundle, stem)
        assert not {"TopK", "Scan"} & {node.op_type for node in rest}, stem
        assert rest, stem
    assert any(nodes(bundle, stem)[0] for stem in files)


def test_outputs_keep_their_names(bundle: pathlib.Path) -> None:
    for path in (bundle / "onnx").glob("vision-*.onnx"):
        graph = onnx.load(path, load_external_data=False).graph
        assert not [value.name for value in (*graph.input, *graph.output) if "/" in value.name]
