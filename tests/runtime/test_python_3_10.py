"""The runtime side on Python 3.10 (JetPack 6), in an environment with the core's and onnxruntime's packages only."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
import tomllib

from edgeprune.runtime.session import Model
from tests.runtime import tiny_graphs
from tests.runtime.conftest import best, features_of, picture
from tests.runtime.native_build import REPO

pytestmark = pytest.mark.slow

QUESTION = "Where is it?"
IMPORT_ALL = """
import importlib, pkgutil, sys
import edgeprune, edgeprune.measure, edgeprune.runtime, edgeprune.cli
for package in (edgeprune.runtime, edgeprune.measure, edgeprune.cli):
    for found in pkgutil.iter_modules(package.__path__):
        if found.name == "lmms_eval_model":  # loaded by lmms-eval alone, and needs it
            continue
        importlib.import_module(f"{package.__name__}.{found.name}")
for found in pkgutil.iter_modules(edgeprune.__path__):
    if not found.ispkg:
        importlib.import_module(f"edgeprune.{found.name}")
print("%d.%d" % sys.version_info[:2])
"""
ASK = """
import json, sys
import numpy as np
import edgeprune
with edgeprune.load(sys.argv[1]) as model, model.new_session() as session:
    session.add_image(np.load(sys.argv[2]), keep=0.25)
    whole = session.generate(sys.argv[3], max_new_tokens=24, ignore_eos=True)
    pieces = "".join(session.stream(sys.argv[3], max_new_tokens=24, ignore_eos=True))
    print(json.dumps([list(whole.token_ids), [int(i) for i in whole.images[0].keep_idx], whole.text == pieces]))
"""


def runs(command: str, code: str) -> bool:
    return subprocess.run([command, "-c", code], capture_output=True, check=False).returncode == 0


def interpreter() -> str | None:
    """A Python 3.10 that starts and can make environments: of PATH, else of pyenv."""
    root = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    candidates = [shutil.which("python3.10"), *map(str, sorted(root.glob("versions/3.10.*/bin/python3.10")))]
    probe = "import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 10))"
    return next((c for c in candidates if c and runs(c, probe)), None)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code under Python 3.10 with what the package and its extra `cpu` ask for, and nothing else."""
    found = interpreter()
    if found is None:
        pytest.skip("no Python 3.10 with venv: neither python3.10 on the path nor one of pyenv")
    place = tmp_path_factory.mktemp("py310") / "venv"
    subprocess.run([found, "-m", "venv", str(place)], check=True)
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *needs]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    env = {name: text for name, text in os.environ.items() if name != "EDGEPRUNE_ORT_LIB"}
    env |= {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(place / "bin" / "python"), "-W", "error::DeprecationWarning:edgeprune", "-c", code]
        return subprocess.run([*command, *map(str, arguments)], env=env, capture_output=True, text=True, check=False)

    return run


Python = Callable[..., subprocess.CompletedProcess[str]]
CLI = "from edgeprune.cli.main import entry; entry()"


def test_every_module_of_the_runtime_side_imports(python: Python) -> None:
    done = python(IMPORT_ALL)
    assert (done.returncode, done.stdout) == (0, "3.10\n"), done.stderr


def test_it_answers_as_the_reference(
    python: Python, model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    pixels = picture(3)
    np.save(tmp_path / "picture.npy", pixels)
    features, scores = features_of(model, pixels)
    kept = best(scores, 4)
    rows = tiny_graphs.prompt_rows(QUESTION, [features[kept]])
    done = python(ASK, hand_bundle, tmp_path / "picture.npy", QUESTION)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [tiny_graphs.greedy(rows, 24), kept.tolist(), True]


@pytest.mark.parametrize("verb", ["methods", "models", "targets"])
def test_list(python: Python, verb: str) -> None:
    done = python(CLI, "list", verb, "--json")
    assert done.returncode == 0, done.stderr
    assert all(entry["name"] for entry in json.loads(done.stdout))


def test_check_and_doctor(python: Python, hand_bundle: pathlib.Path) -> None:
    checked = python(CLI, "check", hand_bundle)
    assert (checked.returncode, checked.stderr) == (0, "")
    doctor = python(CLI, "doctor", "--json")
    assert "Traceback" not in doctor.stderr
    report = json.loads(doctor.stdout)
    assert report["python"].startswith("3.10.")
    assert {"cpu", "export", "dev"} <= {extra["name"] for extra in report["extras"]}  # by tomli, from pyproject.toml


def test_run(python: Python, hand_bundle: pathlib.Path) -> None:
    scene = next((REPO / "tests" / "data" / "scenes").glob("*.png"))
    done = python(CLI, "run", hand_bundle, "--image", scene, "--prompt", QUESTION, "--max-new-tokens", 4, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["kept_tokens"], report["visual_tokens"], report["applied"]) == (4, 16, True)


def test_export_says_what_it_needs(python: Python, tmp_path: pathlib.Path) -> None:
    """Python 3.10 runs bundles; making them takes packages that it need not have, and the error says which."""
    done = python(CLI, "export", "--model", "tiny", "--keep", 0.5, "-o", tmp_path / "out.bundle")
    assert done.returncode == 2
    assert "edgeprune[export]" in done.stderr
    assert "Traceback" not in done.stderr
