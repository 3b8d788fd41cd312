"""`check --parity` beyond the golden tensors: dialects and variants beside the canonical graphs, each stage alone."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeprune import devices
from edgeprune.bundle import MANIFEST, Bundle, scan_folder
from edgeprune.cli.main import main
from edgeprune.engines import parity
from edgeprune.engines.passes import base, forms, newer_opset, rms_norm
from edgeprune.manifest import ParityRow
from edgeprune.tolerances import TOLERANCES
from edgeprune.variant_writer import VariantWriter
from tests.cli.command import assert_user_error, edgeprune

MIXED = "cpu-vision.int8-decoder.int4"


@pytest.fixture(scope="module")
def built(tiny_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the tiny bundle with a variant of two precisions, and one of engines that nobody can run here."""
    copy = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("graphs") / "tiny.bundle")
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "vision=int8,decoder=int4")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    with VariantWriter(copy, "engines", "0123") as writer:
        (writer.path / "build.json").write_text("{}")
        words = {"vision": "fp16", "decoder": "fp16"}
        entry = {"target": "tensorrt-rtx:sm86", "precision": words, "build": writer.name("build.json"), "parity": []}
        writer.commit(entry)
    return copy


@pytest.fixture
def bundle(built: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(built, tmp_path / "copy.bundle")


def change_variant(bundle: pathlib.Path, graph: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Changes one graph of the variant and what the manifest says of it, as a faulty build would have written both."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    entry = next(entry for entry in manifest["variants"] if entry["slug"] == MIXED)
    folder = (bundle / entry["build"]).parent
    model = onnx.load(folder / graph, load_external_data=False)
    change(model)
    onnx.save(model, folder / graph)
    entry["files"].update(scan_folder(bundle, folder))
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def failed(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if not row["passed"]:
            found.setdefault(row["stage"], []).append(row["measure"])
    return found


def test_every_dialect_and_variant_has_rows(built: pathlib.Path) -> None:
    done = edgeprune("check", built, "--parity", "--layers", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    rows = report["parity"]
    methods = list(Bundle.open(built).manifest.methods.each)
    for what in ("dialect opset20", "dialect trt", f"variant {MIXED}"):
        stages = {row["stage"] for row in rows if row["stage"].startswith(what + "/")}
        assert stages == {f"{what}/{name}" for name in [*methods, "decoder"]}
    kept = [
        row["measure"] for row in rows if row["stage"] == f"variant {MIXED}/fastervlm" and "overlap" in row["measure"]
    ]
    assert kept == ["kept set of 4, 1 - overlap"]
    for stage in (f"variant {MIXED}/decoder", f"variant {MIXED}/fastervlm", "dialect trt/decoder"):
        layers = [row for row in rows if row["stage"] == stage and row["measure"].startswith("layer output")]
        assert len(layers) == 4, "two layers, two sums each"
        assert all(0 < row["value"] <= row["tolerance"] for row in layers), stage
    (left_out,) = report["not_compared"]
    assert left_out["stage"] == "variant engines"
    if devices.facts()["gpu"] is None:
        assert left_out["reason"] == "engines not compared: there is no GPU here"


def test_layers_are_shown_on_request_only(built: pathlib.Path) -> None:
    done = edgeprune("check", built, "--parity")
    assert done.returncode == 0
    assert "layer output" not in done.stdout
    assert "engines not compared" in done.stdout
    assert_user_error(edgeprune("check", built, "--layers"), "--layers is a part of --parity")


def test_a_defect_in_a_decoder_of_a_variant(bundle: pathlib.Path) -> None:
    """The second layer adds its last product twenty times with the wrong sign: the layers before it stay equal."""

    def defect(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.float32(-20), "planted_factor"))
        index, last = next((i, n) for i, n in enumerate(model.graph.node) if n.output[0] == "add_375_l1")
        model.graph.node.insert(index, helper.make_node("Mul", [last.input[1], "planted_factor"], ["planted"]))
        model.graph.node[index + 1].input[1] = "planted"

    change_variant(bundle, "decoder.onnx", defect)
    done = edgeprune("check", bundle, "--parity", "--layers", "--json", "-")
    assert done.returncode == 1
    found = failed(json.loads(done.stdout)["parity"])
    assert list(found) == [f"variant {MIXED}/decoder"]
    assert any(measure.startswith("logits") for measure in found[f"variant {MIXED}/decoder"])
    assert [m[:19] for m in found[f"variant {MIXED}/decoder"] if m.startswith("layer")] == ["layer output 4 of 4"]
    text = edgeprune("check", bundle, "--parity")
    assert (text.returncode, "1 of " in text.stdout) == (1, True)


def test_a_defect_in_what_a_variant_keeps(bundle: pathlib.Path) -> None:
    """The worst tokens instead of the best: with every token kept nothing differs, at the keep ratio all do."""

    def defect(model: onnx.ModelProto) -> None:
        first = next(node for node in model.graph.node if node.op_type == "TopK")
        next(item for item in first.attribute if item.name == "largest").i = 0

    change_variant(bundle, "vision-fastervlm.onnx", defect)
    done = edgeprune("check", bundle, "--parity", "--json", "-")
    assert done.returncode == 1
    expected = {f"variant {MIXED}/fastervlm": ["kept set of 4, 1 - overlap"]}
    assert failed(json.loads(done.stdout)["parity"]) == expected


def test_a_defect_in_a_dialect(
    bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pass that forms norms with another epsilon is found, and so is a graph that opset20 cannot hold."""

    def wrong(model: onnx.ModelProto) -> int:
        made = rms_norm.change(model)
        for node in model.graph.node:
            for item in node.attribute:
                if node.op_type == "RMSNormalization" and item.name == "epsilon":
                    item.f = 0.5
        return made

    broken = base.GraphPass("rms-norm", (), (), wrong)
    trt = dataclasses.replace(forms.FORMS["trt"], before=(newer_opset.PASS, broken))
    monkeypatch.setitem(forms.FORMS, "trt", trt)
    monkeypatch.setitem(
        forms.FORMS, "opset20", dataclasses.replace(forms.FORMS["opset20"], holds=(base.opset_between(9, 19),))
    )
    assert main(["check", str(bundle), "--parity", "--json", "-"]) == 1
    found = failed(json.loads(capsys.readouterr().out)["parity"])
    assert set(found) == {"dialect trt/decoder"} | {row for row in found if row.startswith("dialect opset20/")}
    assert len(found) == 1 + len(Bundle.open(bundle).manifest.methods.each) + 1
    assert "no graph of the dialect opset20: it is of opset 20, outside 9..19" in found["dialect opset20/decoder"][0]


def test_both_decoders_of_a_variant_of_two_have_rows(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "two.bundle")
    assert main(["build", str(copy), "--target", "cpu", "--precision", "vision=fp32,decoder=int8+int4"]) == 0
    opened = Bundle.open(copy)
    (variant,) = opened.manifest.variants
    label = f"variant {variant.slug}/decoder"
    rows = {
        row.stage: row
        for row in parity.rows(opened)
        if isinstance(row, ParityRow) and row.stage.startswith(label) and row.measure.startswith("logits")
    }
    assert set(rows) == {label, f"{label} step"}
    assert rows[label].tolerance == TOLERANCES["logits_int8"]
    assert rows[f"{label} step"].tolerance == TOLERANCES["logits_int4"]
    assert all(row.passed and row.value > 0 for row in rows.values())


def test_what_does_not_fit_into_memory_is_said(built: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.machine.memory_bytes", lambda: (1, 1))
    rows = list(parity.rows(Bundle.open(built)))
    reasons = {row.stage: row.reason for row in rows if isinstance(row, parity.NotCompared)}
    assert "dialect trt/decoder" in reasons
    assert "MiB of memory, and 0 MiB are free" in reasons["dialect trt/decoder"]
    assert any(isinstance(row, ParityRow) and row.stage == f"variant {MIXED}/decoder" for row in rows)
