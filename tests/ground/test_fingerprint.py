"""A variant that does not fit its graphs or this machine is refused with both sides and the rebuilding command."""

from __future__ import annotations

import json
import pathlib
from importlib import metadata
from typing import Any

import pytest

from edgeprune import devices, fingerprint
from edgeprune.bundle import MANIFEST, Bundle, scan_folder
from edgeprune.errors import BundleError
from edgeprune.variant_writer import VariantWriter
from tests.ground.sample import write_bundle

GRAPH = "onnx/decoder.onnx"
#: a package that is always there stands for the library: its version is looked up in the same way.
LIBRARY = "numpy"


TARGET = "tensorrt-rtx:sm86,sm89"


def write_variant(
    root: pathlib.Path, build: object, precision: dict[str, str] | None = None, target: str = TARGET
) -> pathlib.Path:
    """Adds the variant `built` with this build.json to a bundle; returns the file."""
    with VariantWriter(root, "built", "0123") as writer:
        text = build if isinstance(build, str) else json.dumps(build)
        (writer.path / "build.json").write_text(text, encoding="utf-8")
        (writer.path / "decoder.engine").write_bytes(b"engine")
        words = precision or {"vision": "fp16", "decoder": "fp16"}
        entry = {"target": target, "precision": words, "build": writer.name("build.json")}
        writer.commit({**entry, "parity": []})
        return writer.path / "build.json"


def engine(root: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """A build.json of one engine that fits, except for `changes` of its fingerprint."""
    digest = Bundle.open(root).manifest.files[GRAPH].sha256
    built = {
        "module": LIBRARY,
        "versions": {LIBRARY: metadata.version(LIBRARY), "polygraphy": "0.1"},
        "compute_capabilities": ["8.6", "8.9"],
        **dict.fromkeys(devices.FACTS),
        "graph_sha256": {GRAPH: digest},
    }
    return {"engines": [{"file": "decoder.engine", "fingerprint": {**built, **changes}}] * 2}


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_bundle(tmp_path / "a bundle")


@pytest.fixture
def gpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi lists one GPU of compute capability 8.9."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'Some, GPU, 560.35, 8.9'\necho 'Other, 1, 7.5'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


@pytest.mark.usefixtures("gpu")
def test_what_nvidia_smi_says() -> None:
    assert devices.facts() == {"gpu": "Some, GPU", "driver": "560.35", "jetpack": None, "compute_capability": "8.9"}


@pytest.mark.usefixtures("gpu")
def test_one_that_fits_opens(root: pathlib.Path) -> None:
    write_variant(root, engine(root))
    assert Bundle.open(root).variant("built", to_run=True).slug == "built"


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({"versions": {LIBRARY: "0.9.1"}}, (LIBRARY, "0.9.1", metadata.version(LIBRARY))),
        ({"compute_capabilities": ["8.6"]}, ("compute capability", "8.6", "8.9")),
        ({"compute_capabilities": [], "compute_capability": "8.9", "gpu": "Another"}, ("gpu", "Another", "Some, GPU")),
        ({"graph_sha256": {GRAPH: "ab" * 32}}, (f"sha256 of {GRAPH}", "abababababab...", "")),
        ({"graph_sha256": {"onnx/x.onnx": "ab" * 32}}, ("sha256 of onnx/x.onnx", "abababababab...", "missing here")),
    ],
)  # fmt: skip
def test_one_that_does_not_fit_names_both_sides(
    root: pathlib.Path, changes: dict[str, Any], sides: tuple[str, str, str]
) -> None:
    what, built, here = sides
    meant = "tensorrt-rtx:sm86" if what == "compute capability" else TARGET
    write_variant(root, engine(root, **changes), target=meant)
    if "graph_sha256" not in changes:
        Bundle.open(root).variant("built")  # kept here, but for another machine
    with pytest.raises(BundleError) as refused:
        Bundle.open(root).variant("built", to_run=True)
    text = str(refused.value)
    assert text.startswith(f"variant built does not fit: {what} was {built} when it was built and is {here}")
    assert text.count("when it was built") == 1, "a difference that every engine shares is said once"
    target = "tensorrt-rtx:sm89" if what == "compute capability" else TARGET
    command = f"edgeprune build '{root}' --target {target} --precision fp16 --rebuild"
    assert text.endswith(f"; run `{command}`.")


