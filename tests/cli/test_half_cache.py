"""The float16 cache of cpu variants: half the bytes, the same answers, float32 with a reason where it does not fit."""

from __future__ import annotations

import json
import pathlib
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from edgeprune import fingerprint
from edgeprune.bundle import MANIFEST, Bundle
from edgeprune.engines import cpu, parity, precisions, targets
from edgeprune.export.pipeline import export
from edgeprune.manifest import ParityRow
from edgeprune.recipe import ExportRecipe
from edgeprune.runtime.session import Model
from edgeprune.tolerances import TOLERANCES
from tests.checkpoints import write_checkpoint
from tests.cli.command import assert_user_error, edgeprune

TWO = "vision=fp32,decoder=int8+int4"
QUESTIONS = ("what is it?", "what is on the left?")
Answers = list[tuple[list[int], int, int]]


def built(source: pathlib.Path, to: pathlib.Path, precision: str, *, half: bool) -> tuple[pathlib.Path, dict[str, Any]]:
    """A copy of a bundle with one cpu variant, and what its build.json says of the cache."""
    copy = shutil.copytree(source, to)
    cpu.build(Bundle.open(copy), targets.find("cpu"), precisions.parse(precision), half_cache=half)
    (variant,) = Bundle.open(copy).manifest.variants
    cache = json.loads((copy / variant.build).read_text())["cache"]
    return copy, cache


def slug(bundle: pathlib.Path) -> str:
    return str(json.loads((bundle / MANIFEST).read_text())["variants"][0]["slug"])


@pytest.fixture(scope="module")
def halved(tiny_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path, cache = built(tiny_bundle, tmp_path_factory.mktemp("halved") / "float16.bundle", TWO, half=True)
    assert cache == {"kind": "fixed", "dtype": "float16", "attention": "edgeprune:RotaryAttention"}
    return path


@pytest.fixture(scope="module")
def pair(
    tiny_bundle: pathlib.Path, halved: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Model, Model]]:
    """One variant with its cache in float32 and in float16."""
    folder = tmp_path_factory.mktemp("caches")
    path, cache = built(tiny_bundle, folder / "float32.bundle", TWO, half=False)
    assert (cache["dtype"], cache["reason"]) == ("float32", "asked for with --kv-cache fp32")
    with Model.open(path, variant=slug(path)) as whole, Model.open(halved, variant=slug(halved)) as half:
        yield whole, half


def conversation(model: Model) -> Answers:
    """Ids, tokens and bytes of the cache: two questions of which the first makes the cache grow, a question again after
    the cache was shortened, and one without the picture. Behind a shortened cache the third id is a tie of two, a
    thousandth apart, which any rounding decides."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    found = []
    with model.new_session() as session:
        session.add_image(pixels, keep=1.0)
        for question in (*QUESTIONS, QUESTIONS[0]):
            found.append(session.generate(question, max_new_tokens=90, ignore_eos=True))
        assert found[-1].reused_tokens > 0
        session.truncate(20)
        found.append(session.generate(QUESTIONS[1], max_new_tokens=2, ignore_eos=True))
        session.reset()
        found.append(session.generate(QUESTIONS[1], max_new_tokens=5, ignore_eos=True))
    return [(list(answer.token_ids), answer.kv_tokens, answer.timings.kv_bytes) for answer in found]


def test_answers_are_those_of_a_float32_cache_in_half_the_bytes(pair: tuple[Model, Model]) -> None:
    """The float32 form is the one that was built before float16 was known."""
    whole, half = map(conversation, pair)
    assert [(ids, tokens, kept // 2) for ids, tokens, kept in whole] == half
    assert len({kept for *_, kept in half}) > 1, "the cache grew on the way"
    facts = [model.describe() for model in pair]
    for name in ("kv_bytes_per_token", "memory"):
        first, second = (fact[name] if name != "memory" else fact[name]["kv_bytes"] for fact in facts)
        assert first == 2 * second, name


def test_the_graphs_state_their_cache(halved: pathlib.Path) -> None:
    (variant,) = Bundle.open(halved).manifest.variants
    assert variant.graphs is not None
    for graph in (variant.graphs.decoder, variant.graphs.decoder_step):
        assert graph is not None
        assert graph.kv is not None
        assert graph.kv.dtype == "float16"
        model = onnx.load(halved / graph.file, load_external_data=False)
        types = {info.name: info.type.tensor_type.elem_type for info in (*model.graph.input, *model.graph.output)}
        for tensor in (*graph.inputs, *graph.outputs):
            cached = tensor.role.startswith(("past_", "present_"))
            assert (tensor.dtype, types[tensor.name] == onnx.TensorProto.FLOAT16) == (
                ("float16", True) if cached else (tensor.dtype, False)
            )
    rows = {row.stage: row for row in variant.parity}
    row = rows["decoder/own attention, cache in fp16"]
    assert 0 < row.value <= row.tolerance == TOLERANCES["logits_cache_fp16"]
    assert rows["decoder/own attention, fp32"].value < row.value, "float16 rounds more than sums in another order"
    compared = [row for row in parity.rows(Bundle.open(halved)) if isinstance(row, ParityRow)]
    decoders = [row for row in compared if row.stage.split("/")[1].startswith("decoder")]
    decoders = [row for row in decoders if row.stage.startswith("variant")]
    assert len(decoders) == 2
    assert all(row.passed and row.value > 0 for row in decoders)


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A bundle whose first layer has keys a million times as large and queries as much smaller: the same function."""
    folder = tmp_path_factory.mktemp("loud")
    checkpoint = write_checkpoint(folder / "checkpoint")
    (file,) = checkpoint.glob("*.safetensors")
    weights = load_file(file)
    for name, factor in (("k_proj", 1e6), ("q_proj", 1e-6)):
        (key,) = [key for key in weights if f"layers.0.self_attn.{name}" in key and "vision" not in key]
        weights[key] = weights[key] * np.float32(factor)
    save_file(weights, file, metadata={"format": "pt"})
    recipe = ExportRecipe(model=str(checkpoint), prune=("none",), keep=1.0)
    return export(recipe, folder / "loud.bundle")


