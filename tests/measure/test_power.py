"""Reading NVIDIA's tools: lines of the documented form, and programs on PATH that print them. No Jetson was seen."""

from __future__ import annotations

import json
import pathlib
import time

import pytest

from edgeprune.measure.power import INTERVAL_MS, Power, power_mode, rails
from tests.cli.command import edgeprune, environment
from tests.runtime import tiny_graphs

ORIN = (
    "11-24-2026 12:00:00 RAM 3409/7620MB (lfb 1x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,7%@1510,off,off] "
    "EMC_FREQ 3%@2133 GR3D_FREQ 0%@[305] cpu@47.4C soc2@46.2C tj@47.4C VDD_IN 4956mW/4890mW "
    "VDD_CPU_GPU_CV 790mW/780mW VDD_SOC 1424mW/1420mW"
)
NANO = (
    "RAM 2114/3964MB (lfb 5x4MB) IRAM 0/252kB(lfb 252kB) CPU [9%@102,off,off,2%@102] "
    "GPU@27.5C POM_5V_IN 2532/2480 POM_5V_GPU 0/0"
)


def test_rails_of_a_line() -> None:
    assert rails(ORIN) == {"VDD_IN": 4956, "VDD_CPU_GPU_CV": 790, "VDD_SOC": 1424}
    assert rails(NANO) == {"POM_5V_IN": 2532, "POM_5V_GPU": 0}
    assert rails("tegrastats: permission denied") == {}


def tool(folder: pathlib.Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def jetson(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A PATH on which the tools print what they print on an Orin."""
    second = ORIN.replace("4956mW", "6044mW")
    tool(tmp_path, "tegrastats", f'echo "$@" > "$0.seen"; while :; do echo "{ORIN}"; echo "{second}"; sleep 0.02; done')
    tool(tmp_path, "nvpmodel", "printf 'NV Power Mode: MAXN_SUPER\\n2\\n'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def test_samples_are_taken_while_it_is_entered(jetson: pathlib.Path) -> None:
    assert power_mode() == "MAXN_SUPER"
    with Power() as power:
        while not (jetson / "tegrastats.seen").is_file():
            time.sleep(0.01)
        time.sleep(0.2)
    found = power.summary()
    assert (jetson / "tegrastats.seen").read_text() == f"--interval {INTERVAL_MS}\n"
    assert found is not None
    assert found["samples"] >= 2
    assert found["rails_mw"]["VDD_IN"]["most"] == 6044
    assert 4956 <= found["rails_mw"]["VDD_IN"]["mean"] <= 6044
    assert found["rails_mw"]["VDD_SOC"] == {"mean": 1424, "most": 1424}
    assert power.summary() == found


def test_a_machine_without_the_tools(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert power_mode() is None
    with Power() as power:
        pass
    assert power.summary() is None


def test_the_profile_tells_it(jetson: pathlib.Path, tmp_path: pathlib.Path) -> None:
    hand = tiny_graphs.write_bundle(tmp_path / "hand.bundle", tiny_graphs.Options(slow={"vision": 30_000}))
    done = edgeprune("profile", hand, "--trials", 3, "--keep", 0.5, "--json", tmp_path / "out.json", env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    machine = json.loads((tmp_path / "out.json").read_text())["machine"]
    assert {"governor", "gpu", "driver", "jetpack", "power_mode", "power"} <= set(machine)
    assert machine["power_mode"] == "MAXN_SUPER"
    assert machine["power"]["samples"] >= 1
    assert "power mode MAXN_SUPER" in done.stdout
    assert "VDD_IN" in done.stdout
