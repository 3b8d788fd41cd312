"""The run beside other runtimes: its workers, its order and its ratios. Nothing here looks at a clock."""

from __future__ import annotations

import pathlib
import sys

import pytest

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
    assert "13 GB of disk" in said
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
    }
    for name, (value, met) in expected.items():
        assert found[name]["value"] == (None if value is None else pytest.approx(value)), name
        assert found[name]["met"] is met, name
    half = {**MEDIANS, "edgeprune_vision_background": 30.0, "edgeprune_ttft_background": 70.0}
    found = ratios.ratios(half, MEMORY)
    assert found["vision_background_vs_without"] == {"value": 0.5, "goal": 0.6, "met": True}
    assert found["ttft_background_vs_openvino"] == {"value": pytest.approx(0.14), "goal": 0.25, "met": True}


def test_work_of_the_vision_stage() -> None:
    """23 whole blocks of ViT-L at 577 tokens are 365 GFLOP (benchmarks/pruning_cost.py); the last one runs for 58."""
    blocks = 23 * 2 * (12 * 577 * 1024**2 + 2 * 577**2 * 1024)
    assert 0.95 * blocks < ratios.vision_flops() < blocks