def test_keys_beyond_float16_keep_the_cache_in_float32(loud: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Said while building and in build.json; the variant answers as the canonical graphs do."""
    copy = shutil.copytree(loud, tmp_path / "loud.bundle")
    done = edgeprune("build", copy, "--target", "cpu", "--precision", "vision=fp32,decoder=int8")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (variant,) = Bundle.open(copy).manifest.variants
    cache = json.loads((copy / variant.build).read_text())["cache"]
    assert (cache["kind"], cache["dtype"]) == ("fixed", "float32")
    assert cache["attention"] == "edgeprune:RotaryAttention"
    assert "float16 ends at 65504" in cache["reason"]
    assert f"the cache is float32: {cache['reason']}" in done.stdout
    assert "decoder/own attention, cache in fp16" not in {row.stage for row in variant.parity}
    with Model.open(copy, variant=variant.slug) as model:
        assert model.ask(None, QUESTIONS[0], max_new_tokens=3, ignore_eos=True).timings.kv_bytes > 0


def test_roughness_keeps_the_cache_in_float32(
    tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "logits_cache_fp16", 1e-9)  # type: ignore[misc]
    _, cache = built(tiny_bundle, tmp_path / "rough.bundle", "vision=fp32,decoder=int8", half=True)
    assert cache["dtype"] == "float32"
    assert "more than 1e-09" in cache["reason"]


def test_float32_can_be_asked_for(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """It is another build of the same variant: asked for otherwise, it is built anew."""
    copy = shutil.copytree(tiny_bundle, tmp_path / "asked.bundle")
    command = ("build", copy, "--target", "cpu", "--precision", "vision=fp32,decoder=int8")
    for more, dtype in ((("--kv-cache", "fp32"), "float32"), ((), "float16")):
        done = edgeprune(*command, *more)
        assert (done.returncode, "wrote variant" in done.stdout) == (0, True), done.stderr
        (variant,) = Bundle.open(copy).manifest.variants
        cache = json.loads((copy / variant.build).read_text())["cache"]
        assert cache["dtype"] == dtype
        assert ("asked for with --kv-cache fp32" in cache.get("reason", "")) == (dtype == "float32")
        again = fingerprint.rebuild_command(copy, variant)
        assert (" --kv-cache fp32 " in again) == (dtype == "float32"), "the command of a misfit makes the same"
        assert again == shlex.join(["edgeprune", *map(str, command), *more, "--rebuild"])


@pytest.mark.parametrize("target", ["cuda", "tensorrt-rtx:sm89"])
def test_other_targets_have_no_such_choice(tiny_bundle: pathlib.Path, target: str) -> None:
    done = edgeprune("build", tiny_bundle, "--target", target, "--precision", "fp16", "--kv-cache", "fp32")
    assert_user_error(done, f"--kv-cache is for the target cpu: on {target} the precision decides")
