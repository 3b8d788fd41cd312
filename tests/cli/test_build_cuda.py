"""`build --target cuda` from outside: graphs in fp16 or fp32, compared without a GPU, and opened with that provider."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeprune import devices
from edgeprune.bundle import MANIFEST, Bundle
from edgeprune.runtime.session import Model
from edgeprune.tolerances import TOLERANCES
from tests.cli.command import assert_user_error, edgeprune, tree


def entry(bundle: pathlib.Path, slug: str) -> dict[str, Any]:
    variants = json.loads((bundle / MANIFEST).read_text())["variants"]
    return next(dict(variant) for variant in variants if variant["slug"] == slug)


@pytest.fixture(scope="module")
def built(tiny_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the tiny bundle, which is fp32, with the variants cuda-fp16 and cuda-fp32."""
    copy = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("cuda") / "tiny.bundle")
    for precision in ("fp16", "fp32"):
        done = edgeprune("build", copy, "--target", "cuda", "--precision", precision)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert "nothing refused" in done.stdout
        assert f"wrote variant cuda-{precision}" in done.stdout
    return copy


def test_the_graphs_compute_in_fp16(built: pathlib.Path) -> None:
    graphs = entry(built, "cuda-fp16")["graphs"]
    made = [*(stages[0] for stages in graphs["vision"].values()), graphs["decoder"]]
    for graph in made:
        model = onnx.load(built / graph["file"])
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in kinds]
        assert products
        assert {kinds[node.input[1]] for node in products} == {TensorProto.FLOAT16}, graph["file"]
    assert len({graph["data"][0] for graph in made}) == 1, "the methods share one weight file"
    assert graphs["decoder"]["kv"]["dtype"] == "float16"
    assert graphs["embedding"]["file"] == "onnx/embedding.onnx"


def test_parity_and_where_it_was_measured(built: pathlib.Path) -> None:
    variant = entry(built, "cuda-fp16")
    rows = {row["stage"]: row for row in variant["parity"]}
    assert set(rows) == {*(f"vision/{name}" for name in variant["graphs"]["vision"]), "decoder/decoder"}
    for stage, row in rows.items():
        key = "logits_fp16" if stage == "decoder/decoder" else "visual_embeds_fp16"
        assert row["passed"]
        assert 0 < row["value"] <= row["tolerance"] == TOLERANCES[key]
    build = json.loads((built / variant["build"]).read_text())
    assert build["run"] == "never: no GPU was used"
    found = build["fingerprint"]
    assert set(found) == {"versions", *devices.FACTS, "cuda"}
    assert set(found["versions"]) >= {"onnx", "onnxruntime"}
    assert found["cuda"] == devices.cuda_version()
    assert all(graph["precision"] == "fp16" and "fp16_cannot_hold" in graph for graph in build["graphs"])


def test_it_asks_for_its_provider(built: pathlib.Path) -> None:
    """Without a word of the user; on the CPU it may be looked at, and answers as the canonical graphs do."""
    ask = ["run", built, "--prompt", "What is it?", "--max-new-tokens", 2, "--variant", "cuda-fp16"]
    assert_user_error(edgeprune(*ask), "the provider cuda cannot run here")
    done = edgeprune(*ask, "--provider", "cpu", "--json")
    report = json.loads(done.stdout)
    assert (report["provider"], report["variant"]) == ("CPUExecutionProvider", "cuda-fp16")


def test_the_runtime_keeps_an_fp16_cache(built: pathlib.Path) -> None:
    """What the C library makes of the variant's graphs, several tokens on, beside the canonical ones."""
    pixels = np.random.default_rng(1).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    logits = []
    for variant in (None, "cuda-fp16", "cuda-fp32"):
        model = Model.open(built, variant=variant, provider="cpu")
        with model, model.new_session() as session:
            session.add_image(pixels, method="none")
            session.generate("What is it?", max_new_tokens=1, ignore_eos=True)
            logits.append(session.prefill_logits())
            half = model.describe()["kv_bytes_per_token"]
            assert session.stats().kv_bytes % half == 0
    scale = np.abs(logits[0]).max()
    assert 0 < np.abs(logits[1] - logits[0]).max() / scale <= 2 * TOLERANCES["logits_fp16"]
    assert np.array_equal(logits[2], logits[0])


def test_fp32_is_the_bundles_own_graphs(built: pathlib.Path) -> None:
    variant = entry(built, "cuda-fp32")
    assert variant["graphs"] == json.loads((built / MANIFEST).read_text())["graphs"]
    assert [name.rpartition("/")[2] for name in variant["files"]] == ["build.json"]
    assert all(row["value"] == 0 and row["passed"] for row in variant["parity"])


def test_an_equal_build_is_not_repeated(built: pathlib.Path) -> None:
    before = tree(built)
    done = edgeprune("build", built, "--target", "cuda", "--precision", "fp16")
    assert (done.returncode, "there already: variant cuda-fp16" in done.stdout) == (0, True)
    assert tree(built) == before


def test_checks_know_the_variants(built: pathlib.Path) -> None:
    done = edgeprune("check", built, "--parity", "--json")
    report = json.loads(done.stdout)
    stages = [row["stage"] for row in report["parity"]]
    assert (done.returncode, report["ok"]) == (0, True), report
    assert "variant cuda-fp16/decoder" in stages
    assert "variant cuda-fp32/fastervlm" in stages


def test_what_cannot_be_built(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ask = ["build", built, "--target", "cuda", "--precision"]
    assert_user_error(edgeprune(*ask, "int8"), "the target cuda has no precision 'int8'; it has: fp32, fp16")
    assert_user_error(edgeprune(*ask, "fp16", "--calibrate", tmp_path), "cuda stores no ranges of activations")


def test_an_fp16_bundle(tmp_path: pathlib.Path) -> None:
    """It serves fp16 as it is, and nothing else."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    bundle = export(ExportRecipe(model="tiny", prune=("none",), keep=0.25, dtype="fp16"), tmp_path / "half.bundle")
    ask = ["build", bundle, "--target", "cuda", "--precision"]
    assert_user_error(edgeprune(*ask, "fp32"), "graph is fp16: export the bundle again with --dtype fp32")
    done = edgeprune(*ask, "fp16")
    assert (done.returncode, done.stderr) == (0, "")
    assert entry(bundle, "cuda-fp16")["graphs"] == json.loads((bundle / MANIFEST).read_text())["graphs"]
    Bundle.open(bundle).variant("cuda-fp16", to_run=True)
