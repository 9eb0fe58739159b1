"""The corruptions that an experiment file names."""

from align_core.corruptions.known import CORRUPTIONS, check_corruption

_ALL = "all"


def each_corruption(written: dict[str, list[int]]) -> dict[str, list[int]]:
    """The severities of each corruption, in the order of the list of all; `all` stands for those that are not named.

    Raises ValueError for a name or a severity that there is not, for none, and for one that is named twice.
    """
    for name, severities in written.items():
        if not severities:
            raise ValueError(f"{name}: name at least one severity from 1 to 5, such as [1, 3, 5]")
        for severity in severities:
            check_corruption(next(iter(CORRUPTIONS)) if name == _ALL else name, severity)
        twice = [own for own in severities if severities.count(own) > 1]
        if twice:
            raise ValueError(f"{name}: severity {twice[0]} is named twice")
    found = {name: written.get(name, written.get(_ALL, [])) for name in CORRUPTIONS}
    return {name: sorted(severities) for name, severities in found.items() if severities}
