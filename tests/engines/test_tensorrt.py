"""The canonical graphs build into real TensorRT-RTX engines for sm86; running one needs a GPU and is not tested."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

from edgeprune.engines import shapes, tensorrt
from edgeprune.errors import DependencyError, UserError

has_rtx = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not has_rtx, reason="tensorrt_rtx is not installed (make test installs it)")


def test_shape_range_rejects_disorder() -> None:
    with pytest.raises(ValueError, match="min <= opt <= max"):
        shapes.ShapeRange((2,), (1,), (3,))
    with pytest.raises(ValueError, match="rank"):
        shapes.ShapeRange((1,), (1, 1), (1,))


def test_missing_module_says_what_to_install() -> None:
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(DependencyError, match="JetPack"):
            tensorrt.require("tensorrt")
    if not has_rtx:
        with pytest.raises(DependencyError, match=r"edgeprune\[rtx\]"):
            tensorrt.require("tensorrt_rtx")


def fixed(*shape: int) -> shapes.ShapeRange:
    return shapes.ShapeRange(shape, shape, shape)


def vision_profile(graph, visual_tokens: int) -> dict[str, shapes.ShapeRange]:
    """Batch 1, any K."""
    by_role = {t.role: t for t in graph.inputs}
    profile = {by_role["pixel_values"].name: fixed(1, *by_role["pixel_values"].shape[1:])}
    if "keep_slots" in by_role:
        profile[by_role["keep_slots"].name] = shapes.ShapeRange((1,), (max(1, visual_tokens // 10),), (visual_tokens,))
    return profile


def decoder_profile(graph, past: tuple[int, int, int], new: tuple[int, int, int]) -> dict[str, shapes.ShapeRange]:
    """Prefill (past 0, many new tokens) or decode (one new token), as (min, opt, max) of both."""
    total = tuple(p + n for p, n in zip(past, new, strict=True))

    def sized(shape: list[int | str]) -> shapes.ShapeRange:
        def at(i: int) -> tuple[int, ...]:
            return tuple(
                s
                if isinstance(s, int)
                else 1
                if s == "B"
                else new[i]
                if s == "T"
                else past[i]
                if s[1:].isdigit()
                else total[i]
                for s in shape
            )

        return shapes.ShapeRange(at(0), at(1), at(2))

    return {t.name: sized(t.shape) for t in graph.inputs}


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_bundle", "demo_bundle"])
def test_bundle_graphs_build_for_sm86(name: str, request: pytest.FixtureRequest) -> None:
    from edgeprune.bundle import Bundle

    folder: pathlib.Path = request.getfixturevalue(name)
    manifest = Bundle.open(folder).manifest
    for method, graphs in manifest.graphs.vision.items():
        profile = vision_profile(graphs[0], manifest.visual_tokens)
        engine = tensorrt.build_engine_bytes(folder / graphs[0].file, [profile], compute_capabilities=[(8, 6)])
        assert_engine(engine, method)
    decoder = manifest.graphs.decoder
    prefill = decoder_profile(decoder, (0, 0, 0), (1, 64, 256))
    decode = decoder_profile(decoder, (1, 128, 512), (1, 1, 1))
    engine = tensorrt.build_engine_bytes(folder / decoder.file, [prefill, decode], compute_capabilities=[(8, 6)])
    assert_engine(engine, "decoder")


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("spec", ["divprune", "todre", "todre:objective=k-center", "mmr", "scope", "zoo", "mmtok-vv"])
def test_greedy_selections_build_for_sm86(spec: str, tmp_path: pathlib.Path) -> None:
    """N = 576, any K, batch 1 to 4: the `Scan` of each method."""
    import onnx_ir as ir

    from tests.pruning.greedy_cases import WIDTH, exported

    path = tmp_path / "selection.onnx"
    path.write_bytes(ir.to_proto(exported(spec, 576)).SerializeToString())
    shapes = {
        "tokens": tensorrt.ShapeRange((1, 576, WIDTH), (1, 576, WIDTH), (4, 576, WIDTH)),
        "attention": tensorrt.ShapeRange((1, 576), (1, 576), (4, 576)),
        "keep_slots": tensorrt.ShapeRange((1,), (58,), (576,)),
    }
    engine = tensorrt.build_engine_bytes(path, [shapes], compute_capabilities=[(8, 6)])
    assert_engine(engine, spec)


def assert_engine(engine: bytes, what: str) -> None:
    """The header that can be read without a GPU: magic, and the size at byte 16."""
    assert b"vtrt" in engine[:32], what
    assert int.from_bytes(engine[16:24], "little") == len(engine), what


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        "hiprune",
        "fopru:mode=row",
        "visionzip",
        "vispruner",
        "prumerge",
        "pagerank",
        "holov",
        "vflowopt",
        "agileprune",
        "dart-pre",
        "aim-merge",
    ],
)
def test_attention_methods_build_for_sm86(spec: str, tmp_path: pathlib.Path) -> None:
    from edgeprune.bundle import Bundle
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    folder = export(ExportRecipe(model="tiny", prune=(spec,), keep=0.25), tmp_path / "out.bundle")
    manifest = Bundle.open(folder).manifest
    ((method, (graph,)),) = manifest.graphs.vision.items()
    largest = (manifest.methods.each[method].keep_counts or ())[-1:]
    profile = vision_profile(graph, largest[0].last if largest else manifest.visual_tokens)
    assert_engine(tensorrt.build_engine_bytes(folder / graph.file, [profile], compute_capabilities=[(8, 6)]), method)


@needs_rtx
@pytest.mark.slow
def test_compute_capability_is_asked_for() -> None:
    with pytest.raises(UserError, match="compute capabilities"):
        tensorrt.build_engine_bytes(pathlib.Path("x.onnx"), [], compute_capabilities=[])
