"""Methods that prune inside the encoder against their oracles, in torch and as exported graphs, and what they save."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from edgeprune.errors import PruningError
from edgeprune.export.thinning import thin_through
from edgeprune.pruning.registry import parse
from edgeprune.tolerances import TOLERANCES
from tests.export.models import family_of, filled
from tests.export.test_savings import rows_through
from tests.pruning.in_encoder_cases import (
    BLOCKS,
    LAYERS,
    ORACLES,
    exported,
    graph_of,
    in_onnxruntime,
    in_torch,
    model_of,
    pixels,
    tie_free,
    tower_of,
)
from tests.pruning.oracles_in_encoder import flowcut_of

SPECS = sorted(ORACLES)
#: patches of a side of LLaVA-1.5's grid, and of a small one
GRID, SMALL = 24, 8
KEEPS = (29, 58, 64, 128, 192, GRID * GRID)


def compare(spec: str, side: int, keep: int, seeds: int, run: Callable[..., list[np.ndarray]]) -> None:
    """Every seed alone and in a batch of two."""
    before = None
    for picture, index, embeds in tie_free(spec, side, keep, seeds):
        pairs = [(picture, [index], [embeds])]
        if before is not None:
            pairs.append((torch.cat([picture, before[0]]), [index, before[1]], [embeds, before[2]]))
        before = (picture, index, embeds)
        for given, indices, wanted in pairs:
            found = run(spec, side, keep, given)
            np.testing.assert_array_equal(found[0], indices, err_msg=f"keep {keep}")
            worst = np.abs(found[1] - np.stack(wanted)).max()
            assert worst <= TOLERANCES["visual_embeds"] * np.abs(wanted).max(), f"keep {keep}"


@pytest.mark.parametrize("spec", SPECS)
def test_fifty_small_seeds_equal_the_oracle(spec: str) -> None:
    for keep, seeds in ((1, 10), (2, 10), (29, 50), (58, 10), (64, 2)):
        compare(spec, SMALL, keep, seeds, in_torch)


@pytest.mark.parametrize("spec", SPECS)
def test_exported_graph_equals_the_oracle(spec: str) -> None:
    compare(spec, SMALL, 29, 5, in_onnxruntime)
    compare(spec, GRID, 58, 2, in_onnxruntime)


@pytest.mark.slow
@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("spec", SPECS)
def test_fifty_seeds_on_the_grid_of_llava(spec: str, keep: int) -> None:
    compare(spec, GRID, keep, 50, in_torch)
    compare(spec, GRID, keep, 8, in_onnxruntime)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("vision", ["clip", "dinov2"])
def test_identity_at_full(spec: str, vision: str) -> None:
    """K = N is the unpruned graph."""
    given, n = pixels(5, SMALL), SMALL * SMALL
    with torch.inference_mode():
        embeds, index = graph_of(spec, SMALL, n, vision)(given)
        whole, _ = graph_of("none", SMALL, n, vision)(given)
    assert index.tolist() == [list(range(n))]
    assert float((embeds - whole).abs().max()) <= TOLERANCES["exact_saving"] * float(whole.abs().max())


@pytest.mark.parametrize("spec", SPECS)
def test_tokens_shrink_from_block_to_block(spec: str) -> None:
    """Rows through each MLP of the module, and of the exported graph."""
    counts = parse(spec).schedule(GRID * GRID, BLOCKS, 58)
    assert counts[-1] == 58
    assert list(counts) == sorted(counts, reverse=True)
    wanted = [*(count + 1 for count in counts[:-1]), 58]  # the last block drops [CLS]
    with torch.inference_mode(), rows_through(graph_of(spec, GRID, 58)) as rows:
        graph_of(spec, GRID, 58)(pixels(0, GRID))
    assert [rows[f"vision_tower.blocks.{block}.fc1"] for block in range(BLOCKS)] == wanted
    assert rows["multi_modal_projector.linear_1"] == 58
    assert mlp_rows(exported(spec, GRID, 58)[1]) == wanted


def mlp_rows(graph: onnx.ModelProto) -> list[int]:
    """Rows of what each fc1 of a graph makes, by ONNX's own shape inference."""
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    shapes = {value.name: value.type.tensor_type.shape for value in inferred.graph.value_info}
    return [
        shapes[node.output[0]].dim[1].dim_value
        for node in inferred.graph.node
        if node.op_type == "MatMul" and node.input[1].endswith("fc1.weight")
    ]


@pytest.mark.parametrize("spec", SPECS)
def test_graph_holds_no_operator_that_tensorrt_refuses(spec: str) -> None:
    graph = exported(spec, GRID, 58)[1].graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"NonZero", "Compress", "Unique", "SequenceAt", "Loop", "ScatterElements", "ScatterND"}
    assert len(graph.node) < 110 * BLOCKS


