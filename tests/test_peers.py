"""The run beside other runtimes: its workers, its order and its ratios. Nothing here looks at a clock."""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
import pytest

from benchmarks import sharded_checkpoint
from benchmarks.peers import environment, random_scorer, ratios, run

PROTOCOL = pathlib.Path(run.__file__).parent / "protocol.py"
WORKER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("protocol", sys.argv[1])
protocol = importlib.util.module_from_spec(spec); spec.loader.exec_module(protocol)
calls = []
def work(name):
    calls.append(name)
    print("noise of a library")
    return {name: float(len(calls))}
protocol.serve({"peer": "fake"}, {"b": lambda: work("b_ms"), "a": lambda: work("a_ms")})
"""
MEDIANS = {
    "edgeprune_ttft": 100.0,
    "edgeprune_ttft_second": 30.0,
    "edgeprune_vision": 60.0,
    "edgeprune_decode_100": 20.0,
    "edgeprune_decode_2000": 22.0,
    "edgeprune_outside_graphs": 0.5,
    "openvino_ttft": 500.0,
    "openvino_decode": 40.0,
    "hf_ttft_unpruned": 400.0,
    "hf_ttft_pruned": 125.0,
    "hf_decode": 50.0,
    "int8_peak_gops": 10000.0,
}
MEMORY = {"peak_rss_bytes": 120.0, "weights_bytes": 90.0, "kv_bytes": 10.0}


@pytest.fixture
def worker(tmp_path: pathlib.Path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    made = run.Worker("fake", [sys.executable, str(script), str(PROTOCOL)])
    yield made
    made.close()


def state(process_id: int) -> str:
    """The kernel's letter: T for stopped."""
    return pathlib.Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for_state(process_id: int, wanted: str) -> None:
    """Signals are delivered in their own time."""
    while state(process_id) != wanted:
        pass


def test_a_worker_sleeps_while_it_is_not_asked(worker: run.Worker) -> None:
    assert worker.facts == {"peer": "fake"}
    assert worker.cases == ["a", "b"]
    wait_for_state(worker.process.pid, "T")
    assert worker.trial("b") == {"b_ms": 1.0}
    wait_for_state(worker.process.pid, "T")
    assert worker.trial("a") == {"a_ms": 2.0}


def test_rounds_are_interleaved_and_the_first_is_not_recorded(worker: run.Worker) -> None:
    assert run.measure([worker], 3) == {"b_ms": [3.0, 6.0, 7.0], "a_ms": [4.0, 5.0, 8.0]}


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(SystemExit, match="broken ended with 3"):
        run.Worker("broken", [sys.executable, "-c", "raise SystemExit(3)"])


def test_what_a_run_needs_is_said_first(tmp_path: pathlib.Path) -> None:
    said = run.needs(tmp_path, 7)
    assert "15 GB of disk" in said
    assert "8 rounds" in said
    assert "to make" in said
    (tmp_path / "peers.bundle").mkdir()
    assert "made already" in run.needs(tmp_path, 7)


