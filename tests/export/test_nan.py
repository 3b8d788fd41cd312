"""A checkpoint whose weights hold NaN: the export names the method and the graph, and writes nothing."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from edgeprune.errors import CheckFailed
from edgeprune.export import parity, pipeline
from edgeprune.recipe import ExportRecipe
from tests.checkpoints import write_checkpoint


def spoil(checkpoint: pathlib.Path, part: str, value: float) -> None:
    """Sets the first entry of the first weight whose name holds `part`."""
    from safetensors.torch import load_file, save_file

    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if part in name)
    weights[name].view(-1)[0] = value
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("spec", "part", "what"),
    [
        ("fastervlm", "layers.2.self_attn.k_proj.bias", "16 of 16 values of scores"),
        ("divprune", "layers.1.layer_norm1.bias", "values of visual_embeds"),
        ("stride", "multi_modal_projector.linear_2.bias", "4 of 256 values of visual_embeds"),
    ],
)
def test_nan_is_refused_by_name_and_nothing_is_written(spec: str, part: str, what: str, tmp_path: pathlib.Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    spoil(checkpoint, part, float("nan"))
    place = tmp_path / "out"
    place.mkdir()
    recipe = ExportRecipe(model=str(checkpoint), prune=(spec,), keep=0.25)
    with pytest.raises(CheckFailed, match="nothing was written") as caught:
        pipeline.export(recipe, place / "out.bundle")
    for word in (f"method {spec}: ", what, f"vision-{spec}.onnx", "NaN or Inf"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(place.iterdir()) == []


def test_inf_counts_too_and_finite_values_pass() -> None:
    parity.require_finite("m", "g.onnx", {"scores": np.zeros((1, 4), np.float16)})
    with pytest.raises(CheckFailed, match="2 of 4 values of scores"):
        parity.require_finite("m", "g.onnx", {"scores": np.array([[1, np.inf, -np.inf, 0]], np.float16)})
