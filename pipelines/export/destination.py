"""Where one set of images is exported to, in one form and with its manifest: looked at, written, and checked."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyarrow import fs

from align_core.errors import InputError, reason_of
from pipelines.export.exportable import Exportable
from pipelines.export.forms import FORMS, Form
from pipelines.export.place import appearing, check_free
from pipelines.failure import RunFailed
from pipelines.progress import Bar, Progress
from pipelines.storage.store import Store
from pipelines.storage.versions import versions

SCHEMA, VERSION = "witness-images", 1
_MANIFEST = "manifest.json"
_FOUND_OUT = ("sha256", "versions")  # what a manifest says beyond what determines the images


class _Differs(RunFailed):
    """What was exported is not, or no longer, what the experiment has."""


@dataclass(frozen=True)
class Destination:
    """A file, or a folder, for one set of images; with a manifest beside the file, or in the folder.

    Args:
        name: of the form.
        images: the images.
        store, path: where they go.
    """

    name: str
    images: Exportable
    store: Store
    path: str

    @property
    def location(self) -> str:
        """The path as messages show it."""
        return f"{self.store.location}/{self.path}"

    def is_free(self, progress: Progress) -> bool:
        """Whether the images have still to be written; not where they are there. Raises InputError for all else.

        A manifest of these images beside no file is what is left where the file was moved, or where an export to a disk
        was killed. These images, or some of them, without a manifest are what an export to an object store leaves.
        """
        beside = self._manifest_of(self.path)
        is_free = check_free(self.store, self.path, is_folder=not self._form.suffixes)
        has_no_manifest = check_free(self.store, beside, is_folder=False)
        if is_free and has_no_manifest:
            return True
        if has_no_manifest and self._holds_them(progress):
            return False
        if has_no_manifest and self._is_begun(progress):
            return True
        found = self.store.read_json(beside) if self.store.exists(beside) else None
        if found is None or {key: value for key, value in found.items() if key not in _FOUND_OUT} != self._manifest:
            taken = beside if is_free else self.path
            damaged = not is_free and not has_no_manifest and found is None
            raise InputError(
                f"{self.store.location}/{taken} is there already, and holds something else than these images"
                f"{f', or its manifest {beside} is damaged' if damaged else ''}; move it away, or name another place. "
                "Nothing was written"
            )
        return is_free

    def write(self, bar: Bar) -> str:
        """Writes the images and their manifest; returns the hash of all pixels.

        Raises RunFailed, and leaves nothing, where what was written is not what the experiment has.
        """
        is_file = bool(self._form.suffixes)
        with appearing(self.store, self.path) as aside:
            self._form.write(self.images, self.store, aside)
            digest = self._checked(aside, bar, "export it again")
            if not is_file:
                self._write_manifest(aside, digest)
            elif self.store.is_local:  # before the file appears, so that no file is without
                self._write_manifest(self.path, digest)
        if is_file and not self.store.is_local:
            self._write_manifest(self.path, digest)
        return digest

    def check(self, bar: Bar) -> str:
        """Decodes what is there; returns the hash of all pixels. Writes the manifest where there is none.

        Raises RunFailed where it is not what the experiment has.
        """
        digest = self._checked(self.path, bar, "move what is there away, and export it again")
        manifest = self._manifest_of(self.path)
        found = self.store.read_json(manifest)
        if found is None:
            self._write_manifest(self.path, digest)
        elif found.get("sha256") != digest:
            raise RunFailed(
                f"{self.store.location}/{manifest}: its sha256 is not that of the images, which are those of the "
                "experiment; delete this file, and the same command writes it again"
            )
        return digest

    @property
    def _form(self) -> Form:
        return FORMS[self.name]

    def _manifest_of(self, path: str) -> str:
        """The path of the manifest of what is at a path: in that folder, or beside that file."""
        return f"{path}.json" if self._form.suffixes else f"{path}/{_MANIFEST}"

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        """What the manifest says before the images are written."""
        images = self.images
        content = {"schema": SCHEMA, "version": VERSION, "form": self.name, **images.about()}
        content |= {"images": len(images), "shape": list(images.shape)}
        if not self._form.has_labels:
            towards_N = images.towards()
            content |= {"ids": list(images.ids), "labels": images.labels_N.tolist()}
            content |= {} if towards_N is None else {"targeted_labels": towards_N.tolist()}
        return content

    def _write_manifest(self, path: str, digest: str) -> None:
        self.store.write_json(self._manifest_of(path), {**self._manifest, "sha256": digest, "versions": versions()})

    def _holds_them(self, progress: Progress) -> bool:
        """Whether exactly these images are there, in this form."""
        kind = self.store.filesystem.get_file_info(self.store.path(self.path)).type
        if kind != (fs.FileType.File if self._form.suffixes else fs.FileType.Directory):
            return False
        with progress.stage("look at what is there", len(self.images), "images") as bar:
            try:
                self._checked(self.path, bar, "")
            except _Differs:
                return False
        return True

    def _is_begun(self, progress: Progress) -> bool:
        """Whether some of these images and nothing else are there, in an object store, where they appear one by one."""
        if self.store.is_local or self._form.is_begun is None:
            return False
        with progress.stage("look at what is there", None, "images"):
            return self._form.is_begun(self.images, self.store, self.path)

    def _checked(self, path: str, bar: Bar, again: str) -> str:
        """Decodes what is at a path; returns the hash of all pixels. Raises RunFailed where it is something else."""
        digest, written = hashlib.sha256(), self._form.read(self.images, self.store, path)
        for stored in self.images.read():
            try:
                differing = stored.differing(next(written))
            except Exception as problem:  # damaged files raise almost any exception
                if isinstance(problem, OSError) and problem.errno is not None:
                    raise  # the disk or the store failed, not the file
                raise _Differs(
                    f"{self.location} cannot be read as it was written ({reason_of(problem)}); {again}"
                ) from problem
            if differing:
                raise _Differs(
                    f"{self.location}: {len(differing)} images are not those of the experiment when they are decoded, "
                    f"such as {', '.join(differing[:5])}; {again}"
                )
            digest.update(stored.pixels_BCHW.tobytes())
            bar.advance(len(stored.ids), self.images.title)
        return digest.hexdigest()
