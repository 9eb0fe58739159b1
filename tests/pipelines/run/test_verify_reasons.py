"""`witness verify` measures reasons again, and names the tables in which someone edited them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from damaged_tables import findings, results, rewrite, table, verified, written
from hand_made import HandMade
from reasons_by_hand import SAMPLE, reasoned

OWN, COMPARED = 3 * 5 + 2 * 2 + 2 * 7, 9


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    settings: dict[str, Any] = {"targets": ["twin", "squeezed"], "controls": []}
    return reasoned(tmp_path_factory.mktemp("reasons"), **settings)


@pytest.fixture
def made(original: HandMade) -> Iterator[HandMade]:
    """An experiment whose reasons a test may damage."""
    before = {file: file.read_bytes() for file in (results(original) / "reasons").rglob("*.parquet")}
    yield original
    for file, content in before.items():
        file.write_bytes(content)


def test_every_reason_is_measured_again_and_nothing_is_taken_for_granted(made: HandMade) -> None:
    found = verified(made)
    assert found.findings == []
    soft = 1 + 2 * 2
    assert found.checked["reasons measured again"] == SAMPLE * (3 * (OWN + 3 * COMPARED) + soft)
    assert not any("reasons" in line for line in found.trusted)


def test_what_was_not_drawn_is_said(made: HandMade) -> None:
    assert "the reasons of all but 4 of the 8 images of their sample" in verified(made, sample=4).trusted
    none = verified(made, sample=0)
    assert "the reasons of all of the 8 images of their sample" in none.trusted
    assert "reasons measured again" not in none.checked


def first(change: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Changes the first value of a column."""

    def changed(values: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(values)) < 1, change(values), values)

    return changed


@pytest.mark.parametrize(
    ("folder", "column", "change", "said"),
    [
        ("aligned/@self", "loss_along/0.5", first(lambda own: own + 0.5), "1 of 8 images"),
        ("source/@self", "curvature/random", first(lambda own: 3 * own), "1 of 8 images"),
        ("aligned/@self", "gradient_l2/clean", lambda own: own * 1.1, "images"),
        ("aligned/seer", "agreement/clean", np.logical_not, "8 of 8 images"),
        ("warm/twin", "cosine/attacked", lambda own: -own, "images"),
        ("warm/squeezed", "cosine/clean", lambda own: np.zeros(len(own)), "8 of 8 images"),
        ("@soft/seer", "entropy/16", first(lambda own: own - 0.5), "1 of 8 images"),
    ],
)
def test_an_edited_reason_is_found(
    made: HandMade, folder: str, column: str, change: Callable[[np.ndarray], Any], said: str
) -> None:
    rewrite(table(made, f"reasons/{folder}"), column, change)
    (found,) = [line for line in verified(made).findings if line.startswith("reasons/")]
    assert found.startswith(f"reasons/{folder}: {column} of ") and f"{said} is measured differently now: 0" in found


def test_rounding_is_no_difference(made: HandMade) -> None:
    """Other hardware rounds otherwise, and an ascent in the direction of signs may end a little elsewhere."""
    file = table(made, "reasons/aligned/@self")
    rewrite(file, "loss/clean", lambda own: own * 1.0005)
    rewrite(file, "largest_linearity/random", lambda own: own * 1.02)
    assert "measured differently" not in findings(made)


def test_a_column_that_is_missing_or_holds_text_is_named(made: HandMade) -> None:
    file = table(made, "reasons/aligned/twin")
    source = pq.ParquetFile(file)
    groups = [len(source.read_row_group(index)) for index in range(source.num_row_groups)]
    written(file, source.read().drop_columns(["cosine/clean"]), groups, source.schema_arrow.metadata)
    text: Path = table(made, "reasons/warm/twin")
    rewrite(text, "divergence/clean", lambda own: [f"about {value}" for value in own])
    found = findings(made)
    assert "reasons/aligned/twin: its columns are not those that are measured" in found
    assert "reasons/warm/twin: divergence/clean holds no numbers" in found


def test_a_surrogate_whose_images_are_damaged_is_named_and_the_others_are_measured(made: HandMade) -> None:
    images = table(made, "adversarial/aligned/pgd")
    whole = images.read_bytes()
    try:
        images.write_bytes(whole[:-200])
        found = verified(made)
    finally:
        images.write_bytes(whole)
    assert any(line.startswith("reasons/aligned/@self: its images cannot be read") for line in found.findings)
    assert found.checked["reasons measured again"] == SAMPLE * (2 * (OWN + 3 * COMPARED) + 5)
