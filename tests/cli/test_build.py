"""`build --target cpu` from outside: the variant is int8, compared and run; a failure leaves the bundle as it was."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import onnx
import pytest

from edgeprune.bundle import MANIFEST, Bundle, scan_files
from edgeprune.engines import calibration, int4, one_by_one, quantise, weights
from edgeprune.runtime.session import Model
from edgeprune.tolerances import TOLERANCES
from edgeprune.variant_writer import VariantWriter
from tests.cli.bad_images import write_picture
from tests.cli.command import (
    almost_full_disk,
    assert_full_disk_changes_nothing,
    assert_user_error,
    edgeprune,
    killed_during_build,
    tree,
)


@pytest.fixture(scope="module")
def built(tiny_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the tiny bundle with the variant cpu-int8."""
    copy = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("built") / "tiny.bundle")
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "int8")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "wrote variant cpu-int8" in done.stdout
    return copy


def entry(bundle: pathlib.Path) -> dict[str, Any]:
    (variant,) = json.loads((bundle / MANIFEST).read_text())["variants"]
    return dict(variant)


def test_the_graphs_hold_integer_products(built: pathlib.Path) -> None:
    graphs = entry(built)["graphs"]
    for graph in [*(stages[0] for stages in graphs["vision"].values()), graphs["decoder"]]:
        operators = [node.op_type for node in onnx.load(built / graph["file"], load_external_data=False).graph.node]
        assert "MatMulInt8" in operators, graph["file"]
    assert graphs["embedding"]["file"] == "onnx/embedding.onnx"
    assert len({graph["data"][0] for graph in (*(s[0] for s in graphs["vision"].values()), graphs["decoder"])}) == 1


def test_parity_is_what_onnxruntime_gives(built: pathlib.Path, tiny_bundle: pathlib.Path) -> None:
    variant = entry(built)
    assert {row["stage"] for row in variant["parity"]} == {
        *(f"vision/{name}" for name in variant["graphs"]["vision"]), "decoder/decoder", "decoder/in place, fp32",
        "decoder/own attention, fp32", "decoder/own attention, cache in fp16",
    }  # fmt: skip
    assert all(row["passed"] and row["value"] <= row["tolerance"] for row in variant["parity"])
    pixels = np.random.default_rng(3).normal(size=(1, 3, 56, 56)).astype(np.float32)
    files = (tiny_bundle / "onnx" / "vision-none.onnx", built / variant["graphs"]["vision"]["none"][0]["file"])
    exact, found = (quantise.run(file, {"pixel_values": pixels}, ["visual_embeds"])[0].ravel() for file in files)
    cosine = exact @ found / np.linalg.norm(exact) / np.linalg.norm(found)
    assert 1 - cosine <= 3 * TOLERANCES["visual_embeds_int8"], "another picture than the one it was measured on"
    assert not np.array_equal(exact, found)


