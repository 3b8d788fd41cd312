"""The C interface itself: the header in C and C++, its mirror in ctypes, struct sizes, null pointers."""

from __future__ import annotations

import ctypes
import pathlib
import re
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeprune.runtime import _abi, library
from edgeprune.runtime.answers import initialised
from edgeprune.runtime.session import Model, Session

HEADER = pathlib.Path(__file__).resolve().parents[2] / "runtime" / "include" / "edgeprune.h"
INVALID_ARGUMENT = 1
INITIALISERS = [name for name in _abi.STRUCTS if name != "ep_session_options"]


@pytest.fixture(scope="module")
def calls() -> ctypes.CDLL:
    return library.load().calls


def last_error(calls: ctypes.CDLL) -> str:
    return str(calls.ep_last_error().decode())


def compile_and_run(tmp_path: pathlib.Path, source: str, *, compiler: str = "cc", flags: tuple[str, ...] = ()) -> str:
    file = tmp_path / ("main.c" if compiler == "cc" else "main.cpp")
    file.write_text(source)
    program = tmp_path / "main"
    command = [compiler, *flags, "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{HEADER.parent}", file, "-o", program]
    subprocess.run(command, check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("compiler", "flags"), [("cc", ("-std=c99",)), ("c++", ("-std=c++11",))])
def test_header_compiles_alone(tmp_path: pathlib.Path, compiler: str, flags: tuple[str, ...]) -> None:
    source = '#include "edgeprune.h"\nint main(void) { return EP_ABI_VERSION == 1 ? 0 : 1; }\n'
    assert compile_and_run(tmp_path, source, compiler=compiler, flags=flags) == ""


def test_mirror_has_the_compilers_layout(tmp_path: pathlib.Path) -> None:
    lines, expected = [], []
    for name, struct in _abi.STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        expected.append(f"{name} {ctypes.sizeof(struct)}")
        for field, *_ in struct._fields_:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
            expected.append(f"{name}.{field} {getattr(struct, field).offset}")
    source = "#include <stdio.h>\n#include <edgeprune.h>\nint main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
    assert compile_and_run(tmp_path, source, flags=("-std=c99",)).splitlines() == expected


def test_mirror_knows_every_function_of_the_header() -> None:
    declared = set(re.findall(r"^EP_API .*?\b(ep_\w+)\(", HEADER.read_text(), re.MULTILINE))
    initialisers = {f"{name}_init{kind}" for name in _abi.STRUCTS for kind in ("", "_sized")}
    assert declared == {*_abi.STATUS_CALLS, *_abi.PLAIN_CALLS, *initialisers, "ep_set_log"}


@pytest.mark.parametrize("name", INITIALISERS)
def test_init_sets_the_size_and_zeros_the_rest(calls: ctypes.CDLL, name: str) -> None:
    struct = _abi.STRUCTS[name]
    value = struct.from_buffer_copy(b"\xff" * ctypes.sizeof(struct))
    function = getattr(calls, f"{name}_init_sized")
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    function(ctypes.byref(value), ctypes.sizeof(struct))
    assert bytes(value) == bytes(initialised(struct))
    function(None, ctypes.sizeof(struct))


@pytest.mark.parametrize("size", [0, 4, 12, 100_000])
def test_impossible_struct_sizes_are_refused(calls: ctypes.CDLL, session: Session, size: int) -> None:
    address = session._handle.address
    stats = _abi.Stats(struct_size=size, total_ms=-1.0)
    assert calls.ep_session_stats(address, ctypes.byref(stats)) == INVALID_ARGUMENT
    assert "ep_stats.struct_size" in last_error(calls)
    assert stats.total_ms == -1.0
    options = _abi.GenerateOptions(struct_size=size, prompt=b"x")
    assert calls.ep_session_generate(address, ctypes.byref(options), None) == INVALID_ARGUMENT
    assert "ep_generate_options.struct_size" in last_error(calls)


def test_smaller_structs_of_older_callers_are_served(calls: ctypes.CDLL, session: Session) -> None:
    address = session._handle.address
    # As a caller compiled before ignore_eos, stop and deadline_ms existed; what lies behind must not be read.
    old = _abi.GenerateOptions(struct_size=_abi.GenerateOptions.ignore_eos.offset - 4, prompt=b"Where is it?")
    old.deadline_ms = float("nan")
    old.stop_count = 99
    answer = _abi.Answer(struct_size=_abi.Answer.prompt_tokens.offset, kv_tokens=-7)
    assert calls.ep_session_generate(address, ctypes.byref(old), ctypes.byref(answer)) == _abi.OK
    assert answer.token_count == 128
    assert answer.kv_tokens == -7
    assert answer.struct_size == _abi.Answer.prompt_tokens.offset


def test_a_caller_older_than_sampling_decodes_greedily(calls: ctypes.CDLL, session: Session) -> None:
    old = _abi.GenerateOptions(struct_size=_abi.GenerateOptions.temperature.offset, prompt=b"Where is it?")
    old.temperature, old.top_k, old.top_p, old.repetition_penalty = -1.0, -1, 7.0, -1.0
    answer = initialised(_abi.Answer)
    assert calls.ep_session_generate(session._handle.address, ctypes.byref(old), ctypes.byref(answer)) == _abi.OK
    assert answer.token_ids[: answer.token_count] == list(session.generate("Where is it?").token_ids)


