"""Opening a bundle: what is refused and in which words."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import onnx
import pytest

from edgeprune.errors import NativeError, UserError
from edgeprune.runtime import _abi, library
from edgeprune.runtime.answers import initialised
from edgeprune.runtime.session import Model, describe_bundle
from tests.runtime import tiny_graphs
from tests.runtime.conftest import BundleWriter, picture

INVALID_ARGUMENT, IO, BUNDLE, UNSUPPORTED, RUNTIME_MISSING, BACKEND = 1, 2, 3, 4, 5, 6


def native_open(path: pathlib.Path | str, **options: Any) -> None:
    """Opens and closes with the C library alone, hashes included. Raises what its status says."""
    import ctypes

    native = library.load()
    out = ctypes.c_void_p()
    options.setdefault("onnxruntime_library", bytes(library.wheel_onnxruntime() or b""))
    given = initialised(_abi.ModelOptions, **options)
    status = native.calls.ep_model_open(os.fsencode(path), ctypes.byref(given), ctypes.byref(out))
    native.check(status)
    native.calls.ep_model_free(out)


def refused(path: pathlib.Path | str, status: int, text: str, **options: Any) -> None:
    with pytest.raises(NativeError, match=text) as caught:
        native_open(path, **options)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


def test_a_good_bundle_opens(hand_bundle: pathlib.Path) -> None:
    native_open(hand_bundle)
    native_open(hand_bundle, verify=1, threads=1)


def test_describe(model: Model, hand_bundle: pathlib.Path) -> None:
    facts = model.describe()
    graphs = sum(file.stat().st_size for file in (hand_bundle / "onnx").iterdir())
    assert facts.pop("onnxruntime")["library"] == str(library.wheel_onnxruntime())
    assert facts == {
        "name": "hand-made", "family": "none", "provider": "CPUExecutionProvider", "variant": None,
        "context_length": 512, "visual_tokens": 16, "grid": [4, 4], "keep": {"default": 0.25, "min": 0.1, "max": 1.0},
        "methods": ["best", "four", "none"], "default_method": "best", "weights_bytes": graphs,
        "kv_bytes_per_token": 2 * 2 * 2 * 4 * 4, "memory": describe_bundle(hand_bundle)["memory"],
    }  # fmt: skip


def test_warmup_changes_no_answer(model: Model) -> None:
    before = model.ask(picture(1), "Where?", max_new_tokens=8, ignore_eos=True).token_ids
    model.warmup()
    assert model.ask(picture(1), "Where?", max_new_tokens=8, ignore_eos=True).token_ids == before


def set_path(manifest: dict[str, Any], place: str, value: Any) -> None:
    *parents, last = place.split("/")
    node: Any = manifest
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if value is ...:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("schema_version", 2, "schema_version is 2, but this library reads 1"),
        ("schema_version", ..., "schema_version is missing"),
        ("name", ..., "name is missing"),
        ("visual_tokens", 17, "grid must hold visual_tokens"),
        ("visual_tokens", "16", "visual_tokens must be a whole number"),
        ("visual_tokens", 2**63, "visual_tokens must be a whole number"),
        ("keep/default", 0.05, "keep.default must lie between"),
        ("keep/max", 1.5, "keep.max must be above 0 and at most 1"),
        ("methods/default", "fastest", "is not one of methods.each"),
        ("methods/each/best/static_keep", 3, "either dynamic_keep or static_keep"),
        ("methods/each/best/keep_counts", [], "keep_counts must not be empty"),
        ("methods/each/best/keep_counts", [{"first": 4, "last": 15, "step": 4}], "first to last in whole steps"),
        ("methods/each/best/keep_counts", [{"first": 4, "last": 2, "step": 1}], "first to last in whole steps"),
        ("methods/each/best/keep_counts", [{"first": 0, "last": 2, "step": 1}], "must be a whole number of at least 1"),
        ("graphs/vision/four", ..., "no graph for the method \"four\""),
        ("graphs/decoder/kv", ..., "kv is missing"),
        ("graphs/decoder/file", "../decoder.onnx", "paths must be relative"),
        ("graphs/decoder/file", "/etc/passwd", "paths must be relative"),
        ("graphs/decoder/data", ["a/../../b"], "paths must be relative"),
        ("graphs/embedding/file", "onnx/other.onnx", "files does not list onnx/other.onnx"),
        ("files/..", {"sha256": "0" * 64, "bytes": 1}, "paths must be relative"),
        ("graphs/embedding/inputs/0/role", "ids", "no tensor of the role input_ids"),
        ("graphs/embedding/inputs/0/name", "ids", "has no tensor \"ids\""),
        ("graphs/embedding/inputs/0/dtype", "float32", "cannot be float32"),
        ("graphs/embedding/outputs/0/dtype", "float16", "is float32 in the graph, but float16 in the manifest"),
        ("graphs/embedding/outputs/0/shape", [1, "L", 9], r"is \(1, \?, 8\) in the graph, but \(1, \?, 9\)"),
        ("graphs/decoder/inputs/1/role", "rotary", "knows no role rotary"),
        ("graphs/decoder/kv/layers", 3, "no tensor of the role past_key.2"),
        ("tokens/image", 5, "tokens.image is 5, but the tokenizer gives \"<image>\" the id 256"),
        ("methods/each/best/text", True, "must hold one of the stage encode and one of the stage select"),
        ("preprocess/resize/size_px", [20, 20], r"pictures of \(20, 20\), but .* \(\?, 3, 16, 16\)"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts(write_bundle: BundleWriter, place: str, value: Any, text: str) -> None:
    refused(write_bundle(change=lambda manifest: set_path(manifest, place, value)), BUNDLE, text)


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("positions", "mrope", "does not know \"mrope\" positions"),
        ("graphs/decoder/kv/kind", "fixed", "does not know a \"fixed\" KV cache"),
    ],
)  # fmt: skip
def test_what_this_library_cannot_do_yet(write_bundle: BundleWriter, place: str, value: Any, text: str) -> None:
    refused(write_bundle(change=lambda manifest: set_path(manifest, place, value)), UNSUPPORTED, text)


def with_variant(path: pathlib.Path, **changes: Any) -> pathlib.Path:
    """Writes the canonical graphs once more as a variant into the manifest; a change of None leaves a field out."""
    manifest = json.loads((path / "manifest.json").read_text())
    build, words = "variants/cpu-int8/build.json", {"vision": "int8", "decoder": "int8"}
    fixed = {"slug": "cpu-int8", "target": "cpu", "precision": words, "build": build, "files": {}}
    (path / build).parent.mkdir(parents=True, exist_ok=True)
    (path / build).write_text("{}")
    variant = {**fixed, "graphs": manifest["graphs"], **changes}
    manifest["variants"] = [{key: value for key, value in variant.items() if value is not None}]
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_variants(write_bundle: BundleWriter) -> None:
    path = write_bundle()
    native_open(with_variant(path), variant=b"cpu-int8")
    refused(path, INVALID_ARGUMENT, 'no variant "cuda"; it has: cpu-int8', variant=b"cuda")
    engines = with_variant(path, target="thor", graphs=None)
    refused(engines, UNSUPPORTED, 'variant "cpu-int8" holds engines for thor, which this', variant=b"cpu-int8")
    outside = with_variant(path, files={"../x": {"sha256": "0", "bytes": 1}})
    refused(outside, BUNDLE, "variants.cpu-int8.files is .*paths must be relative", variant=b"cpu-int8")
    graphs = json.loads((path / "manifest.json").read_text())["graphs"]
    missing = with_variant(path, graphs={**graphs, "vision": {}})
    refused(missing, BUNDLE, "graphs.vision has no graph for the method", variant=b"cpu-int8")


def test_folders_that_are_no_bundles(tmp_path: pathlib.Path) -> None:
    refused(tmp_path / "missing", IO, "no bundle at")
    refused(tmp_path, IO, "has no manifest.json")
    (tmp_path / "manifest.json").write_text("{")
    refused(tmp_path, BUNDLE, "manifest.json: it is not JSON from byte 2 on")
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    refused(tmp_path, BUNDLE, "nests more than 64 levels deep")
    (tmp_path / "manifest.json").write_text("[]")
    refused(tmp_path, BUNDLE, "the document must be an object")
    refused(tmp_path / "manifest.json", IO, "not a directory")


@pytest.fixture
def copy(hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(hand_bundle, tmp_path / "copy.bundle"))


@pytest.mark.parametrize("file", ["onnx/decoder.onnx", "onnx/vision-four.onnx", "tokenizer/tokenizer.json"])
def test_missing_and_truncated_files(copy: pathlib.Path, file: str) -> None:
    (copy / file).write_bytes((copy / file).read_bytes()[:-1])
    refused(copy, BUNDLE, rf"{file} has \d+ bytes, but the manifest says")
    (copy / file).unlink()
    refused(copy, BUNDLE, f"{file} of the bundle is missing")
    (copy / file).mkdir()
    refused(copy, BUNDLE, f"{file} of the bundle is not a file")


def test_changed_files(copy: pathlib.Path) -> None:
    file = copy / "onnx" / "embedding.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    refused(copy, BUNDLE, "onnx/embedding.onnx has SHA-256 [0-9a-f]{64}, but the manifest says [0-9a-f]{64}")
    native_open(copy, verify=1)  # one weight differs by its last bit; the caller vouched for the hashes


def test_a_changed_graph_of_another_method_is_found_when_it_is_first_used(copy: pathlib.Path) -> None:
    import ctypes

    file = copy / "onnx" / "vision-four.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    native = library.load()
    out, session, image = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int32()
    opening = initialised(_abi.ModelOptions, onnxruntime_library=bytes(library.wheel_onnxruntime() or b""))
    native.call("ep_model_open", bytes(copy), ctypes.byref(opening), ctypes.byref(out))
    native.call("ep_session_new", out, None, ctypes.byref(session))
    pixels = picture(1)
    frame = initialised(_abi.Frame, data=pixels.ctypes.data, width_px=30, height_px=20)
    four = initialised(_abi.ImageOptions, method=b"four")
    with pytest.raises(NativeError, match=r"vision-four.onnx has SHA-256"):
        native.call("ep_session_add_image", session, ctypes.byref(frame), ctypes.byref(four), ctypes.byref(image))
    native.call("ep_session_add_image", session, ctypes.byref(frame), None, ctypes.byref(image))
    native.calls.ep_session_free(session)
    native.calls.ep_model_free(out)


def test_links_out_of_the_bundle(copy: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = copy / "onnx" / "decoder.onnx"
    outside = tmp_path / "decoder.onnx"
    file.rename(outside)
    file.symlink_to(outside)
    refused(copy, BUNDLE, "a link to a place outside")
    file.unlink()
    outside.rename(copy / "onnx" / "other.onnx")
    file.symlink_to("other.onnx")
    native_open(copy)


def test_a_graph_that_onnxruntime_cannot_read(copy: pathlib.Path) -> None:
    (copy / "onnx" / "decoder.onnx").write_bytes(b"no graph")
    rehash(copy)
    refused(copy, BACKEND, "onnxruntime: ")


def test_a_graph_with_an_input_that_the_manifest_does_not_list(copy: pathlib.Path) -> None:
    file = copy / "onnx" / "embedding.onnx"
    graph = onnx.load(file)
    graph.graph.input.append(onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, [1]))
    onnx.save(graph, file)
    rehash(copy)
    refused(copy, BUNDLE, 'has an input "extra", which the manifest does not list')


def rehash(path: pathlib.Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = tiny_graphs.file_table(path)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_graph_that_keeps_another_count_is_caught(copy: pathlib.Path) -> None:
    """The manifest promises 4 tokens, the graph's free dimension gives 16: the executed shape decides."""
    manifest = json.loads((copy / "manifest.json").read_text())
    graph = manifest["graphs"]["vision"]["four"][0] = json.loads(json.dumps(manifest["graphs"]["vision"]["none"][0]))
    assert manifest["methods"]["each"]["four"]["static_keep"] == 4
    for tensor in graph["outputs"]:
        tensor["shape"][1] = "K"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with Model.open(copy) as model, pytest.raises(NativeError, match="kept 16 tokens, but 4 were asked for") as caught:
        model.ask(picture(1), "x", method="four")
    assert caught.value.status == BACKEND


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("method", "weight", "what"), [("best", "score", "scores"), ("none", "patch", "visual_embeds")]
)
def test_scores_and_features_that_are_no_numbers_are_refused(
    copy: pathlib.Path, method: str, weight: str, what: str, value: float
) -> None:
    file = copy / "onnx" / f"vision-{method}.onnx"
    graph = onnx.load(file)
    shape = tiny_graphs.weights()[weight].shape
    [held] = [tensor for tensor in graph.graph.initializer if tuple(tensor.dims) == shape]
    held.CopyFrom(onnx.numpy_helper.from_array(np.full(shape, value, np.float32), held.name))
    onnx.save(graph, file)
    rehash(copy)
    words = rf'method "{method}": \d+ of \d+ values of {what} that onnx/vision-{method}.onnx made are NaN or Inf; use'
    with Model.open(copy) as model, model.new_session() as session:
        with pytest.raises(NativeError, match=words) as caught:
            session.add_image(picture(1), method=method)
        assert caught.value.status == BACKEND
        fine = session.add_image(picture(1), method="four")
        assert session.kept_tokens(fine).kept == 4


