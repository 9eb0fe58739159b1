"""`witness export`: writes finished adversarial images for other tools, and checks what it has written."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from align_core.errors import InputError, reason_of
from pipelines.export.crafted_images import CraftedImages, finished_images
from pipelines.export.forms import FORMS, Form
from pipelines.export.place import Place, appearing, check_answering, check_free, place_at
from pipelines.failure import RunFailed
from pipelines.progress import Bar, Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.storage.store import Store
from pipelines.storage.versions import versions

SCHEMA, VERSION = "witness-images", 1
_MANIFEST = "manifest.json"
_FOUND_OUT = ("sha256", "versions")  # what a manifest says beyond what determines the images


@dataclass(frozen=True)
class ExportedImages:
    """The images of one surrogate and attack, where they are now.

    Attributes:
        surrogate, attack, images: what they are, and how many.
        path: of the file, or of the folder.
        sha256: of all pixels, uint8 [N, C, H, W], in the order of the ids; the same in every form.
        is_new: whether they were written now; False where they were there already.
    """

    surrogate: str
    attack: str
    images: int
    path: str
    sha256: str
    is_new: bool


@dataclass(frozen=True)
class Exported:
    """What `witness export` leaves: `holes` says what there is not, because it cannot be made."""

    form: str
    sets: list[ExportedImages]
    holes: list[str]

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A line for each set of images, and one for all of them."""
        found = [
            f"{own.surrogate} under {own.attack}: {own.images:,} images"
            f"{'' if own.is_new else ', which were there already'}, {own.path}, sha256 {own.sha256}"
            for own in self.sets
        ]
        count = sum(own.images for own in self.sets)
        return [*found, f"{count:,} images, each decoded again and found to be the stored one"]


def export_images(
    request: Request, form: str, path: str, surrogates: Sequence[str] = (), attacks: Sequence[str] = ()
) -> Exported:
    """Writes finished adversarial images in a form that other tools read.

    Args:
        request: the experiment.
        form: a name in `FORMS`.
        path: where they go, on a disk or in an object store: for PNG a folder; for other forms a file, of one surrogate
            and attack, where it ends in the suffix of the form, and else a folder as well. In a folder, the images of
            each surrogate and attack are in SURROGATE/ATTACK, with that suffix.
        surrogates, attacks: names; by default all.

    Images that were exported before are only checked. Raises InputError for a name that there is not, and where
    something else is in a place already: then nothing is written. Raises RunFailed where images are not finished, or
    what was written is not what is stored; of these nothing is left, and what was written before is kept.
    """
    own, place = FORMS[form], place_at(path, FORMS[form].suffixes)
    check_answering(place)
    blueprint = open_blueprint(request)
    wanted = finished_images(blueprint, surrogates, attacks)
    if place.file is not None and len(wanted) != 1:
        raise InputError(
            f"--{form} {place.file}: one file holds the images of one surrogate and attack, and these are "
            f"{len(wanted)}: name one of each with --surrogate and --attack, or a folder, which gets a file for each"
        )
    targets = [_target(place, images, own) for images in wanted]
    manifests = [_manifest(images, form, own) for images in wanted]
    are_free = [
        _is_free(place.store, target, own, manifest) for target, manifest in zip(targets, manifests, strict=True)
    ]
    sets = []
    progress = Progress(request.quiet)
    with progress.stage("export", sum(map(len, wanted)), "images") as bar:
        for images, target, manifest, is_free in zip(wanted, targets, manifests, are_free, strict=True):
            make = _write if is_free else _check_again
            digest = make(own, images, place.store, target, manifest, bar)
            where = f"{place.store.location}/{target}"
            sets.append(ExportedImages(images.surrogate.name, images.attack, len(images), where, digest, is_free))
    return Exported(form, sets, blueprint.holes())


def _target(place: Place, images: CraftedImages, form: Form) -> str:
    return place.file or f"{images.surrogate.name}/{images.attack}{form.suffixes[0] if form.suffixes else ''}"


