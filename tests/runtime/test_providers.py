"""Execution providers: the one asked for runs, or opening says in one sentence why it cannot.

A GPU is not needed. With EDGEPRUNE_TEST_ORT_GPU, the path of an onnxruntime-gpu's libonnxruntime, the slow tests ask
it; where its CUDA provider works, its answers are compared with the CPU's.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.engines.engine_plan import vision_spans
from edgeprune.engines.shapes import shape_range, spans
from edgeprune.errors import NativeError, UserError
from edgeprune.manifest import parse
from edgeprune.runtime import _abi, library
from edgeprune.runtime.opening import Resources
from edgeprune.runtime.session import Model
from edgeprune.tolerances import TOLERANCES
from tests.runtime.conftest import BundleWriter, picture
from tests.runtime.native_build import REPO
from tests.runtime.test_opening import INVALID_ARGUMENT, native_open, refused, with_variant

GPU_LIBRARY = os.environ.get("EDGEPRUNE_TEST_ORT_GPU", "")
needs_gpu_library = pytest.mark.skipif(
    not GPU_LIBRARY, reason="EDGEPRUNE_TEST_ORT_GPU names no libonnxruntime of an onnxruntime-gpu"
)
#: opens a bundle with a provider and prints the status and the sentence, or what ran.
OPEN = """
import sys
import edgeprune
from edgeprune.errors import NativeError
try:
    with edgeprune.load(sys.argv[1], provider=sys.argv[2]) as model:
        print(0, model.describe()["provider"], sep="\\n")
except NativeError as error:
    print(error.status, error, sep="\\n")