def test_a_count_that_the_method_does_not_serve_names_the_nearest(copy: pathlib.Path) -> None:
    """Of 16 tokens the method serves 4, 8, 12 and 15."""
    manifest = json.loads((copy / "manifest.json").read_text())
    runs = [{"first": 4, "last": 12, "step": 4}, {"first": 15, "last": 15, "step": 1}]
    manifest["methods"]["each"]["best"]["keep_counts"] = runs
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with Model.open(copy) as model, model.new_session() as session:
        for asked, nearest in ((2, 4), (5, 4), (6, 4), (7, 8), (13, 12), (14, 15), (16, 15)):
            words = rf"cannot keep {asked} of 16 tokens; the nearest count it can is {nearest} \(keep {nearest / 16}\)"
            with pytest.raises(NativeError, match=words):
                session.add_image(picture(1), keep=asked / 16, method="best")
        for served in (4, 8, 12, 15):
            image = session.add_image(picture(1), keep=served / 16, method="best")
            assert session.kept_tokens(image).kept == served


def test_tokens_round_trip(model: Model) -> None:
    text = "Grüße, 世界! 🙂 <image>"
    ids = model.tokenize(text)
    assert ids == list(text.encode())
    assert model.detokenize(ids) == text
    assert model.tokenize("a<image></s>", allow_special=True) == [97, tiny_graphs.IMAGE, tiny_graphs.EOS]
    assert model.detokenize([97, tiny_graphs.EOS]) == "a"
    assert model.detokenize([97, tiny_graphs.EOS], skip_special=False) == "a</s>"
    assert (model.tokenize(""), model.detokenize([])) == ([], "")


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_c_cannot_hold(model: Model, text: str) -> None:
    with pytest.raises(UserError, match=r"zero character|not valid Unicode"):
        model.tokenize(text)
    with pytest.raises(UserError, match=r"zero character|not valid Unicode"):
        model.ask(None, text)


def test_pictures_in_memory(model: Model) -> None:
    from PIL import Image

    rgb = picture(3)
    grey = rgb[:, :, 0]
    expected = model.preprocess(rgb)
    assert expected.shape == (16, 16, 3)
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)])
    for same in (Image.fromarray(rgb), alpha, Image.fromarray(alpha), np.asfortranarray(rgb), alpha[:, :, :3]):
        np.testing.assert_array_equal(model.preprocess(same), expected)
    for same in (grey[:, :, None], Image.fromarray(grey), np.dstack([grey] * 3)):
        np.testing.assert_array_equal(model.preprocess(same), model.preprocess(grey))
    palette = Image.fromarray(rgb).convert("P")
    np.testing.assert_array_equal(model.preprocess(palette), model.preprocess(palette.convert("RGB")))


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8), 7, [1, 2]]
)
def test_what_is_no_picture(model: Model, bad: Any) -> None:
    with pytest.raises(UserError, match="picture is a"):
        model.preprocess(bad)


def test_a_picture_without_pixels(model: Model) -> None:
    with pytest.raises(NativeError):
        model.ask(np.zeros((0, 4, 3), np.uint8), "x")
