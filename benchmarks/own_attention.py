"""Time attention over a cache in place by standard operators and by edgeprune:CachedAttention, with float32 and float16
in the cache, trial by trial in turn.

    python -m benchmarks.own_attention OUT.json [--bundle DIR [--steps-only]] [--threads N] [--trials N]
First the attention alone (4 layers: 32 query heads, 4 or 32 key heads, width 64; one new token behind 100 and 2,000,
and prompts); with --bundle also whole steps of its decoder behind 100 and 2,000 tokens, int8 and int4. Processor time
of the process and clock time, milliseconds, raw. Between two trials 64 MiB are written, as weights would pass through
the processor's cache. Takes a minute, with a bundle some more; docs/performance.md reads the result.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgeprune import machine, native_library
from edgeprune.bundle import Bundle
from edgeprune.engines import in_place, int4, one_by_one, own_attention, quantise
from edgeprune.engines.weights import WeightFile, all_inside

HEADS, WIDTH, LAYERS, ROOM = 32, 64, 4, 64
#: (key heads, new tokens, tokens before them)
CORES = ((4, 1, 100), (4, 1, 2000), (32, 1, 100), (32, 1, 2000), (4, 78, 0), (4, 596, 0), (32, 78, 0))
PASTS = (100, 2000)
STORED = ["key", "value"]
Array = np.ndarray[Any, Any]
Step = Callable[[], Array]


def session(model: onnx.ModelProto | pathlib.Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(native_library.path()))
    content = str(model) if isinstance(model, pathlib.Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def standard_core(kv_heads: int, new: int, capacity: int) -> onnx.ModelProto:
    """What engines/in_place.py leaves of a layer, LAYERS times, with one mask."""
    share = HEADS // kv_heads
    constants = {
        "columns": np.arange(capacity), "seen": np.float32(0), "hidden": np.finfo(np.float32).min,
        "axis2": np.array([2]), "axes1_2": np.array([1, 2]), "axes1_3": np.array([1, 3]),
        "shape": np.array([1, kv_heads, new, 1]), "row": np.zeros((1, 1, 1, 1), np.int64),
        "head": np.arange(kv_heads).reshape(1, -1, 1, 1), "scale": np.float32(WIDTH**-0.5),
        "stacked": np.array([1, kv_heads, share * new, WIDTH]), "apart": np.array([1, kv_heads, share, new, -1]),
        "joined": np.array([1, kv_heads, share * new, -1]), "back": np.array([1, HEADS, new, WIDTH]),
    }  # fmt: skip
    lines = [
        "Unsqueeze position_ids axis2 own", "LessOrEqual columns own visible", "Where visible seen hidden chosen",
        "Unsqueeze chosen axes1_2 mask", "Unsqueeze position_ids axes1_3 position", "Expand row shape rows",
        "Expand head shape heads", "Expand position shape positions", "Concat rows heads positions places",
    ]  # fmt: skip
    for i in range(LAYERS):
        lines += [
            f"ScatterND past_key{i} places new_key{i} key{i}", f"ScatterND past_value{i} places new_value{i} value{i}",
            f"Reshape query{i} stacked q{i}", f"Mul q{i} scale scaled{i}", f"Transpose key{i} turned{i}",
            f"MatMul scaled{i} turned{i} product{i}", f"Reshape product{i} apart logits{i}",
            f"Add logits{i} mask masked{i}", f"Softmax masked{i} soft{i}", f"Reshape soft{i} joined weights{i}",
            f"MatMul weights{i} value{i} mix{i}", f"Reshape mix{i} back mixed{i}",
        ]  # fmt: skip
    nodes = []
    for kind, *inputs, output in map(str.split, lines):
        more = {"Concat": {"axis": -1}, "Transpose": {"perm": [0, 1, 3, 2]}}.get(kind, {})
        nodes.append(helper.make_node(kind, inputs, [output], **more))
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return model_of(nodes, kv_heads, new, capacity, weights)


def own_core(kv_heads: int, new: int, capacity: int, cache: int = TensorProto.FLOAT) -> onnx.ModelProto:
    nodes = [
        helper.make_node(
            own_attention.OPERATOR,
            [*(f"{name}{i}" for name in ("query", "new_key", "new_value", "past_key", "past_value")), "position_ids"],
            [f"mixed{i}", f"key{i}", f"value{i}"], domain=own_attention.DOMAIN, scale=WIDTH**-0.5,
        )
        for i in range(LAYERS)
    ]  # fmt: skip
    return model_of(nodes, kv_heads, new, capacity, [], cache)


def own_core_half(kv_heads: int, new: int, capacity: int) -> onnx.ModelProto:
    return own_core(kv_heads, new, capacity, TensorProto.FLOAT16)


#: form -> the graph of (key heads, new tokens, places), and what its cache holds
CORE_FORMS: dict[str, tuple[Callable[[int, int, int], onnx.ModelProto], type[Any]]] = {
    "standard": (standard_core, np.float32), "own": (own_core, np.float32), "own float16": (own_core_half, np.float16),
}  # fmt: skip


def model_of(
    nodes: list[onnx.NodeProto], kv_heads: int, new: int, capacity: int, weights: list[TensorProto],
    cache: int = TensorProto.FLOAT,
) -> onnx.ModelProto:  # fmt: skip
    def port(name: str, heads: int, rows: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [1, heads, rows, WIDTH])

    inputs = [helper.make_tensor_value_info("position_ids", TensorProto.INT64, [1, new])]
    outputs = []
    for i in range(LAYERS):
        inputs += [port(f"query{i}", HEADS, new), *(port(f"new_{name}{i}", kv_heads, new) for name in STORED)]
        inputs += [port(f"past_{name}{i}", kv_heads, capacity, cache) for name in STORED]
        outputs += [port(f"mixed{i}", HEADS, new), *(port(f"{name}{i}", kv_heads, capacity, cache) for name in STORED)]
    graph = helper.make_graph(nodes, "attention", inputs, outputs, weights)
    domains = [helper.make_opsetid("", 20), helper.make_opsetid(own_attention.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def in_type(feeds: dict[str, Array], kind: type[Any]) -> dict[str, Array]:
    """The same with the cache in another type."""
    return {name: value.astype(kind) if name.startswith("past_") else value for name, value in feeds.items()}


def bound(run: onnxruntime.InferenceSession, feeds: dict[str, Array], pairs: dict[str, str], read: str) -> Step:
    """Runs with one buffer for each pair of an input and an output; returns the output `read`."""
    binding = run.io_binding()
    binding.bind_output(read, "cpu")  # the first one bound is the first one given back
    for name, value in feeds.items():
        held = onnxruntime.OrtValue.ortvalue_from_numpy(value)
        binding.bind_ortvalue_input(name, held)
        if name in pairs:
            binding.bind_ortvalue_output(pairs[name], held)
    for port in run.get_outputs():
        if port.name not in (read, *pairs.values()):
            binding.bind_output(port.name, "cpu")

    def step() -> Array:
        run.run_with_iobinding(binding)
        result: Array = binding.get_outputs()[0].numpy().copy()
        return result

    return step


def in_turn(groups: dict[str, dict[str, Step]], trials: int) -> dict[str, dict[str, Any]]:
    """Raw times of each step of each group, after a warm-up, and how far its result lies from its group's first."""
    results = {group: {name: step() for name, step in steps.items()} for group, steps in groups.items()}
    raw: dict[str, dict[str, dict[str, list[float]]]] = {
        group: {name: {"processor_ms": [], "clock_ms": []} for name in steps} for group, steps in groups.items()
    }
    flush = np.zeros(16 << 20, np.float32)
    for _ in range(trials):
        for group, name in ((group, name) for group, steps in groups.items() for name in steps):
            flush += 1
            began, processor = time.perf_counter(), time.process_time()
            groups[group][name]()
            raw[group][name]["processor_ms"].append(1e3 * (time.process_time() - processor))
            raw[group][name]["clock_ms"].append(1e3 * (time.perf_counter() - began))
    return {group: summary(times, results[group]) for group, times in raw.items()}


