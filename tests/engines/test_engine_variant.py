"""Engines of a bundle: profiles and fingerprints from the manifest, and real TensorRT-RTX builds; none is ever run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
from typing import Any

import onnx
import pytest

from edgeprune.bundle import MANIFEST, Bundle, scan_folder
from edgeprune.engines import engine_plan, engine_variant, shapes, targets, tensorrt
from edgeprune.errors import UserError
from edgeprune.manifest import Graph, KvSpec, Manifest, Tensor
from tests.cli.bad_images import write_picture
from tests.cli.command import (
    almost_full_disk,
    assert_full_disk_changes_nothing,
    assert_user_error,
    edgeprune,
    environment,
    killed_during_build,
    tree,
)
from tests.cli.test_check_show import reseal
from tests.ground.sample import write_bundle

has_rtx = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not has_rtx, reason="tensorrt_rtx is not installed (make test installs it)")
SM86 = targets.find("tensorrt-rtx:sm86")


@pytest.fixture
def sample(tmp_path: pathlib.Path) -> Bundle:
    """16 visual tokens, keep 0.01 to 1 with 0.25 by default, only 4, 8, 12, 16 served; 512 positions."""
    return Bundle.open(write_bundle(tmp_path / "sample.bundle"))


def with_cache(manifest: Manifest) -> Manifest:
    """The decoder with every input that a real one has, two layers."""
    inputs = (
        Tensor("inputs_embeds", "inputs_embeds", "float32", ("B", "T", 8)),
        Tensor("attention_mask", "attention_mask", "int64", ("B", "S")),
        *(Tensor(f"past_key.{i}", f"past.{i}", "float32", ("B", 2, f"P{i}", 4)) for i in range(2)),
    )
    decoder = Graph("decoder", "onnx/decoder.onnx", (), inputs, (), KvSpec("growing", 2, 2, 4, "float32"))
    return dataclasses.replace(manifest, graphs=dataclasses.replace(manifest.graphs, decoder=decoder))


def ends(r: shapes.ShapeRange) -> list[tuple[int, ...]]:
    return [r.min, r.opt, r.max]


def test_profiles_come_from_the_manifest(sample: Bundle) -> None:
    vision, decoder = engine_plan.plans(with_cache(sample.manifest))
    assert (vision.file, decoder.file) == ("vision-fastervlm.engine", "decoder.engine")
    assert list(vision.profiles) == ["vision"]
    assert ends(vision.profiles["vision"]["pixel_values"]) == [(1, 3, 56, 56)] * 3
    assert ends(vision.profiles["vision"]["keep_slots"]) == [(4,), (4,), (16,)], "the counts the method serves"
    assert list(decoder.profiles) == ["prefill", "decode"]
    prefill, decode = decoder.profiles.values()
    usual = 4 + shapes.USUAL_TEXT_TOKENS
    assert ends(prefill["inputs_embeds"]) == [(1, 1, 8), (1, usual, 8), (1, 512, 8)]
    assert ends(prefill["past.1"]) == [(1, 2, 0, 4), (1, 2, 0, 4), (1, 2, 511, 4)]
    assert ends(decode["inputs_embeds"]) == [(1, 1, 8)] * 3
    assert ends(decode["past.0"]) == [(1, 2, 1, 4), (1, 2, usual, 4), (1, 2, 511, 4)]
    for profile in (prefill, decode):
        sums = zip(
            ends(profile["inputs_embeds"]), ends(profile["past.0"]), ends(profile["attention_mask"]), strict=True
        )
        assert all(new[1] + past[2] == whole[1] for new, past, whole in sums), "a profile contradicts itself"


def test_any_count_is_served_without_a_list(sample: Bundle) -> None:
    methods = sample.manifest.methods
    free = dataclasses.replace(methods.each["fastervlm"], keep_counts=None)
    manifest = dataclasses.replace(sample.manifest, methods=dataclasses.replace(methods, each={"fastervlm": free}))
    assert engine_plan.vision_spans(manifest, "fastervlm")["K"] == shapes.Span(1, 4, 16)


def test_an_unbounded_dimension_is_refused(sample: Bundle) -> None:
    (graph,) = sample.manifest.graphs.vision["fastervlm"]
    strange = dataclasses.replace(graph, inputs=(Tensor("text_embeds", "text", "float32", ("B", "Q", 8)),))
    graphs = dataclasses.replace(sample.manifest.graphs, vision={"fastervlm": (strange,)})
    with pytest.raises(UserError, match=r"vision-fastervlm.onnx cannot become an engine yet: nothing bounds .*'Q'"):
        engine_plan.plans(dataclasses.replace(sample.manifest, graphs=graphs))


def test_an_fp16_bundle_stays_fp16(sample: Bundle) -> None:
    for word in ("fp32", "fp16", "int4"):
        engine_variant.require(sample, SM86, {"vision": "fp32", "decoder": word})
    half = dataclasses.replace(sample.manifest, recipe={**sample.manifest.recipe, "dtype": "fp16"})
    bundle = Bundle(sample.path, half)
    engine_variant.require(bundle, SM86, {"vision": "fp16", "decoder": "fp16"})
    with pytest.raises(UserError, match=r"decoder graph is fp16.*again with --dtype fp32 to build int4"):
        engine_variant.require(bundle, SM86, {"vision": "fp16", "decoder": "int4"})


def test_the_key_follows_every_part_of_the_fingerprint(sample: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "versions", lambda module: {module: "1.7.1", "polygraphy": "0.53.6"})
    plan = engine_plan.plans(sample.manifest)[0]
    found = engine_variant.fingerprint(sample, plan, SM86, "fp32")
    assert (found["module"], found["gpu"], found["compute_capabilities"]) == ("tensorrt_rtx", None, ["8.6"])
    assert found["graph_sha256"] == {
        name: sample.manifest.files[name].sha256 for name in ("onnx/vision-fastervlm.onnx", "onnx/vision.data")
    }
    keys = {engine_variant.key_of([found])}
    keys |= {engine_variant.key_of([{**found, name: "other"}]) for name in found}
    assert len(keys) == 1 + len(found)
    both = targets.find("tensorrt-rtx:sm86,sm89")
    assert engine_variant.key_of([engine_variant.fingerprint(sample, plan, both, "fp32")]) not in keys
    assert engine_variant.key_of([engine_variant.fingerprint(sample, plan, SM86, "fp16")]) not in keys
    local = engine_variant.fingerprint(sample, plan, targets.find("tensorrt:local"), "fp32")
    assert (local["module"], set(found) == set(local)) == ("tensorrt", True)


def test_standard_tensorrt_says_what_to_install(tiny_bundle: pathlib.Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed here")
    before = tree(tiny_bundle)
    done = edgeprune("build", tiny_bundle, "--target", "tensorrt:local", "--precision", "fp32")
    assert_user_error(done, "tensorrt", "not installed: on Jetson", "JetPack", "pip install edgeprune[tensorrt]")
    assert tree(tiny_bundle) == before


def test_lint_comes_first(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    from tests.cli.test_check_target import planted

    bundle = planted(tiny_bundle, tmp_path)
    done = edgeprune("build", bundle, "--target", "tensorrt:local", "--precision", "fp32")
    assert (done.returncode, done.stderr) == (1, ""), "found before the missing library is"
    assert "planted: topk-limit" in done.stdout
    assert json.loads((bundle / MANIFEST).read_text())["variants"] == []


@pytest.fixture(scope="module")
def built(tiny_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """A copy of the tiny bundle with engines for sm86, and what the command printed."""
    copy = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("engines") / "tiny.bundle")
    done = edgeprune("build", copy, "--target", "tensorrt-rtx:sm86", "--precision", "fp32")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return copy, done.stdout


def build_json(bundle: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """The variant's folder and its build.json."""
    (variant,) = Bundle.open(bundle).manifest.variants
    assert variant.graphs is None
    path = bundle / variant.build
    return path.parent, json.loads(path.read_text())