def test_run_takes_the_variant(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture = write_picture(tmp_path / "picture.png")
    ask = ["run", built, "--image", picture, "--prompt", "q", "--max-new-tokens", 4, "--json", "-"]
    report = json.loads(edgeprune(*ask, "--variant", "cpu-int8").stdout)
    plain = json.loads(edgeprune(*ask).stdout)
    assert (report["variant"], plain["variant"]) == ("cpu-int8", None)
    assert (report["kept_tokens"], report["applied"]) == (plain["kept_tokens"], True)
    with Model.open(built, variant="cpu-int8") as model, Model.open(built) as canonical:
        assert model.describe()["weights_bytes"] < canonical.describe()["weights_bytes"]
        pixels = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        embeds = []
        for opened in (model, canonical):
            with opened.new_session() as session:
                embeds.append(session.image_embeds(session.add_image(pixels, keep=1.0)))
    assert not np.array_equal(*embeds), "the variant's own graph was run"


def test_int4_holds_blocks_that_standard_operators_unpack(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """vision int8 and decoder int4 in one variant, run through the C library; every weight is checked by numpy."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "mixed.bundle")
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "vision=int8,decoder=int4")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    variant = entry(copy)
    assert variant["slug"] == "cpu-vision.int8-decoder.int4"
    assert {row["stage"]: row["tolerance"] for row in variant["parity"]} == {
        **{f"vision/{name}": TOLERANCES["visual_embeds_int8"] for name in variant["graphs"]["vision"]},
        "decoder/decoder": TOLERANCES["logits_int4"],
        "decoder/in place, fp32": TOLERANCES["logits_in_place"],
        "decoder/own attention, fp32": TOLERANCES["logits_in_place"],
        "decoder/own attention, cache in fp16": TOLERANCES["logits_cache_fp16"],
    }
    assert json.loads((copy / variant["build"]).read_text())["min_onnxruntime"] == "1.18"
    path = copy / variant["graphs"]["decoder"]["file"]
    onnx.checker.check_model(path)
    assert_blocks(onnx.load(path), onnx.load(copy / "onnx" / "decoder.onnx"))
    answer = edgeprune("run", copy, "--image", write_picture(tmp_path / "picture.png"), "--prompt", "q", "--json", "-",
                       "--max-new-tokens", 4, "--variant", variant["slug"])  # fmt: skip
    assert json.loads(answer.stdout)["variant"] == variant["slug"]


def test_int8_and_int4_decoders_share_a_cache_written_in_place(
    tiny_bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Prompts by int8, each next token by int4: two graphs, one cache, and an answer of the C library."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "two.bundle")
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "vision=int8,decoder=int8+int4")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    variant = entry(copy)
    assert variant["slug"] == "cpu-vision.int8-decoder.int8-int4"
    graphs = [variant["graphs"][name] for name in ("decoder", "decoder_step")]
    operators = []
    for graph in graphs:
        nodes = onnx.load(copy / graph["file"], load_external_data=False).graph.node
        operators.append({node.op_type for node in nodes})
        assert graph["kv"]["kind"] == "fixed"
        assert "attention_mask" not in {tensor["role"] for tensor in graph["inputs"]}
        assert {tensor["shape"][2] for tensor in graph["inputs"] if tensor["role"].startswith("past_")} == {"C"}
    assert "MatMulInt8" in operators[0]
    assert "MatMulInt4" in operators[1]
    assert "MatMulNBits" not in operators[1]
    assert all("RotaryAttention" in found and "ScatterND" not in found for found in operators)
    facts = json.loads((copy / variant["build"]).read_text())
    assert facts["cache"] == {"kind": "fixed", "dtype": "float16", "attention": "edgeprune:RotaryAttention"}
    own = {made["file"]: made.get("own_products") for made in facts["graphs"] if made["file"].startswith("decoder")}
    names = [
        node.name for node in quantise.products(onnx.load(copy / "onnx" / "decoder.onnx", load_external_data=False))
    ]
    assert own == {
        made["file"]: len(names) - len(made["fp32"]) for made in facts["graphs"] if made["file"].startswith("decoder")
    }
    assert len(own) == 2
    assert all(graph["kv"]["dtype"] == "float16" for graph in graphs)
    stages = {row["stage"]: row for row in variant["parity"]}
    assert stages["decoder/in place, fp32"]["tolerance"] == TOLERANCES["logits_in_place"]
    assert stages["decoder/step"]["tolerance"] == TOLERANCES["logits_int4"]
    pixels = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    with Model.open(copy, variant=variant["slug"]) as model, model.new_session() as session:
        session.add_image(pixels, keep=1.0)
        first = session.generate("what is it?", max_new_tokens=70, ignore_eos=True)
        begun = session.generate("what is it?", max_new_tokens=70, ignore_eos=True)
        session.reset()
        session.add_image(pixels, keep=1.0)
        again = session.generate("what is it?", max_new_tokens=70, ignore_eos=True)
    assert first.token_ids == again.token_ids
    assert begun.reused_tokens > 0
    assert first.kv_tokens > 64, "the cache grew on the way"
    refused = edgeprune("build", copy, "--target", "cpu", "--precision", "int8+int4")
    assert_user_error(refused, "int8+int4 is for decoders")


def assert_blocks(model: onnx.ModelProto, canonical: onnx.ModelProto) -> None:
    """Opset 21, and our attention; each int4 weight is its fp32 one within half a step of its block of 32."""
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 21), ("edgeprune", 1)}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    exact = [onnx.numpy_helper.to_array(tensor) for tensor in canonical.graph.initializer]
    unpacked = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(unpacked) == 15, "2 layers of 7 products, and the last one, which was a Gemm"
    for node in unpacked:
        assert len(node.input) == 2, "symmetric: no zero point"
        assert {item.name: item.i for item in node.attribute} == {"axis": 0, "block_size": 32}
        weight, scale = (onnx.numpy_helper.to_array(tensors[name]) for name in node.input)
        assert tensors[node.input[0]].data_type == onnx.TensorProto.INT4
        steps = np.repeat(scale, 32, axis=0)[: len(weight)]
        found = weight.astype(np.float32) * steps
        twins = [w for e in exact for w in (e, e.T) if w.ndim == 2 and w.shape == found.shape]
        # +8 steps do not exist: an entry of the size of the largest but of the other sign is one step away.
        assert any((np.abs(found - w) <= np.abs(steps) * 1.0001).all() for w in twins)
        assert min(float(np.abs(found - w).mean() / np.abs(steps).mean()) for w in twins) < 0.3


def test_a_noisy_product_stays_fp32(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, scratch: pathlib.Path) -> None:
    """The measure of noise is the library's own rounding: its weights are rebuilt from a quantised graph."""
    bundle = Bundle.open(tiny_bundle)
    decoder = bundle.manifest.graphs.decoder
    source = bundle.file(decoder.file)
    feeds = calibration.inputs(bundle).decoder
    noise = int4.noise(source, feeds, tmp_path)
    kept = max(noise, key=noise.__getitem__)
    model = weights.all_inside(one_by_one.Products(source, source.parent, scratch, int4.blocks).model([kept]), scratch)
    assert (int4.count(model), len(noise)) == (len(noise) - 1, 15)
    assert not {f"{kept}_DQ_Q4", f"{kept}_MatMul_DQ_Q4"} & {node.name for node in model.graph.node}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    canonical = quantise.load(source).graph
    exact = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in canonical.initializer}
    name = next(node.input[1] for node in canonical.node if node.op_type == "MatMul"
                and node.input[1] + "_DQ_Q4" in tensors)  # fmt: skip
    packed, scale = (onnx.numpy_helper.to_array(tensors[name + end]) for end in ("_DQ_Q4", "_DQ_scales"))
    found = packed.astype(np.float32) * np.repeat(scale, 32, axis=0)[: len(packed)]
    assert np.abs(found - int4.rounded(exact[name])).max() <= 1e-6


def test_built_again_only_when_asked(built: pathlib.Path) -> None:
    before = tree(built)
    done = edgeprune("build", built, "--target", "cpu", "--precision", "int8")
    assert (done.returncode, "there already: variant cpu-int8" in done.stdout) == (0, True)
    assert tree(built) == before
    again = edgeprune("build", built, "--target", "cpu", "--precision", "int8", "--rebuild")
    assert again.returncode == 0, again.stderr
    assert len(list((built / "variants" / "cpu-int8").iterdir())) == 1
    assert edgeprune("check", built).returncode == 0


def test_one_graph_alone(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "one.bundle")
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "vision=int8,decoder=fp32")
    assert done.returncode == 0, done.stderr
    variant = entry(copy)
    assert variant["slug"] == "cpu-vision.int8-decoder.fp32"
    assert variant["graphs"]["decoder"]["file"] == "onnx/decoder.onnx"


