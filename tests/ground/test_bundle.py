"""Opening a bundle: what is verified, and what every refusal names."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgeprune.bundle import MANIFEST, Bundle, BundleWriter, read_manifest
from edgeprune.errors import BundleError
from tests.ground.sample import FILES, manifest, write_bundle, write_files

SCHEMA = json.loads((pathlib.Path(__file__).parents[2] / "docs" / "manifest.schema.json").read_text(encoding="utf-8"))
DECODER = "onnx/decoder.onnx"


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_bundle(tmp_path / "sample.bundle")


def edit(bundle: pathlib.Path, **changes: Any) -> None:
    path = bundle / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(bundle: pathlib.Path, **settings: Any) -> str:
    """The sentence with which opening fails."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(bundle, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_written_bundle_opens_and_its_manifest_meets_the_schema(bundle: pathlib.Path) -> None:
    jsonschema.validate(json.loads((bundle / MANIFEST).read_text()), SCHEMA)
    opened = Bundle.open(bundle)
    assert set(opened.manifest.files) == set(FILES)
    assert opened.file(DECODER).read_bytes() == FILES[DECODER]
    assert opened.manifest.keep.max == 1.0
    with pytest.raises(BundleError, match="lists no file onnx/other"):
        opened.file("onnx/other.onnx")
    with pytest.raises(BundleError, match="holds no golden tensors: a sample"):
        opened.golden()


def test_a_flipped_bit_is_found_by_its_hash_only(bundle: pathlib.Path) -> None:
    data = bytearray(FILES["onnx/vision.data"])
    data[100] ^= 1
    (bundle / "onnx/vision.data").write_bytes(data)
    assert "onnx/vision.data has sha256" in refusal(bundle)
    assert Bundle.open(bundle, verify="sizes").manifest.name == "sample"


@pytest.mark.parametrize("verify", ["full", "sizes"])
def test_another_size_or_a_missing_file_is_found_always(bundle: pathlib.Path, verify: Any) -> None:
    (bundle / DECODER).write_bytes(b"longer than before")
    assert f"{DECODER} has 18 bytes but the manifest says 7" in refusal(bundle, verify=verify)
    (bundle / DECODER).unlink()
    assert f"{DECODER}: No such file" in refusal(bundle, verify=verify)
    (bundle / DECODER).mkdir()
    assert f"{DECODER} is not a regular file" in refusal(bundle, verify=verify)


def test_a_pipe_in_the_place_of_a_file_does_not_hang(bundle: pathlib.Path) -> None:
    (bundle / DECODER).unlink()
    os.mkfifo(bundle / DECODER)
    assert "is not a regular file" in refusal(bundle)
    (bundle / MANIFEST).unlink()
    os.mkfifo(bundle / MANIFEST)
    assert "is not a regular file" in refusal(bundle)


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc/hostname", "onnx/../../outside.onnx", "onnx/a b.onnx", ""])
def test_unsafe_paths_are_refused_before_anything_is_read(bundle: pathlib.Path, path: str) -> None:
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    edit(bundle, files={**files, path: {"sha256": "0" * 64, "bytes": 1}})
    assert "is not a plain relative path inside the bundle" in refusal(bundle)


def test_a_link_out_of_the_bundle_is_refused_and_one_inside_is_not(
    bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    outside = tmp_path / "outside.onnx"
    (bundle / DECODER).rename(outside)
    (bundle / DECODER).symlink_to(outside)
    assert f"{DECODER} is a link that leads out of the bundle" in refusal(bundle)
    (bundle / DECODER).unlink()
    outside.rename(bundle / "onnx" / "real.onnx")
    (bundle / DECODER).symlink_to("real.onnx")
    assert Bundle.open(bundle).file(DECODER).read_bytes() == FILES[DECODER]


def test_a_bundle_may_be_reached_through_a_link(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "alias").symlink_to(bundle)
    assert Bundle.open(tmp_path / "alias").manifest.name == "sample"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b'{"schema_version": 1, "schema_version": 1}', "'schema_version' stands twice"),
        (b'{"schema_version": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"schema_version": 7}', "schema_version is 7 but this edgeprune reads 1"),
    ],
)
def test_a_broken_manifest_is_named(bundle: pathlib.Path, content: bytes, sentence: str) -> None:
    (bundle / MANIFEST).write_bytes(content)
    message = refusal(bundle)
    assert str(bundle / MANIFEST) in message
    assert sentence in message


def test_a_missing_manifest_or_directory_is_named(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (bundle / MANIFEST).unlink()
    assert "manifest.json is missing" in refusal(bundle)
    assert "is not there or out of reach; name a bundle directory" in refusal(tmp_path / "none")
    assert "is not a directory" in refusal(bundle / DECODER)
    assert "is not there" in refusal(pathlib.Path("x" * 5000))


def test_golden_tensors_are_read_back_and_a_damaged_archive_is_named(tmp_path: pathlib.Path) -> None:
    with BundleWriter(tmp_path / "g.bundle") as writer:
        write_files(writer.path)
        (writer.path / "golden").mkdir()
        np.savez(writer.path / "golden/inputs.npz", keep=np.float64(0.25), prompt=np.array("héllo"))
        np.savez(writer.path / "golden/outputs.npz", **{"scores/fastervlm": np.arange(4, dtype=np.float32)})
        golden = {"inputs": "golden/inputs.npz", "outputs": "golden/outputs.npz"}
        writer.commit({**manifest(), "golden": golden})
    inputs, outputs = Bundle.open(tmp_path / "g.bundle").golden()
    assert (str(inputs["prompt"]), float(inputs["keep"])) == ("héllo", 0.25)
    assert outputs["scores/fastervlm"].tolist() == [0, 1, 2, 3]
    archive = tmp_path / "g.bundle/golden/outputs.npz"
    archive.write_bytes(b"x" * archive.stat().st_size)
    with pytest.raises(BundleError, match=r"cannot read the golden tensors .*outputs\.npz"):
        Bundle.open(tmp_path / "g.bundle", verify="sizes").golden()


def test_the_manifest_can_be_read_without_looking_at_the_files(bundle: pathlib.Path) -> None:
    (bundle / DECODER).unlink()
    assert read_manifest(bundle).visual_tokens == 16
