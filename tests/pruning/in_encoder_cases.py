"""Small random LLaVAs with a CLIP tower, and what the methods that prune inside it make of random pictures."""

from __future__ import annotations

import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from edgeprune.export.graphs import VisionGraph
from edgeprune.export.passes.attach import attach
from edgeprune.export.trace import trace
from edgeprune.export.weights import parameters, plan_slots, write_data
from edgeprune.export.writer import example
from edgeprune.pruning.registry import parse
from tests.export.models import family_of, filled, hf_model, llava_config
from tests.pruning import oracles_in_encoder as oracles

LAYERS, HEADS = 7, 3
#: blocks that the features need
BLOCKS = LAYERS - 1

#: SPEC -> oracle of (tower, input of its first block (S,C), visual tokens behind each block)
ORACLES: dict[str, Callable[[oracles.Tower, np.ndarray, list[int]], tuple[list[int], np.ndarray]]] = {
    "tome": oracles.tome,
    "flowcut": oracles.flowcut,
}


@functools.cache
def model_of(side: int, vision: str = "clip") -> Any:
    return hf_model(llava_config(vision, side, LAYERS))


@functools.cache
def graph_of(spec: str, side: int, keep: int, vision: str = "clip") -> VisionGraph:
    """The vision graph of a method with K baked in, weights in memory."""
    family, source = family_of(model_of(side, vision))
    return filled(family.vision(parse(spec), keep, torch.float32, whole=True), family, source)


@functools.cache
def tower_of(side: int) -> oracles.Tower:
    model = model_of(side)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    return oracles.Tower(state, BLOCKS, HEADS, model.config.vision_config.layer_norm_eps)


def pixels(seed: int, side: int) -> torch.Tensor:
    """(1,3,S,S)."""
    return torch.randn(1, 3, 4 * side, 4 * side, generator=torch.Generator().manual_seed(seed))


def expected(spec: str, side: int, keep: int, picture: torch.Tensor) -> tuple[list[int], np.ndarray]:
    """keep_idx and projected tokens (K,D) by the oracle; oracles.Tie where rounding decides."""
    with torch.inference_mode():
        hidden = model_of(side).model.vision_tower(picture, output_hidden_states=True).hidden_states[0]
    counts = list(parse(spec).schedule(side * side, BLOCKS, keep))
    return ORACLES[spec](tower_of(side), hidden[0].double().numpy(), counts)


def tie_free(spec: str, side: int, keep: int, seeds: int) -> Iterator[tuple[torch.Tensor, list[int], np.ndarray]]:
    """Pictures and what the oracle makes of them, for as many seeds without ties."""
    found = 0
    for seed in itertools.count():
        assert seed < 4 * seeds + 20, "too many ties"
        picture = pixels(seed, side)
        try:
            made = expected(spec, side, keep, picture)
        except oracles.Tie:
            continue
        yield picture, *made
        found += 1
        if found == seeds:
            return


def in_torch(spec: str, side: int, keep: int, picture: torch.Tensor) -> list[np.ndarray]:
    """keep_idx (B,K), embeds (B,K,D)."""
    with torch.inference_mode():
        embeds, index = graph_of(spec, side, keep)(picture)
    return [index.numpy(), embeds.numpy()]


@functools.cache
def exported(spec: str, side: int, keep: int) -> tuple[Any, onnx.ModelProto]:
    """An ONNX Runtime session of the vision graph as an export writes it, and the graph without its weights."""
    import onnxruntime

    family, source = family_of(model_of(side))
    method = parse(spec)
    interface = family.vision_interface(method, keep, torch.float32)
    module = family.vision(method, keep, torch.float32, whole=False)
    model = trace(module, example(interface), interface, family.canonical)
    whole = list(parameters(family.vision(method, keep, torch.float32, whole=True), family.canonical))
    slots = plan_slots(whole, "vision.data")
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        write_data(place / "vision.data", whole, slots, source, lambda size: None)
        attach(model, slots, place)
        proto = ir.to_proto(model)
        (place / "vision.onnx").write_bytes(proto.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(place / "vision.onnx", options, providers=["CPUExecutionProvider"])
    return session, proto


def in_onnxruntime(spec: str, side: int, keep: int, picture: torch.Tensor) -> list[np.ndarray]:
    """keep_idx (B,K), embeds (B,K,D)."""
    return exported(spec, side, keep)[0].run(["keep_idx", "visual_embeds"], {"pixel_values": picture.numpy()})
