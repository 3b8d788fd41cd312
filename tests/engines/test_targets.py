"""The table of targets holds together, and names are taken apart as the user writes them."""

from __future__ import annotations

import json

import pytest

from edgeprune.engines import targets
from edgeprune.engines.passes import forms
from edgeprune.errors import UserError
from tests.cli.command import edgeprune

NAMES = [
    "cpu", "cuda", "tensorrt:local", "tensorrt:orin-nano", "tensorrt:orin-nx", "tensorrt:agx-orin", "tensorrt:thor",
    "tensorrt-rtx:sm86,sm89,sm120",
]  # fmt: skip
PRECISIONS = {"fp32", "fp16", "bf16", "int8", "int4", "int8+int4", "fp8", "fp4"}
#: TensorRT -> newest opset its parser reads, and the operators it reads since then; the vendor's notes.
PARSERS = {"10.3": (20, set()), "11.4.1": (24, {"Attention", "RotaryEmbedding", "RMSNormalization", "TensorScatter"})}


def test_every_row_holds_together() -> None:
    assert [target.name for target in targets.all_targets()] == NAMES
    for target in targets.all_targets():
        assert target.builder in ("onnxruntime", "tensorrt", "tensorrt-rtx")
        assert set(target.builds) <= set(target.precisions) <= PRECISIONS
        assert target.summary
        engines = target.builder != "onnxruntime"
        assert target.dialect in forms.FORMS if engines else target.dialect not in forms.FORMS
        assert (target.dialect == "opset20") == (engines and target.opset == 20), target.name
        if target.builder == "tensorrt":
            assert (target.opset, set(target.newer_ops)) == PARSERS[target.tensorrt[0]], target.name


def test_compute_capabilities_of_the_devices() -> None:
    found = {target.name: target.compute_capabilities for target in targets.all_targets()}
    for orin in ("tensorrt:orin-nano", "tensorrt:orin-nx", "tensorrt:agx-orin"):
        assert found[orin] == ((8, 7),)
    assert found["tensorrt:thor"] == ((11, 0),)
    assert found["cpu"] == ()


def test_a_list_of_compute_capabilities_is_free() -> None:
    one = targets.find("tensorrt-rtx:sm86")
    assert (one.name, one.slug, one.compute_capabilities) == ("tensorrt-rtx:sm86", "tensorrt-rtx-sm86", ((8, 6),))
    assert "fp8" not in one.precisions
    assert targets.find("tensorrt-rtx:sm120, sm89").name == "tensorrt-rtx:sm89,sm120"
    assert targets.find("tensorrt-rtx:sm89,sm120").precisions == ("fp32", "fp16", "bf16", "int8", "int4", "fp8")
    assert "fp4" in targets.find("tensorrt-rtx:sm120").precisions
    assert "fp32" not in targets.find("tensorrt-rtx:sm75").precisions
    assert targets.find("tensorrt-rtx:sm86,sm89,sm120").compute_capabilities == ((8, 6), (8, 9), (12, 0))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gpu", "no target 'gpu'; there are: cpu, cuda"),
        ("tensorrt", "no target 'tensorrt'"),
        ("tensorrt-rtx", "asks for ''; tensorrt-rtx builds for: sm75, sm80"),
        ("tensorrt-rtx:sm87", "asks for 'sm87'"),
        ("tensorrt-rtx:sm86,", "asks for ''"),
        ("tensorrt:sm86", "no target"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        targets.find(name)


def test_precisions_are_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"cpu has no precision 'fp8'; it has: fp32, int8, int4, int8\+int4"):
        targets.find("cpu").require_build("fp8")
    with pytest.raises(UserError, match=r"makes only int8, int4, int8\+int4 for cpu so far, not fp32"):
        targets.find("cpu").require_build("fp32")
    with pytest.raises(UserError, match="makes nothing for tensorrt:thor so far"):
        targets.find("tensorrt:thor").require_build("fp16")
    targets.find("cpu").require_build("int8")


def test_list_targets_writes_the_table() -> None:
    done = edgeprune("list", "targets", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert list(rows) == NAMES
    assert rows["tensorrt:orin-nano"]["compute_capabilities"] == ["8.7"]
    assert rows["tensorrt:agx-orin"]["tensorrt"] == ["10.3", "11.4.1"]
    assert (rows["cpu"]["memory_mib"], rows["tensorrt:orin-nano"]["memory_mib"]) == ([], [4096, 8192])
    assert (rows["tensorrt:orin-nano"]["dialect"], rows["cpu"]["dialect"]) == ("opset20", "canonical")
    text = edgeprune("list", "targets").stdout.splitlines()
    assert text[0].split()[0] == "name"
    assert len(text) == 1 + len(NAMES)