def test_schedule_of_tome_is_even_where_halving_allows_it() -> None:
    tome = parse("tome")
    assert tome.schedule(576, 23, 576) == (576,) * 23
    steps = -np.diff((576, *tome.schedule(576, 23, 58)))
    assert set(steps) <= {22, 23}
    for n, blocks in ((576, 23), (64, 6), (64, 3), (17, 5)):
        for keep in range(-(-n // 2**blocks), n + 1):
            counts = (n, *tome.schedule(n, blocks, keep))
            assert counts[-1] == keep
            assert all(after <= before <= 2 * after for before, after in itertools.pairwise(counts))


def test_counts_that_the_blocks_cannot_reach_are_refused() -> None:
    with pytest.raises(PruningError, match=r"tome cannot keep 3 of 64 .* 4 blocks halves .* nearest .* is 4 \(keep"):
        parse("tome").schedule(64, 4, 3)
    for spec in SPECS:
        with pytest.raises(PruningError, match="uses none of its blocks"):
            parse(spec).schedule(64, 0, 3)


def test_merged_tokens_have_no_index() -> None:
    index, _ = in_torch("tome", SMALL, 16, pixels(1, SMALL))
    alone = index[index >= 0]
    assert 0 < len(alone) < 16
    assert (np.diff(alone) > 0).all()


def test_every_block_is_traced_by_itself() -> None:
    graph = graph_of(SPECS[0], SMALL, 29)
    assert [(run.first, run.count) for run in graph.path.runs] == [(block, 1) for block in range(LAYERS - 1)]
    assert graph.unread() == ()
    assert model_of(SMALL).config.vision_config.num_hidden_layers == LAYERS


@pytest.mark.parametrize("keep", [1, 9, 40, 63])
def test_measured_counts_of_flowcut_equal_the_oracle(keep: int) -> None:
    """The paper's own rule, token counts read from each picture's entropy; their mean is what an export bakes in."""
    method, runs = parse("flowcut"), []
    for seed in range(6):
        picture = pixels(seed, SMALL)
        with torch.inference_mode():
            hidden = model_of(SMALL).model.vision_tower(picture, output_hidden_states=True).hidden_states[0]
            tower, behind = graph_of("flowcut", SMALL, keep).vision_tower, []
            tokens, index = thin_through(
                tower,
                method,
                picture,
                torch.arange(SMALL * SMALL),
                keep,
                lambda view, _, kept=behind: kept.append(method.measured(view, BLOCKS, keep)) or kept[-1],
            )
        wanted, _, counts = flowcut_of(tower_of(SMALL), hidden[0].double().numpy(), keep, None)
        assert behind == counts
        assert index[0].tolist() == wanted
        assert tokens.shape[1] == keep
        runs.append(behind)
    made = method.calibrated(runs)
    schedule = made.schedule(SMALL * SMALL, BLOCKS, keep)
    assert schedule[-1] == keep
    assert np.abs(np.array(schedule) - np.mean(runs, axis=0)).max() <= 0.5
    assert parse(made.spec) == made


def test_counts_of_flowcut_must_fit() -> None:
    assert parse("flowcut").schedule(64, 6, 4) == (44, 44, 24, 24, 4, 4)
    assert parse("flowcut:counts=60-30-4").schedule(64, 6, 4) == (60, 60, 30, 30, 4, 4)
    assert parse("flowcut").schedule(64, 5, 4) == (64, 34, 34, 4, 4)
    for counts in ("60-4", "60-30-5", "30-60-4", "70-30-4"):
        with pytest.raises(PruningError, match="3 blocks of this encoder drop tokens, from 64 down to 4"):
            parse(f"flowcut:counts={counts}").schedule(64, 6, 4)
    with pytest.raises(PruningError, match="joined by -"):
        parse("flowcut:counts=60/4")


@pytest.mark.parametrize("spec", SPECS)
def test_half_precision_keeps_its_type_and_stays_near(spec: str) -> None:
    """Sizes, scores and the attention's bias are float32; near ties may fall otherwise, so most tokens are compared."""
    family, source = family_of(model_of(SMALL))
    half = filled(family.vision(parse(spec), 29, torch.float16, whole=True), family, source)
    given = pixels(2, SMALL)
    with torch.inference_mode():
        embeds, index = half(given)
    full_index, full = in_torch(spec, SMALL, 29, given)
    assert embeds.dtype == torch.float16
    assert torch.isfinite(embeds).all()
    same = index.numpy()[0] == full_index[0]
    assert same.mean() > 0.6
    near = np.abs(embeds.float().numpy() - full)[0][same].max(1) / np.abs(full).max()
    assert np.median(near) < TOLERANCES["visual_embeds_fp16"]
