"""A bundle on disk: written to a temporary sibling and renamed, verified whenever it is opened."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from edgeprune import fingerprint
from edgeprune.disk import disk_error, lock, locked_directory, sync, sync_tree
from edgeprune.errors import BundleError, UserError
from edgeprune.manifest import FileEntry, Manifest, Variant, parse, require_safe_path

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
_MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Bundle:
    """An opened and verified bundle.

    Args:
        path: the bundle's directory.
        manifest: its manifest, consistent with the files.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: Literal["full", "sizes"] = "full") -> Bundle:
        """Reads and verifies a bundle.

        Args:
            path: the bundle's directory.
            verify: "full" compares size and SHA-256 of every file; "sizes" skips the hashes.

        Raises:
            BundleError: one sentence that names the file that is missing, changed or unsafe.
        """
        root = Path(path)
        bundle = cls(root, read_manifest(root))
        for name, entry in bundle.manifest.files.items():
            _verify_file(root, name, entry, hashes=verify == "full")
        return bundle

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists; BundleError for any other."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: the manifest lists no file {name}.")
        return self.path / name

    def variant(self, slug: str, *, verify: Literal["full", "sizes"] = "full", to_run: bool = False) -> Variant:
        """A variant by its slug, its files verified and its fingerprint compared, with `to_run` also with this machine.

        Raises:
            BundleError: there is none, a file differs, or it was built from other graphs or for another machine.
        """
        found = next((variant for variant in self.manifest.variants if variant.slug == slug), None)
        if found is None:
            known = ", ".join(variant.slug for variant in self.manifest.variants) or "none"
            raise BundleError(f"{self.path} has no variant {slug!r}; it has: {known}; `edgeprune build` makes one.")
        # First: of a build.json that is another one, what it says tells more than its hash.
        fingerprint.require(self.path, self.manifest, found, to_run=to_run)
        remedy = f"run `{fingerprint.rebuild_command(self.path, found)}`"
        for name, entry in found.files.items():
            _verify_file(self.path, name, entry, hashes=verify == "full", remedy=remedy)
        return found

    def golden(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]:
        """Golden inputs and outputs by name; BundleError when the bundle has none."""
        golden = self.manifest.golden
        if golden.inputs is None or golden.outputs is None:
            raise BundleError(f"{self.path} holds no golden tensors: {golden.reason}.")
        return _load_arrays(self.file(golden.inputs)), _load_arrays(self.file(golden.outputs))


def read_manifest(root: Path) -> Manifest:
    """The manifest of a bundle directory, checked for itself; the files are not looked at."""
    if not os.path.isdir(root):
        problem = "not a directory" if os.path.lexists(root) else "not there or out of reach"
        raise BundleError(f"{root} is {problem}; name a bundle directory.")
    path = root / MANIFEST
    text = _read_text(path)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON: {error}.") from error
    try:
        return parse(value)
    except BundleError as error:
        raise BundleError(f"{path}: {error}.") from None


def scan_files(root: Path) -> dict[str, dict[str, Any]]:
    """{relative path: {"sha256", "bytes"}} of every file below `root` except the manifest and the variants."""
    entries = scan_folder(root, root)
    return {name: entry for name, entry in entries.items() if name != MANIFEST and not name.startswith("variants/")}


