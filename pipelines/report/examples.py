"""Example images of the page: clean, perturbation and adversarial, chosen by a rule and not by hand."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from align_core.errors import reason_of
from align_core.images.decoding import Pixels
from pipelines.compute.images import adversarial_images
from pipelines.experiment.surrogates import Surrogate
from pipelines.failure import RunFailed
from pipelines.report.outcomes import Outcomes
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images

_MOST = 5


class Shot(NamedTuple):
    """One image as it was attacked on one surrogate. Pictures are addresses `data:image/png;...`."""

    surrogate: str
    perturbation: str
    adversarial: str
    fooled: list[str]


class Example(NamedTuple):
    """One test image, and what each surrogate that is shown made of it."""

    image_id: str
    label: str
    clean: str
    shots: list[Shot]


class Examples(NamedTuple):
    """The example images of an experiment, and how they were chosen.

    Attributes:
        rule: by which the images were chosen, a sentence.
        attack: by which they were attacked: the experiment's first.
        factor: by how much the perturbations are magnified.
        targets: the number of targets.
        images: the examples.
    """

    rule: str
    attack: str
    factor: int
    targets: int
    images: list[Example]


def examples_of(blueprint: Blueprint, outcomes: Outcomes) -> Examples | None:
    """Reads the example images; None where no surrogate has adversarial images, or the source predicts nothing right.

    Raises RunFailed if a table of adversarial images is damaged, InputChangedError if a test image is not as it was.
    """
    shown = _shown(blueprint, outcomes)
    if shown is None:
        return None
    attack, surrogates = shown
    targets = [target for target in surrogates[0].unseen(blueprint.targets) if target in outcomes.prediction]
    chosen, rule = chosen_images(outcomes, surrogates[0].source, targets)
    if not chosen:
        return None
    clean = {image: _clean(blueprint, image) for image in chosen}
    attacked = {
        (own.name, image): _adversarial(blueprint, own, attack, image) for own in surrogates for image in chosen
    }
    change = {key: attacked[key].astype(np.int16) - clean[key[1]] for key in attacked}
    largest = max(int(np.abs(own).max()) for own in change.values())
    factor = max(1, 127 // max(1, largest))
    names = blueprint.inspected.manifests["test"].class_names
    images = []
    for image in chosen:
        label = int(outcomes.labels[image])
        shots = [
            Shot(
                own.series,
                _picture(128 + factor * change[own.name, image]),
                _picture(attacked[own.name, image]),
                [t for t in targets if outcomes.wrong.get((own.name, attack, t), np.zeros(image + 1, bool))[image]],
            )
            for own in surrogates
        ]
        image_id = blueprint.inspected.manifests["test"].ids[image]
        images.append(Example(image_id, names[label] if names else str(label), _picture(clean[image]), shots))
    return Examples(rule, attack, factor, len(targets), images)


def chosen_images(outcomes: Outcomes, source: str, targets: Sequence[str]) -> tuple[list[int], str]:
    """The positions of the images that are shown, and the rule that chose them.

    They are the first, by their ids, of those that the source and all targets classify correctly; where there are none,
    of those that the source and most targets do.
    """
    if source not in outcomes.prediction:
        return [], ""
    right = np.zeros(len(outcomes.labels), np.int64)
    for name in targets:
        right += outcomes.right(name)
    right = np.where(outcomes.right(source), right, -1)
    most = int(right.max())
    if most < 0:
        return [], ""
    who = "all targets" if most == len(targets) else f"{most} of {len(targets)} targets (none by more)"
    chosen = np.flatnonzero(right == most)[:_MOST].tolist()
    many = f"The first {len(chosen)} test images" if len(chosen) > 1 else "The first test image"
    return chosen, f"{many}, by image id, of those that the source and {who} classify correctly before the attack."


def _shown(blueprint: Blueprint, outcomes: Outcomes) -> tuple[str, list[Surrogate]] | None:
    """The first attack that there are images of, and on which surrogates: the source, and the first aligned one."""
    for attack in blueprint.experiment.attacks:
        there = [own for own in blueprint.surrogates if (own.name, attack) in outcomes.l2]
        if there:
            first = there[0]
            aligned = next((own for own in there if own.is_aligned and own.source == first.source), None)
            return attack, [first] if aligned is None or aligned is first else [first, aligned]
    return None


def _clean(blueprint: Blueprint, image: int) -> Pixels:
    """A test image, uint8 [C, H, W]."""
    images, (chunk, row) = test_images(blueprint), _place(blueprint, image)
    return np.asarray(images.read(chunk)[row])


def _adversarial(blueprint: Blueprint, surrogate: Surrogate, attack: str, image: int) -> Pixels:
    """The same image as it was attacked on a surrogate, uint8 [C, H, W]."""
    table, (chunk, row) = blueprint.adversarial(surrogate, attack), _place(blueprint, image)
    try:
        rows = table.read_chunk(blueprint.store, chunk, blueprint.rows[chunk])
        return np.asarray(adversarial_images(rows)[row])
    except (OSError, KeyError, pa.ArrowException) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise  # the disk or the store failed, not the file
        message = f"{table.folder} is damaged ({reason_of(problem)}); delete this folder and run again"
        raise RunFailed(message) from problem


def _place(blueprint: Blueprint, image: int) -> tuple[int, int]:
    """The chunk in which an image lies, and its row there."""
    for number, rows in enumerate(blueprint.chunks):
        if image in rows:
            return number, image - rows.start
    raise IndexError(image)


def _picture(pixels: npt.NDArray[np.integer]) -> str:
    """Pixels [C, H, W] as the address of a PNG image that holds them. Values beyond 8 bits are cut off."""
    bytes_CHW = np.clip(pixels, 0, 255).astype(np.uint8)
    picture = Image.fromarray(bytes_CHW[0] if len(bytes_CHW) == 1 else bytes_CHW.transpose(1, 2, 0))
    content = io.BytesIO()
    picture.save(content, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
