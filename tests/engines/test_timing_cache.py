"""Timings of kernels are taken over from a variant of the same library and GPU only; TensorRT-RTX has none."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import warnings

import pytest

from edgeprune import devices
from edgeprune.bundle import Bundle
from edgeprune.engines import engine_plan, engine_variant, targets, tensorrt, timing_cache
from edgeprune.variant_writer import VariantWriter
from tests.engines.graphs import info, node, view
from tests.engines.test_tensorrt import fixed, needs_rtx
from tests.ground.sample import write_bundle

FACTS = {"module": "tensorrt", "versions": {"tensorrt": "10.3.0"}, **dict.fromkeys(devices.FACTS, "this one")}


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "sample.bundle"))


def with_timings(bundle: Bundle, slug: str, facts: dict[str, object], content: bytes) -> Bundle:
    """The bundle with one more variant, which holds timings."""
    with VariantWriter(bundle.path, slug, "key") as writer:
        (writer.path / timing_cache.FILE).write_bytes(content)
        build = {"timing_cache": {"facts": facts}}
        (writer.path / "build.json").write_text(json.dumps(build), encoding="utf-8")
        precision = {"vision": "fp16", "decoder": "fp16"}
        writer.commit({"target": "tensorrt:local", "precision": precision, "build": writer.name("build.json"),
                       "parity": []})  # fmt: skip
    return Bundle.open(bundle.path)


def test_timings_of_another_library_or_gpu_are_left(bundle: Bundle, tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    assert timing_cache.seed(bundle, FACTS, tmp_path, said.append) is None
    bundle = with_timings(bundle, "right", FACTS, b"right")
    for name in FACTS:
        bundle = with_timings(bundle, f"wrong-{name.replace('_', '-')}", {**FACTS, name: "another"}, b"wrong")
    assert timing_cache.seed(bundle, FACTS, tmp_path, said.append) == "right"
    assert (tmp_path / timing_cache.FILE).read_bytes() == b"right"
    assert said == []


def test_the_newest_that_is_whole_is_taken(bundle: Bundle, tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    bundle = with_timings(with_timings(bundle, "old", FACTS, b"old"), "new", FACTS, b"new")
    assert timing_cache.seed(bundle, FACTS, tmp_path, said.append) == "new"
    (bundle.path / "variants/new/key" / timing_cache.FILE).write_bytes(b"???")
    assert timing_cache.seed(bundle, FACTS, tmp_path, said.append) == "old"
    assert (tmp_path / timing_cache.FILE).read_bytes() == b"old"
    assert said == [f"variants/new/key/{timing_cache.FILE} is damaged and not used: kernels are timed anew"]


def test_whether_timings_are_kept_is_part_of_the_fingerprint(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "versions", lambda module: {module: "10.3.0", "polygraphy": "0.53.6"})
    plan = engine_plan.plans(bundle.manifest)[0]

    def option(target: str, **options: bool) -> object:
        asked = engine_variant.Options(**options)
        found = engine_variant.fingerprint(bundle, plan, targets.find(target), "fp16", asked)
        assert set(timing_cache.facts(found)) == set(FACTS)
        return found["options"]["timing_cache"]

    assert option("tensorrt:local") is True
    assert option("tensorrt:local", timing_cache=False) is False
    assert option("tensorrt-rtx:sm86") is False, "there is none"


@needs_rtx
def test_the_timing_cache_of_tensorrt_rtx_stays_empty(tmp_path: pathlib.Path) -> None:
    """The reason for `serves`: after a build the library's cache has no entry. Its calls are tried here for real."""
    import onnx
    import tensorrt_rtx

    model = view([node("Relu", ["x"])], [info("x", ["B", 8])], outputs=[info("y", ["B", 8])]).model
    model.ir_version = 10
    onnx.save(model, tmp_path / "one.onnx")
    profile = {"x": dataclasses.replace(fixed(1, 8), max=(4, 8))}
    timings = tmp_path / timing_cache.FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        engine = tensorrt.build_engine_bytes(
            tmp_path / "one.onnx", [profile], compute_capabilities=[(8, 6)], timings=timings
        )
        assert b"vtrt" in engine[:32]
        assert sorted(path.name for path in tmp_path.glob("timing*")) == [timing_cache.FILE], "the lock is gone"
        builder = tensorrt_rtx.Builder(tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR))
        cache = builder.create_builder_config().create_timing_cache(timings.read_bytes())
        assert cache.queryKeys() == []
    assert not timing_cache.serves("tensorrt_rtx")
