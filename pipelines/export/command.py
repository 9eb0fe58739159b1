"""`witness export`: writes images for other tools, and checks what it has written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from align_core.errors import InputError
from pipelines.export.clean_images import clean_images
from pipelines.export.crafted_images import finished_images
from pipelines.export.destination import Destination
from pipelines.export.exportable import Exportable
from pipelines.export.forms import FORMS
from pipelines.export.place import Place, check_answering, place_at
from pipelines.progress import Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.storage.far import is_far


@dataclass(frozen=True)
class ExportedImages:
    """One set of images, where it is now.

    Attributes:
        title: what they are, in a few words.
        surrogate, attack: of which they are; None for the clean test images.
        images: how many.
        path: of the file, or of the folder.
        sha256: of all pixels, uint8 [N, C, H, W], in the order of the ids; the same in every form.
        is_new: whether they were written now; False where they were there already.
    """

    title: str
    surrogate: str | None
    attack: str | None
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
            f"{own.title}: {own.images:,} images"
            f"{'' if own.is_new else ', which were there already'}, {own.path}, sha256 {own.sha256}"
            for own in self.sets
        ]
        count = sum(own.images for own in self.sets)
        return [*found, f"{count:,} images, each decoded again and found to be that of the experiment"]


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
    what was written is not what is stored; of these nothing is left, and what was written before is kept. Raises Busy
    where another export is writing the same images to the same place on a disk.
    """
    place = _open_place(form, path, request)
    blueprint = open_blueprint(request)
    wanted = finished_images(blueprint, surrogates, attacks)
    if place.file is not None and len(wanted) != 1:
        raise InputError(
            f"--{form} {place.file}: one file holds the images of one surrogate and attack, and these are "
            f"{len(wanted)}: name one of each with --surrogate and --attack, or a folder, which gets a file for each"
        )
    return Exported(form, _exported(wanted, form, place, Progress(request.quiet)), blueprint.holes())


def export_clean(request: Request, form: str, path: str) -> Exported:
    """Writes the test images as Witness uses them, before any attack, in a form that other tools read.

    The arguments are those of `export_images`; in a folder they are in `clean`, with the suffix of the form. Nothing of
    the experiment has to be finished, and no model has to be there. Raises InputError and RunFailed as that does.
    """
    place, progress = _open_place(form, path, request), Progress(request.quiet)
    images = clean_images(request, progress)
    for note in images.test.notes:
        progress.say(f"data.test: {note}")
    return Exported(form, _exported([images], form, place, progress), [])


def _open_place(form: str, path: str, request: Request) -> Place:
    place = place_at(path, FORMS[form].suffixes)
    check_answering(place)
    _check_outside_image_sets(form, place, request)
    return place


def _check_outside_image_sets(form: str, place: Place, request: Request) -> None:
    """Raises InputError where exported images would be taken for images of the experiment itself."""
    if not place.store.is_local:
        return
    folder = Path(place.store.location).resolve()
    for role, images in request.experiment().image_sets().items():
        path = images.path if images.is_encoded else None
        if path and not is_far(path) and folder.is_relative_to(Path(path).resolve()):
            raise InputError(
                f"--{form}: {folder} is in the images of data.{role}, which would no longer be what they are; name "
                "another place"
            )


def _exported(wanted: Sequence[Exportable], form: str, place: Place, progress: Progress) -> list[ExportedImages]:
    """Writes one set after the other, once it is known that nothing else is in the place of any."""
    suffix = next(iter(FORMS[form].suffixes), "")
    there = [Destination(form, images, place.store, place.file or f"{images.place}{suffix}") for images in wanted]
    are_free = [own.is_free(progress) for own in there]
    sets = []
    with progress.stage("export", sum(map(len, wanted)), "images") as bar:
        for own, is_free in zip(there, are_free, strict=True):
            digest = own.write(bar) if is_free else own.check(bar)
            images, about = own.images, own.images.about()
            surrogate, attack = about.get("surrogate"), about.get("attack")
            sets.append(ExportedImages(images.title, surrogate, attack, len(images), own.location, digest, is_free))
    return sets
