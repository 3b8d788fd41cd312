"""What a model may take: memory told and limited before loading, a shorter context, threads, cores, log."""

from __future__ import annotations

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeprune.errors import NativeError, UserError
from edgeprune.runtime import _abi, library
from edgeprune.runtime.answers import initialised
from edgeprune.runtime.session import Model, describe_bundle
from tests.runtime import tiny_graphs
from tests.runtime.conftest import BundleWriter, picture, places, writes_in_place

INVALID_ARGUMENT, BUNDLE, CONTEXT_FULL, OUT_OF_MEMORY = 1, 3, 8, 11
QUESTION = "Where is it?"
KV_BYTES = 2 * tiny_graphs.LAYERS * tiny_graphs.HEADS * tiny_graphs.HEAD_DIM * 4  # a token


def test_need_is_told_without_loading(hand_bundle: pathlib.Path, model: Model) -> None:
    facts = describe_bundle(hand_bundle)
    assert facts == {key: value for key, value in model.describe().items() if key in facts}
    assert set(model.describe()) - set(facts) == {"provider", "variant", "onnxruntime"}
    memory = facts["memory"]
    opened = ("vision-best", "embedding", "decoder")
    assert memory["weights_bytes"] == sum((hand_bundle / "onnx" / f"{name}.onnx").stat().st_size for name in opened)
    assert memory["kv_bytes"] == (1.25 if writes_in_place(model) else 2) * 512 * facts["kv_bytes_per_token"]
    # 2 heads of 4, width 8: two (2,512,512) score tensors, one (512,32) layer, 260 logits; a ViT of 17 tokens is less
    assert memory["activations_bytes"] == 4 * (2 * 2 * 512 * 512 + 4 * 8 * 512 + 260)
    assert memory["estimated"] == ["activations_bytes"]
    parts = ("weights_bytes", "kv_bytes", "activations_bytes")
    assert memory["total_bytes"] == sum(memory[part] for part in parts)


