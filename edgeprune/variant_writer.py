"""Writes a variant into a bundle so that the one before stays whole until the new one is.

A variant's files lie in `variants/SLUG/KEY/`, a folder that no manifest names yet. The replacement of manifest.json is
the one moment at which the new variant takes the place of the old; what nothing names any more is removed after it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune.bundle import MANIFEST, dump_manifest, read_manifest, scan_folder
from edgeprune.disk import disk_error, lock, sync, sync_tree
from edgeprune.errors import UserError

VARIANTS = "variants"


class VariantWriter:
    """One build of one variant.

        with VariantWriter(bundle, "cpu-int8", key) as writer:
            ...  # write files below writer.path; in the manifest they are writer.name(file)
            writer.commit({"target": "cpu", ...})

    Leaving the block without a commit removes what was written. A second living writer of the bundle is refused.

    Args:
        bundle: the bundle's directory.
        slug: name of the variant.
        key: of the build; letters and digits.

    Raises:
        UserError: the bundle cannot be written, or another build is writing it; on entry.
    """

    def __init__(self, bundle: Path, slug: str, key: str) -> None:
        self._bundle = bundle
        self._slug = slug
        self._key = key
        self._lock = -1
        self._committed = False
        self.path = bundle / VARIANTS / slug / key

    def __enter__(self) -> VariantWriter:
        folder = self._bundle / VARIANTS
        try:
            folder.mkdir(exist_ok=True)
            self._lock = lock(folder)
            if self._lock < 0:
                raise UserError(f"another build is writing {self._bundle}; wait for it to end.")
            self._remove_unnamed()
            self.path = self._free_folder()
            self.path.mkdir(parents=True)
        except OSError as error:
            self._unlock()
            raise UserError(f"cannot write {folder}: {error.strerror}.") from error
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._committed:
            shutil.rmtree(self.path, ignore_errors=True)
        self._unlock()
        full = disk_error(error)
        if full is not None:
            raise UserError(f"cannot write {self.path}: {full.strerror}; the bundle is as it was before.") from error

    def name(self, file: str) -> str:
        """How the manifest calls a file of this variant."""
        return f"{self.path.relative_to(self._bundle).as_posix()}/{file}"

    def commit(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the variant to the manifest, in the place of one of the same name.

        Args:
            entry: JSON-ready fields of manifest.Variant without slug, key and files.

        Returns:
            The whole entry.

        Raises:
            BundleError: the manifest would not hold together.
        """
        files = scan_folder(self._bundle, self.path)
        whole = {"slug": self._slug, "key": self._key, "files": files, **entry}
        manifest = json.loads((self._bundle / MANIFEST).read_text(encoding="utf-8"))
        others = [variant for variant in manifest["variants"] if variant["slug"] != self._slug]
        text = dump_manifest({**manifest, "variants": [*others, whole]})
        sync_tree(self._bundle / VARIANTS)
        aside = self._bundle / f".{MANIFEST}.partial"
        aside.write_bytes(text)
        sync(aside)
        os.replace(aside, self._bundle / MANIFEST)
        self._committed = True
        sync(self._bundle)
        self._remove_unnamed()
        return whole

    def _free_folder(self) -> Path:
        """A folder that does not exist: the same key is built twice when that is asked for."""
        path, count = self.path, 2
        while os.path.lexists(path):
            path = self.path.with_name(f"{self._key}-{count}")
            count += 1
        return path

    def _remove_unnamed(self) -> None:
        """Removes folders of builds that were killed or replaced: those without a file that the manifest names."""
        named = {Path(file).parts[:3] for variant in read_manifest(self._bundle).variants for file in variant.files}
        for folder in (self._bundle / VARIANTS).glob("*/*"):
            if folder.relative_to(self._bundle).parts not in named:
                shutil.rmtree(folder)
        for folder in (self._bundle / VARIANTS).iterdir():
            if not any(folder.iterdir()):
                folder.rmdir()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def to_json(value: Any) -> Any:
    """Dataclasses of the manifest as JSON-ready values; fields that are None by default are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
        return {
            name: to_json(item) for name, (item, default) in shown.items() if item is not None or default is not None
        }
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value