def summary(raw: dict[str, dict[str, list[float]]], results: dict[str, Array]) -> dict[str, Any]:
    first = next(iter(results.values()))
    off = {name: float(np.abs(value - first).max() / np.abs(first).max()) for name, value in results.items()}
    return {"raw": raw, "difference": off,
            "median_processor_ms": {n: statistics.median(r["processor_ms"]) for n, r in raw.items()},
            "least_processor_ms": {n: min(r["processor_ms"]) for n, r in raw.items()}}  # fmt: skip


def cores(threads: int, trials: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kv_heads, new, past in CORES:
        capacity = -(-(past + new) // ROOM) * ROOM
        rng = np.random.default_rng(0)
        feeds: dict[str, Array] = {"position_ids": np.arange(past, past + new)[None]}
        pairs = {}
        for i in range(LAYERS):
            feeds[f"query{i}"] = rng.normal(size=(1, HEADS, new, WIDTH)).astype(np.float32)
            for name in STORED:
                feeds[f"new_{name}{i}"] = rng.normal(size=(1, kv_heads, new, WIDTH)).astype(np.float32)
                feeds[f"past_{name}{i}"] = rng.normal(size=(1, kv_heads, capacity, WIDTH)).astype(np.float32)
                pairs[f"past_{name}{i}"] = f"{name}{i}"
        steps = {
            name: bound(session(make(kv_heads, new, capacity), threads), in_type(feeds, kind), pairs,
                        f"mixed{LAYERS - 1}")
            for name, (make, kind) in CORE_FORMS.items()
        }  # fmt: skip
        key = f"{kv_heads} key heads, {new} behind {past}"
        found |= in_turn({key: steps}, trials if new == 1 else max(3, trials // 8))
        numbers = 2 * LAYERS * kv_heads * (past + new) * WIDTH
        found[key]["gigabytes_per_second"] = {
            name: numbers * np.dtype(CORE_FORMS[name][1]).itemsize / value / 1e6
            for name, value in found[key]["least_processor_ms"].items()
        }
        print(
            key,
            {k: {n: float(f"{v:.3g}") for n, v in found[key][k].items()} for k in found[key] if k != "raw"},
            flush=True,
        )
    return found


def decoders(bundle: Bundle, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name -> graph with its weights: two precisions in three forms."""
    graph = bundle.manifest.graphs.decoder
    assert graph.kv is not None
    source = bundle.file(graph.file)
    plain = folder / "plain.onnx"
    onnx.save(in_place.rewrite(onnx.load(source, load_external_data=False), graph.kv), plain)
    made = {}
    for word, change in (("int8", quantise.integer), ("int4", int4.step)):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            products = one_by_one.Products(plain, source.parent, pathlib.Path(scratch), change)
            model = all_inside(products.model([]), products.folder)
        own = own_attention.rewrite(model, graph.kv.layers)
        half = own_attention.rewrite(model, graph.kv.layers, "float16")
        for form, each in (("standard", model), ("own", own), ("own float16", half)):
            made[f"{word} {form}"] = folder / f"{word}-{form.replace(' ', '-')}.onnx"
            WeightFile(folder / f"{word}-{form.replace(' ', '-')}.data").save(each, made[f"{word} {form}"])
        del model, own, half
    return made


def whole_steps(bundle: Bundle, threads: int, trials: int, folder: pathlib.Path) -> dict[str, Any]:
    """past -> times of one step in each form; both pasts in one turn, for their ratio is asked for."""
    kv = bundle.manifest.graphs.decoder.kv
    assert kv is not None
    paths = decoders(bundle, folder)
    runs = {name: session(path, threads) for name, path in paths.items()}
    width = next(iter(runs.values())).get_inputs()[0].shape[-1]
    names = [f"{layer}.{name}" for layer in range(kv.layers) for name in STORED]
    groups = {}
    for past in PASTS:
        rng = np.random.default_rng(0)
        shape = (1, kv.heads, -(-(past + 1) // ROOM) * ROOM, kv.head_dim)
        feeds: dict[str, Array] = {
            "inputs_embeds": rng.normal(size=(1, 1, width)).astype(np.float32), "position_ids": np.array([[past]]),
            **{f"past_key_values.{name}": rng.normal(size=shape).astype(np.float32) for name in names},
        }  # fmt: skip
        pairs = {f"past_key_values.{name}": f"present.{name}" for name in names}
        groups[str(past)] = {
            name: bound(run, in_type(feeds, np.float16 if "float16" in name else np.float32), pairs, "logits")
            for name, run in runs.items()
        }
    found: dict[str, Any] = in_turn(groups, trials)
    for past, times in found.items():
        print(past, {k: v for k, v in times.items() if k != "raw"}, flush=True)
    few, many = (found[str(past)]["least_processor_ms"] for past in PASTS)
    medians = [found[str(past)]["median_processor_ms"] for past in PASTS]
    found["ratio_of_least"] = {name: many[name] / few[name] for name in runs}
    found["ratio_of_medians"] = {name: medians[1][name] / medians[0][name] for name in runs}
    print(found["ratio_of_least"], found["ratio_of_medians"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--bundle", type=pathlib.Path)
    parser.add_argument("--steps-only", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trials", type=int, default=40)
    given = parser.parse_args()
    result: dict[str, Any] = {
        "machine": machine.facts(), "onnxruntime": onnxruntime.__version__, "threads": given.threads,
        "trials": given.trials,
    }  # fmt: skip
    if not given.steps_only:
        result["attention"] = cores(given.threads, given.trials)
    if given.bundle is not None:
        bundle = Bundle.open(given.bundle, verify="sizes")
        result["decoder"] = bundle.manifest.recipe.get("overrides")
        with tempfile.TemporaryDirectory(dir=bundle.path.parent) as folder:
            result["steps"] = whole_steps(bundle, given.threads, given.trials, pathlib.Path(folder))
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
