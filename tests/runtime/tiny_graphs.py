"""A bundle of small hand-made ONNX graphs with every role the runtime binds, and the same arithmetic in numpy.

The vision graph means patches through a convolution, scores them and keeps the K best in raster order. The decoder has
no attention: it averages the values of the whole KV cache, so that its logits depend on every token, on its position
and on what the cache holds. `greedy` below is the reference that shares no code with the library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.runtime.tiny_tokenizer import BOS, EOS, IMAGE, tokenizer_json

SIZE_PX, PATCH_PX, GRID, WIDTH, LAYERS, HEADS, HEAD_DIM = 16, 4, 4, 8, 2, 2, 4
TOKENS = GRID * GRID
VOCABULARY = 260
OPSET = 20
BEFORE, AFTER = "U: ", " A:"
#: bytes that the decoder writes: letters, space, and the two of "é", alone or together.
LIKELY = b"abcdefghijklmnopqrstuvwxyz \xc3\xa9"


@dataclass(frozen=True)
class Options:
    """How the hand-made bundle differs from the plain one.

    Args:
        half: embeddings and KV cache are float16.
        slow: stage (vision, decoder) -> loop iterations that cost time and change nothing; "prefill": per 32 new
            positions of a decoder run, so that short runs have none.
        context_length: of the manifest.
        cache: kind of the KV cache; "fixed" writes in place, the last layer by the library's own operator.
        half_cache: the KV cache is float16.
        stored: factor of every key and value.
    """

    half: bool = False
    half_cache: bool = False
    stored: float = 1.0
    slow: dict[str, int] = field(default_factory=dict)
    context_length: int = 512
    cache: str = "growing"


def weights() -> dict[str, np.ndarray[Any, Any]]:
    """The weights of every graph, equal on every call."""
    rng = np.random.default_rng(7)

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray[Any, Any]:
        # Few significant bits: sums come out the same in any order, so numpy and onnxruntime agree to the last bit.
        return (np.round(rng.normal(size=shape) * 16) / 16 * scale).astype(np.float32)

    table = draw(VOCABULARY, WIDTH)
    return {
        "patch": draw(WIDTH, 3, PATCH_PX, PATCH_PX, scale=0.25),
        "score": draw(WIDTH, 1),
        "table": table,
        "value": draw(WIDTH, WIDTH),
        "head": draw(WIDTH, VOCABULARY),
        # A token speaks against itself, so that texts do not end in one letter for ever.
        "last": draw(WIDTH, VOCABULARY) - table.T,
        "bias": np.where(np.isin(np.arange(VOCABULARY), list(LIKELY)), 0, -64).astype(np.float32),
    }


def embed_picture(pixels: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Features (N,D) and scores (N,) of normalised pixels (3,S,S)."""
    w = weights()
    blocks = pixels.reshape(3, GRID, PATCH_PX, GRID, PATCH_PX).transpose(1, 3, 0, 2, 4).reshape(TOKENS, -1)
    features = blocks @ w["patch"].reshape(WIDTH, -1).T
    return features, (features @ w["score"])[:, 0]


