"""`check --target` from outside: a sound bundle passes everywhere, a planted operator is named with its remedy."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeprune.engines import targets
from tests.cli.command import assert_user_error, edgeprune
from tests.cli.test_check_show import reseal

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (make test installs it)"
)
TARGETS = [target.name for target in targets.all_targets() if target.builder != "tensorrt-rtx"]


@pytest.mark.parametrize("target", [*TARGETS, "tensorrt-rtx:sm86,sm89,sm120"])
def test_a_fresh_bundle_passes(tiny_bundle: pathlib.Path, target: str) -> None:
    done = edgeprune("check", tiny_bundle, "--target", target, "--json", "-", "--no-verify")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["ok"], report["target"], report["findings"]) == (True, target, [])


def planted(bundle: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    """A copy of the bundle whose vision graph also takes the best 3841 of a constant."""
    copy = shutil.copytree(bundle, place / "copy.bundle")
    path = copy / "onnx" / "vision-fastervlm.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(4000, np.float32), "planted_x"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([3841]), "planted_k"))
    model.graph.node.append(helper.make_node("TopK", ["planted_x", "planted_k"], ["v", "i"], name="planted"))
    path.unlink()
    onnx.save(model, path)
    reseal(copy)
    return copy


def test_a_planted_topk_is_named(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bundle = planted(tiny_bundle, tmp_path)
    done = edgeprune("check", bundle, "--target", "tensorrt:orin-nano", "--json", "-")
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    (finding,) = report["findings"]
    assert not report["ok"]
    assert {**finding, "problem": "", "remedy": ""} == {
        "graph": "vision-fastervlm.onnx", "node": "planted", "rule": "topk-limit", "problem": "", "remedy": "",
    }  # fmt: skip
    text = edgeprune("check", bundle, "--target", "tensorrt-rtx:sm86").stdout
    assert "vision-fastervlm.onnx: planted: topk-limit: TopK with K up to 3841, but at most 3840. Keep" in text
    assert "1 finding(s)" in text
    assert edgeprune("check", bundle, "--target", "cpu").returncode == 0


def test_wrong_requests_are_one_sentence(tiny_bundle: pathlib.Path) -> None:
    assert_user_error(edgeprune("check", tiny_bundle, "--target", "gpu"), "no target 'gpu'", "tensorrt:thor")
    assert_user_error(edgeprune("check", tiny_bundle, "--precision", "int8"), "without --target only")
    wrong = edgeprune("check", tiny_bundle, "--target", "tensorrt-rtx:sm86", "--precision", "fp8")
    assert_user_error(wrong, "sm86 has no precision 'fp8'; it has: fp32, fp16, bf16, int8, int4")
    half = edgeprune("check", tiny_bundle, "--target", "cpu", "--precision", "vision=int8")
    assert_user_error(half, "add decoder=")


def test_a_file_that_is_no_graph_is_one_sentence(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy.bundle")
    path = copy / "onnx" / "decoder.onnx"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(b"\xff" + content[: len(content) // 2])
    reseal(copy)
    assert_user_error(edgeprune("check", copy, "--target", "cpu"), "decoder.onnx", "export the bundle again")


@needs_rtx
def test_the_installed_parser_is_asked(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """An operator that lint knows as well; its rule speaks for itself, and the parser's own words are shown."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy.bundle")
    path = copy / "onnx" / "vision-stride.onnx"
    model = onnx.load(path, load_external_data=False)
    outputs = ["planted_q", "planted_scale", "planted_zero"]
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["pixel_values"], outputs, name="planted"))
    path.unlink()
    onnx.save(model, path)
    reseal(copy)
    done = edgeprune("check", copy, "--target", "tensorrt-rtx:sm86", "--parser", "--json", "-")
    assert (done.returncode, done.stderr) == (1, "")
    rows = {row["rule"]: row for row in json.loads(done.stdout)["findings"]}
    assert (rows["parser"]["graph"], rows["parser"]["node"]) == ("vision-stride.onnx", "planted")
    assert "DynamicQuantizeLinear" in rows["parser"]["problem"]
    assert set(rows) == {"parser", "dynamic-quantisation", "unsigned"}
    sound = edgeprune("check", tiny_bundle, "--target", "tensorrt-rtx:sm86", "--parser")
    assert (sound.returncode, "the installed parser has 0 finding(s)" in sound.stdout) == (0, True), sound.stderr


def test_a_parser_that_is_not_there_is_one_sentence(tiny_bundle: pathlib.Path) -> None:
    wrong = edgeprune("check", tiny_bundle, "--target", "cpu", "--parser")
    assert_user_error(wrong, "cpu is run by onnxruntime: --parser asks TensorRT's")
    assert_user_error(edgeprune("check", tiny_bundle, "--parser"), "--parser asks about a target: add --target")
    if importlib.util.find_spec("tensorrt") is None:
        absent = edgeprune("check", tiny_bundle, "--target", "tensorrt:local", "--parser")
        assert_user_error(absent, "tensorrt not installed: on Jetson", "pip install edgeprune[tensorrt]")