def test_null_pointers(calls: ctypes.CDLL, model: Model, session: Session) -> None:
    for name, arguments in _abi.STATUS_CALLS.items():
        nothing = [None if isinstance(None, kind) or not _is_number(kind) else 0 for kind in arguments]
        assert getattr(calls, name)(*nothing) == INVALID_ARGUMENT, name
        assert "must not be null" in last_error(calls), name
        handle = session._handle.address if name.startswith("ep_session_") else model._handle.address
        if len(arguments) > 1 and name not in ("ep_model_open", "ep_bundle_describe", "ep_session_new"):
            status = getattr(calls, name)(handle, *nothing[1:])
            assert status == (_abi.OK if name == "ep_session_truncate" else INVALID_ARGUMENT), name
    assert calls.ep_model_describe(None) == b""
    for name in ("ep_model_free", "ep_session_free", "ep_session_abort"):
        getattr(calls, name)(None)


def _is_number(kind: Any) -> bool:
    return issubclass(kind, ctypes.c_int32 | ctypes.c_int64 | ctypes.c_size_t | ctypes.c_double)


def test_bad_values(calls: ctypes.CDLL, session: Session, hand_bundle: pathlib.Path) -> None:
    address = session._handle.address
    image = ctypes.c_int32(-1)
    frame = initialised(_abi.Frame)
    for keep in (-0.5, 1.5, float("nan"), float("inf")):
        options = initialised(_abi.ImageOptions, keep=keep)
        pixels = np.zeros((4, 4, 3), np.uint8)
        frame = initialised(_abi.Frame, data=pixels.ctypes.data, width_px=4, height_px=4)
        status = calls.ep_session_add_image(address, ctypes.byref(frame), ctypes.byref(options), ctypes.byref(image))
        assert (status, image.value) == (INVALID_ARGUMENT, -1)
        assert "must be above 0 and at most 1" in last_error(calls)
    for bad in ({"max_new_tokens": -1}, {"deadline_ms": -1.0}, {"deadline_ms": float("nan")}, {"stop_count": 1}):
        request = initialised(_abi.GenerateOptions, prompt=b"x", **bad)
        assert calls.ep_session_generate(address, ctypes.byref(request), None) == INVALID_ARGUMENT
    for bad in ({"threads": -1}, {"verify": 2}):
        out = ctypes.c_void_p(1)
        opening = initialised(_abi.ModelOptions, **bad)
        path = bytes(hand_bundle)
        assert calls.ep_model_open(path, ctypes.byref(opening), ctypes.byref(out)) == INVALID_ARGUMENT
        assert out.value is None


def test_a_callback_that_returns_non_zero_stops(calls: ctypes.CDLL, session: Session) -> None:
    seen: list[tuple[bytes, int]] = []

    def on_text(text: int, size: int, token_id: int, user_data: int | None) -> int:
        seen.append((ctypes.string_at(text, size), token_id))
        return int(len(seen) == 3)

    options = initialised(_abi.GenerateOptions, prompt=b"Where is it?", on_text=_abi.TextFunction(on_text))
    answer = initialised(_abi.Answer)
    assert calls.ep_session_generate(session._handle.address, ctypes.byref(options), ctypes.byref(answer)) == _abi.OK
    assert _abi.FINISH_REASONS[answer.finish_reason] == "callback"
    assert (answer.token_count, len(seen)) == (3, 3)
    assert ctypes.string_at(answer.text, answer.text_size) == b"".join(text for text, _ in seen)
    assert [token for _, token in seen] == answer.token_ids[:3]


def test_errors_belong_to_their_thread(calls: ctypes.CDLL) -> None:
    import threading

    assert calls.ep_model_warmup(None) == INVALID_ARGUMENT
    other: list[str] = []
    thread = threading.Thread(target=lambda: other.append(last_error(calls)))
    thread.start()
    thread.join()
    assert other == [""]
    assert "model" in last_error(calls)


def test_names_and_counts(calls: ctypes.CDLL) -> None:
    names = re.findall(r"^    (EP_(?:OK|ERROR_\w+)) = (\d+)", HEADER.read_text(), re.MULTILINE)
    assert len(names) == 15
    for name, value in names:
        assert calls.ep_status_name(int(value)).decode() == name
    assert calls.ep_status_name(99) == b"unknown status"
    assert calls.ep_abi_version() == _abi.ABI_VERSION
    assert [calls.ep_keep_count(576, ratio) for ratio in (0.1, 1.0, 1e-9, 0.0, 1.5, float("nan"))] == [
        58,
        576,
        1,
        -1,
        -1,
        -1,
    ]


def test_log_reaches_the_hook(calls: ctypes.CDLL, hand_bundle: pathlib.Path) -> None:
    lines: list[tuple[int, str]] = []
    kind: Callable[..., Any] = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)
    hook = kind(lambda level, message, user: lines.append((level, message.decode())))
    calls.ep_set_log.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)
    calls.ep_set_log.restype = None
    calls.ep_set_log(ctypes.cast(hook, ctypes.c_void_p), 1, None)
    try:
        Model.open(hand_bundle).close()
    finally:
        calls.ep_set_log(None, 0, None)
    assert any(level == 1 and "onnx/decoder.onnx" in text for level, text in lines)
