"""Derivatives of the activations that `layers.activation` serves."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _gelu(x: Tensor) -> Tensor:
    below = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return below + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu_tanh(x: Tensor) -> Tensor:
    rate = math.sqrt(2 / math.pi)
    bent = torch.tanh(rate * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + bent) + 0.5 * x * (1 - bent * bent) * rate * (1 + 3 * 0.044715 * x * x)


def _swish(rate: float) -> Callable[[Tensor], Tensor]:
    """Of x sigmoid(rate x)."""

    def of(x: Tensor) -> Tensor:
        gate = torch.sigmoid(rate * x)
        return gate * (1 + rate * x * (1 - gate))

    return of


def _relu(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": _gelu,
    "quick_gelu": _swish(1.702),
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
    "silu": _swish(1.0),
}


def slope(name: str) -> Callable[[Tensor], Tensor]:
    """The derivative of the activation that a config calls `name`, which `layers.activation` has let through."""
    return SLOPES[name]