def test_what_this_machine_does_not_know_is_not_compared(
    root: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    build = engine(root, module="no-such-library", versions={"no-such-library": "1"}, compute_capabilities=["1.0"])
    write_variant(root, build, target="tensorrt-rtx:sm10")
    Bundle.open(root).variant("built", to_run=True)


#: an edit of one fingerprint -> what is said of it where nvidia-smi lists no GPU
EDITS = {
    "another GPU": ({"compute_capabilities": ["12.0"]}, "compute capability was 12.0 when it was built and is 8.6, 8.9"
                    f" in the manifest's target {TARGET}"),
    "one GPU less": ({"compute_capabilities": ["8.9"]}, "compute capability was 8.9 when it was built and is 8.6, 8.9"
                     f" in the manifest's target {TARGET}"),
    "another version": ({"versions": {LIBRARY: "0.0.7"}}, f"{LIBRARY} was 0.0.7 when it was built and is "
                        f"{metadata.version(LIBRARY)} here"),
}  # fmt: skip


@pytest.mark.parametrize("sealed", [True, False], ids=["hashed again", "as edited"])
@pytest.mark.parametrize(("changes", "words"), EDITS.values(), ids=EDITS)
def test_an_edited_fingerprint_is_named_without_a_gpu(
    root: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str,
    sealed: bool,
) -> None:  # fmt: skip
    """A build.json that says something else than it did, its hash in the manifest made anew or not."""
    monkeypatch.setenv("PATH", str(tmp_path))
    path = write_variant(root, engine(root))
    Bundle.open(root).variant("built", to_run=True)
    edit(root, path, changes, sealed=sealed)
    with pytest.raises(BundleError) as refused:
        Bundle.open(root).variant("built", to_run=True)
    command = f"edgeprune build '{root}' --target {TARGET} --precision fp16 --rebuild"
    assert str(refused.value) == f"variant built does not fit: {words}; run `{command}`."


def edit(root: pathlib.Path, path: pathlib.Path, changes: dict[str, Any], *, sealed: bool) -> None:
    """Changes the fingerprint of the first engine in a build.json, and with `sealed` what the manifest says of it."""
    build = json.loads(path.read_text(encoding="utf-8"))
    build["engines"][0]["fingerprint"].update(changes)
    path.write_text(json.dumps(build), encoding="utf-8")
    if sealed:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        manifest["variants"][0]["files"].update(scan_folder(root, path.parent))
        (root / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def test_what_a_fingerprint_does_not_say_the_hash_does(root: pathlib.Path) -> None:
    """An edit that decides nothing here, the driver: the file is another one all the same."""
    path = write_variant(root, engine(root))
    edit(root, path, {"driver": "1.2"}, sealed=False)
    with pytest.raises(BundleError, match=r"build.json has .* but the manifest says .*; run `edgeprune build"):
        Bundle.open(root).variant("built", to_run=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"engines": [{}]}', '{"graphs": [{"file": "x"}]}'])
def test_a_build_json_that_says_nothing(root: pathlib.Path, text: str) -> None:
    write_variant(root, text)
    with pytest.raises(BundleError, match=r"build.json does not say how the variant was built; run `edgeprune build"):
        Bundle.open(root).variant("built")


def test_a_precision_per_graph_in_the_command(root: pathlib.Path) -> None:
    write_variant(root, engine(root, graph_sha256={GRAPH: "0" * 64}), {"vision": "int8", "decoder": "fp32"})
    variant = Bundle.open(root).manifest.variants[0]
    assert "--precision vision=int8,decoder=fp32 --rebuild" in fingerprint.rebuild_command(root, variant)


@pytest.mark.parametrize(
    ("asked", "option"),
    [({"kv_cache": "fp32"}, " --kv-cache fp32"), ({"kv_cache": "auto"}, ""), ({}, ""), (None, ""), (["kv_cache"], "")],
)
def test_what_was_asked_for_is_asked_for_again(root: pathlib.Path, asked: object, option: str) -> None:
    build = {"graphs": [{"graph_sha256": {GRAPH: "0" * 64}}], "asked": asked}
    write_variant(root, build, {"vision": "fp32", "decoder": "int8"}, target="cpu")
    with pytest.raises(BundleError, match=f"--precision vision=fp32,decoder=int8{option} --rebuild`"):
        Bundle.open(root).variant("built")


def test_a_changed_file_names_the_command_too(root: pathlib.Path) -> None:
    path = write_variant(root, engine(root)).with_name("decoder.engine")
    for content in (b"Engine", b"engin"):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"decoder.engine has .* but the manifest says .*; run `edgeprune build"):
            Bundle.open(root).variant("built")
    path.unlink()
    with pytest.raises(BundleError, match=r"cannot read .*decoder.engine: .*; run `edgeprune build"):
        Bundle.open(root).variant("built")
    assert (root / MANIFEST).is_file()
