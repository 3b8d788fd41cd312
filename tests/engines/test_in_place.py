"""The decoder that writes its cache in place against the canonical one, in fp32, in onnxruntime."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeprune.bundle import Bundle
from edgeprune.engines import in_place
from edgeprune.tolerances import TOLERANCES

Array = np.ndarray[Any, Any]
CAPACITY, WIDTH = 48, 64


class Pair:
    """The canonical decoder and the rewritten one on the same tokens; the latter has one buffer as past and present."""

    def __init__(self, bundle: Bundle, folder: pathlib.Path) -> None:
        graph = bundle.manifest.graphs.decoder
        assert graph.kv is not None
        source = onnx.load(bundle.file(graph.file))
        made = folder / "decoder.onnx"
        onnx.save(in_place.rewrite(source, graph.kv), made)
        self.canonical, self.rewritten = (
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            for path in (bundle.file(graph.file), made)
        )
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


def test_the_cache_is_written_in_place_and_logits_are_the_canonical_ones(
    tiny_bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A prompt, single tokens, several tokens behind a cache, and a rollback: equal logits, equal keys and values, and
    nothing written beyond the new tokens."""
    pair = Pair(Bundle.open(tiny_bundle), tmp_path)
    rows = np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32)
    begin = 0
    for count in (9, 1, 1, 7, -6, 1, 5):
        if count < 0:
            begin += count
            pair.past = {name: value[:, :, :begin] for name, value in pair.past.items()}
            continue
        behind = {name: value.numpy()[:, :, begin + count :].copy() for name, value in pair.cache.items()}
        wanted, found = pair.run(rows[begin : begin + count])
        begin += count
        assert np.abs(found - wanted).max() <= TOLERANCES["logits_in_place"] * np.abs(wanted).max()
        for name, value in pair.cache.items():
            assert np.abs(value.numpy()[:, :, :begin] - pair.past[name]).max() <= 1e-6
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
