"""Programs compiled with another release's header: the committed first one, and one whose structs have grown."""

from __future__ import annotations

import ctypes
import pathlib
import re
import subprocess

import pytest

from edgeprune.runtime import _abi, library
from edgeprune.runtime.session import Model
from tests.runtime.conftest import picture
from tests.runtime.native_build import INCLUDE, compile_program, run_program

ABI = pathlib.Path(__file__).resolve().parent / "abi"
FIRST = ABI / "v1"
FIRST_STRUCTS = sorted(name for name in _abi.STRUCTS if f"}} {name};" in (FIRST / "edgeprune.h").read_text())
READ = ("ep_model_options", "ep_session_options", "ep_frame", "ep_image_options", "ep_generate_options")


def grown_header(folder: pathlib.Path) -> pathlib.Path:
    """Today's header with a field more at the end of every struct."""
    text, count = re.subn(
        r"^\} (ep_\w+);", r"    int64_t future;\n} \1;", (INCLUDE / "edgeprune.h").read_text(), flags=re.MULTILINE
    )
    # Enumerations close like structs.
    text, enums = re.subn(r"(typedef enum \w+ \{[^}]*?)\n?    int64_t future;\n\}", r"\1\n}", text)
    assert count - enums == len(_abi.STRUCTS)
    (folder / "edgeprune.h").write_text(text)
    return folder


def answer_of(program: pathlib.Path, model: Model, bundle: pathlib.Path) -> list[str]:
    """What the program prints after the text, which must be Python's."""
    pixels = picture(5)
    expected = model.ask(pixels, "Where is it?", keep=0.5, max_new_tokens=24)
    code, out, errors = run_program(program, bundle, pixels.shape[1], pixels.shape[0], data=pixels.tobytes())
    assert (code, errors) == (0, ""), out
    lines = out.splitlines()
    figures = f"kept 8 of 16, kv {expected.kv_tokens}, new {len(expected.token_ids)}"
    assert lines[:3] == [expected.text, figures, "sizes kept 1"]
    return lines[3:]


def test_a_program_of_the_first_header(model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = compile_program(ABI / "caller.c", tmp_path, include=FIRST)
    assert answer_of(program, model, hand_bundle) == []


def test_a_program_of_this_header(model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = compile_program(ABI / "caller.c", tmp_path)
    assert answer_of(program, model, hand_bundle) == []


def test_a_program_of_a_later_header(model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """It is served while it leaves the later fields alone, and refused by name when it uses them."""
    program = compile_program(ABI / "caller.c", tmp_path, "-DFUTURE", include=grown_header(tmp_path))
    *statuses, untouched = answer_of(program, model, hand_bundle)
    assert untouched == "future 0 0 0"
    for name, line in zip(READ, statuses, strict=True):
        assert line.startswith(f"{name} EP_ERROR_INVALID_ARGUMENT {name} sets a field that this library"), line


def layout(folder: pathlib.Path, include: pathlib.Path, names: dict[str, list[str]]) -> dict[str, int]:
    """offsetof of every field and sizeof of every struct, by the compiler."""
    lines = []
    for struct, fields in names.items():
        lines.append(f'printf("{struct} %zu\\n", sizeof({struct}));')
        lines += [f'printf("{struct}.{field} %zu\\n", offsetof({struct}, {field}));' for field in fields]
    source = folder / "layout.c"
    source.write_text("#include <edgeprune.h>\n#include <stdio.h>\nint main(void) {\n" + "\n".join(lines) + "}\n")
    subprocess.run(["cc", "-std=c99", f"-I{include}", source, "-o", folder / "layout"], check=True)
    out = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in (line.split() for line in out.splitlines())}


def test_fields_are_only_appended(tmp_path: pathlib.Path) -> None:
    """Also not into the padding at the end of the older struct, which its programs need not have zeroed."""
    older = (FIRST / "edgeprune.h").read_text()
    fields = {}
    for struct in FIRST_STRUCTS:
        mirror = _abi.STRUCTS[struct]
        body = older.split(f"typedef struct {struct} {{")[1].split(f"}} {struct};")[0]
        fields[struct] = [field for field, *_ in mirror._fields_ if re.search(rf"\b{field}[;,]", body)]
        assert fields[struct]
    before = layout(tmp_path, FIRST, fields)
    after = layout(tmp_path, INCLUDE, {struct: [f for f, *_ in m._fields_] for struct, m in _abi.STRUCTS.items()})
    for name, value in before.items():
        if "." in name:
            assert after[name] == value, name
    for name in set(after) - set(before):
        assert after[name] >= before.get(name.split(".")[0], 0), name


@pytest.mark.parametrize("name", sorted(_abi.STRUCTS))
def test_init_without_a_size_fills_the_first_struct_only(name: str, tmp_path: pathlib.Path) -> None:
    """The first header for what it has; what came later begins with the header it came with."""
    size = layout(tmp_path, FIRST if name in FIRST_STRUCTS else INCLUDE, {name: []})[name]
    memory = ctypes.create_string_buffer(b"\xa5" * 1024, 1024)
    getattr(library.load().calls, f"{name}_init")(memory)
    assert memory.raw == size.to_bytes(8, "little") + bytes(size - 8) + b"\xa5" * (1024 - size)