def _manifest_of(target: str, form: Form) -> str:
    """The path of a target's manifest: in its folder, or beside its file."""
    return f"{target}.json" if form.suffixes else f"{target}/{_MANIFEST}"


def _manifest(images: CraftedImages, name: str, form: Form) -> dict[str, Any]:
    """What a manifest says before the images are written."""
    own = images.surrogate
    content = {
        "schema": SCHEMA,
        "version": VERSION,
        "form": name,
        "experiment": images.store.name,
        "surrogate": own.name,
        "source": own.source,
        "witnesses": list(own.witnesses),
        "seed": own.seed,
        "attack": images.attack,
        "eps": images.settings["eps"],
        "norm": images.settings["norm"],
        "settings": dict(images.settings),
        "fingerprint": images.table.fingerprint,
        "images": len(images),
        "shape": list(images.shape),
    }
    if not form.has_labels:
        towards_N = images.towards()
        content |= {"ids": list(images.ids), "labels": images.labels_N.tolist()}
        content |= {} if towards_N is None else {"targeted_labels": towards_N.tolist()}
    return content


def _is_free(store: Store, target: str, form: Form, manifest: dict[str, Any]) -> bool:
    """Whether a target has still to be written; not where these images are there. Raises InputError for all else.

    A manifest of these images beside no file is what is left where the file was moved, or its export was killed.
    """
    beside = _manifest_of(target, form)
    is_free = check_free(store, target, is_folder=not form.suffixes)
    if is_free and (not form.suffixes or check_free(store, beside, is_folder=False)):
        return True
    found = store.read_json(beside) if store.exists(beside) else None
    if found is None or {key: value for key, value in found.items() if key not in _FOUND_OUT} != manifest:
        taken = beside if is_free else target
        gone = "" if is_free or found else f", or its manifest {beside.rpartition('/')[2]} is gone"
        raise InputError(
            f"{store.location}/{taken} is there already, and holds something else than these images{gone}; move it "
            "away, or name another place. Nothing was written"
        )
    return is_free


def _write(form: Form, images: CraftedImages, store: Store, target: str, manifest: dict[str, Any], bar: Bar) -> str:
    """Writes the images of one target and its manifest; returns their hash."""
    again = "export it again"
    with appearing(store, target) as aside:
        form.write(images, store, aside)
        manifest |= {"sha256": _checked(form, images, store, aside, target, again, bar), "versions": versions()}
        if not form.suffixes:
            store.write_json(_manifest_of(aside, form), manifest)
        elif store.is_local:  # before the file appears, so that no file is without
            store.write_json(_manifest_of(target, form), manifest)
    if form.suffixes and not store.is_local:
        store.write_json(_manifest_of(target, form), manifest)
    return str(manifest["sha256"])


def _check_again(
    form: Form, images: CraftedImages, store: Store, target: str, manifest: dict[str, Any], bar: Bar
) -> str:
    again = "move what is there away, and export it again"
    return _checked(form, images, store, target, target, again, bar)


def _checked(form: Form, images: CraftedImages, store: Store, path: str, target: str, again: str, bar: Bar) -> str:
    """Decodes what is at a path; returns the hash of all pixels. Raises RunFailed unless it is what is stored."""
    digest, where = hashlib.sha256(), f"{store.location}/{target}"
    written = form.read(images, store, path)
    for stored in images.read():
        try:
            differing = stored.differing(next(written))
        except Exception as problem:  # damaged files raise almost any exception
            if isinstance(problem, OSError) and problem.errno is not None:
                raise  # the disk or the store failed, not the file
            raise RunFailed(f"{where} cannot be read as it was written ({reason_of(problem)}); {again}") from problem
        if differing:
            raise RunFailed(
                f"{where}: {len(differing)} images are not the stored ones when they are decoded, such as "
                f"{', '.join(differing[:5])}; {again}"
            )
        digest.update(stored.pixels_BCHW.tobytes())
        bar.advance(len(stored.ids), f"{images.surrogate.name} {images.attack}")
    return digest.hexdigest()
