"""The table in pipelines/FINGERPRINTS.md says of every key of the experiment file which fingerprints it changes."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fingerprint_table import (
    FILE,
    ROWS,
    Fingerprints,
    as_markdown,
    changed_by,
    expected_keys,
    fingerprints,
    read_table,
)
from PIL import Image
from tiny_experiment import write_tiny_experiment

from pipelines.run.request import Request, open_blueprint
from pipelines.storage.store import fingerprint_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment, with more images, another aligned model, and two models fetched from a registry."""
    folder = tmp_path_factory.mktemp("table")
    write_tiny_experiment(folder)
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "more.npz", images=images[:4], labels=np.arange(4) % 3)
    for name, label in (("ape", 0), ("bee", 1)):
        (folder / "more" / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(images[4 - 2 * label + index]).save(folder / "more" / name / f"{index}.png")
    (folder / "names.txt").write_text("ape\nbee\ncow\n")
    (folder / "more.csv").write_text("path,label\nape/0.png,0\nbee/1.png,1\n")
    (folder / "more_again.csv").write_text("path,label\nape/0.png,0\nbee/1.png,2\n")
    shutil.copytree(folder / "aligned", folder / "aligned_again")
    shutil.copy(folder / "d.safetensors", folder / "aligned_again" / "model.safetensors")
    for version, stored in ((1, "aligned"), (2, "aligned_again")):
        name = fingerprint_of([f"models:/n/{version}", "http://host:2"])
        shutil.copytree(folder / stored, folder / "runs" / "tiny" / ".seen" / f"registered-{name}")
    return folder


@pytest.fixture(scope="module")
def fingerprints_with(folder: Path) -> Iterator[Callable[[str], Fingerprints]]:
    """Measures those of the experiment with some settings, such as "seed=1;targets=[a, b]", once for all rows."""

    @cache
    def measured(settings: str) -> Fingerprints:
        blueprint = open_blueprint(Request(folder / "tiny.yaml", settings.split(";"), quiet=True))
        blueprint.inspected.save(blueprint.store)  # so that models which a row leaves alone are tried once
        return fingerprints(blueprint)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", "http://host:2")
        patch.setattr(sys, "path", list(sys.path))
        yield measured


def test_every_key_has_a_row() -> None:
    """A key that is added needs a row in `fingerprint_table.ROWS`, and the table has to be written anew."""
    assert {row.partition(" ")[0] for row in ROWS} == expected_keys()
    assert "WITNESS_WRITE_TABLE" in os.environ or set(read_table()) == set(ROWS)


@pytest.mark.skipif("WITNESS_WRITE_TABLE" in os.environ, reason="the table is written, not read")
@pytest.mark.parametrize("row", ROWS)
def test_the_row_of_a_key_is_what_is_measured(row: str, fingerprints_with: Callable[[str], Fingerprints]) -> None:
    assert changed_by(row, fingerprints_with) == read_table()[row]


@pytest.mark.skipif("WITNESS_WRITE_TABLE" not in os.environ, reason="only when it is asked for")
def test_the_table_is_written(fingerprints_with: Callable[[str], Fingerprints]) -> None:
    FILE.write_text(as_markdown({row: changed_by(row, fingerprints_with) for row in ROWS}))
    assert set(read_table()) == set(ROWS)
