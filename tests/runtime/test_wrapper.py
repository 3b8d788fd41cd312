"""edgeprune.hpp, with and without exceptions: the same answers as Python, failures as values."""

from __future__ import annotations

import pathlib

import pytest

from edgeprune.runtime.session import Model
from tests.runtime.conftest import picture
from tests.runtime.native_build import compile_program, run_program

HERE = pathlib.Path(__file__).resolve().parent
KINDS = {
    "exceptions": (),
    "none": ("-fno-exceptions", "-fno-rtti"),
    "cpp20": ("-std=c++20", "-Wshadow", "-Wconversion"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_wrapper(model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    program = compile_program(HERE / "abi" / "wrapper.cpp", tmp_path, "-Wno-sign-conversion", "-pthread", *KINDS[kind])
    pixels = picture(6)
    expected = model.ask(pixels, "Where is it?", keep=0.5, max_new_tokens=24)
    code, out, errors = run_program(program, hand_bundle, pixels.shape[1], pixels.shape[0], data=pixels.tobytes())
    assert (code, errors) == (0, ""), out
    kept = expected.images[0]
    text, figures, indices, abort = out.splitlines()
    assert text == expected.text
    assert figures == f"{expected.kv_tokens} 16 best 1"
    assert [int(i) for i in indices.split()] == kept.keep_idx.tolist()
    assert abort in ("abort seen", "abort too late")


def test_value_of_a_failure_without_exceptions_says_why(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "value.cpp"
    source.write_text('#include <edgeprune.hpp>\nint main() { edgeprune::Model::open("/nowhere").value(); }\n')
    code, _, errors = run_program(compile_program(source, tmp_path, "-fno-exceptions"))
    assert code == -6
    assert errors.startswith("edgeprune: value() of a failed Result: EP_ERROR_IO: no bundle at")
