"""The pass that turns one traced layer into many, on a small stack: against the same stack run in torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from edgeprune.export.passes.repeat import Run
from edgeprune.export.trace import Axis, Interface, trace

WIDTH, FIRST, COUNT = 6, 1, 4


class Layer(nn.Module):
    """x (B,T,W), its own past (B,P,W), the scale common to all layers (T,) -> x, present (B,P+T,W)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: Tensor, past: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        present = torch.cat([past, self.linear(x)], 1)
        return x + self.weight * present.sum(1, keepdim=True) * scale[:, None], present


class Stack(nn.Module):
    """Layer 0 and layer FIRST, which stands for FIRST .. FIRST + count - 1; a head behind them."""

    def __init__(self, layers: dict[str, Layer], head: nn.Linear) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.head = head

    def forward(self, x: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        scale = torch.arange(x.shape[1], device=x.device) / 2 + 1
        presents = []
        for layer, before in zip(self.layers.values(), past, strict=True):
            x, present = layer(x, before, scale)
            presents.append(present)
        return self.head(x), presents


def stack(count: int) -> Stack:
    """A stack whose layers FIRST .. FIRST + count - 1 are all there; the same weights for every `count`."""
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, 3)
    return Stack({str(index): Layer() for index in range(FIRST + count)}, head).eval()


def interface(run: Run) -> Interface:
    past = [Axis(f"past.{i}", f"past.{i}", "float32", ("B", f"P{i}", WIDTH)) for i in range(FIRST + 1)]
    presents = [Axis(f"present.{i}", f"present.{i}", "float32", ("B", f"S{i}", WIDTH)) for i in range(FIRST + 1)]
    x = Axis("x", "x", "float32", ("B", "T", WIDTH))
    return Interface((x, *past), (Axis("y", "y", "float32", ("B", "T", 3)), *presents), (run,))


def traced(run: Run) -> ir.Model:
    """The stack traced with FIRST + 1 layers and repeated."""
    example = (torch.rand(2, 5, WIDTH), [torch.rand(2, 3 + i, WIDTH) for i in range(FIRST + 1)])
    return trace(stack(1), example, interface(run))


def run_of(count: int, parent: str = "layers") -> Run:
    return Run(parent, FIRST, count, (f"past.{FIRST}",), (f"present.{FIRST}",))


@pytest.mark.parametrize("count", [1, 2, COUNT])
def test_repeated_layers_equal_the_stack_in_torch(count: int) -> None:
    import onnxruntime

    whole, model = stack(count), traced(run_of(count))
    state = whole.state_dict()
    for name, value in model.graph.initializers.items():
        if name in state:
            value.const_value = ir.tensor(state[name].numpy(), name=name)
    missing = [name for name in state if name not in model.graph.initializers]
    assert missing == []
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(3, 4, WIDTH, generator=draw)
    past = [torch.rand(3, 2 + index, WIDTH, generator=draw) for index in range(FIRST + count)]
    feeds = {"x": x.numpy(), **{f"past.{index}": value.numpy() for index, value in enumerate(past)}}
    found = dict(zip((item.name for item in session.get_outputs()), session.run(None, feeds), strict=True))
    with torch.no_grad():
        y, presents = whole(x, past)
    np.testing.assert_allclose(found.pop("y"), y.numpy(), rtol=1e-5, atol=1e-6)
    assert sorted(found) == [f"present.{index}" for index in range(FIRST + count)]
    for index, present in enumerate(presents):
        np.testing.assert_allclose(found[f"present.{index}"], present.numpy(), rtol=1e-5, atol=1e-6)


def test_only_the_nodes_of_the_layer_are_copied() -> None:
    """Shape arithmetic, common values and the head stay single: each layer adds the same number of nodes."""
    nodes = [len(list(traced(run_of(count)).graph)) for count in (1, 2, 3)]
    assert nodes[2] - nodes[1] == nodes[1] - nodes[0] > 0
    heads = [
        node for node in traced(run_of(3)).graph if any(v is not None and v.name == "head.bias" for v in node.inputs)
    ]
    assert len(heads) == 1


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(RuntimeError, match="expected one hidden state"):
        traced(run_of(2, parent="blocks"))
