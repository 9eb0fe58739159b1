"""Reads adversarial images that were made elsewhere, and checks each against the ball around its test image.

Nothing here imports torch, so that a command that only looks answers at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from align_core.attacks import MadeElsewhere
from align_core.attacks.lengths import ball_named, is_same_ball
from align_core.errors import InputError
from align_core.images.decoding import Pixels
from align_core.images.image_set import chunked
from align_core.images.manifest import Manifest
from align_core.made_images import Ball, MadeImages, check_files, open_made_images
from pipelines.compute.here import made_here
from pipelines.compute.images import opened, read_as_inspected
from pipelines.experiment.config import DataConfig, Experiment
from pipelines.progress import Progress
from pipelines.stages.inspect_attacks import InspectedAttacks
from pipelines.stages.known import Known
from pipelines.stages.manifest_file import size_and_time
from pipelines.stages.seen import SEEN
from pipelines.storage.far import facts, is_far
from pipelines.storage.store import Store, fingerprint_of

_AT_ONCE = 100  # images that are in memory together


@dataclass(frozen=True)
class Made:
    """What was found out about images made elsewhere.

    Attributes:
        digest: a hash of all of them.
        matched: what a user should know of how they were matched with test images, a sentence each.
        notes: what a user should know of the images.
    """

    digest: str
    matched: list[str]
    notes: list[str]

    def __post_init__(self) -> None:
        if not isinstance(self.digest, str) or not all(isinstance(own, list) for own in (self.matched, self.notes)):
            raise ValueError("not what a check found out")


def inspect_made_elsewhere(
    experiment: Experiment, store: Store, test: Manifest, progress: Progress, trusting: bool, found: InspectedAttacks
) -> None:
    """Checks all images made elsewhere, and adds what it finds out to `found`.

    With `trusting`, images are not read again whose files have the path, size and modification time that they had.
    Those in an object store are fetched only where they are read. Raises InputError, naming the attack, where a test
    image has none, or they are not in the ball around them.
    """
    if not experiment.made_elsewhere:
        return
    known = Known(store, f"{SEEN}/made-elsewhere.json")
    for name, attack in experiment.made_elsewhere.items():
        try:
            images = cache(partial(_opened, name, attack, test, progress))
            state = facts(attack.images) if is_far(attack.images) else _state_of(images().files)
            key = fingerprint_of([state, test.digest, attack.eps, attack.norm])
            if not trusting:
                known.forget(key)
            made = known.get(key, Made, _look(name, images, attack, experiment.data, test, progress))
        except (InputError, OSError) as problem:
            raise InputError(f"attacks.{name}: {problem}") from problem
        found.made[name] = made.digest
        found.notes += [f"attacks.{name}: {note}" for note in (*made.matched, *made.notes, *_notes(experiment, attack))]
    found.unsaved |= known.unsaved()


def _opened(name: str, attack: MadeElsewhere, test: Manifest, progress: Progress) -> MadeImages:
    return open_made_images(made_here(attack, progress.fetching(f"attacks.{name}")), test.ids, test.shape)


def _state_of(files: Sequence[Path]) -> list[list[str | int]]:
    """What tells whether files have changed."""
    return [[str(file), *size_and_time(file)] for file in dict.fromkeys(files)]


def digest_of(images: MadeImages, test: Manifest) -> str:
    """A hash of all images made elsewhere, as `Made` has it. Raises InputError for one that cannot be read."""
    digest = sha256()
    for rows in chunked(test.ids, _AT_ONCE):
        digest.update(read_made(images, rows).tobytes())
    return digest.hexdigest()


def read_made(images: MadeImages, rows: range) -> Pixels:
    """The images made elsewhere at these positions of the test images, uint8 [B, C, H, W]. Raises InputError."""
    return np.stack([images.read(position) for position in rows])


def _look(
    name: str,
    opened_images: Callable[[], MadeImages],
    attack: MadeElsewhere,
    data: DataConfig,
    test: Manifest,
    progress: Progress,
) -> Callable[[], Made]:
    def look() -> Made:
        images, digest, ball = opened_images(), sha256(), Ball(attack)
        check_files(images)
        with progress.stage(f"inspect attacks.{name}", len(test), "images") as bar:
            for ids, made_BCHW, clean_BCHW in _beside_test_images(images, data, test):
                ball.look(ids, made_BCHW, clean_BCHW)
                digest.update(made_BCHW.tobytes())
                bar.advance(len(ids))
        ball.check(images.files)
        return Made(digest.hexdigest(), images.notes, ball.notes)

    return look


def _beside_test_images(
    images: MadeImages, data: DataConfig, test: Manifest
) -> Iterator[tuple[list[str], Pixels, Pixels]]:
    """Ids, images made elsewhere and test images, some at a time."""
    image_set = opened(data.test, data.fit, test.shape[0])
    for rows in chunked(test.ids, _AT_ONCE):
        ids, contents = test.ids[rows.start : rows.stop], test.contents[rows.start : rows.stop]
        yield ids, read_made(images, rows), read_as_inspected("data.test", image_set, ids, contents)


def _notes(experiment: Experiment, attack: MadeElsewhere) -> list[str]:
    if attack.compare_with is None:
        return []
    other, compared = experiment.attacks[attack.compare_with], f"it is compared with {attack.compare_with}, whose"
    found = []
    if not is_same_ball((other.eps, other.norm), (attack.eps, attack.norm)):
        its, own = (f"{own.norm}, {ball_named(own.eps, own.norm)}" for own in (other, attack))
        found.append(f"{compared} ball is another one ({its}; and {own}, here)")
    if other.towards != attack.towards:
        counted = ", so that the gain counts every wrong class" if other.is_targeted != attack.is_targeted else ""
        found.append(f"{compared} `towards` is another one ({other.towards}; and {attack.towards} here){counted}")
    return found