def test_a_changed_variant_is_refused(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(built, tmp_path / "bad.bundle")
    file = copy / entry(copy)["graphs"]["decoder"]["file"]
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    wrong = edgeprune("run", copy, "--prompt", "q", "--variant", "cpu-int8")
    command = f"run `edgeprune build {copy} --target cpu --precision int8 --rebuild`"
    assert_user_error(wrong, "sha256", command)
    assert_user_error(edgeprune("check", copy), command)
    assert_user_error(edgeprune("build", copy, "--target", "cpu", "--precision", "int8"), command)
    assert edgeprune("run", copy, "--prompt", "q", "--max-new-tokens", 1).returncode == 0


@pytest.mark.parametrize(
    ("target", "precision", "parts"),
    [
        ("cpu", "fp8", ["cpu has no precision 'fp8'; it has: fp32, int8, int4"]),
        ("cpu", "fp32", ["own graphs are the fp32 ones"]),
        ("cpu", "embedding=int8", ["write a precision as int8 or as"]),
        ("cuda", "int8", ["cuda has no precision 'int8'; it has: fp32, fp16"]),
        ("tensorrt-rtx:sm75", "int4", ["has no precision 'int4'"]),
        (
            "tensorrt-rtx:sm120",
            "fp4",
            ["makes only fp32, fp16, bf16, int8, int4, fp8 for tensorrt-rtx:sm120 so far, not fp4"],
        ),
        ("tensorrt-rtx:sm75", "fp32", ["has no precision 'fp32'"]),
        ("tensorrt-rtx:sm86,sm89", "fp8", ["has no precision 'fp8'; it has: fp32, fp16, bf16, int8, int4"]),
        ("tensorrt-rtx:sm75", "vision=bf16,decoder=fp16", ["has no precision 'bf16'; it has: fp16"]),
        ("tensorrt:thor", "fp16", ["makes nothing for tensorrt:thor so far"]),
    ],
)
def test_refusals_change_nothing(tiny_bundle: pathlib.Path, target: str, precision: str, parts: list[str]) -> None:
    before = tree(tiny_bundle)
    assert_user_error(edgeprune("build", tiny_bundle, "--target", target, "--precision", precision), *parts)
    assert tree(tiny_bundle) == before


def test_a_changed_graph_is_named_and_built_again(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Another decoder with its own hash in the manifest: the bundle is whole, the variant was made from another."""
    copy = shutil.copytree(built, tmp_path / "changed.bundle")
    model = onnx.load(copy / "onnx" / "decoder.onnx", load_external_data=False)
    model.doc_string = "changed"
    onnx.save(model, copy / "onnx" / "decoder.onnx")
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"].update(scan_files(copy))
    (copy / MANIFEST).write_text(json.dumps(manifest))
    ask = ["run", copy, "--prompt", "q", "--max-new-tokens", 1, "--variant", "cpu-int8"]
    assert_user_error(edgeprune(*ask), "sha256 of onnx/decoder.onnx was", "--target cpu --precision int8 --rebuild`")
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "int8")
    assert (done.returncode, "wrote variant" in done.stdout) == (0, True), "another key: built without being asked"
    assert edgeprune(*ask).returncode == 0


def test_truncated_weights_stop_a_build_before_it_begins(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(built, tmp_path / "short.bundle")
    before = (copy / MANIFEST).read_bytes()
    data = next((copy / "onnx").glob("*.data"))
    os.truncate(data, data.stat().st_size // 2)
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "int8", "--rebuild", "--no-verify")
    assert_user_error(done, f"{data.name} has", "export the bundle again")
    assert (copy / MANIFEST).read_bytes() == before


def test_kill_9_during_a_build_leaves_the_variant_before(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(built, tmp_path / "killed.bundle")
    killed_during_build(copy, "cpu-int8", "--target", "cpu", "--precision", "int8")
    report = json.loads(edgeprune("run", copy, "--prompt", "q", "--max-new-tokens", 1, "--variant", "cpu-int8",
                                  "--json", "-").stdout)  # fmt: skip
    assert report["variant"] == "cpu-int8"


def test_a_killed_or_failed_build_leaves_the_variant_before(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(built, tmp_path / "copy.bundle")
    before = (copy / MANIFEST).read_bytes()
    orphan = copy / "variants" / "cpu-int8" / "deadbeef"  # as kill -9 leaves it
    orphan.mkdir()
    (orphan / "half.onnx").write_bytes(b"half")
    with VariantWriter(copy, "cpu-int8", "0123") as writer:  # left without a commit
        (writer.path / "x").write_bytes(b"x")
        second = edgeprune("build", copy, "--target", "cpu", "--precision", "int8", "--rebuild")
        assert_user_error(second, "another build")
    assert not orphan.exists()
    assert not writer.path.exists()
    assert (copy / MANIFEST).read_bytes() == before
    Bundle.open(copy).variant("cpu-int8")


def test_a_full_disk_is_one_sentence_and_changes_nothing(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with almost_full_disk(built, tmp_path / "disk", spare=1 << 16) as copy:
        assert_full_disk_changes_nothing(copy, "--target", "cpu", "--precision", "int8")
        report = json.loads(edgeprune("run", copy, "--prompt", "q", "--max-new-tokens", 1, "--variant", "cpu-int8",
                                      "--json", "-").stdout)  # fmt: skip
        assert report["variant"] == "cpu-int8"
