"""The decoder that writes its cache in place, with standard operators and with the library's own, against the canonical
one, in fp32, in onnxruntime."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeprune import native_library
from edgeprune.bundle import Bundle
from edgeprune.engines import in_place, own_attention
from edgeprune.export.pipeline import export
from edgeprune.recipe import ExportRecipe
from edgeprune.tolerances import TOLERANCES
from tests.checkpoints import Shape, write_checkpoint

Array = np.ndarray[Any, Any]
CAPACITY = 320
STANDARD, OWN, ROTATED_OUTSIDE = "standard operators", "own attention", "own attention, rotated outside"
OPERATORS = {STANDARD: "", OWN: "edgeprune:RotaryAttention", ROTATED_OUTSIDE: "edgeprune:CachedAttention"}


def between_heads_and_rotation(model: onnx.ModelProto) -> None:
    """A node between the heads of one layer's queries and their rotation, which only the whole of all layers has."""
    sliced = next(node.input[0] for node in model.graph.node if node.op_type == "Slice")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == sliced:
                node.input[index] = "apart"
    index = next(i for i, node in enumerate(model.graph.node) if sliced in node.output)
    model.graph.node.insert(index + 1, onnx.helper.make_node("Identity", [sliced], ["apart"]))


class Pair:
    """The canonical decoder and the rewritten one on the same tokens; the latter has one buffer as past and present."""

    def __init__(self, bundle: Bundle, folder: pathlib.Path, form: str) -> None:
        graph = bundle.manifest.graphs.decoder
        assert graph.kv is not None
        made = in_place.rewrite(onnx.load(bundle.file(graph.file)), graph.kv)
        if form == ROTATED_OUTSIDE:
            between_heads_and_rotation(made)
        if form != STANDARD:
            made = own_attention.rewrite(made, graph.kv.layers)
        assert own_attention.operators(made) == OPERATORS[form]
        onnx.save(made, folder / "decoder.onnx")
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(native_library.path()))
        self.canonical, self.rewritten = (
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for path in (bundle.file(graph.file), folder / "decoder.onnx")
        )
        self.width = self.canonical.get_inputs()[0].shape[-1]
        self.names = [f"{layer}.{kind}" for layer in range(graph.kv.layers) for kind in ("key", "value")]
        shape = (1, graph.kv.heads, CAPACITY, graph.kv.head_dim)
        # Behind the tokens lies what a forgotten token left: finite, and never seen.
        self.cache = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.full(shape, 7, np.float32)) for name in self.names
        }
        self.past = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name in self.names}

    def run(self, rows: Array) -> tuple[Array, Array]:
        """Logits of both for new embeddings (T,D) behind what was run before."""
        begin = self.past[self.names[0]].shape[2]
        positions = np.arange(begin, begin + len(rows))[None]
        feeds = {"inputs_embeds": rows[None], "position_ids": positions}
        mask = {"attention_mask": np.ones((1, begin + len(rows)), np.int64)}
        old = {f"past_key_values.{name}": value for name, value in self.past.items()}
        outputs = [f"present.{name}" for name in self.names]
        wanted, *grown = self.canonical.run(["logits", *outputs], {**feeds, **mask, **old})
        binding = self.rewritten.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        for name, value in self.cache.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        binding.bind_output("logits", "cpu")
        self.rewritten.run_with_iobinding(binding)
        self.past = dict(zip(self.names, grown, strict=True))
        return wanted, binding.get_outputs()[-1].numpy()


@pytest.fixture(scope="module", params=["grouped", "not grouped, odd head width"])
def bundle(
    request: pytest.FixtureRequest, tiny_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    if request.param == "grouped":
        return Bundle.open(tiny_bundle)
    folder = tmp_path_factory.mktemp("odd")
    shape = Shape(width=60, heads=6, kv_heads=6, vision_layers=2)
    recipe = ExportRecipe(model=str(write_checkpoint(folder / "checkpoint", shape)), prune=("none",), keep=1.0)
    return Bundle.open(export(recipe, folder / "odd.bundle"))


@pytest.mark.parametrize("form", OPERATORS)
def test_the_cache_is_written_in_place_and_logits_are_the_canonical_ones(
    bundle: Bundle, tmp_path: pathlib.Path, form: str
) -> None:
    """A prompt, single tokens, several tokens behind a cache, a rollback, a long cache: equal logits, equal keys and
    values, and nothing written beyond the new tokens."""
    pair = Pair(bundle, tmp_path, form)
    rows = np.random.default_rng(0).normal(size=(CAPACITY, pair.width)).astype(np.float32)
    begin = 0
    for count in (9, 1, 1, 7, -6, 1, 5, 250, 1, 1):
        if count < 0:
            begin += count
            pair.past = {name: value[:, :, :begin] for name, value in pair.past.items()}
            continue
        behind = {name: value.numpy()[:, :, begin + count :].copy() for name, value in pair.cache.items()}
        wanted, found = pair.run(rows[begin : begin + count])
        begin += count
        assert np.abs(found - wanted).max() <= TOLERANCES["logits_in_place"] * np.abs(wanted).max()
        for name, value in pair.cache.items():
            kept, most = pair.past[name], TOLERANCES["logits_in_place"] * np.abs(pair.past[name]).max()
            assert np.abs(value.numpy()[:, :, :begin] - kept).max() <= most
            np.testing.assert_array_equal(value.numpy()[:, :, begin:], behind[name])


def test_another_form_is_refused(tiny_bundle: pathlib.Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    graph = bundle.manifest.graphs.decoder
    assert graph.kv is not None
    model = onnx.load(bundle.file(graph.file))
    for node in model.graph.node:
        if node.output[0] == "present.1.value":
            node.input[0], node.input[1] = node.input[1], node.input[0]
    with pytest.raises(in_place.NotMatched, match=r"present\.1\.value does not begin with its past"):
        in_place.rewrite(model, graph.kv)


def test_own_attention_refuses_another_form(tiny_bundle: pathlib.Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    graph = bundle.manifest.graphs.decoder
    assert graph.kv is not None
    model = in_place.rewrite(onnx.load(bundle.file(graph.file)), graph.kv)
    next(node for node in model.graph.node if node.op_type == "Softmax").attribute[0].i = 2
    with pytest.raises(in_place.NotMatched, match="1 of 2 attentions over the cache"):
        own_attention.rewrite(model, graph.kv.layers)
