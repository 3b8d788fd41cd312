"""The floating types of 16 bits that a graph can be computed in, and which of them an operator takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper


@dataclass(frozen=True)
class Half:
    """A type of 16 bits.

    Attributes:
        word: what `--precision` calls it.
        kind: TensorProto.DataType.
        largest: its largest finite value.
    """

    word: str
    kind: int
    largest: float

    def rounded(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An array in this type; what lies beyond its range becomes its largest value."""
        made: np.ndarray[Any, Any] = np.clip(array, -self.largest, self.largest)
        return made.astype(helper.tensor_dtype_to_np_dtype(self.kind))


FP16 = Half("fp16", TensorProto.FLOAT16, 65504.0)
#: the range of fp32, and 8 bits of significand
BF16 = Half("bf16", TensorProto.BFLOAT16, (2 - 2**-7) * 2.0**127)
HALVES = {half.word: half for half in (FP16, BF16)}
#: how a value's name ends that was cast or converted to a type
ENDINGS: dict[int, str] = {TensorProto.FLOAT: "fp32", **{half.kind: half.word for half in HALVES.values()}}
_TEXTS: dict[int, str] = {TensorProto.FLOAT16: "tensor(float16)", TensorProto.BFLOAT16: "tensor(bfloat16)"}


def takes(node: onnx.NodeProto, opset: int, floats: Collection[str], half: Half) -> bool:
    """Whether an opset lets an operator have its float inputs and outputs in a type: Conv is in bf16 since opset 22.
    An operator that the opset does not know takes any: the dialect's own check names it."""
    if not onnx.defs.has(node.op_type, node.domain):
        return True
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    allowed = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    return all(_TEXTS[half.kind] in allowed.get(text, (text,)) for text in _declared(node, schema, floats))


def _declared(node: onnx.NodeProto, schema: Any, floats: Collection[str]) -> Iterator[str]:
    """The types that the schema declares for the float values of a node; the last one is that of all further ones."""
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(names):
            if name in floats:
                yield formal[min(index, len(formal) - 1)].type_str
