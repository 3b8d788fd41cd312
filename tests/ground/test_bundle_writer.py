"""Writing a bundle: nothing opens before it is whole, and no writer harms another."""

from __future__ import annotations

import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable

import pytest

from edgeprune.bundle import MANIFEST, Bundle, BundleWriter
from edgeprune.errors import BundleError, UserError
from tests.ground.sample import manifest, write_bundle, write_files

REPO = pathlib.Path(__file__).resolve().parents[2]
#: writes the files, says so, and waits to be told to commit.
SLOW_WRITER = textwrap.dedent(
    """
    import sys
    from edgeprune.bundle import BundleWriter
    from tests.ground.sample import manifest, write_files
    with BundleWriter(sys.argv[1], force="--force" in sys.argv) as writer:
        write_files(writer.path)
        print(writer.path, flush=True)
        sys.stdin.readline()
        writer.commit(manifest())
    """
)
Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "out" / "sample.bundle"


@pytest.fixture(autouse=True)
def _folder(place: pathlib.Path) -> None:
    place.parent.mkdir()


@pytest.fixture
def start(place: pathlib.Path) -> Starter:
    """Starts a slow writer and returns it when its files are written."""

    def begin(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SLOW_WRITER, str(place), *options]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, **pipes)
        assert process.stdout is not None
        assert ".sample.bundle.partial-" in process.stdout.readline()
        return process

    return begin


def names(place: pathlib.Path) -> list[str]:
    return sorted(os.listdir(place.parent))


def test_a_commit_leaves_the_bundle_and_nothing_else(place: pathlib.Path) -> None:
    assert write_bundle(place) == place
    assert names(place) == ["sample.bundle"]
    assert Bundle.open(place).manifest.name == "sample"


def write_then(place: pathlib.Path, last_step: Callable[[BundleWriter], object]) -> None:
    """Writes the sample's files, then does `last_step` inside the writer's block."""
    with BundleWriter(place) as writer:
        write_files(writer.path)
        last_step(writer)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(place: pathlib.Path, error: type[BaseException]) -> None:
    def fail(_: BundleWriter) -> None:
        raise error

    with pytest.raises(error):
        write_then(place, fail)
    assert names(place) == []


def test_leaving_without_a_commit_leaves_nothing(place: pathlib.Path) -> None:
    with BundleWriter(place) as writer:
        write_files(writer.path)
    assert names(place) == []


def test_a_manifest_that_does_not_hold_together_is_not_written(place: pathlib.Path) -> None:
    with (
        pytest.raises(BundleError, match=r"onnx/vision-fastervlm\.onnx is used but not listed"),
        BundleWriter(place) as writer,
    ):
        writer.commit(manifest())
    with pytest.raises(BundleError, match="cannot be written as JSON"):
        write_then(place, lambda writer: writer.commit({**manifest(), "recipe": {"keep": float("nan")}}))
    assert names(place) == []


def test_an_existing_place_is_refused(place: pathlib.Path) -> None:
    write_bundle(place)
    before = (place / MANIFEST).stat().st_mtime_ns
    with pytest.raises(UserError, match=r"exists already; choose another output directory or add --force"):
        write_bundle(place)
    assert (place / MANIFEST).stat().st_mtime_ns == before