def next_logits(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits (V,) after the sequence with the embeddings (T,D)."""
    w = weights()
    positions = np.arange(len(rows), dtype=np.float32)[:, None]
    values = np.tanh(rows @ w["value"]) * (1 + positions / 64)
    mean = values.mean(axis=0)
    logits: np.ndarray[Any, Any] = (LAYERS * mean) @ w["head"] + rows[-1] @ w["last"] + w["bias"]
    return logits


def prompt_rows(question: str, pictures: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Embeddings (T,D) of the prompt; pictures are kept features (K,D)."""
    table = weights()["table"]
    parts = [table[[BOS, *BEFORE.encode()]]]
    for features in pictures:
        parts += [features, table[list(b"\n")]]
    parts.append(table[list(f"{question}{AFTER}".encode())])
    return np.concatenate(parts)


def greedy(rows: np.ndarray[Any, Any], count: int) -> list[int]:
    """`count` greedy ids, end-of-sequence ignored."""
    ids: list[int] = []
    for _ in range(count):
        ids.append(int(next_logits(rows).argmax()))
        rows = np.concatenate([rows, weights()["table"][ids[-1:]]])
    return ids


def _tensor(name: str, value: Any, dtype: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def _info(spec: dict[str, Any]) -> onnx.ValueInfoProto:
    kinds = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}
    return helper.make_tensor_value_info(spec["name"], kinds[spec["dtype"]], spec["shape"])


def _spec(role: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    """Tensor names differ from the roles on purpose: the runtime must bind by role."""
    return {"role": role, "name": f"t_{role.replace('.', '_')}", "dtype": dtype, "shape": list(shape)}


class _Builder:
    """Collects nodes; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(_tensor(name, value, dtype))
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        names = [output or f"n{len(self.nodes)}", *[f"n{len(self.nodes)}_{i}" for i in range(1, outputs)]]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[-1]

    def half(self, name: str, half: bool, output: str) -> None:
        to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.op("Cast", name, to=to, output=output)

    def slow_zero(self, name: str, iterations: str) -> str:
        """0 + name, after `iterations` (a scalar) turns of a loop that onnxruntime can stop between any two nodes."""
        zero = self.op("Mul", self.op("ReduceMax", name, keepdims=0), self.constant(0.0, np.float32))
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Abs", ["in"], ["out"])],
            "turn",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("in", TensorProto.FLOAT, []),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("out", TensorProto.FLOAT, []),
            ],
        )
        turns = self.op("Loop", iterations, self.constant(True, np.bool_), zero, body=body)
        return self.op("Add", name, turns)

    def model(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "tiny", [_info(s) for s in inputs], [_info(s) for s in outputs], self.initializers
        )
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("edgeprune", 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=9)
        onnx.checker.check_model(model)
        return model


def _float(options: Options) -> str:
    return "float16" if options.half else "float32"


def _cache(options: Options) -> str:
    return "float16" if options.half or options.half_cache else "float32"


def vision(options: Options, *, keep: int | None) -> tuple[onnx.ModelProto, list[Any], list[Any]]:
    """keep: None makes K the length of keep_slots; N keeps all and gives no scores; another count is baked in."""
    k: int | str = "K" if keep is None else keep
    inputs = [_spec("pixel_values", "float32", "B", 3, SIZE_PX, SIZE_PX)]
    outputs = [_spec("visual_embeds", _float(options), "B", k, WIDTH), _spec("keep_idx", "int64", "B", k)]
    if keep is None:
        inputs.append(_spec("keep_slots", "float32", "K"))
    if keep != TOKENS:
        outputs.append(_spec("scores", "float32", "B", TOKENS))
    b = _Builder()
    w = weights()
    pixels = b.slow_zero("t_pixel_values", b.constant(options.slow.get("vision", 0)))
    blocks = b.op("Conv", pixels, b.constant(w["patch"], np.float32), strides=[PATCH_PX, PATCH_PX])
    flat = b.op("Reshape", blocks, b.constant([0, WIDTH, TOKENS]))
    features = b.op("Transpose", flat, perm=[0, 2, 1])
    score = b.op("MatMul", features, b.constant(w["score"], np.float32))
    scores = b.op("Squeeze", score, b.constant([2]), output="t_scores")
    count = b.op("Shape", "t_keep_slots") if keep is None else b.constant([keep])
    best = b.op("TopK", scores, count, outputs=2)
    b.op("TopK", best, count, output="t_keep_idx", outputs=2, largest=0)
    index = b.op("Unsqueeze", "t_keep_idx", b.constant([2]))
    wide = b.op("Expand", index, b.constant([1, 1, WIDTH]))
    kept = b.op("GatherElements", features, wide, axis=1)
    b.half(kept, options.half, "t_visual_embeds")
    return b.model(inputs, outputs), inputs, outputs


def embedding(options: Options) -> tuple[onnx.ModelProto, list[Any], list[Any]]:
    inputs, outputs = [_spec("input_ids", "int64", 1, "L")], [_spec("inputs_embeds", _float(options), 1, "L", WIDTH)]
    b = _Builder()
    rows = b.op("Gather", b.constant(weights()["table"], np.float32), "t_input_ids")
    b.half(rows, options.half, "t_inputs_embeds")
    return b.model(inputs, outputs), inputs, outputs


def decoder(options: Options) -> tuple[onnx.ModelProto, list[Any], list[Any]]:
    dtype, stored = _float(options), _cache(options)
    inputs = [
        _spec("inputs_embeds", dtype, 1, "T", WIDTH),
        _spec("position_ids", "int64", 1, "T"),
        _spec("attention_mask", "int64", 1, "S"),
    ]
    outputs = [_spec("logits", dtype, 1, 1, VOCABULARY)]
    b = _Builder()
    w = weights()
    new_positions = b.op("Gather", b.op("Shape", "t_inputs_embeds"), b.constant(1))
    turns = b.op("Mul", b.op("Div", new_positions, b.constant(32)), b.constant(options.slow.get("prefill", 0)))
    turns = b.op("Add", turns, b.constant(options.slow.get("decoder", 0)))
    rows = b.slow_zero(b.op("Cast", "t_inputs_embeds", to=TensorProto.FLOAT), turns)
    value = b.op("Tanh", b.op("MatMul", rows, b.constant(w["value"], np.float32)))
    share = b.op("Div", b.op("Cast", "t_position_ids", to=TensorProto.FLOAT), b.constant(64.0, np.float32))
    factor = b.op("Unsqueeze", b.op("Add", share, b.constant(1.0, np.float32)), b.constant([2]))
    factor = b.op("Mul", factor, b.constant(options.stored, np.float32))
    heads = b.op("Reshape", b.op("Mul", value, factor), b.constant([0, 0, HEADS, HEAD_DIM]))
    plain = b.op("Transpose", heads, perm=[0, 2, 1, 3])
    new = b.op("Cast", plain, to=_proto(stored))
    mask = b.op("Cast", _seen(b) if options.cache == "fixed" else "t_attention_mask", to=TensorProto.FLOAT)
    weight = b.op("Unsqueeze", b.op("Div", mask, b.op("ReduceSum", mask)), b.constant([1, 3]))
    total = None
    for layer in range(LAYERS):
        for part in ("key", "value"):
            past = _spec(f"past_{part}.{layer}", stored, 1, HEADS, f"P{layer}", HEAD_DIM)
            present = _spec(f"present_{part}.{layer}", stored, 1, HEADS, f"S{layer}", HEAD_DIM)
            inputs.append(past)
            outputs.append(present)
            if options.cache == "fixed":
                past["shape"][2] = present["shape"][2] = "C"
            if _own(options, layer):
                continue
            if options.cache == "fixed":
                b.op("ScatterND", past["name"], _places(b), new, output=present["name"])
            else:
                b.op("Concat", past["name"], new, axis=2, output=present["name"])
        if _own(options, layer):
            mean = _own_mean(b, plain, layer)
        else:
            values = b.op("Cast", f"t_present_value_{layer}", to=TensorProto.FLOAT)
            mean = b.op("ReduceSum", b.op("Mul", values, weight), b.constant([2]), keepdims=1)
        total = mean if total is None else b.op("Add", total, mean)
    assert total is not None
    joined = b.op("Reshape", b.op("Transpose", total, perm=[0, 2, 1, 3]), b.constant([1, 1, WIDTH]))
    last = b.op("Slice", rows, b.constant([-1]), b.constant([2**31]), b.constant([1]))
    logits = b.op(
        "Add",
        b.op("MatMul", joined, b.constant(w["head"], np.float32)),
        b.op("Add", b.op("MatMul", last, b.constant(w["last"], np.float32)), b.constant(w["bias"], np.float32)),
    )
    b.op("Cast", logits, to=_proto(dtype), output="t_logits")
    if options.cache == "fixed":
        del inputs[2]
    return b.model(inputs, outputs), inputs, outputs


def _own(options: Options, layer: int) -> bool:
    return options.cache == "fixed" and layer == LAYERS - 1


def _own_mean(b: _Builder, new: str, layer: int) -> str:
    """Attention whose logits are all 0 weighs what the last query sees alike."""
    mixed, *presents = f"mixed{layer}", f"t_present_key_{layer}", f"t_present_value_{layer}"
    pasts = [f"t_past_{part}_{layer}" for part in ("key", "value")]
    b.nodes.append(helper.make_node("CachedAttention", [new, new, new, *pasts, "t_position_ids"], [mixed, *presents],
                                    domain="edgeprune", scale=0.0))  # fmt: skip
    return b.op("Slice", mixed, b.constant([-1]), b.constant([2**31]), b.constant([2]))


def _seen(b: _Builder) -> str:
    """(1,C) int64, ones up to the last position; of a cache of C places."""
    capacity = b.op("Gather", b.op("Shape", "t_past_key_0"), b.constant(2))
    columns = b.op("Unsqueeze", b.op("Range", b.constant(0), capacity, b.constant(1)), b.constant([0]))
    last = b.op("ReduceMax", "t_position_ids", keepdims=1)
    return b.op("Cast", b.op("LessOrEqual", columns, last), to=TensorProto.INT64)


def _places(b: _Builder) -> str:
    """(1,H,T,3): where the new keys go in the cache."""
    new = b.op("Shape", "t_position_ids", start=1, end=2)
    shape = b.op("Concat", b.constant([1, HEADS]), new, b.constant([1]), axis=0)
    parts = [
        b.constant(np.zeros((1, 1, 1, 1))),
        b.constant(np.arange(HEADS).reshape(1, HEADS, 1, 1)),
        b.op("Unsqueeze", "t_position_ids", b.constant([1, 3])),
    ]
    return b.op("Concat", *(b.op("Expand", part, shape) for part in parts), axis=-1)


def _proto(dtype: str) -> int:
    return int(TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT)


def _graph(stage: str, file: str, inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {"stage": stage, "file": file, "data": [], "inputs": inputs, "outputs": outputs, **more}


def _method(name: str, keep: int | None) -> dict[str, Any]:
    where = "nowhere" if keep == TOKENS else "before_projector"
    return {"name": name, "spec": name, "parameters": {}, "stages": [name], "where": where, "scope": "image",
            "text": False, "dynamic_keep": keep is None, "static_keep": keep, "has_scores": keep != TOKENS}  # fmt: skip


#: method -> the K baked into its graph.
METHODS: dict[str, int | None] = {"best": None, "none": TOKENS, "four": 4}


def write_bundle(
    path: Path, options: Options | None = None, change: Callable[[dict[str, Any]], None] | None = None
) -> Path:
    """Writes the bundle; `change` edits the manifest after the hashes were taken."""
    options = options or Options()
    (path / "onnx").mkdir(parents=True)
    (path / "tokenizer").mkdir()
    kv = {"kind": options.cache, "layers": LAYERS, "heads": HEADS, "head_dim": HEAD_DIM, "dtype": _cache(options)}
    graphs: dict[str, Any] = {"vision": {}}
    for name, keep in METHODS.items():
        graphs["vision"][name] = [_save(path, "vision", f"vision-{name}", vision(options, keep=keep))]
    graphs["embedding"] = _save(path, "embedding", "embedding", embedding(options))
    graphs["decoder"] = _save(path, "decoder", "decoder", decoder(options)) | {"kv": kv}
    (path / "tokenizer" / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    manifest = _manifest(path, options, graphs)
    if change is not None:
        change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


def _save(path: Path, stage: str, name: str, built: tuple[onnx.ModelProto, list[Any], list[Any]]) -> dict[str, Any]:
    model, inputs, outputs = built
    file = f"onnx/{name}.onnx"
    onnx.save(model, path / file)
    return _graph(stage, file, inputs, outputs)


def file_table(path: Path) -> dict[str, dict[str, Any]]:
    """The manifest's "files" of what the folder holds now."""
    table = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != "manifest.json"):
        data = file.read_bytes()
        table[str(file.relative_to(path))] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return table


def _manifest(path: Path, options: Options, graphs: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "hand-made",
        "family": "none",
        "source": {"id": "hand-made", "revision": None, "sha256": None, "random_weights": True},
        "recipe": {},
        "notes": [],
        "visual_tokens": TOKENS,
        "grid": [GRID, GRID],
        "keep": {"default": 0.25, "min": 0.1, "max": 1.0},
        "methods": {"default": "best", "each": {name: _method(name, keep) for name, keep in METHODS.items()}},
        "preprocess": {
            "kind": "square", "pad_square": None, "center_crop_px": None, "folded": False,
            "resize": {"mode": "exact", "size_px": [SIZE_PX, SIZE_PX], "resample": "bicubic"},
            "rescale": 1 / 255, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        },
        "prompt": {"segments": [
            {"text": BEFORE}, {"images": {"before": "", "after": "\n"}}, {"question": True}, {"text": AFTER},
        ]},
        "tokens": {"image_marker": "<image>", "image": IMAGE, "eos": [EOS], "prefix": [BOS], "suffix": [], "stop": []},
        "positions": "compact",
        "context_length": options.context_length,
        "graphs": graphs,
        "files": file_table(path),
        "opset": OPSET,
        "min_onnxruntime": "1.17",
        "variants": [],
        "golden": {"reason": "made by hand"},
        "parity": [],
        "versions": {},
    }  # fmt: skip
