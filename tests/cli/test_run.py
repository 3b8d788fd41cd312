"""`edgeprune run` from outside: its JSON, its text, and what it must not need or touch."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from tests.cli.bad_images import BAD_IMAGES, write_bad_image, write_picture
from tests.cli.command import assert_user_error, edgeprune, environment, tree

FIELDS = [
    "text", "finish_reason", "method", "keep", "kept_tokens", "visual_tokens", "keep_idx", "applied", "reason",
    "prompt_tokens", "kv_tokens", "images", "timings_ms", "provider", "variant",
]  # fmt: skip
IMAGE_FIELDS = [
    "file", "width", "height", "method", "keep", "auto_keep", "kept_tokens", "visual_tokens", "keep_idx", "applied",
    "reason", "padded_tokens",
]  # fmt: skip


@pytest.fixture
def picture(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_picture(tmp_path / "picture.png")


def answer(bundle: pathlib.Path, *argv: object) -> dict[str, Any]:
    done = edgeprune("run", bundle, "--prompt", "What is in the image?", "--max-new-tokens", 6, "--json", "-", *argv)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def manifest_of(bundle: pathlib.Path) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text())


def test_json_holds_exactly_the_contract(tiny_bundle: pathlib.Path, picture: pathlib.Path) -> None:
    report = answer(tiny_bundle, "--image", picture)
    count = manifest_of(tiny_bundle)["visual_tokens"]
    assert list(report) == FIELDS
    assert (report["method"], report["keep"], report["visual_tokens"]) == ("fastervlm", 0.25, count)
    assert report["kept_tokens"] == len(report["keep_idx"]) == count // 4
    assert report["keep_idx"] == sorted(set(report["keep_idx"]))
    assert (report["applied"], report["reason"], report["provider"]) == (True, "", "CPUExecutionProvider")
    assert report["kv_tokens"] >= report["prompt_tokens"] > report["kept_tokens"]
    [image] = report["images"]
    assert list(image) == IMAGE_FIELDS
    assert (image["file"], image["width"], image["height"]) == (str(picture), 90, 70)
    assert all(image[name] == report[name] for name in set(IMAGE_FIELDS) & set(FIELDS))
    assert (image["auto_keep"], image["padded_tokens"]) == (None, 0)
    times = report["timings_ms"]
    assert {"vision_ms", "prefill_ms", "ttft_ms", "total_ms"} <= set(times)
    assert times["total_ms"] >= times["vision_ms"] > 0


@pytest.mark.parametrize("method", ["none", "random", "stride", "received-attention"])
def test_every_method_of_the_bundle_can_be_asked_for(tiny_bundle, picture, method: str) -> None:
    keep = [] if method == "none" else ["--keep", 0.5]
    report = answer(tiny_bundle, "--image", picture, "--prune", method, *keep)
    count = manifest_of(tiny_bundle)["visual_tokens"]
    assert report["method"] == method
    assert report["kept_tokens"] == len(report["keep_idx"]) == (count if method == "none" else count // 2)
    assert report["applied"] == (method != "none")
    assert (report["reason"] == "") == report["applied"]


def test_sampling(tiny_bundle: pathlib.Path, picture: pathlib.Path) -> None:
    options = ["--image", picture, "--temperature", 100, "--top-k", 50, "--top-p", 0.99, "--repetition-penalty", 1.1]
    first, again, other = (answer(tiny_bundle, *options, "--seed", seed)["text"] for seed in (3, 3, 4))
    assert first == again
    assert len({first, other, answer(tiny_bundle, "--image", picture)["text"]}) == 3


def test_choices(tiny_bundle: pathlib.Path, picture: pathlib.Path) -> None:
    command = ["run", tiny_bundle, "--image", picture, "--prompt", "Which?", "--choices", "red, blue,a green cube"]
    done = edgeprune(*command, "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert list(report) == [*FIELDS, "choices"]
    rows = report["choices"]
    assert [row["text"] for row in rows] == ["red", " blue", "a green cube"]
    assert report["text"] == max(rows, key=lambda row: row["log_probability"])["text"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert (report["finish_reason"], report["kv_tokens"]) == ("choices", report["prompt_tokens"])
    assert " blue: log-probability -" in edgeprune(*command).stdout
    assert_user_error(edgeprune(*command, "--temperature", 1), "leave --temperature out")
    assert_user_error(edgeprune(*command[:-1], "a,,b"), "--choices", "none of them empty")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--temperature", -1], ("--temperature", "at least 0")),
        (["--temperature", "nan"], ("--temperature",)),
        (["--temperature", 1, "--top-p", 0], ("--top-p", "above 0 and at most 1")),
        (["--temperature", 1, "--top-k", 0], ("--top-k",)),
        (["--seed", 2**64], ("--seed", "2^64 - 1")),
        (["--repetition-penalty", 0], ("--repetition-penalty", "above 0")),
        (["--top-k", 5], ("set a temperature above 0",)),
    ],
)
def test_bad_sampling_values(tiny_bundle: pathlib.Path, options: list[object], words: tuple[str, ...]) -> None:
    assert_user_error(edgeprune("run", tiny_bundle, "--prompt", "q", *options), *words)


def test_several_pictures_or_none(tiny_bundle: pathlib.Path, picture: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = write_picture(tmp_path / "other.jpg")
    one = answer(tiny_bundle, "--image", picture)
    two = answer(tiny_bundle, "--image", picture, "--image", other)
    assert [image["file"] for image in two["images"]] == [str(picture), str(other)]
    assert two["kept_tokens"] == 2 * one["kept_tokens"] == len(two["keep_idx"])
    assert two["prompt_tokens"] > one["prompt_tokens"] + one["kept_tokens"] - 1
    none = answer(tiny_bundle)
    assert (none["images"], none["kept_tokens"], none["visual_tokens"]) == ([], 0, 0)
    assert (none["applied"], none["method"], none["reason"]) == (False, None, "no picture was given")


def test_text_and_json_file_say_the_same(tiny_bundle, picture, tmp_path) -> None:
    argv = ["run", tiny_bundle, "--image", picture, "--prompt", "hello", "--max-new-tokens", 6]
    done = edgeprune(*argv, "--json", tmp_path / "answer.json")
    report = json.loads((tmp_path / "answer.json").read_text())
    assert done.returncode == 0
    assert done.stdout.startswith(report["text"] + "\n")
    kept, count = report["kept_tokens"], report["visual_tokens"]
    assert f"K/N = {kept}/{count} visual tokens kept, fastervlm, keep 0.25, applied" in done.stdout
    assert "prefill" in done.stdout
    unpruned = edgeprune(*argv, "--keep", "1").stdout
    assert f"K/N = {count}/{count} visual tokens kept, fastervlm, keep 1, not applied: " in unpruned


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_picture_is_one_sentence(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    path = write_bad_image(tmp_path, name)
    done = edgeprune("run", tiny_bundle, "--image", path, "--prompt", "q", "--json", "-")
    assert_user_error(done, name, BAD_IMAGES[name][1])
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--image", "/none.png"], ["/none.png"]),
        (["--image", "/etc"], ["/etc"]),
        (["--prune", "vispruner"], ["vispruner", "fastervlm"]),
        (["--prune", "none", "--keep", "0.5"], ["none", "16 of 16"]),
        (["--keep", "0.001"], ["keep"]),
        (["--variant", "cpu-int8"], ["cpu-int8"]),
        (["--json", "/nowhere/x.json"], ["cannot write /nowhere/x.json"]),
    ],
)
def test_a_wrong_request_is_one_sentence(tiny_bundle, picture, argv: list[str], parts: list[str]) -> None:
    image = [] if "--image" in argv else ["--image", picture]
    assert_user_error(edgeprune("run", tiny_bundle, *image, "--prompt", "q", "--max-new-tokens", 2, *argv), *parts)


def test_a_prompt_longer_than_the_context_is_refused(tiny_bundle: pathlib.Path, picture: pathlib.Path) -> None:
    words = "left right " * manifest_of(tiny_bundle)["context_length"]
    done = edgeprune("run", tiny_bundle, "--image", picture, "--prompt", words)
    assert_user_error(done, "context", str(manifest_of(tiny_bundle)["context_length"]))


@pytest.mark.parametrize("kind", ["missing", "text", "foreign"])
def test_an_unusable_onnxruntime_names_what_was_tried(tiny_bundle, picture, tmp_path, kind: str) -> None:
    library = tmp_path / "libonnxruntime.so"
    if kind == "text":
        library.write_text("no library")
    elif kind == "foreign":
        library = pathlib.Path("libm.so.6")
    done = edgeprune(
        "run", tiny_bundle, "--image", picture, "--prompt", "q", env=environment(EDGEPRUNE_ORT_LIB=str(library))
    )
    assert_user_error(done, str(library), "EDGEPRUNE_ORT_LIB")


def test_an_onnxruntime_that_is_too_old_is_named_with_its_version(tiny_bundle, picture, tmp_path) -> None:
    source = tmp_path / "old.c"
    source.write_text(
        "struct base { const void *(*api)(unsigned); const char *(*version)(void); };\n"
        "static const void *api(unsigned v) { (void)v; return 0; }\n"
        'static const char *version(void) { return "1.10.0"; }\n'
        "static const struct base the_base = {api, version};\n"
        "const struct base *OrtGetApiBase(void) { return &the_base; }\n"
    )
    library = tmp_path / "libonnxruntime.so"
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    done = edgeprune(
        "run", tiny_bundle, "--image", picture, "--prompt", "q", env=environment(EDGEPRUNE_ORT_LIB=str(library))
    )
    assert_user_error(done, str(library), "1.10.0")


def test_run_needs_no_network_and_opens_no_connection(tiny_bundle, picture, tmp_path) -> None:
    argv = ["run", tiny_bundle, "--image", picture, "--prompt", "q", "--max-new-tokens", 3]
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "calls"
    # onnxruntime keeps still by itself where CI is set
    env = environment(CI=None, ORT_DISABLE_TELEMETRY=None)
    done = edgeprune(*argv, env=env, prefix=("strace", "-f", "-qq", "-e", "trace=connect,socket", "-o", str(log)))
    assert done.returncode == 0, done.stderr
    internet = [line for line in log.read_text().splitlines() if "AF_INET" in line]
    assert internet == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_run_works_without_any_network(tiny_bundle, picture) -> None:
    argv = ["run", tiny_bundle, "--image", picture, "--prompt", "q", "--max-new-tokens", 3]
    done = edgeprune(*argv, prefix=("unshare", "-n"))
    assert done.returncode == 0, done.stderr


def test_run_writes_nothing(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Neither in the bundle, nor in the working directory, the home or the temporary directory."""
    folders = {name: tmp_path / name for name in ("work", "home", "tmp")}
    for folder in folders.values():
        folder.mkdir()
    picture = write_picture(folders["work"] / "picture.png")
    before = tree(tmp_path), tree(tiny_bundle)
    home = str(folders["home"])
    env = environment(HOME=home, XDG_CACHE_HOME=home, TMPDIR=str(folders["tmp"]), CI=None, ORT_DISABLE_TELEMETRY=None)
    argv = ["run", tiny_bundle, "--image", picture, "--prompt", "q", "--max-new-tokens", 3]
    done = edgeprune(*argv, cwd=folders["work"], env=env)
    assert done.returncode == 0, done.stderr
    assert (tree(tmp_path), tree(tiny_bundle)) == before
