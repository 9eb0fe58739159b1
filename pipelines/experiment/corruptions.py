"""The corruptions that an experiment file names."""

from collections.abc import Mapping

from align_core.corruptions.known import CORRUPTIONS, check_corruption
from align_core.errors import InputError
from pipelines.experiment.explain import nearest

_ALL = "all"


def checked_corruptions(written: dict[str, list[int]]) -> dict[str, list[int]]:
    """The severities of each corruption in their order; `all` stands for those that are not named.

    Raises ValueError for a name or a severity that there is not, for none, and for one that is named twice.
    """
    for name, severities in written.items():
        if name not in (*CORRUPTIONS, _ALL):
            raise ValueError(f"there is no corruption {name!r}{nearest(name, [*CORRUPTIONS, _ALL])}")
        if not severities:
            raise ValueError(f"{name}: name at least one severity from 1 to 5, such as [1, 3, 5]")
        for severity in severities:
            try:
                check_corruption(next(iter(CORRUPTIONS)) if name == _ALL else name, severity)
            except InputError as problem:
                raise ValueError(f"{name}: {problem}") from problem
        twice = [own for own in severities if severities.count(own) > 1]
        if twice:
            raise ValueError(f"{name}: severity {twice[0]} is named twice")
    return {name: sorted(severities) for name, severities in written.items()}


def each_corruption(written: Mapping[str, list[int]], channels: int) -> dict[str, list[int]]:
    """The severities of each corruption that changes images of so many channels, in the order of the list of all.

    Raises InputError for one that is named and leaves them as they are; `all` leaves it out.
    """
    idle = {name for name, own in CORRUPTIONS.items() if own.needs_colour and channels == 1}
    for name in written:
        if name in idle:
            raise InputError(f"corruptions: {name} leaves grey images as they are, and these are grey; leave it out")
    found = {name: written.get(name, written.get(_ALL, [])) for name in CORRUPTIONS if name not in idle}
    return {name: severities for name, severities in found.items() if severities}


def notes_on_corruptions(written: Mapping[str, list[int]], channels: int) -> list[str]:
    """A note on what `all` leaves out, as it leaves images of so many channels as they are."""
    names = [name for name, own in CORRUPTIONS.items() if own.needs_colour and channels == 1 and _ALL in written]
    return [f"corruptions: {name} is left out of `all`: it leaves grey images as they are" for name in names]