def test_describe_needs_no_onnxruntime(hand_bundle: pathlib.Path) -> None:
    code = f"""
from edgeprune.runtime.opening import describe_bundle
describe_bundle({str(hand_bundle)!r})
print(any("onnxruntime" in line for line in open("/proc/self/maps")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_describe_refuses_what_opening_refuses(hand_bundle: pathlib.Path, write_bundle: BundleWriter) -> None:
    with pytest.raises(NativeError, match="schema_version is 2") as caught:
        describe_bundle(write_bundle(change=lambda m: m.update(schema_version=2)))
    assert caught.value.status == BUNDLE
    with pytest.raises(NativeError, match="context_tokens is 513, but the bundle's context holds 512"):
        describe_bundle(hand_bundle, context_tokens=513)
    with pytest.raises(UserError, match="context_tokens is 0"):
        describe_bundle(hand_bundle, context_tokens=0)


def test_memory_limit_refuses_before_loading(hand_bundle: pathlib.Path) -> None:
    need = describe_bundle(hand_bundle)["memory"]["total_bytes"]
    Model.open(hand_bundle, memory_limit_bytes=need).close()
    # an onnxruntime that is not there would be the error if anything were loaded first
    with pytest.raises(NativeError, match=r"the bundle needs 5 MiB .* but the memory limit is 5 MiB; ask") as caught:
        Model.open(hand_bundle, memory_limit_bytes=need - 1, onnxruntime_library="/none/libonnxruntime.so")
    assert caught.value.status == OUT_OF_MEMORY
    assert "\n" not in str(caught.value)
    small = describe_bundle(hand_bundle, context_tokens=64)["memory"]["total_bytes"]
    assert small < need / 2
    Model.open(hand_bundle, memory_limit_bytes=small, context_tokens=64).close()


def test_context_tokens_is_the_context(hand_bundle: pathlib.Path) -> None:
    with Model.open(hand_bundle, context_tokens=40) as model:
        assert model.describe()["context_length"] == 40
        answer = model.ask(None, QUESTION, ignore_eos=True)
        assert answer.kv_tokens == 39
        with pytest.raises(NativeError, match="the context holds 40") as caught:
            model.ask(None, QUESTION, max_new_tokens=40)
        assert caught.value.status == CONTEXT_FULL


def threads() -> set[int]:
    return {int(task.name) for task in pathlib.Path("/proc/self/task").iterdir()}


def test_threads_run_on_the_cores_named(hand_bundle: pathlib.Path, model: Model) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("needs two cores")
    before = threads()
    with Model.open(hand_bundle, cores=cores, spinning=False) as opened:
        workers = threads() - before
        assert len(workers) == 2  # of decoder and vision; each pins itself when it starts
        until = time.monotonic() + 10
        while any(os.sched_getaffinity(worker) != {cores[1]} for worker in workers) and time.monotonic() < until:
            time.sleep(0.01)
        assert [os.sched_getaffinity(worker) for worker in workers] == [{cores[1]}] * 2
        answer = opened.ask(picture(1), QUESTION, max_new_tokens=8, ignore_eos=True)
    assert answer.token_ids == model.ask(picture(1), QUESTION, max_new_tokens=8, ignore_eos=True).token_ids


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cores": b"0,x"}, 'cores is "0,x"'),
        ({"cores": b"0,"}, 'cores is "0,"'),
        ({"cores": b"0,0"}, "core 0 twice"),
        ({"cores": b"1023"}, "may not run on core 1023"),
        ({"cores": b"9999"}, "may not run on core 9999"),
        ({"cores": b"0", "threads": 2}, "threads is 2, but cores names 1"),
        ({"memory_limit_bytes": -1}, "memory_limit_bytes is -1"),
        ({"context_tokens": -1}, "context_tokens is -1"),
    ],
)
def test_bad_resources(hand_bundle: pathlib.Path, options: dict[str, Any], text: str) -> None:
    calls = library.load().calls
    out = ctypes.c_void_p()
    given = initialised(_abi.ModelOptions, **options)
    assert calls.ep_model_open(bytes(hand_bundle), ctypes.byref(given), ctypes.byref(out)) == INVALID_ARGUMENT
    assert text in calls.ep_last_error().decode()


@pytest.fixture
def log() -> Iterator[list[tuple[int, str]]]:
    lines: list[tuple[int, str]] = []
    kind: Callable[..., Any] = ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)
    hook = kind(lambda level, message, user: lines.append((level, message.decode())))
    calls = library.load().calls
    calls.ep_set_log.argtypes, calls.ep_set_log.restype = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p), None
    calls.ep_set_log(ctypes.cast(hook, ctypes.c_void_p), 0, None)
    yield lines
    calls.ep_set_log(None, 0, None)


def mapped_bytes(file: pathlib.Path) -> int:
    """How much of a file this process has mapped; a page that serves two tensors counts twice."""
    lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if line.endswith(f" {file}")]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)


def test_mapped_weights_answer_alike_and_stay_in_their_files(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """onnxruntime maps the data files either way; without the option it copies the matrices and unmaps them.

    The bundle may be deleted while it is open.
    """
    bundle = shutil.copytree(tiny_bundle, tmp_path.resolve() / "tiny.bundle")
    pixels, decoder = picture(5, 64, 48), bundle / "onnx" / "decoder.data"
    with Model.open(bundle) as copied:
        expected = copied.ask(pixels, QUESTION, max_new_tokens=8, ignore_eos=True)
        part = mapped_bytes(decoder)
    with Model.open(bundle, map_weights=True) as model:
        assert part < decoder.stat().st_size <= mapped_bytes(decoder)
        shutil.rmtree(bundle)
        assert model.ask(pixels, QUESTION, max_new_tokens=8, ignore_eos=True).token_ids == expected.token_ids


def test_hook_gets_onnxruntimes_messages(hand_bundle: pathlib.Path, log: list[tuple[int, str]]) -> None:
    with Model.open(hand_bundle, spinning=False):
        pass
    theirs = [text for _, text in log if text.startswith("onnxruntime onnxruntime ")]
    assert any("Session Options" in text and "session.intra_op.allow_spinning: 0" in text for text in theirs)
    log.clear()
    with Model.open(hand_bundle):
        pass
    assert log
    assert not any("allow_spinning: 0" in text for _, text in log)


def test_one_session_serves_hundreds_of_resets_truncations_and_removals(model: Model) -> None:
    """Every round gives the first round's answer, and the KV cache is as large as its tokens."""
    with model.new_session() as session:
        first = []
        for turn in range(200):
            image = session.add_image(picture(turn % 3), keep=0.5)
            answer = session.generate(QUESTION, max_new_tokens=4, ignore_eos=True)
            first.append(answer.token_ids)
            assert answer.token_ids == first[turn % 3]
            assert answer.timings.kv_bytes == places(model, answer.kv_tokens) * KV_BYTES
            if turn % 2:
                session.truncate(2)
                session.remove_image(image)
            else:
                session.reset()
