"""Dynamic int8 by onnxruntime.quantization: weights stored in int8, activations rounded at run time.

A product whose rows of activations have a few very large entries each loses most of its 8 bits to them. `noise`
measures that on real inputs, and the products above a limit stay fp32.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeprune import native_library
from edgeprune.engines import own_attention
from edgeprune.engines.weights import all_inside

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
_PRODUCTS = ("MatMul", "Gemm")
#: prefixes of weights that decide which tokens go on: the background scorer's, and those by which tokens are compared
#: with a text encoder's reading of the question
CHOOSING = ("background.", "text_space.")


def products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The matrix products with a stored weight: what int8 is for."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in _PRODUCTS and node.input[1] in weights]


def choosing(graph: Path) -> set[str]:
    """Names of the products that stay fp32 whatever their noise: those that other patches enter the encoder by, or
    other tokens leave it, which no tolerance on its output bounds."""
    model = onnx.load(graph, load_external_data=False)
    return {node.name for node in products(model) if node.input[1].startswith(CHOOSING)}


def noise(graph: Path, feeds: Arrays, scratch: Path) -> dict[str, float]:
    """Product -> rounding noise of its activation relative to the activation's root mean square.

    The step is the range of a row divided by 255; rounding to it makes an error of step / sqrt(12). `scratch` is a
    folder on the bundle's file system, for a probe that is removed again.
    """
    values = activations(graph, feeds, scratch)
    nodes = products(onnx.load(graph, load_external_data=False))
    return {node.name: _relative_noise(values[node.input[0]]) for node in nodes}


def activations(graph: Path, feeds: Arrays, scratch: Path) -> Arrays:
    """The first input of every product, by tensor name, for these feeds."""
    model = onnx.load(graph, load_external_data=False)
    return tensors(graph, feeds, [node.input[0] for node in products(model)], scratch)


def tensors(graph: Path, feeds: Arrays, names: Sequence[str], scratch: Path) -> Arrays:
    """Intermediate tensors of a graph by name, for these feeds; a probe in the folder `scratch` is removed again."""
    asked = [name for name in dict.fromkeys(names) if name not in feeds]
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        probe = _with_outputs(onnx.load(graph, load_external_data=False), asked, graph.parent, Path(folder))
        return {**feeds, **dict(zip(asked, run(probe, feeds, asked), strict=True))}


def integer(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its products in int8; its weights are inside."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # A Gemm becomes a MatMul with a transposed weight; the shapes noted before would contradict it.
    del model.graph.value_info[:]
    with tempfile.TemporaryDirectory() as folder, quiet():
        out = Path(folder) / "made.onnx"
        # 8 bits: the library's own product overflows with them on x86 processors without VNNI, own_int8's does not.
        quantize_dynamic(
            model,
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
        return onnx.load(out)


def load(graph: Path) -> onnx.ModelProto:
    """The graph with its weights inside, from its own folder."""
    return all_inside(onnx.load(graph, load_external_data=False), graph.parent)


def run(graph: Path, feeds: Arrays, names: list[str]) -> list[np.ndarray[Any, Any]]:
    """Outputs of a graph by onnxruntime on this CPU."""
    return next(run_each(graph, [feeds], names))


def run_each(graph: Path, sets: Sequence[Arrays], names: list[str]) -> Iterator[list[np.ndarray[Any, Any]]]:
    """The same for one set of feeds after the other; the graph is loaded once."""
    import onnxruntime

    options, model = onnxruntime.SessionOptions(), onnx.load(graph, load_external_data=False)
    if any(tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN for tensor in model.graph.initializer):
        # It would fuse the pairs into integer products, and move them to where fp8 is not allowed; both end the load.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if own_attention.used_by(model):
        options.register_custom_ops_library(str(native_library.path()))
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    for feeds in sets:
        yield session.run(names, dict(feeds)) if names else []


def _with_outputs(model: onnx.ModelProto, names: list[str], weights: Path, folder: Path) -> Path:
    """A copy of the graph that also returns `names`; its external data is linked."""
    known = {info.name for info in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return linked(model, weights, folder)


def linked(model: onnx.ModelProto, weights: Path, folder: Path) -> Path:
    """Writes a model without its external data into a folder, where the data of the folder `weights` is linked."""
    link_data(model, weights, folder)
    onnx.save(model, folder / "probe.onnx")
    return folder / "probe.onnx"


def link_data(model: onnx.ModelProto, weights: Path, folder: Path) -> None:
    """Links the external data of a model from the folder `weights` into another of the same file system."""
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and not (folder / entry.value).exists():
                # A link to another folder is refused by onnxruntime: the same file has to lie beside the graph.
                (folder / entry.value).hardlink_to(weights / entry.value)


def _relative_noise(values: np.ndarray[Any, Any]) -> float:
    rows = values.reshape(-1, values.shape[-1])
    span = np.maximum(rows.max(-1), 0.0).astype(np.float64) - np.minimum(rows.min(-1), 0.0)
    step, scale = (float(np.sqrt(np.mean(np.square(each, dtype=np.float64)))) for each in (span / 255, rows))
    return step / 12**0.5 / scale if scale else 0.0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """onnxruntime.quantization recommends its own preparation in the root logger on every call."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
