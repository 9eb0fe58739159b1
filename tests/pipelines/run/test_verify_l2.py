"""`witness verify` on attacks in the l2 ball: ours and the user's own."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import attacks_by_hand
import numpy as np
import pyarrow as pa
import pytest
from crafted_by_hand import crafted
from hand_made import HandMade

from pipelines.compute.images import adversarial_images
from pipelines.run.request import Request
from pipelines.run.verify import verify_experiment
from pipelines.stages.payload import test_images as images_of

EPS = 0.25  # 63.75 levels
ATTACKS = {
    "ours": {"method": "pgd", "norm": "l2", "eps": EPS, "step": 0.1, "steps": 4},
    "theirs": {"method": "python:attacks_by_hand:outwards", "norm": "l2", "eps": EPS},
}
Pixels = np.ndarray


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(attacks_by_hand.__file__, tmp_path)
    return crafted(tmp_path, attacks=ATTACKS)


def findings(made: HandMade) -> str:
    return "\n".join(verify_experiment(Request(made.file, quiet=True)).findings)


def change_an_image(made: HandMade, attack: str, changed: Callable[[Pixels], Pixels]) -> None:
    """Changes the second image that was crafted on the source, to a function of the clean one: int64 [1, 8, 8]."""
    blueprint = made.blueprint()
    table, store = blueprint.all_adversarial()["source", attack], blueprint.store
    chunks = [table.read_chunk(store, number, rows) for number, rows in enumerate(blueprint.rows)]
    pixels = np.array(adversarial_images(chunks[0]))
    pixels[1] = changed(np.asarray(images_of(blueprint).read(0))[1].astype(np.int64))
    column = chunks[0].schema.get_field_index("image")
    chunks[0] = chunks[0].set_column(column, "image", pa.FixedShapeTensorArray.from_numpy_ndarray(pixels))
    store.delete(table.finished_file)
    for number, rows in enumerate(chunks):
        table.write_chunk(store, number, rows)
    assert table.finish(store, blueprint.rows) == []


def one_pixel(clean: Pixels) -> Pixels:
    """Its first pixel goes as far as it can, by 128 levels at least."""
    clean[0, 0, 0] = 255 if clean[0, 0, 0] < 128 else 0
    return clean


def every_pixel(by: int) -> Callable[[Pixels], Pixels]:
    """All 64 pixels go by some levels: by 8 times as many in l2."""
    return lambda clean: clean + np.where(clean < 128, by, -by)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_crafted_in_an_l2_ball_lies_in_it(made: HandMade, attack: str) -> None:
    assert findings(made) == ""
    change_an_image(made, attack, every_pixel(7))  # 56 levels
    found = findings(made)
    assert f"adversarial/source/{attack}: 1 images of chunk 0 are not at the distance recorded in `l2`: 00005" in found
    assert "lie outside" not in found


@pytest.mark.parametrize("changed", [one_pixel, every_pixel(8)], ids=["one pixel", "every pixel"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_lies_outside_is_named(made: HandMade, attack: str, changed: Callable[[Pixels], Pixels]) -> None:
    change_an_image(made, attack, changed)
    outside = f"adversarial/source/{attack}: 1 images of chunk 0 lie outside the l2 ball of 0.25: 00005"
    assert outside in findings(made)
