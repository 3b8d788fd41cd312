"""Leaf modules whose parameters become ONNX initialisers as they are.

Weights of a Linear lie as (in, out), so that ONNX has one MatMul with an initialiser and no Transpose. Every leaf says
how a checkpoint tensor turns into its parameter (`from_checkpoint`). Norms, softmax and scores compute in float32
whatever the dtype of the weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import CheckpointError


def empty(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    """A parameter that has a shape and no memory yet: one element, expanded. Tracing needs no more, and a checkpoint's
    tensors go straight to the data file."""
    return nn.Parameter(torch.full((), float("nan"), dtype=dtype).expand(*shape), requires_grad=False)


class Leaf(nn.Module):
    """A module that owns parameters."""

    #: canonical name of the checkpoint's tensor, where it is not the parameter's own
    reads: str | None = None

    def checkpoint_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the checkpoint tensor that parameter `name` is made from."""
        return tuple(self.get_parameter(name).shape)

    def from_checkpoint(self, name: str, tensor: Tensor) -> Tensor:
        """Checkpoint tensor -> value of parameter `name`, any dtype."""
        return tensor


class Linear(Leaf):
    """x W + b with W (in, out); the checkpoint holds (out, in)."""

    def __init__(self, width_in: int, width_out: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = empty(width_in, width_out, dtype=dtype)
        self.bias = empty(width_out, dtype=dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y = torch.matmul(x, self.weight)
        return y if self.bias is None else y + self.bias

    def checkpoint_shape(self, name: str) -> tuple[int, ...]:
        shape = super().checkpoint_shape(name)
        return shape[::-1] if name == "weight" else shape

    def from_checkpoint(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.t() if name == "weight" else tensor


class Table(Leaf):
    """An embedding table (V, D), read by rows or, as an output head, by `x W^T`."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = empty(rows, width, dtype=dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """(B,L) int64 -> (B,L,D)."""
        return functional.embedding(ids, self.weight)

    def logits(self, x: Tensor) -> Tensor:
        """(B,D) -> (B,V): one Gemm that reads the table as it lies."""
        return functional.linear(x, self.weight)


class TableRows(Leaf):
    """Some rows of the embedding table (V, D), as a small tensor of their own."""

    reads = "embed_tokens.weight"

    def __init__(self, ids: tuple[int, ...], rows: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = empty(len(ids), width, dtype=dtype)
        self.ids, self.rows = ids, rows

    def checkpoint_shape(self, name: str) -> tuple[int, ...]:
        return (self.rows, self.weight.shape[1])

    def from_checkpoint(self, name: str, tensor: Tensor) -> Tensor:
        return tensor[list(self.ids)]


class Vector(Leaf):
    """A bare vector, such as the [CLS] embedding or a layer scale."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = empty(width, dtype=dtype)

    def from_checkpoint(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.reshape(-1)

    def checkpoint_shape(self, name: str) -> tuple[int, ...]:
        return self.stored_shape

    #: shape in the checkpoint; some keep leading ones
    stored_shape: tuple[int, ...] = ()


class LayerNorm(Leaf):
    """Computes in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = empty(width, dtype=torch.float32)
        self.bias = empty(width, dtype=torch.float32)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = functional.layer_norm(x.float(), self.weight.shape, self.weight, self.bias, self.eps)
        return y.to(x.dtype)


class RMSNorm(Leaf):
    """x / sqrt(mean(x^2) + eps) * weight, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = empty(width, dtype=torch.float32)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        # spelled with a division: the form that ONNX Runtime fuses into one node
        root = torch.sqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide / root * self.weight).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v, the softmax in float32.

    Args:
        q: (..., Q, d). k, v: (..., S, d). mask: float32, broadcastable to (..., Q, S).
    """
    return torch.matmul(attention_map(q, k, mask).to(v.dtype), v)


def attention_map(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention weights (..., Q, S) in float32."""
    logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).float()
    return torch.softmax(logits if mask is None else logits + mask, dim=-1)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "quick_gelu": _quick_gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": functional.relu,
    "silu": functional.silu,
}


def activation(name: str, where: str) -> Callable[[Tensor], Tensor]:
    """The function of a config's activation name.

    Raises:
        CheckpointError: the name is not served.
    """
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"{where} asks for the activation {name!r}; served are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
