"""The package itself: light to import, its upper floors reached on demand."""

from __future__ import annotations

import subprocess
import sys

import pytest

import edgeprune


def output_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_it_loads_nothing_heavy() -> None:
    loaded = output_of("import sys, edgeprune; print(*sorted(name for name in sys.modules if '.' not in name))").split()
    assert "edgeprune" in loaded
    assert not {"numpy", "torch", "transformers", "onnx", "onnxruntime", "PIL"} & set(loaded)


@pytest.mark.parametrize("first", ["", "import edgeprune.export; ", "from edgeprune import export; "])
def test_export_is_the_stage_whatever_was_imported_first(first: str) -> None:
    assert output_of(f"{first}import edgeprune; print(type(edgeprune.export).__name__)") == "module"


def test_public_names_are_there_and_others_are_not() -> None:
    assert callable(edgeprune.load)
    assert {name for name in edgeprune.__all__ if getattr(edgeprune, name) is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = edgeprune.lode
