"""Lint rules about operators: which there are, and in which form."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from edgeprune.engines.graph_view import GraphView, attribute
from edgeprune.engines.rules import EVERY, ONNXRUNTIME, RTX, TENSORRT, Hit, label, rule
from edgeprune.engines.targets import Target

OLDEST_OPSET = 9
_STANDARD = ("", "ai.onnx")
_DATA_DEPENDENT = {"NonZero", "Compress", "Unique"}
_DYNAMIC_QUANTISATION = {"DynamicQuantizeLinear", "MatMulInteger"}
_SCATTER = {"ScatterND", "ScatterElements"}
_NEWER = {"Attention", "RotaryEmbedding", "RMSNormalization", "TensorScatter"}


@rule("opset", EVERY, "Export again with the edgeprune that serves this target: canonical graphs are opset 20.")
def opset(view: GraphView, target: Target) -> Iterator[Hit]:
    """Older than the parser of TensorRT reads, or newer than the target is known to read."""
    found = view.opset()
    oldest = OLDEST_OPSET if target.builder in TENSORRT else 1
    if not oldest <= found <= target.opset:
        yield view.name, f"opset {found} is outside {oldest}..{target.opset}"


@rule("domain", TENSORRT, "Use standard ONNX operators: the canonical graphs of a bundle hold no others.")
def domain(view: GraphView, target: Target) -> Iterator[Hit]:
    """Contrib operators such as com.microsoft's GroupQueryAttention and MatMulNBits."""
    local = {(function.domain, function.name) for function in view.model.functions}
    for node, _ in view.walk():
        if node.domain not in _STANDARD and (node.domain, node.op_type) not in local:
            yield label(node), f"{node.op_type} is an operator of {node.domain}, which TensorRT does not know"


@rule("data-dependent-shape", TENSORRT, "Select with TopK and Gather, or with a mask: their shapes are known before.")
def data_dependent_shape(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if node.op_type in _DATA_DEPENDENT:
            yield label(node), f"the output shape of {node.op_type} depends on the data"


@rule("sequence", TENSORRT, "Use tensors: Split, Concat and Gather instead of sequences.")
def sequence(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if "Sequence" in node.op_type:
            yield label(node), f"{node.op_type} works on sequences"


@rule("dynamic-quantisation", TENSORRT, "Quantise with QuantizeLinear and DequantizeLinear, symmetric and calibrated.")
def dynamic_quantisation(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if node.op_type in _DYNAMIC_QUANTISATION:
            yield label(node), f"{node.op_type} is not there"


@rule("scatter-reduction", TENSORRT, "Add up with OneHot and MatMul instead.")
def scatter_reduction(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        reduction = attribute(node, "reduction") if node.op_type in _SCATTER else None
        if reduction not in (None, b"none"):
            yield label(node), f"{node.op_type} with reduction {reduction.decode()!r}"


@rule("newer-operator", TENSORRT, "Write it in operators of opset 20, as the canonical graphs do.")
def newer_operator(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if node.op_type in _NEWER - set(target.newer_ops) and node.domain in _STANDARD:
            yield label(node), f"{node.op_type} is newer than TensorRT {target.tensorrt[0]}"


@rule("attention-outputs", TENSORRT, "Concatenate keys and values outside of the Attention node.")
def attention_outputs(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if node.op_type == "Attention" and node.domain in _STANDARD and any(node.output[1:]):
            yield label(node), "Attention with more outputs than the first"


@rule("attention-type", TENSORRT, "Write attention in fp32 in operators of opset 20, as the dialects do.")
def attention_type(view: GraphView, target: Target) -> Iterator[Hit]:
    """TensorRT-RTX 1.7 parses it and ends the build: no kernel, and the node may not be taken apart."""
    for node, scope in view.walk():
        if node.op_type == "Attention" and node.domain in _STANDARD and scope.dtype(node.input[0]) == TensorProto.FLOAT:
            yield label(node), "Attention in fp32 has no kernel"


@rule("attention-softmax-precision", TENSORRT, "Leave the attribute out.")
def attention_softmax_precision(view: GraphView, target: Target) -> Iterator[Hit]:
    for node, _ in view.walk():
        if node.op_type == "Attention" and attribute(node, "softmax_precision") is not None:
            yield label(node), "Attention with a softmax_precision"


@rule("attention-beside-scan", RTX, "Write attention in operators of opset 20, as the dialects do beside a Scan.")
def attention_beside_scan(view: GraphView, target: Target) -> Iterator[Hit]:
    """TensorRT-RTX 1.7.1 parses it and dies of SIGSEGV in the build, depending on what is before the node."""
    nodes = [node for node, _ in view.walk() if node.domain in _STANDARD]
    if any(node.op_type == "Scan" for node in nodes):
        for node in nodes:
            if node.op_type == "Attention":
                yield label(node), "Attention in a graph with a Scan crashes the builder"


@rule("attention-int8", ONNXRUNTIME, "Write attention in operators of opset 20, as the canonical graphs do.")
def attention_int8(view: GraphView, target: Target) -> Iterator[Hit]:
    """quantize_dynamic rewrites a standard Attention into a QAttention that onnxruntime refuses to load."""
    for node, _ in view.walk():
        if node.op_type == "Attention" and node.domain in _STANDARD and "int8" in target.builds:
            yield label(node), "Attention cannot be quantised to int8"
