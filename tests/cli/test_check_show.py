"""`check --parity` and `show` from outside."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
from PIL import Image

from edgeprune.bundle import MANIFEST, dump_manifest, scan_files
from tests.cli.bad_images import write_bad_image, write_picture
from tests.cli.command import assert_user_error, edgeprune


def reseal(bundle: pathlib.Path) -> None:
    """Makes the manifest agree with changed files, as an export of them would have; the old one may be a link."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).write_bytes(dump_manifest({**manifest, "files": scan_files(bundle)}))


def test_check_names_what_it_compared(tiny_bundle: pathlib.Path) -> None:
    done = edgeprune("check", tiny_bundle)
    count = len(json.loads((tiny_bundle / MANIFEST).read_text())["files"])
    assert done.returncode == 0
    assert f"{count} files" in done.stdout
    assert "sizes and SHA-256 agree" in done.stdout


def test_parity_of_a_fresh_bundle_passes_in_every_stage(tiny_bundle: pathlib.Path) -> None:
    done = edgeprune("check", tiny_bundle, "--parity", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    methods = json.loads((tiny_bundle / MANIFEST).read_text())["methods"]["each"]
    measures = {row["measure"].partition(",")[0] for row in report["parity"]}
    assert {"pixels", "prompt_ids"} <= measures
    for name in methods:
        assert {f"{part}/{name}" for part in ("keep_idx", "visual_embeds", "logits", "greedy_ids")} <= measures
    assert report["ok"]
    assert all(row["passed"] for row in report["parity"])
    text = edgeprune("check", tiny_bundle, "--parity").stdout
    assert f"all {len(report['parity'])} checks passed" in text


#: tensor of outputs.npz -> stage of the row that must fail when it is another
TENSORS = {
    "pixels_rgb": "preprocess",
    "prompt_ids": "tokenizer",
    "keep_idx/fastervlm": "vision",
    "scores/fastervlm": "vision",
    "visual_embeds/none": "vision",
    "logits/stride": "decoder",
    "greedy_ids/stride": "decoder",
}


def test_parity_finds_exactly_the_tensors_that_disagree(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "copy.bundle")
    outputs = bundle / "golden" / "outputs.npz"
    with np.load(outputs) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    for tensor in TENSORS:
        arrays[tensor].flat[0] += 1
    arrays["logits/none"] = arrays["logits/none"][:-1]
    outputs.unlink()
    np.savez(outputs, **arrays)
    reseal(bundle)
    done = edgeprune("check", bundle, "--parity", "--json", "-")
    assert (done.returncode, done.stderr) == (1, "")
    failed = [row for row in json.loads(done.stdout)["parity"] if not row["passed"]]
    found = {row["measure"].partition(",")[0]: row["stage"] for row in failed}
    expected = {name.removesuffix("_rgb"): stage for name, stage in TENSORS.items()}
    assert found == {**expected, "logits/none": "decoder"}
    assert [row["value"] for row in failed if row["measure"].startswith("logits/none")] == [None]


def test_show_draws_one_panel_per_method(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture = write_picture(tmp_path / "picture.png")
    one = edgeprune("show", tiny_bundle, "--image", picture, "-o", tmp_path / "one.png")
    assert one.returncode == 0, one.stderr
    assert "fastervlm, keep 0.25" in one.stdout
    argv = ["--prune", "fastervlm,stride,random", "--keep", 0.5, "-o", tmp_path / "three.jpg"]
    three = edgeprune("show", tiny_bundle, "--image", picture, *argv)
    assert three.returncode == 0, three.stderr
    assert len(three.stdout.splitlines()) == 4
    with Image.open(tmp_path / "one.png") as single, Image.open(tmp_path / "three.jpg") as triple:
        assert (triple.format, single.format) == ("JPEG", "PNG")
        assert triple.width > 2.5 * single.width
        assert triple.height == single.height
    heat = edgeprune("show", tiny_bundle, "--image", picture, "--scores", *argv[:-1], tmp_path / "heat.png")
    assert heat.returncode == 0, heat.stderr
    with Image.open(tmp_path / "heat.png") as drawn, Image.open(tmp_path / "three.jpg") as plain:
        assert drawn.height > 1.8 * plain.height - 60


def test_show_refuses_in_one_sentence(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture = write_picture(tmp_path / "picture.png")
    bad = write_bad_image(tmp_path, "truncated.png")
    out = tmp_path / "out.png"
    assert_user_error(edgeprune("show", tiny_bundle, "--image", bad, "-o", out), "truncated.png")
    assert_user_error(edgeprune("show", tiny_bundle, "--image", picture, "--prune", "cats", "-o", out), "cats")
    assert_user_error(
        edgeprune("show", tiny_bundle, "--image", picture, "-o", "/nowhere/o.png"), "cannot write /nowhere"
    )
    assert not out.exists()
