"""The projector between vision encoder and decoder, and how strongly it answers to a small change of a token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from edgeprune.export.models.layers import Linear, activation
from edgeprune.export.models.slopes import slope


class Projector(nn.Module):
    """linear_1, activation, linear_2."""

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        vision, language = config.vision_config.hidden_size, config.text_config.hidden_size
        bias = config.multimodal_projector_bias
        self.linear_1 = Linear(vision, language, bias, dtype)
        self.linear_2 = Linear(language, language, bias, dtype)
        self.act = activation(config.projector_hidden_act, "the projector")
        self.slope = slope(config.projector_hidden_act)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,K,C) -> (B,K,D)."""
        return self.linear_2(self.act(self.linear_1(tokens)))

    def sensitivity(self, tokens: Tensor, directions: Tensor) -> Tensor:
        """Mean over the directions u of |J u|, J the Jacobian at the token, exact and in float32.

        J u = W2 (act'(W1 x + b1) * W1 u), where W1 u is the same for all tokens. The directions are one `Scan`, so
        that no more than one (B,N,D) tensor lives at a time.

        Args:
            tokens: (B,N,C). directions: (M,C) float32.

        Returns:
            (B,N) float32.
        """
        steep = self.slope(self.linear_1(tokens).float())
        moved = torch.matmul(directions, self.linear_1.weight.float())
        second = self.linear_2.weight.float()

        def step(total: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
            answer = torch.matmul(steep * way, second).pow(2).sum(-1).sqrt()
            return total + answer, way[:1].clone()

        total = torch.zeros_like(steep[:, :, 0])
        if torch.compiler.is_exporting():
            total = scan(step, total, moved)[0]
        else:
            for way in moved:
                total = step(total, way)[0]
        return total / directions.shape[0]
