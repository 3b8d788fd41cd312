"""Exports of checkpoints that memory cannot hold: shards are read tensor by tensor and arrive unchanged."""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks import low_memory_export, sharded_checkpoint
from edgeprune.export.pipeline import export
from edgeprune.recipe import ExportRecipe


def test_shards_are_a_checkpoint_that_exports(tmp_path: pathlib.Path) -> None:
    """Several shards, each tensor in the one that the index names, and all of it in the bundle."""
    made = sharded_checkpoint.config("tiny", None, None)
    sizes = sharded_checkpoint.shapes(made)
    groups = list(sharded_checkpoint.shards(sizes, 100_000))
    assert [name for group in groups for name in group] == list(sizes)
    assert len(groups) > 2

    folder = tmp_path / "checkpoint"
    sharded_checkpoint.write(folder, made, "tiny", shard_bytes=100_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for name, shape in sizes.items():
        stored = load_file(folder / index[name])[name]
        assert stored.dtype == np.float16
        assert stored.shape == shape
        assert np.array_equal(stored, sharded_checkpoint.values(name, shape))
        assert np.isfinite(stored).all()
    bundle = export(
        ExportRecipe(model=str(folder), prune=("fastervlm",), keep=0.25, dtype="fp16"), tmp_path / "shards.bundle"
    )
    assert low_memory_export.compare(bundle, made, count=8) == 8


def test_a_tensor_that_is_not_in_the_bundle_is_noticed(tiny_bundle: pathlib.Path) -> None:
    made = sharded_checkpoint.config("tiny", None, None)
    with pytest.raises(SystemExit, match="is not in"):
        low_memory_export.compare(tiny_bundle, made, count=8)


def test_disk_is_counted_while_the_command_runs(tmp_path: pathlib.Path) -> None:
    """A hidden file that is gone at the end was there."""
    hidden = tmp_path / "work" / ".bundle.partial-1"
    hidden.mkdir(parents=True)
    code = "import pathlib, sys, time; f = pathlib.Path(sys.argv[1]); f.write_bytes(b'1' * 3_000_000); "
    code += "time.sleep(1); f.unlink()"
    command = [sys.executable, "-c", code, str(hidden / "data")]
    found = low_memory_export.run_limited(command, 1 << 30, tmp_path / "work")
    assert 3_000_000 <= found["peak_disk_bytes"] < 4_000_000
    assert low_memory_export.disk_bytes(tmp_path / "work") == 0


@pytest.mark.slow
def test_a_cut_of_the_7b_shape_passes_parity_in_six_gib(tmp_path: pathlib.Path) -> None:
    """The widths of LLaVA-1.5 7B, 2 decoder and 4 vision layers."""
    found = low_memory_export.measure(tmp_path, 2, 4, 6 << 30)
    assert found["tensors_compared"] == low_memory_export.SAMPLES
    assert 0 < found["peak_anonymous_bytes"] <= 6 << 30
    both = found["checkpoint_bytes"] + found["bundle_bytes"]
    assert both <= found["peak_disk_bytes"] < 1.1 * both, "nothing is written twice"
    assert len(found["parity_rows"]) >= 6
    assert all(row["passed"] for row in found["parity_rows"])
