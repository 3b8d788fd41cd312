"""Model.open(profile_prefix=...): a trace per graph when the model is freed."""

from __future__ import annotations

import json
import pathlib

import pytest

from edgeprune.errors import NativeError
from edgeprune.runtime.session import Model
from tests.runtime.conftest import picture


def test_every_loaded_graph_leaves_its_trace(hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with Model.open(hand_bundle, profile_prefix=tmp_path / "run-") as model:
        answer = model.ask(picture(5), "Where is it?", keep=0.5, max_new_tokens=3, ignore_eos=True)
    traces = {path.name.partition("_20")[0]: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert all(name.startswith("run-") for name in traces)
    runs = {name: sum(event["name"] == "model_run" for event in events) for name, events in traces.items()}
    assert runs == {"run-vision-best": 1, "run-embedding": 3, "run-decoder": 1 + answer.timings.decode_steps}
    kernels = [e for e in traces["run-decoder"] if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    assert kernels
    assert all({"op_name", "input_type_shape", "output_type_shape"} <= set(event["args"]) for event in kernels)


def test_no_trace_unless_asked(
    hand_bundle: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Model.open(hand_bundle) as model:
        model.ask(picture(5), "Where is it?", max_new_tokens=1)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_not_there(hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """onnxruntime would run on without a word."""
    with pytest.raises(NativeError, match=r"profile_prefix.*no directory"):
        Model.open(hand_bundle, profile_prefix=tmp_path / "nowhere" / "run-")