@needs_rtx
def test_engines_are_written_with_their_fingerprints(built: tuple[pathlib.Path, str]) -> None:
    bundle, printed = built
    folder, facts = build_json(bundle)
    assert {path.name for path in folder.iterdir()} == {"build.json", *(engine["file"] for engine in facts["engines"])}
    for engine in facts["engines"]:
        content = (folder / engine["file"]).read_bytes()
        assert b"vtrt" in content[:32]
        assert int.from_bytes(content[16:24], "little") == len(content) == engine["bytes"]
        assert engine["fingerprint"]["compute_capabilities"] == ["8.6"]
        assert f"{engine['file']}: {engine['seconds']} s, {len(content) / 2**20:.1f} MiB" in printed
    decoder = facts["engines"][-1]
    assert [p["name"] for p in decoder["fingerprint"]["options"]["profiles"]] == ["prefill", "decode"]
    lines = printed.splitlines()
    config = next(i for i, line in enumerate(lines) if "decoder.engine: profile prefill" in line)
    assert config < next(
        i for i, line in enumerate(lines) if line.startswith("vision-fastervlm.engine: ") and " s, " in line
    )


@needs_rtx
def test_tensorrt_holds_the_profiles_that_build_json_names(built: tuple[pathlib.Path, str]) -> None:
    """Read back from the library's own profile objects; those inside an engine need a GPU to be read."""
    bundle = Bundle.open(built[0])
    _, facts = build_json(built[0])
    plan = engine_plan.plans(bundle.manifest)[-1]
    made = tensorrt.polygraphy_profiles(list(plan.profiles.values()))
    from polygraphy.backend.trt import NetworkFromOnnxPath

    builder, network, _parser = NetworkFromOnnxPath(str(bundle.file(plan.graph.file)), strongly_typed=True)()
    written = facts["engines"][-1]["fingerprint"]["options"]["profiles"]
    assert [row["name"] for row in written] == ["prefill", "decode"]
    for row, profile in zip(written, made, strict=True):
        held = profile.to_trt(builder, network)
        assert held
        assert len(row["inputs"]) == network.num_inputs
        for name, sizes in row["inputs"].items():
            assert [list(shape) for shape in held.get_shape(name)] == [sizes["min"], sizes["opt"], sizes["max"]], name


