"""Which images of a set are used: a range of them, the first ones, or a stratified sample."""

from collections.abc import Sequence
from hashlib import blake2b

from align_core.errors import InputError
from align_core.images.config import ImageSetConfig
from align_core.images.labels import Labels


def selected(config: ImageSetConfig, ids: Sequence[str], labels: Labels) -> list[int]:
    """The positions of the images that `take`, `limit` and `sample` select, in ascending order.

    Args:
        config: the settings.
        ids, labels: of all images of the set, in the order of the ids.

    Raises InputError where `take` exceeds the set, or no image is selected.
    """
    count = len(ids)
    first, end = config.take or (0, count)
    if config.take is not None and end > count:
        raise InputError(f"{config.path or config.kind}: `take` goes to {end}, but there are {count} images")
    positions = list(range(first, end))
    if config.limit is not None:
        positions = positions[: config.limit]
    if config.sample is not None:
        positions = stratified(positions, ids, labels, config.sample, config.sample_seed)
    if not positions:
        raise InputError(f"{config.path or config.kind}: the image set is empty")
    return positions


def stratified(positions: Sequence[int], ids: Sequence[str], labels: Labels, size: int, seed: int) -> list[int]:
    """`size` of the positions, of each class in proportion to its images, or all where there are no more.

    Within a class images are drawn in the order of a hash of the seed and the id, so that neither the order of files
    nor what else is in the set decides whether an image comes before another.
    """
    of_class: dict[object, list[int]] = {}
    for position in positions:
        of_class.setdefault(labels[position], []).append(position)
    ordered = sorted(of_class, key=lambda label: _hash(seed, "class", str(label)))
    quotas = apportioned([len(of_class[label]) for label in ordered], size)
    drawn: list[int] = []
    for label, quota in zip(ordered, quotas, strict=True):
        drawn += sorted(of_class[label], key=lambda position: _hash(seed, "image", ids[position]))[:quota]
    return sorted(drawn)


def apportioned(sizes: Sequence[int], seats: int) -> list[int]:
    """Shares `seats` out to groups in proportion to their sizes, by the method of largest remainders (Hamilton).

    Every group gets at least one seat where there are as many as groups. Of equal remainders the first group's counts
    as the largest. A group never gets more seats than its size; where all together have no more than `seats`, each gets
    its size.
    """
    if seats >= sum(sizes):
        return list(sizes)
    quotas, rest = [0] * len(sizes), list(range(len(sizes)))
    while seats >= len(sizes):  # groups whose share is below one seat get one, and the others share the rest
        left, total = seats - (len(sizes) - len(rest)), sum(sizes[group] for group in rest)
        small = {group for group in rest if sizes[group] * left < total}
        if not small:
            break
        rest = [group for group in rest if group not in small]
        for group in small:
            quotas[group] = 1
    left, total = seats - sum(quotas), sum(sizes[group] for group in rest)
    for group in rest:
        quotas[group] = sizes[group] * left // total
    by_remainder = sorted(rest, key=lambda group: -(sizes[group] * left % total))
    for group in by_remainder[: seats - sum(quotas)]:
        quotas[group] += 1
    return quotas


def _hash(seed: int, *parts: str) -> bytes:
    return blake2b("\0".join([str(seed), *parts]).encode(), digest_size=16).digest()