"""
#: a driver that finds no GPU: 100 is CUDA_ERROR_NO_DEVICE.
DRIVER = """
#include <string.h>
static int none(void) { return 100; }
int cuInit(unsigned flags) { (void)flags; return 100; }
int cuDriverGetVersion(int* version) { *version = 13050; return 0; }
int cuTensorMapEncodeTiled(void) { return 100; }
int cuGetProcAddress_v2(const char* name, void** function, int version, unsigned long flags, int* found) {
    (void)version, (void)flags;
    *function = !strcmp(name, "cuInit") ? (void*)cuInit : !strcmp(name, "cuDriverGetVersion")
        ? (void*)cuDriverGetVersion : !strcmp(name, "cuGetProcAddress") ? (void*)cuGetProcAddress_v2 : (void*)none;
    if (found) *found = 0;
    return 0;
}
"""


def test_the_cpu_may_be_named(hand_bundle: pathlib.Path, model: Model) -> None:
    with Model.open(hand_bundle, provider="cpu") as named:
        assert named.describe() == model.describe()
        asked = named.ask(picture(1), "Where is it?", max_new_tokens=8, ignore_eos=True)
    assert asked.token_ids == model.ask(picture(1), "Where is it?", max_new_tokens=8, ignore_eos=True).token_ids


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_one_that_is_not_compiled_in(hand_bundle: pathlib.Path, provider: str) -> None:
    wheel = library.wheel_onnxruntime()
    with pytest.raises(NativeError) as caught:
        Model.open(hand_bundle, provider=provider)
    text = str(caught.value)
    assert caught.value.status == _abi.PROVIDER
    assert text.startswith(f"the provider {provider} cannot run here: onnxruntime ")
    assert f"({wheel}) was built with " in text
    assert "CPUExecutionProvider alone; install onnxruntime-gpu" in text
    assert text.endswith("or choose the provider cpu")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"provider": b"gpu"}, 'there is no provider "gpu"; there are: cpu, cuda, tensorrt'),
        ({"device_id": 1}, "device_id is 1, but the provider is cpu: leave it out, or choose the provider cuda"),
        ({"device_id": -1, "provider": b"cuda"}, "device_id is -1, but must be at least 0"),
        ({"engine_cache_dir": b"/tmp"}, "engine_cache_dir is set, but the provider is cpu"),
        ({"engine_fp16": 1, "provider": b"cuda"}, "engine_fp16 is set, but the provider is cuda: .* tensorrt"),
    ],
)
def test_settings_that_would_change_nothing(hand_bundle: pathlib.Path, options: dict[str, Any], text: str) -> None:
    refused(hand_bundle, INVALID_ARGUMENT, text, **options)


def test_a_device_that_is_no_number() -> None:
    with pytest.raises(UserError, match="device_id is -1, but must be from 0 to 2147483647"):
        Resources(provider="cuda", device_id=-1)


def test_a_variant_goes_with_its_provider(write_bundle: BundleWriter) -> None:
    """One for cuda asks for it by itself, may be looked at on the CPU, and one for cpu runs nowhere else."""
    path = with_variant(write_bundle(), target="cuda")
    refused(path, _abi.PROVIDER, "the provider cuda cannot run here", variant=b"cpu-int8")
    native_open(path, variant=b"cpu-int8", provider=b"cpu")
    with_variant(path)
    native_open(path, variant=b"cpu-int8")
    text = 'variant "cpu-int8" is built for the target cpu, not for the provider cuda'
    refused(path, INVALID_ARGUMENT, text, variant=b"cpu-int8", provider=b"cuda")


def test_every_slot_in_the_real_library(native_program: Callable[[str], pathlib.Path], tmp_path: pathlib.Path) -> None:
    """A wrong number of a slot is undefined behaviour, so each is called."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "sum", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "g.onnx")
    runtime = os.environ.get("EDGEPRUNE_ORT_LIB") or str(library.wheel_onnxruntime())
    command = [native_program("provider_slots_cli"), runtime, tmp_path / "g.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_ranges_are_those_of_engines(native_program: Callable[[str], pathlib.Path], tiny_bundle: pathlib.Path) -> None:
    """What the provider tensorrt is told of the inputs' shapes is what `edgeprune build` tells TensorRT."""
    import json

    manifest = parse(json.loads((tiny_bundle / "manifest.json").read_text()))
    whole = spans(manifest)
    context = manifest.context_length
    decoder = {
        **whole,
        "P": type(whole["P"])(0, 0, context - 1),
        "S": type(whole["S"])(1, whole["S"].opt, 2 * context - 1),
    }
    graphs = [(g, vision_spans(manifest, name)) for name, stages in manifest.graphs.vision.items() for g in stages]
    graphs += [(manifest.graphs.embedding, whole), (manifest.graphs.decoder, decoder)]
    expected = []
    for graph, known in graphs:
        for tensor in graph.inputs:
            if any(isinstance(size, str) for size in tensor.shape):
                found = shape_range(tensor.shape, known)
                shapes = [f"({', '.join(map(str, shape))})" for shape in (found.min, found.opt, found.max)]
                expected.append(" ".join([graph.file, tensor.name, *shapes]))
    command = [native_program("shape_ranges_cli"), tiny_bundle / "manifest.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == sorted(expected)


def opened(bundle: pathlib.Path, provider: str, **env: str) -> tuple[int, str]:
    """By Python in a process of its own: the loader reads its path at the start."""
    changed = {**os.environ, "PYTHONPATH": str(REPO), "EDGEPRUNE_ORT_LIB": GPU_LIBRARY, **env}
    command = [sys.executable, "-c", OPEN, str(bundle), provider]
    done = subprocess.run(command, env=changed, capture_output=True, text=True, check=True)
    status, text = done.stdout.splitlines()
    return int(status), text


@pytest.mark.slow
@needs_gpu_library
def test_the_cpu_of_onnxruntime_gpu(hand_bundle: pathlib.Path) -> None:
    assert opened(hand_bundle, "cpu") == (0, "CPUExecutionProvider")


@pytest.mark.slow
@needs_gpu_library
@pytest.mark.parametrize(
    ("provider", "runs"), [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")]
)
def test_a_provider_of_onnxruntime_gpu(hand_bundle: pathlib.Path, provider: str, runs: str) -> None:
    """It runs, or says which library it lacks, or that there is no GPU; it never runs with another one."""
    status, text = opened(hand_bundle, provider)
    if status == 0:
        assert text == runs
        return
    assert status == _abi.PROVIDER
    assert text.startswith(f"the provider {provider} cannot run here: onnxruntime ")
    cause = (
        r"says: (lib\S+: cannot open shared object file: .*|CUDA failure \d+: [^;]+); \w.*, or choose the provider cpu"
    )
    assert re.search(cause, text), text


@pytest.mark.slow
@needs_gpu_library
def test_a_machine_without_a_gpu(hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """CUDA's libraries are there, beside onnxruntime in site-packages, and the driver finds no device."""
    site = pathlib.Path(GPU_LIBRARY).parents[2]
    folders = [str(path) for path in site.glob("nvidia/*/lib")]
    if not folders:
        pytest.skip("NVIDIA's packages of CUDA are not installed beside this onnxruntime")
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", tmp_path / "libcuda.so.1"]
    subprocess.run(command, input=DRIVER, text=True, check=True)
    status, text = opened(hand_bundle, "cuda", LD_LIBRARY_PATH=":".join([str(tmp_path), *folders]))
    assert status == _abi.PROVIDER
    assert "CUDA failure 100: no CUDA-capable device is detected; check that nvidia-smi lists the GPU" in text


@pytest.mark.slow
@needs_gpu_library
def test_answers_of_a_gpu(hand_bundle: pathlib.Path) -> None:
    """Tensors that stay on the device between graphs change no answer; the second question shortens the cache."""
    if opened(hand_bundle, "cuda")[0] != 0:
        pytest.skip("the provider cuda cannot run here")
    answers = []
    for provider in ("cpu", "cuda"):
        model = Model.open(hand_bundle, provider=provider, onnxruntime_library=GPU_LIBRARY)
        with model, model.new_session() as session:
            session.add_image(picture(3))
            questions = ("Where is it?", "What is it?")
            ids = [session.generate(text, max_new_tokens=9, ignore_eos=True).token_ids for text in questions]
            answers.append((ids, session.logits()))
    assert answers[0][0] == answers[1][0]
    away = np.abs(answers[0][1] - answers[1][1]).max() / np.abs(answers[0][1]).max()
    assert away <= TOLERANCES["logits"]