def test_force_replaces_a_bundle_or_an_empty_directory(place: pathlib.Path) -> None:
    write_bundle(place)
    (place / "onnx" / "left-over").touch()
    write_bundle(place, force=True)
    assert not (place / "onnx" / "left-over").exists()
    empty = place.with_name("empty")
    empty.mkdir()
    write_bundle(empty, force=True)
    assert names(place) == ["empty", "sample.bundle"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_force_never_replaces_what_is_no_bundle(place: pathlib.Path, kind: str) -> None:
    precious = place / "precious.txt" if kind == "directory" else place
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("mine")
    with pytest.raises(UserError, match="is not a bundle and is not replaced"):
        write_bundle(place, force=True)
    assert precious.read_text() == "mine"


def test_force_keeps_the_old_bundle_when_the_new_one_fails(place: pathlib.Path) -> None:
    write_bundle(place)
    with pytest.raises(RuntimeError), BundleWriter(place, force=True):
        raise RuntimeError
    assert names(place) == ["sample.bundle"]
    assert Bundle.open(place).manifest.name == "sample"


def test_a_parent_that_is_missing_or_a_file_is_named(place: pathlib.Path) -> None:
    with pytest.raises(UserError, match="does not exist; create it first"):
        write_bundle(place.parent / "none" / "a.bundle")
    (place.parent / "file").touch()
    with pytest.raises(UserError, match="file is not a directory"):
        write_bundle(place.parent / "file" / "a.bundle")


def test_too_little_room_is_refused_at_the_start(place: pathlib.Path) -> None:
    with pytest.raises(UserError, match="MiB free but the bundle needs about 1099511627776 MiB"):
        write_bundle(place, estimate_bytes=1 << 60)
    assert names(place) == []


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_parent_that_may_not_be_written_is_named(mode: int) -> None:
    """Permissions do not bind root, so the writing process becomes nobody after its imports."""
    code = textwrap.dedent(
        """
        import os, sys
        from edgeprune.errors import UserError
        from tests.ground.sample import write_bundle
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            write_bundle(sys.argv[1])
        except UserError as error:
            sys.exit(str(error))
        """
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, mode)
        command = [sys.executable, "-c", code, f"{folder}/a.bundle"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, check=False)
        os.chmod(folder, 0o755)
        assert f"cannot write {folder}/a.bundle: " in done.stderr
        assert "may not be written; choose another output directory" in done.stderr
        assert done.returncode == 1
        assert os.listdir(folder) == []


def test_a_full_disk_in_the_middle_leaves_nothing(place: pathlib.Path) -> None:
    """A file size limit is the full disk of this test: the write itself fails, in the writer's own process."""
    code = textwrap.dedent(
        f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        from tests.ground.sample import write_bundle
        from edgeprune.errors import UserError
        try:
            write_bundle({str(place)!r})
        except UserError as error:
            sys.exit(str(error))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 1
    assert "File too large; nothing was kept of it" in done.stderr
    assert names(place) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_kill_9_leaves_nothing_that_opens_and_a_rerun_succeeds(place: pathlib.Path, start: Starter) -> None:
    process = start()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(place) == [f".sample.bundle.partial-{process.pid}"]
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        Bundle.open(place.parent / names(place)[0])
    write_bundle(place)
    assert names(place) == ["sample.bundle"]


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_second_writer_is_refused_while_the_first_lives(place: pathlib.Path, start: Starter, options: tuple) -> None:
    first = start(*options)
    with pytest.raises(UserError, match=rf"another export \(process {first.pid}\) is writing"):
        write_bundle(place, force=bool(options))
    _, complaint = first.communicate("\n", timeout=60)
    assert (first.returncode, complaint) == (0, "")
    assert names(place) == ["sample.bundle"]
    assert Bundle.open(place).manifest.name == "sample"


def test_writers_of_other_names_do_not_disturb_each_other(place: pathlib.Path, start: Starter) -> None:
    first = start()
    write_bundle(place.with_name("sample.bundle2"))
    write_bundle(place.with_name("sample"))
    first.communicate("\n", timeout=60)
    assert names(place) == ["sample", "sample.bundle", "sample.bundle2"]


def test_whoever_finds_the_place_taken_at_the_end_harms_nothing(place: pathlib.Path) -> None:
    def lose(writer: BundleWriter) -> None:
        place.mkdir()
        (place / "precious.txt").write_text("mine")
        writer.commit(manifest())

    with pytest.raises(UserError, match="exists already"):
        write_then(place, lose)
    assert names(place) == ["sample.bundle"]
    assert (place / "precious.txt").read_text() == "mine"


def test_a_replacement_killed_between_its_two_renames_is_undone(place: pathlib.Path) -> None:
    write_bundle(place)
    place.rename(place.with_name(".sample.bundle.old-99"))
    with pytest.raises(UserError, match="exists already"):
        write_bundle(place)
    assert names(place) == ["sample.bundle"]
    Bundle.open(place)
    write_bundle(place.with_name(".sample.bundle.old-99"))
    write_bundle(place, force=True)
    assert names(place) == ["sample.bundle"]
