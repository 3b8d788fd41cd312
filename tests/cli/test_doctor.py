"""`edgeprune doctor` says what is there, what is not, and what to do."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import subprocess

import pytest

from edgeprune import __version__
from edgeprune.cli import engine_backend
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
    assert set(report["accelerators"]) == {"gpu", "cuda", "tensorrt", "tensorrt_rtx", "libedgeprune_tensorrt"}
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


OPEN = 'extern "C" void* edgeprune_engine_open(void*) { return nullptr; }'
BUILD = 'extern "C" const char* edgeprune_engine_build() { return "edgeprune VERSION, engine interface 1"; }'


def compiled(source: str, path: pathlib.Path) -> pathlib.Path:
    subprocess.run(["c++", "-shared", "-fPIC", "-x", "c++", "-", "-o", path], input=source, text=True, check=True)
    return path


def backend_row(path: pathlib.Path) -> tuple[dict[str, object], str]:
    """The row of doctor's report with this back end named, and the text that people get."""
    env = environment(EDGEPRUNE_TENSORRT_BACKEND=str(path))
    report = json.loads(edgeprune("doctor", "--json", env=env).stdout)
    assert report["can_run"], "bundles run without it"
    done = edgeprune("doctor", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return report["accelerators"]["libedgeprune_tensorrt"], done.stdout


def test_the_back_end_of_engines_that_is_not_there(tmp_path: pathlib.Path) -> None:
    row, text = backend_row(tmp_path / "none.so")
    assert row["problem"] == f"{tmp_path}/none.so: cannot open shared object file: No such file or directory"
    assert f"libedgeprune_tensorrt: {engine_backend.REMEDY}" in text
    assert "libnvinfer-dev" in engine_backend.REMEDY
    assert re.search(r"libedgeprune_tensorrt +missing +\S+none.so", text)


def test_the_back_end_of_engines_that_does_not_load(tmp_path: pathlib.Path) -> None:
    broken, old = tmp_path / "broken.so", f"{OPEN}\n{BUILD}".replace("VERSION", "9.9.9")
    broken.write_bytes(b"no library at all")
    cases = {
        broken: "file too short",
        compiled("void missing(); void call() { missing(); }", tmp_path / "lacks.so"): "undefined symbol",
        compiled("int nothing;", tmp_path / "other.so"): "it is no back end of edgeprune",
        compiled(old, tmp_path / "old.so"): "it is of edgeprune 9.9.9, engine",
    }
    for path, words in cases.items():
        row, text = backend_row(path)
        assert not row["works"]
        assert str(path) in str(row["problem"])
        assert words in str(row["problem"])
        assert row["remedy"] == engine_backend.REMEDY
        assert words in text


def test_the_back_end_of_engines_that_loads(tmp_path: pathlib.Path) -> None:
    """One that names itself as the library's header does; the text is the header's own."""
    header = pathlib.Path(__file__).parents[2] / "runtime" / "src" / "engine_library.h"
    assert f'EDGEPRUNE_VERSION ", {engine_backend.INTERFACE}"' in header.read_text(encoding="utf-8")
    path = compiled(f"{OPEN}\n{BUILD}".replace("VERSION", __version__), tmp_path / "fits.so")
    row, text = backend_row(path)
    assert row == {"works": True, "version": f"edgeprune {__version__}, engine interface 1 ({path})", "problem": "",
                   "remedy": ""}  # fmt: skip
    assert f"ok edgeprune {__version__}, engine interface 1" in text


def test_every_place_of_the_back_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeprune.runtime import library

    monkeypatch.delenv(engine_backend.VARIABLE, raising=False)
    beside = library.load().path.resolve().parent / engine_backend.FILE
    if beside.exists():
        pytest.skip("this build has the back end")
    _, problem = engine_backend.examine()
    assert problem.startswith(f"{beside}: cannot open")
    assert f"; {engine_backend.FILE}: cannot open" in problem, "the loader's own places"
