"""What `witness verify` found, and what it took for granted."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.compute.loading import LoadedNetworks
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.differences import differences
from pipelines.storage.store import fingerprint_of

UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError, pa.ArrowException)
"""Whatever a file that was damaged, or that someone else wrote, can raise when it is read."""


def problem_of_settings(table: ChunkedTable, about: Mapping[str, Any]) -> str | None:
    """What is wrong with the settings that a finished file records about itself; None where its name stands for them.

    Args:
        about: what `table.about` returned.
    """
    if about.get("fingerprint") == table.fingerprint == fingerprint_of(about["inputs"]):
        return None
    differ = differences(about["inputs"], table.inputs, table.names)
    return f"the settings recorded in the file are not those that its name stands for{f' ({differ})' if differ else ''}"


@dataclass
class Verification:
    """The result of a check.

    Attributes:
        findings: what was found wrong, a sentence each that begins with the folder, network or image set.
        checked: how many images, networks, tables, rows, repeated predictions and files of the report were checked.
        trusted: what was not checked, in words.
    """

    findings: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    trusted: list[str] = field(default_factory=list)

    def report(self, finding: str) -> None:
        """Adds what was found wrong, a sentence that begins with the folder, network or image set."""
        self.findings.append(finding)

    def lines(self) -> list[str]:
        """The lines that `witness verify` prints."""
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.checked.items())
        problems = len(self.findings)
        total = f"{problems} problem{'s' if problems > 1 else ''} found" if problems else "no problem found"
        return [
            *(f"problem: {finding}" for finding in self.findings),
            *(f"trusted without a check: {what}" for what in self.trusted),
            f"checked: {counts}; {total}",
        ]

    def as_json(self) -> dict[str, Any]:
        """The object that `witness verify --json` prints."""
        return {"findings": self.findings, "checked": dict(self.checked), "trusted": self.trusted}


@dataclass(frozen=True)
class Repetition:
    """How results are computed again, to be compared with those that are stored.

    Attributes:
        networks: load the networks.
        unreadable: the networks that cannot be loaded, of which nothing is repeated.
        sample: number of images of each set for which it is done.
        rng: draws these images.
    """

    networks: LoadedNetworks
    unreadable: set[str]
    sample: int
    rng: np.random.Generator

    def draw(self, images: int) -> list[int]:
        """Positions of the sample of so many images: one from each of as many equal parts as there are to be drawn, so
        that it is spread over all chunks."""
        edges = np.linspace(0, images, min(self.sample, images) + 1).round().astype(int)
        return [int(self.rng.integers(low, high)) for low, high in pairwise(edges)]
