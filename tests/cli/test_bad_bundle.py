"""Damaged, unsafe and foreign bundles: `run` and `check` refuse them in one sentence and change nothing."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.bad_images import write_picture
from tests.cli.command import Done, assert_user_error, edgeprune, tree

Damage = Callable[[pathlib.Path], None]


@pytest.fixture
def bundle(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A private copy; links for the large files would let a test change the shared ones."""
    return shutil.copytree(tiny_bundle, tmp_path / "copy.bundle")


def ask(bundle: pathlib.Path, verb: str, *argv: object) -> Done:
    if verb == "check":
        return edgeprune("check", bundle, *argv)
    picture = write_picture(bundle.parent / "picture.png")
    return edgeprune("run", bundle, "--image", picture, "--prompt", "q", "--max-new-tokens", 2, *argv)


def edit(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(bundle: pathlib.Path) -> None:
        path = bundle / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return damage


def decoder_of(bundle: pathlib.Path) -> pathlib.Path:
    graph = json.loads((bundle / "manifest.json").read_text())["graphs"]["decoder"]
    return bundle / graph["file"]


def rename_decoder(manifest: dict[str, Any], name: str) -> None:
    graph = manifest["graphs"]["decoder"]
    manifest["files"][name] = manifest["files"].pop(graph["file"])
    graph["file"] = name


def flip_a_bit(bundle: pathlib.Path) -> None:
    path = decoder_of(bundle)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link_outside(bundle: pathlib.Path) -> None:
    path = decoder_of(bundle)
    path.rename(bundle.parent / "outside.onnx")
    path.symlink_to(bundle.parent / "outside.onnx")


DAMAGES: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "another hash": (flip_a_bit, ("decoder", "says")),
    "truncated": (lambda bundle: os.truncate(decoder_of(bundle), 100), ("decoder", "100 bytes")),
    "missing graph": (lambda bundle: decoder_of(bundle).unlink(), ("decoder",)),
    "link outside": (link_outside, ("decoder", "link")),
    "path with ..": (edit(lambda value: rename_decoder(value, "onnx/../../x.onnx")), ("manifest.json", "x.onnx")),
    "absolute path": (edit(lambda value: rename_decoder(value, "/etc/x.onnx")), ("manifest.json", "/etc/x.onnx")),
    "schema version": (edit(lambda value: value.update(schema_version=99)), ("manifest.json", "99")),
    "no decoder": (edit(lambda value: value["graphs"].pop("decoder")), ("manifest.json", "decoder")),
    "no version": (edit(lambda value: value.pop("schema_version")), ("manifest.json", "schema_version")),
    "no manifest": (lambda bundle: (bundle / "manifest.json").unlink(), ("manifest.json",)),
    "empty manifest": (lambda bundle: (bundle / "manifest.json").write_text(""), ("manifest.json",)),
}


@pytest.mark.parametrize("verb", ["run", "check"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_bundle_is_one_sentence(bundle: pathlib.Path, verb: str, name: str) -> None:
    damage, parts = DAMAGES[name]
    damage(bundle)
    before = tree(bundle)
    done = ask(bundle, verb)
    assert_user_error(done, *parts)
    assert done.stdout == ""
    assert tree(bundle) == before


def test_no_verify_skips_the_hashes_only(bundle: pathlib.Path) -> None:
    tokenizer = bundle / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("{", "{", 1)[:-1] + " ")
    assert_user_error(ask(bundle, "check"), "tokenizer.json has sha256")
    assert "sizes agree" in ask(bundle, "check", "--no-verify").stdout
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert_user_error(ask(bundle, "check", "--no-verify"), "tokenizer.json has")


def test_a_bundle_in_an_unreadable_directory_is_named(bundle: pathlib.Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becoming nobody needs root and setpriv")
    bundle.chmod(0)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = edgeprune("check", bundle, prefix=nobody)
    if "No module named" in done.stderr or "Permission denied: " in done.stderr:
        pytest.skip("nobody cannot read this Python")
    assert_user_error(done, str(bundle))
