"""Operations of an executed node, from the shapes that it was run with: a multiply-add counts as two.

Counted are products of matrices, convolutions and attention; everything elementwise is left out, as is usual. The
shapes are those of the trace, so K and the number of tokens are what was executed. Integer products count like floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from edgeprune.measure.trace import Node, Shape

Count = Callable[[tuple[Shape, ...], tuple[Shape, ...]], int]


def flops(node: Node) -> int:
    """0 for operators that are not counted.

    Raises:
        ValueError: a counted operator with shapes that cannot be its own; a bug, or another release's trace.
    """
    count = _COUNTS.get(node.op)
    if count is None:
        return 0
    try:
        return count(node.inputs, node.outputs)
    except (IndexError, StopIteration, ZeroDivisionError) as error:
        raise ValueError(f"{node.op} {node.name} ran with {node.inputs} -> {node.outputs}") from error


def total_flops(nodes: Iterable[Node]) -> int:
    """Of a whole run."""
    return sum(flops(node) for node in nodes)


def _matmul(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...]) -> int:
    """(..,M,K) x (..,K,N): the right side may be missing, because it was repacked."""
    return 2 * prod(outputs[0]) * inputs[0][-1]


def _transposable(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...]) -> int:
    """The left side may be turned: its elements over those of the rows are what is summed over."""
    rows = prod(outputs[0][:-1])
    return 2 * prod(outputs[0]) * (prod(inputs[0]) // rows)


def _convolution(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...]) -> int:
    """Weights (M,C/groups,kh,kw)."""
    weights = next(shape for shape in inputs[1:] if len(shape) == len(outputs[0]))
    return 2 * prod(outputs[0]) * prod(weights[1:])


def _attention(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...]) -> int:
    """Queries (B,S,D) or (B,H,S,d), keys with L rows: products with keys and with values, masked ones included.

    A cache that is an output has as many rows as were read, or places, of which the free ones count as well; else the
    keys themselves.
    """
    caches = [shape for shape in outputs[1:] if len(shape) == 4]
    keys = caches[0] if caches else inputs[1]
    if len(keys) < 3:
        raise IndexError("weights where keys are expected")
    return 4 * prod(outputs[0]) * keys[-2]


_COUNTS: dict[str, Count] = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits",
                     "MatMulInt4", "MatMulInt8", "QLinearMatMul"), _matmul),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm", "FusedMatMul"), _transposable),
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "QLinearConv"), _convolution),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "Attention", "CachedAttention", "RotaryAttention",
                     "EncoderAttention"),
                    _attention),
}  # fmt: skip
