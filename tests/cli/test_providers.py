"""`--provider` from outside: every verb that runs a bundle takes it, and one that cannot run here is a user error."""

from __future__ import annotations

import json
import pathlib

import pytest

from edgeprune.cli.accelerators import provider_remedy, reason
from tests.cli.bad_images import write_picture
from tests.cli.command import assert_user_error, edgeprune, tree

#: of onnxruntime-gpu 1.31.1: without CUDA, and with a driver that finds no GPU.
WITHOUT_CUDA = (
    "onnxruntime falls back to CPUExecutionProvider\n[E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /x/libonnxruntime_providers_cuda.so with error: "
    "libcublasLt.so.13: cannot open shared object file: No such file or directory\n"
)
WITHOUT_GPU = (
    "/x/cuda_call.cc:154 CudaCall(int) [with THRW = true] CUDA failure 100: no CUDA-capable device is detected ; "
    "GPU=-1 ; hostname=vm ; file=/x/cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(info_.device_id); \n\n"
)


def commands(bundle: pathlib.Path, folder: pathlib.Path) -> dict[str, list[object]]:
    """A command of each verb without --provider."""
    image = write_picture(folder / "picture.png")
    item = {"question": "What?", "answer": "red", "image": str(image)}
    (folder / "data.jsonl").write_text(json.dumps(item) + "\n")
    return {
        "run": ["run", bundle, "--image", image, "--prompt", "What?", "--max-new-tokens", 1],
        "show": ["show", bundle, "--image", image, "-o", folder / "overlay.png"],
        "profile": ["profile", bundle, "--keep", 1, "--trials", 1, "--max-new-tokens", 1, "--no-trace"],
        "eval": ["eval", bundle, folder / "data.jsonl", "--max-new-tokens", 1],
        "check": ["check", bundle, "--parity"],
    }


@pytest.mark.parametrize("verb", ["run", "show", "profile", "eval", "check"])
def test_one_that_cannot_run_here(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, verb: str) -> None:
    command = commands(tiny_bundle, tmp_path)[verb]
    before = tree(tmp_path)
    done = edgeprune(*command, "--provider", "cuda")
    assert_user_error(done, "the provider cuda cannot run here", "install onnxruntime-gpu", "choose the provider cpu")
    assert tree(tmp_path) == before


def test_the_cpu_may_be_named(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    command = commands(tiny_bundle, tmp_path)["run"]
    named, default = (json.loads(edgeprune(*command, *more, "--json").stdout) for more in (["--provider", "cpu"], []))
    assert named["provider"] == default["provider"] == "CPUExecutionProvider"
    assert named["text"] == default["text"]


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--provider", "gpu"], ["invalid choice: 'gpu'"]),
        (["--device", "x"], ["give a whole number from 1 to"]),
        (["--device", "1"], ["device_id is 1, but the provider is cpu"]),
        (["--provider", "cuda", "--engine-cache", "/tmp"], ["engine_cache_dir is set, but the provider is cuda"]),
        (["--engine-fp16"], ["engine_fp16 is set, but the provider is cpu"]),
    ],
)
def test_settings_that_make_no_sense(tiny_bundle: pathlib.Path, more: list[str], parts: list[str]) -> None:
    assert_user_error(edgeprune("run", tiny_bundle, "--prompt", "q", *more), *parts)


def test_check_runs_a_provider_for_parity_only(tiny_bundle: pathlib.Path) -> None:
    assert_user_error(edgeprune("check", tiny_bundle, "--provider", "cpu"), "--provider runs the golden tensors")


def test_what_doctor_makes_of_onnxruntimes_words() -> None:
    cause = reason(WITHOUT_CUDA)
    assert cause == "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    assert provider_remedy(cause).startswith("pip install 'onnxruntime-gpu[cuda,cudnn]'")
    assert reason(WITHOUT_GPU) == "CUDA failure 100: no CUDA-capable device is detected"
    assert "nvidia-smi" in provider_remedy(reason(WITHOUT_GPU))
    assert "driver" in provider_remedy("libcuda.so.1: cannot open shared object file: No such file or directory")
    assert "TensorRT" in provider_remedy("libnvinfer.so.10: cannot open shared object file: No such file or directory")
    assert (reason("some failure\nmore"), provider_remedy("some failure")) == ("some failure", "")