@needs_rtx
def test_equal_engines_are_kept_and_a_full_disk_changes_nothing(
    built: tuple[pathlib.Path, str], tmp_path: pathlib.Path
) -> None:
    bundle, before = built[0], tree(built[0])
    ask = ["build", bundle, "--target", "tensorrt-rtx:sm86", "--precision", "fp32"]
    done = edgeprune(*ask)
    assert (done.returncode, "there already: variant tensorrt-rtx-sm86-fp32" in done.stdout) == (0, True), done.stderr
    assert tree(bundle) == before
    with almost_full_disk(bundle, tmp_path / "disk", spare=1 << 20) as copy:  # less than one engine
        assert_full_disk_changes_nothing(copy, *ask[2:])


@needs_rtx
def test_engines_need_their_back_end(built: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> None:
    env = environment(EDGEPRUNE_TENSORRT_BACKEND=str(tmp_path / "none.so"))
    done = edgeprune("run", built[0], "--prompt", "q", "--variant", "tensorrt-rtx-sm86-fp32", env=env)
    assert_user_error(done, "holds TensorRT-RTX engines", "none.so: cannot open shared object file")


@needs_rtx
@pytest.mark.slow
def test_kill_9_during_a_build_leaves_the_engines_before(
    built: tuple[pathlib.Path, str], tmp_path: pathlib.Path
) -> None:
    copy = shutil.copytree(built[0], tmp_path / "killed.bundle")
    killed_during_build(copy, "tensorrt-rtx-sm86-fp32", "--target", "tensorrt-rtx:sm86", "--precision", "fp32")


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("part", ["version", "edited capability", "capability", "engine", "graph"])
def test_engines_that_do_not_fit_are_refused(
    built: tuple[pathlib.Path, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    copy = shutil.copytree(built[0], tmp_path / "other.bundle")
    folder, facts = build_json(copy)
    installed = facts["engines"][0]["fingerprint"]["versions"]["tensorrt_rtx"]
    words = [f"tensorrt_rtx was 1.0.0 when it was built and is {installed} here"]
    if part == "version":
        for engine in facts["engines"]:
            engine["fingerprint"]["versions"]["tensorrt_rtx"] = "1.0.0"
        write_and_hash(copy, folder / "build.json", json.dumps(facts).encode())
    elif part == "edited capability":  # seen without a GPU: the manifest names the target
        words = ["compute capability was 12.0 when it was built and is 8.6 in the manifest's target tensorrt-rtx:sm86"]
        for engine in facts["engines"]:
            engine["fingerprint"]["compute_capabilities"] = ["12.0"]
        (folder / "build.json").write_text(json.dumps(facts))
    elif part == "capability":  # a machine whose nvidia-smi tells of a GPU that they were not built for
        words = ["compute capability was 8.6 when it was built and is 12.0 here"]
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'Some GPU, 570.1, 12.0'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    elif part == "graph":  # another decoder with its own hash: the bundle is whole, the engine is of the one before
        words = ["sha256 of onnx/decoder.onnx was"]
        model = onnx.load(copy / "onnx" / "decoder.onnx", load_external_data=False)
        model.doc_string = "changed"
        onnx.save(model, copy / "onnx" / "decoder.onnx")
        reseal(copy)
    else:
        words = ["decoder.engine has sha256"]
        content = bytearray((folder / "decoder.engine").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "decoder.engine").write_bytes(content)
    target = "tensorrt-rtx:sm120" if part == "capability" else "tensorrt-rtx:sm86"
    command = f"run `edgeprune build {copy} --target {target} --precision fp32 --rebuild`"
    asked = edgeprune("run", copy, "--prompt", "q", "--variant", "tensorrt-rtx-sm86-fp32")
    assert_user_error(asked, *words, command)
    if part == "capability":
        assert edgeprune("check", copy).returncode == 0, "engines for another machine are kept"
        return
    done = edgeprune("build", copy, "--target", "tensorrt-rtx:sm86", "--precision", "fp32", "--rebuild")
    assert done.returncode == 0, done.stderr
    Bundle.open(copy).variant("tensorrt-rtx-sm86-fp32", to_run=True)


def write_and_hash(bundle: pathlib.Path, file: pathlib.Path, content: bytes) -> None:
    """Replaces a file of the only variant, and what the manifest says of it."""
    file.write_bytes(content)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["variants"][0]["files"].update(scan_folder(bundle, file.parent))
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def test_truncated_weights_stop_a_build_before_it_begins(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "short.bundle")
    data = next((copy / "onnx").glob("*.data"))
    os.truncate(data, data.stat().st_size // 2)
    before = tree(copy)
    ask = ["build", copy, "--target", "tensorrt-rtx:sm86", "--precision", "fp16", "--no-verify"]
    assert_user_error(edgeprune(*ask), f"{data.name} has", "export the bundle again")
    assert tree(copy) == before


@needs_rtx
def test_an_int8_decoder_is_calibrated_on_given_samples(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "calibrated.bundle")
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name)
    ask = ["build", copy, "--target", "tensorrt-rtx:sm86", "--precision", "vision=fp16,decoder=int8"]
    done = edgeprune(*ask, "--calibrate", tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    folder, facts = build_json(copy)
    assert facts["measured_on"] == f"2 sample(s) of {tmp_path.name}: 2 picture(s)"
    assert "timing_cache" not in facts
    decoder = facts["engines"][-1]
    assert len(decoder["int8"]) + len(decoder["fp16"]) == 15
    for row in decoder["int8"]:
        assert row["low"] < row["high"]
        assert row["scale"] == pytest.approx(max(-row["low"], row["high"]) / 127, rel=1e-5)
    content = (folder / "decoder.engine").read_bytes()
    assert int.from_bytes(content[16:24], "little") == len(content)
    (variant,) = Bundle.open(copy).manifest.variants
    assert all("worst of 2 inputs" in row.measure and row.passed for row in variant.parity)
    assert decoder["fingerprint"]["options"]["calibration"] is not None
    assert "there already" in edgeprune(*ask, "--calibrate", tmp_path).stdout
    write_picture(tmp_path / "c.png")
    assert "wrote variant" in edgeprune(*ask, "--calibrate", tmp_path).stdout, "other samples, another fingerprint"


@needs_rtx
def test_int8_and_int4_are_made_from_an_fp32_bundle(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The graphs were compared in onnxruntime before they were built."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "mixed.bundle")
    target, precision = "tensorrt-rtx:sm86,sm89,sm120", "vision=int8,decoder=int4"
    done = edgeprune("build", copy, "--target", target, "--precision", precision)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (variant,) = Bundle.open(copy).manifest.variants
    assert variant.slug == "tensorrt-rtx-sm86-sm89-sm120-vision.int8-decoder.int4"
    assert len(variant.parity) == len(json.loads((copy / variant.build).read_text())["engines"])
    assert all(row.passed and 0 < row.value <= row.tolerance for row in variant.parity)
    folder, facts = build_json(copy)
    assert {path.suffix for path in folder.iterdir()} == {".engine", ".json"}, "the graphs in between are gone"
    assert facts["measured_on"] == "the golden picture and question"
    decoder = facts["engines"][-1]
    assert decoder["fingerprint"]["options"]["precision"] == "int4"
    assert any("Where" in line for line in decoder["fp16_cannot_hold"]), "the mask"
    for engine in facts["engines"]:
        content = (folder / engine["file"]).read_bytes()
        assert int.from_bytes(content[16:24], "little") == len(content)


@needs_rtx
@pytest.mark.slow
def test_real_widths_for_three_gpus_with_a_keep_range(tmp_path: pathlib.Path) -> None:
    """Widths of LLaVA-1.5 7 B, four and one layers, random weights; the whole encoder is in docs/targets.md."""
    bundle = tmp_path / "wide.bundle"
    done = edgeprune(
        "export", "--model", "llava15", "--random-weights", "--dtype", "fp16",
        "--keep", 0.1, "--keep-range", "0.05:1.0", "--set", "text.num_hidden_layers=1",
        "--set", "vision.num_hidden_layers=4", "--prune", "fastervlm", "--prune", "divprune",
        "-o", bundle, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    target = "tensorrt-rtx:sm86,sm89,sm120"
    done = edgeprune("build", bundle, "--target", target, "--precision", "fp16", timeout=1500)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    folder, facts = build_json(bundle)
    assert [engine["file"] for engine in facts["engines"]] == [
        "vision-fastervlm.engine", "vision-divprune.engine", "decoder.engine",
    ]  # fmt: skip
    for engine in facts["engines"]:
        found = engine["fingerprint"]
        assert found["compute_capabilities"] == ["8.6", "8.9", "12.0"]
        content = (folder / engine["file"]).read_bytes()
        assert (content.find(b"vtrt") < 32, int.from_bytes(content[16:24], "little")) == (True, len(content))
        for profile in found["options"]["profiles"]:
            if profile["name"] == "vision":
                slots = profile["inputs"]["keep_slots"]
                assert (slots["min"], slots["opt"], slots["max"]) == ([29], [58], [576])
                assert profile["inputs"]["pixel_values"]["max"] == [1, 3, 336, 336]
            else:
                embeds = profile["inputs"]["inputs_embeds"]
                longest = (
                    1 if profile["name"] == "decode" else Bundle.open(bundle, verify="sizes").manifest.context_length
                )
                assert (embeds["min"], embeds["max"]) == ([1, 1, 4096], [1, longest, 4096])