def scan_folder(root: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """{path relative to `root`: {"sha256", "bytes"}} of every file below `folder`, a folder of the bundle `root`."""
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        require_safe_path(name)
        _require_inside(root, name)
        entries[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    return entries


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def dump_manifest(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as UTF-8 JSON; BundleError when it could not be read back."""
    try:
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"the manifest cannot be written as JSON: {error}.") from error
    parse(json.loads(text))
    return (text + "\n").encode("utf-8")


def _verify_file(
    root: Path, name: str, entry: FileEntry, *, hashes: bool, remedy: str = "export the bundle again"
) -> None:
    path = root / name
    _require_inside(root, name)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise BundleError(f"{path} is not a regular file; {remedy}.")
        if info.st_size != entry.bytes:
            raise BundleError(f"{path} has {info.st_size} bytes but the manifest says {entry.bytes}; {remedy}.")
        found = sha256_of(path) if hashes else entry.sha256
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; {remedy}.") from error
    if found != entry.sha256:
        raise BundleError(f"{path} has sha256 {found[:12]}... but the manifest says {entry.sha256[:12]}...; {remedy}.")


def _require_inside(root: Path, name: str) -> None:
    """BundleError when a symbolic link leads out of the bundle."""
    try:
        target = Path(os.path.realpath(root / name))
        inside = target.is_relative_to(os.path.realpath(root))
    except OSError as error:
        raise BundleError(f"cannot read {root / name}: {error.strerror}.") from error
    if not inside:
        raise BundleError(f"{root / name} is a link that leads out of the bundle; export the bundle again.")


def _read_text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"{path} is not a regular file; export the bundle again.")
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {_MAX_MANIFEST_BYTES >> 20} MiB; it is no bundle manifest.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: {path.parent} is not a bundle, or its export did not finish.") from None
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not UTF-8 text; export the bundle again.") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}.") from error


def _load_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"cannot read the golden tensors {path}: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return result


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


class BundleWriter:
    """Writes a bundle so that nothing opens before it is whole.

        with BundleWriter("demo.bundle", estimate_bytes=2_000_000_000) as writer:
            ...  # write onnx/, tokenizer/, golden/ below writer.path
            writer.commit(manifest)

    Files go to a hidden sibling `.NAME.partial-PID`, which `commit` renames. Leaving the block without a commit, by an
    exception or Ctrl-C, removes it. The sibling is locked while its writer lives, so a killed writer's one is
    recognised and removed by the next writer, and a second living writer is refused.

    Args:
        final: the bundle's directory.
        force: replace an existing bundle. Anything that is not a bundle or an empty directory is never replaced.
        estimate_bytes: refuse to start when the disk has less room than this.

    Raises:
        UserError: the place exists, cannot be written, is being written, or lacks room; on entry.
    """

    def __init__(self, final: str | Path, *, force: bool = False, estimate_bytes: int | None = None) -> None:
        given = Path(final)
        self.final = Path(os.path.realpath(given.parent)) / given.name
        self.path = self.final.with_name(f".{self.final.name}.partial-{os.getpid()}")
        self._force = force
        self._estimate_bytes = estimate_bytes
        self._lock = -1
        self._committed = False

    def __enter__(self) -> BundleWriter:
        self.require_place()
        with _readable_errors(self.final), locked_directory(self.final.parent):
            self._clear_stale()
            self._require_free()
            self.path.mkdir()
            self._lock = lock(self.path)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._committed:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        full = disk_error(error)
        if full is not None:
            raise UserError(f"cannot write {self.final}: {full.strerror}; nothing was kept of it.") from error

    def commit(self, manifest: Mapping[str, Any]) -> Path:
        """Hashes the files into manifest["files"], writes the manifest last and renames the bundle to its final place.

        Raises:
            BundleError: the manifest does not hold together or a file leads out of the bundle.
            UserError: another export has put a bundle there meanwhile.
        """
        text = dump_manifest({**manifest, "files": scan_files(self.path)})
        (self.path / MANIFEST).write_bytes(text)
        sync_tree(self.path)
        with locked_directory(self.final.parent):
            self._require_free()
            self._rename()
            self._committed = True
            sync(self.final.parent)
        return self.final

    def require_place(self) -> None:
        """UserError when writing cannot succeed; for callers who want to know before a long preparation."""
        self._require_parent()
        if self.final.name in ("", ".", ".."):
            raise UserError(f"{self.final} is no name for a bundle; choose another output directory.")
        free = shutil.disk_usage(self.final.parent).free
        if self._estimate_bytes is not None and free < self._estimate_bytes:
            need_mib, free_mib = self._estimate_bytes / 2**20, free / 2**20
            raise UserError(
                f"{self.final.parent} has {free_mib:.0f} MiB free but the bundle needs about {need_mib:.0f} MiB; "
                "free some space."
            )
        self._require_free()
        with _readable_errors(self.final), locked_directory(self.final.parent):
            self._stale_partials()

    def _require_parent(self) -> None:
        parent = self.final.parent
        try:
            is_folder = stat.S_ISDIR(parent.stat().st_mode)
        except FileNotFoundError:
            raise UserError(f"cannot write {self.final}: {parent} does not exist; create it first.") from None
        except OSError as error:
            raise UserError(f"cannot write {self.final}: {error.strerror}.") from error
        if not is_folder:
            raise UserError(f"cannot write {self.final}: {parent} is not a directory.")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"cannot write {self.final}: {parent} may not be written; choose another output directory.")

    def _require_free(self) -> None:
        """UserError when the final place is taken and may not be replaced."""
        if not os.path.lexists(self.final):
            return
        if not self._force:
            raise UserError(f"{self.final} exists already; choose another output directory or add --force.")
        replaceable = os.path.isdir(self.final) and (
            os.path.lexists(self.final / MANIFEST) or not os.listdir(self.final)
        )
        if not replaceable:
            raise UserError(f"{self.final} is not a bundle and is not replaced; move it away or choose another name.")

    def _stale_partials(self) -> list[Path]:
        """What killed writers left; UserError when one of the writers is alive."""
        stale = self._siblings("partial")
        for path in stale:
            held = lock(path)
            if held < 0:
                writer = path.name.rpartition("-")[2]
                raise UserError(f"another export (process {writer}) is writing {self.final}; wait for it to end.")
            os.close(held)
        return stale

    def _clear_stale(self) -> None:
        for path in self._stale_partials():
            shutil.rmtree(path)
        for path in self._siblings("old"):
            # Killed between the two renames of a replacement: the old bundle is the only one there is.
            if os.path.lexists(self.final):
                _remove(path)
            else:
                path.rename(self.final)

    def _siblings(self, kind: str) -> list[Path]:
        prefix = f".{self.final.name}.{kind}-"
        names = [name for name in os.listdir(self.final.parent) if name.startswith(prefix)]
        return [self.final.parent / name for name in names if name[len(prefix) :].isdigit()]

    def _rename(self) -> None:
        if not os.path.lexists(self.final):
            self.path.rename(self.final)
            return
        aside = self.final.with_name(f".{self.final.name}.old-{os.getpid()}")
        self.final.rename(aside)
        try:
            self.path.rename(self.final)
        except BaseException:
            aside.rename(self.final)
            raise
        _remove(aside)


@contextlib.contextmanager
def _readable_errors(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {final}: {error.strerror}; choose another output directory.") from error


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)
