"""The corpora of the fuzz targets, past findings among them, run once through the ordinary build."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import pytest

FUZZ = pathlib.Path(__file__).resolve().parent / "fuzz"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.cpp"))


@pytest.mark.parametrize("target", TARGETS)
def test_corpus_runs(target: str, native_program: Callable[[str], pathlib.Path]) -> None:
    files = sorted(str(path) for path in (FUZZ / "corpus" / target).iterdir())
    assert files
    command = [str(native_program(f"replay_{target}")), *files]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(len(files))


def test_every_target_has_what_run_sh_needs() -> None:
    listed = (FUZZ / "run.sh").read_text(encoding="utf-8")
    assert f"set -- {' '.join(sorted(TARGETS, key=listed.index))}\n" in listed
    assert all((FUZZ / f"{target}.dict").is_file() for target in TARGETS)


@pytest.mark.parametrize("target", ["tokenizer_json", "manifest"])
@pytest.mark.parametrize(
    "template",
    [
        "DEEP",
        '{"version": DEEP}',
        '{"schema_version": DEEP}',
        '{"normalizer": DEEP}',
        '{"model": {"type": "BPE", "dropout": DEEP}}',
        '{"post_processor": DEEP}',
    ],
)
def test_deep_nesting_does_not_exhaust_the_stack(
    target: str, template: str, tmp_path: pathlib.Path, native_program: Callable[[str], pathlib.Path]
) -> None:
    for opening, closing in (("[", "]"), ('{"type": "Sequence", "normalizers": [', "]}")):
        path = tmp_path / "deep.json"
        path.write_text(template.replace("DEEP", opening * 200_000 + closing * 200_000), encoding="utf-8")
        subprocess.run([str(native_program(f"replay_{target}")), str(path)], capture_output=True, check=True)
