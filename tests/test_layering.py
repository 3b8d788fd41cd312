"""Who may import whom: the table of the design, enforced on the syntax tree of every module."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

REPO = pathlib.Path(__file__).resolve().parent.parent
STAGES = ("export", "engines", "runtime")
HEAVY = {
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "optimum",
    "polygraphy",
    "onnxscript",
}

#: layer -> top-level packages it must not import, and edgeprune parts it must not import.
RULES: dict[str, tuple[set[str], set[str]]] = {
    "ground": (
        HEAVY | {"PIL", "safetensors", "tokenizers"},
        {"pruning", "export", "engines", "runtime", "measure", "cli"},
    ),
    "pruning": (
        {"transformers", "onnx", "onnxruntime", "tensorrt", "onnxscript"},
        {"export", "engines", "runtime", "measure", "cli"},
    ),
    "export": ({"tensorrt", "tensorrt_rtx", "polygraphy"}, {"engines", "runtime", "measure", "cli"}),
    "engines": ({"torch", "transformers"}, {"pruning", "export", "runtime", "measure", "cli"}),
    "runtime": (HEAVY, {"pruning", "export", "engines", "measure", "cli"}),
    "measure": ({"torch", "transformers", "onnx", "onnxruntime", "tensorrt"}, {"pruning", "export", "engines", "cli"}),
}


def layer_files(layer: str) -> list[pathlib.Path]:
    if layer == "ground":
        return sorted((REPO / "edgeprune").glob("*.py"))
    folder = REPO / layer if layer in STAGES else REPO / "edgeprune" / layer
    return sorted(folder.rglob("*.py"))


def imported(path: pathlib.Path) -> set[str]:
    """Dotted names of everything a module imports anywhere, `if TYPE_CHECKING` blocks included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def violations(path: pathlib.Path, banned: set[str], parts: set[str]) -> list[str]:
    found = []
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top in banned or top in STAGES or (top == "edgeprune" and rest.split(".")[0] in parts):
            found.append(name)
    return sorted(found)


@pytest.mark.parametrize("layer", RULES)
def test_layer_imports_only_what_it_may(layer: str) -> None:
    banned, parts = RULES[layer]
    files = layer_files(layer)
    assert files, f"no modules in layer {layer}"
    # The lazy attributes of the package itself are the one door upward.
    lazy_door = REPO / "edgeprune" / "__init__.py"
    bad = {str(f.relative_to(REPO)): v for f in files if f != lazy_door and (v := violations(f, banned, parts))}
    assert not bad


def test_the_rule_itself_finds_a_violation(tmp_path: pathlib.Path) -> None:
    sample = tmp_path / "m.py"
    sample.write_text("def f():\n    import torch.nn\n    from edgeprune.export import pipeline\n    import runtime\n")
    assert violations(sample, *RULES["runtime"]) == [
        "edgeprune.export",
        "edgeprune.export.pipeline",
        "runtime",
        "torch.nn",
    ]


def module_level_imports(path: pathlib.Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        name
        for node in tree.body
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


def test_cli_imports_each_stage_inside_its_verb() -> None:
    stages = ("edgeprune.export", "edgeprune.engines", "edgeprune.runtime", "edgeprune.measure", "edgeprune.pruning")
    for path in layer_files("cli") if (REPO / "edgeprune" / "cli").exists() else []:
        for name in module_level_imports(path):
            assert not name.startswith(stages), f"{path.name} imports {name} at module level"
            assert name.partition(".")[0] not in HEAVY, f"{path.name} imports {name} at module level"


def test_stage_folders_are_the_packages() -> None:
    for stage in STAGES:
        link = REPO / "edgeprune" / stage
        assert link.is_symlink()
        assert link.readlink() == pathlib.Path("..") / stage


BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = {argv!r}
from edgeprune.cli.main import entry
entry()
"""


def run_blocked(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs the command line with every heavy package blocked; onnxruntime too, since only its library is needed."""
    code = BLOCK.format(blocked=HEAVY - {"onnxruntime"}, argv=["edgeprune", *argv])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPO)


@pytest.mark.parametrize(
    "argv", [["--help"], ["run", "--help"], ["list", "models"], ["list", "targets", "--json"], ["doctor", "--json"]]
)
def test_light_verbs_work_without_heavy_packages(argv: list[str]) -> None:
    done = run_blocked(argv)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_run_works_without_heavy_packages(tiny_bundle: pathlib.Path) -> None:
    picture = next((REPO / "tests" / "data" / "scenes").glob("*.png"))
    done = run_blocked(["run", str(tiny_bundle), "--image", str(picture), "--prompt", "hello", "--max-new-tokens", "4"])
    assert done.returncode == 0, done.stderr
    assert "K/N" in done.stdout or "kept" in done.stdout
