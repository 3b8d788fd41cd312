"""`edgeprune doctor` says what is there, what is not, and what to do."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib

from edgeprune import __version__
from tests.cli.command import edgeprune, environment


def test_a_working_machine() -> None:
    done = edgeprune("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["can_run"], report["edgeprune"]) == (0, True, __version__)
    for name in ("libedgeprune", "libonnxruntime", "libjpeg", "libpng"):
        assert report["libraries"][name]["works"], report["libraries"][name]
    assert report["libraries"]["libedgeprune"]["version"] == __version__
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["memory_mib"] > 500
    extras = {entry["name"]: entry for entry in report["extras"]}
    assert extras["export"]["works"], extras["export"]
    assert {"cpu", "gpu", "demo", "rtx", "tensorrt", "dev"} <= set(extras)
    assert all(entry["remedy"].startswith("pip install") for entry in extras.values() if not entry["works"])


def test_a_missing_library_is_a_finding_with_its_remedy() -> None:
    done = edgeprune("doctor", env=environment(EDGEPRUNE_ORT_LIB="/none/libonnxruntime.so"))
    assert done.returncode == 1
    assert "/none/libonnxruntime.so" in done.stdout
    assert "pip install 'edgeprune[cpu]'" in done.stdout
    assert done.stderr == ""


def test_nothing_heavy_is_imported() -> None:
    done = edgeprune("doctor", env=environment(PYTHONVERBOSE="1"))
    loaded = [line for line in done.stderr.splitlines() if line.startswith(("import 'torch'", "import 'transformers'"))]
    assert "import 'edgeprune.cli.doctor'" in done.stderr
    assert loaded == []


def test_what_would_use_a_gpu(tmp_path: pathlib.Path) -> None:
    """A provider counts when it ran a graph; a GPU is what nvidia-smi lists."""
    report = json.loads(edgeprune("doctor", "--json").stdout)
    assert {"name": "CPUExecutionProvider", "works": True, "problem": "", "remedy": ""} in report["providers"]
    assert set(report["accelerators"]) == {"gpu", "cuda", "tensorrt", "tensorrt_rtx"}
    for entry in report["accelerators"].values():
        assert (entry["problem"] == "") == entry["works"] == (entry["remedy"] == "")
    installed = importlib.util.find_spec("tensorrt_rtx") is not None
    assert report["accelerators"]["tensorrt_rtx"]["works"] or not installed
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'Some GPU, 560.35, 8.9'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    text = edgeprune("doctor", env=environment(PATH=path)).stdout
    assert "ok Some GPU, compute capability 8.9, driver 560.35" in text
    bare = edgeprune("doctor", env=environment(PATH=str(tmp_path / "none"))).stdout
    assert "nvidia-smi lists no GPU" in bare
    assert "but not run; run them where nvidia-smi lists a GPU" in bare