def test_a_bundle_without_a_method_is_exported_anew(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert environment.serves(tiny_bundle, ("fastervlm", "none"))
    assert not environment.serves(tiny_bundle, run.METHODS)
    assert not environment.serves(tmp_path / "nothing", ())


def test_the_scorer_of_random_weights_is_one_that_export_reads(tmp_path: pathlib.Path) -> None:
    from edgeprune.export import background_weights

    read = background_weights.read(random_scorer.write(tmp_path / "scorer.safetensors", (24, 24), 14))
    assert (read.spec.grid, read.spec.patch_px) == ((24, 24), 14)
    assert read.spec.mean == random_scorer.MEAN


def test_ratios_by_hand() -> None:
    found = ratios.ratios(MEDIANS, MEMORY)
    assert set(found) == set(ratios.GOALS)
    expected = {
        "ttft_vs_openvino": (0.2, True),
        "ttft_vs_hf_unpruned": (0.25, True),
        "ttft_vs_hf_pruned": (0.8, False),
        "vision_background_vs_without": (None, None),
        "ttft_background_vs_openvino": (None, None),
        "decode_vs_openvino": (2.0, True),
        "decode_2000_vs_100": (1.1, True),
        "runtime_overhead": (0.005, True),
        "peak_rss_vs_weights_kv": (1.2, True),
        "ttft_second_vs_first": (0.3, True),
        "ttft_vs_llamacpp": (None, None),
        "decode_vs_llamacpp": (None, None),
        "prefill_vs_llamacpp": (None, None),
    }
    for name, (value, met) in expected.items():
        assert found[name]["value"] == (None if value is None else pytest.approx(value)), name
        assert found[name]["met"] is met, name
    half = {**MEDIANS, "edgeprune_vision_background": 30.0, "edgeprune_ttft_background": 70.0}
    found = ratios.ratios(half, MEMORY)
    assert found["vision_background_vs_without"] == {"value": 0.5, "goal": 0.6, "met": True}
    assert found["ttft_background_vs_openvino"] == {"value": pytest.approx(0.14), "goal": 0.25, "met": True}


def test_llamacpp_has_ratios_and_no_goals() -> None:
    beside = {**MEDIANS, "edgeprune_prefill": 30.0, "llamacpp_ttft": 1000.0, "llamacpp_decode": 30.0}
    beside |= {"llamacpp_prefill": 60.0, "llamacpp_prefill_tokens": 78.0}
    found = ratios.ratios(beside, MEMORY)
    for name, value in (("ttft_vs_llamacpp", 0.1), ("decode_vs_llamacpp", 1.5), ("prefill_vs_llamacpp", 0.5)):
        assert found[name] == {"value": pytest.approx(value), "goal": None, "met": None}
    rates = ratios.tokens_per_s(beside)
    assert rates["llamacpp_prefill"] == pytest.approx(1300.0)
    assert rates["edgeprune_decode_100"] == 50.0
    assert "llamacpp_decode" not in ratios.tokens_per_s(MEDIANS)


def test_a_result_has_the_trials_that_goals_name_and_the_others_apart() -> None:
    raw = {name: [value, value + 2.0] for name, value in MEDIANS.items()} | {"edgeprune_vision_background": [1.0, 3.0]}
    found = run.result(raw, MEMORY)
    assert tuple(found["trials_ms"]) == ratios.TRIALS
    assert set(found["other_trials"]) == {"edgeprune_outside_graphs", "int8_peak_gops"}
    assert found["medians"]["edgeprune_ttft"] == 101.0
    assert set(found["ratios"]) == set(ratios.GOALS)


def test_machines_of_one_name_and_other_instruction_sets_have_folders_of_their_own() -> None:
    facts = {"processor": "AMD EPYC", "cores": 2, "cpu_flags": ["fma", "avx2"]}
    assert run.place(facts) == "amd-epyc-2-cores-avx2"
    assert run.place({**facts, "cpu_flags": ["avx2", "avx_vnni", "avx512f", "avx512_vnni"]}).endswith("-avx512-vnni")
    assert run.place({**facts, "cpu_flags": []}) == "amd-epyc-2-cores"


def test_a_peer_that_is_left_out_has_no_worker(tmp_path: pathlib.Path) -> None:
    made = environment.Prepared.below(tmp_path)
    assert list(run.commands(made, "own")) == ["edgeprune", "hf", "openvino", "llamacpp", "peak"]
    assert list(run.commands(made, "own", ["openvino"])) == ["edgeprune", "hf", "openvino", "peak"]


@pytest.fixture(scope="module")
def gguf_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A small checkpoint of the benchmark's layout, and its GGUF files."""
    from benchmarks.peers import gguf_files

    folder = tmp_path_factory.mktemp("gguf")
    sharded_checkpoint.write(folder / "checkpoint", sharded_checkpoint.config("tiny", None, None), "llava15")
    gguf_files.write(folder / "checkpoint", folder / "files")
    return folder / "checkpoint", folder / "files"


def test_gguf_files_hold_the_checkpoint(gguf_folder: tuple[pathlib.Path, pathlib.Path]) -> None:
    """Every tensor of the Llama and of the tower up to the feature block, under llama.cpp's names, quantised."""
    import gguf

    from benchmarks.peers import gguf_files

    source, folder = gguf_folder
    checkpoint = gguf_files.Checkpoint(source)
    config = checkpoint.config
    written = {
        "text.gguf": list(gguf_files.text_tensors(checkpoint)),
        "mmproj.gguf": list(gguf_files.vision_tensors(gguf_files.used_blocks(config))),
    }
    taken = {tensor.source for tensors in written.values() for tensor in tensors}
    last = f"layers.{config['vision_config']['num_hidden_layers'] - 1}."
    left = {name for name in checkpoint.place if name not in taken}
    assert all("post_layernorm" in name or (last in name and "vision_tower" in name) for name in left)
    step = {gguf.GGMLQuantizationType.Q4_0: 1 / 8, gguf.GGMLQuantizationType.Q8_0: 1 / 127}
    for file, tensors in written.items():
        read = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / file).tensors}
        assert set(read) == {tensor.name for tensor in tensors}
        for tensor in tensors:
            found = gguf.quants.dequantize(read[tensor.name].data, read[tensor.name].tensor_type)
            wanted = tensor.change(checkpoint.values(tensor.source).astype(np.float32))
            assert read[tensor.name].tensor_type == tensor.type
            error = np.abs(found.reshape(wanted.shape) - wanted).max()
            assert error <= step.get(tensor.type, 1e-7) * np.abs(wanted).max(), tensor.name


def test_queries_are_turned_as_ggml_rotates_them() -> None:
    """Hugging Face rotates x[i] with x[i + d/2], ggml x[2 i] with x[2 i + 1]."""
    from benchmarks.peers import gguf_files

    rows = np.arange(2 * 6, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    turned = gguf_files.interleaved(rows, heads=2)[:, 0]
    assert turned.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_gguf_keeps_the_tokenizer(gguf_folder: tuple[pathlib.Path, pathlib.Path]) -> None:
    import gguf

    source, folder = gguf_folder
    fields = gguf.GGUFReader(folder / "text.gguf").fields
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    words = fields["tokenizer.ggml.tokens"].contents()
    assert all(words[index] == word for word, index in tokenizer["model"]["vocab"].items())
    assert fields["tokenizer.ggml.merges"].contents() == [" ".join(pair) for pair in tokenizer["model"]["merges"]]


def test_work_of_the_vision_stage() -> None:
    """23 whole blocks of ViT-L at 577 tokens are 365 GFLOP (benchmarks/pruning_cost.py); the last one runs for 58."""
    blocks = 23 * 2 * (12 * 577 * 1024**2 + 2 * 577**2 * 1024)
    assert 0.95 * blocks < ratios.vision_flops() < blocks
