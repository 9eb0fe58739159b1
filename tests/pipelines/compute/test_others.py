"""Images that attacks mix in come from the image set, whatever chunk a worker has in its hands."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_made import IMAGES, HandMade, hand_made
from one_worker import crafter_of

from pipelines.compute import others
from pipelines.compute.images import adversarial_images
from pipelines.compute.others import pool_of
from pipelines.stages.craft import CraftItem
from pipelines.stages.payload import others_pool

ATTACKS = {name: {"method": name, "eps": "8/255", "steps": 3} for name in ("admix", "usmm")}


def crafted_in_chunks_of(size: int, experiment: HandMade, attack: str) -> np.ndarray:
    """All adversarial images, crafted on the source by a worker, chunk after chunk."""
    experiment.write(attacks=ATTACKS, compute={"chunk": size})
    blueprint = experiment.blueprint()
    crafter, found = crafter_of(blueprint), []
    table = crafter.job.tables[f"source/{attack}"]
    for chunk, rows in enumerate(blueprint.rows):
        item = CraftItem(surrogate="source", attack=attack, chunk=chunk, clean=crafter.job.images.read(chunk))
        assert crafter(item)["made"]
        found.append(adversarial_images(table.read_chunk(blueprint.store, chunk, rows)))
    return np.concatenate(found)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_chunk_has_no_influence_on_what_is_mixed_in(
    tmp_path: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = hand_made(tmp_path)
    whole = crafted_in_chunks_of(IMAGES, experiment, attack)
    assert np.array_equal(crafted_in_chunks_of(5, experiment, attack), whole)
    monkeypatch.setattr(others, "_MOST", 1)
    assert not np.array_equal(crafted_in_chunks_of(5, experiment, attack), whole)  # what is mixed in does count


def test_the_pool_is_drawn_by_seed_and_id_and_not_by_the_order_of_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "_MOST", 5)
    blueprint = hand_made(tmp_path).blueprint()
    manifest, data, seed = blueprint.inspected.manifests["test"], blueprint.experiment.data, blueprint.experiment.seed
    pool = others_pool(blueprint)
    order = np.random.default_rng(0).permutation(len(manifest))
    ids, contents = ([values[row] for row in order] for values in (manifest.ids, manifest.contents))
    listed = replace(manifest, ids=ids, contents=contents, labels=manifest.labels[order])
    assert pool_of("data.test", listed, data.test, data.fit, seed) == pool
    assert len(set(pool.image_ids)) == 5
    assert [pool.labels, pool.contents] == [
        tuple(values[manifest.ids.index(own)] for own in pool.image_ids)
        for values in (manifest.labels.tolist(), manifest.contents)
    ]
    assert set(pool_of("data.test", manifest, data.test, data.fit, seed + 1).image_ids) != set(pool.image_ids)


def test_the_pool_of_a_set_that_was_inspected_by_its_bytes(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path).blueprint()
    manifest, data = blueprint.inspected.manifests["test"], blueprint.experiment.data
    by_bytes = replace(manifest, contents=manifest.originals), replace(data.test, inspect="bytes")
    one, other = (
        pool_of("data.validation", known, config, data.fit, 0).read("cpu")
        for known, config in ((manifest, data.test), by_bytes)
    )
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
