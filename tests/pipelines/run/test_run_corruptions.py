"""`witness run` with corruptions on Ray: what surrogates predict, what stays, going on, and what `verify` finds."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from digits_experiment import Finished, assert_same_tables

from align_core.corruptions.corrupt import corrupted
from align_core.corruptions.known import Corruption
from pipelines.compute.loading import LoadedNetworks
from pipelines.run.command import run
from pipelines.run.forecast import make_forecast
from pipelines.run.request import Request, open_blueprint
from pipelines.run.status import status_of
from pipelines.run.verify import verify_experiment
from pipelines.stages.payload import network_loader
from pipelines.stages.payload import test_images as images_of

ADDED = ("corruptions={gaussian_noise: [3], contrast: [5]}",)


@pytest.fixture(scope="module")
def added(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Path, dict[str, int]]:
    """The finished digits experiment, to which corruptions were added afterwards, and what that run made."""
    request, folder = finished.copied(tmp_path_factory.mktemp("corrupted"), overrides=ADDED)
    return request, folder, run(request).made


def test_corruptions_are_added_to_what_is_there(added: tuple[Request, Path, dict[str, int]]) -> None:
    request, _, made = added
    blueprint = open_blueprint(request)
    names = {blueprint.clean_name(own) for own in blueprint.surrogates}
    assert {pair[1] for pair in blueprint.corrupted()} == names
    assert made == {"align": 0, "craft": 0, "evaluate": 2 * len(names) * len(blueprint.rows), "report": 1}
    status = status_of(request)
    assert status.is_done and {entry.group for entry in status.entries} >= {("evaluate", "corrupted images")}
    assert make_forecast(request).as_json()["tables"] >= 2 * len(names)


def test_predictions_are_those_of_the_network_on_the_corrupted_images(
    added: tuple[Request, Path, dict[str, int]],
) -> None:
    blueprint = open_blueprint(added[0])
    images, networks = images_of(blueprint), LoadedNetworks(network_loader(blueprint), "cpu")
    manifest = blueprint.inspected.manifests["test"]
    clean = np.concatenate([images.read(chunk) for chunk in range(len(images.chunks))])
    for corruption in (Corruption("gaussian_noise", 3), Corruption("contrast", 5)):
        pixels = torch.from_numpy(corrupted(clean, manifest.ids, corruption, blueprint.experiment.seed)) / 255
        members, table = blueprint.corrupted()[corruption, "aligned"]
        with torch.no_grad():
            expected = networks.mean_of(members)(pixels).argmax(dim=1).numpy()
        rows = table.read(blueprint.store, ["image_id", "prediction"])
        assert rows["image_id"].to_pylist() == list(manifest.ids)
        assert (rows["prediction"].to_numpy() == expected).mean() > 0.98


def test_a_table_that_was_lost_is_made_again_as_it_was(
    added: tuple[Request, Path, dict[str, int]], tmp_path: Path
) -> None:
    request, folder, _ = added
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "corrupted/contrast-5/aligned")
    again = Request(request.source, ADDED, output=str(tmp_path), quiet=True)
    made = run(again, ("evaluate",)).made
    assert made == {"evaluate": len(open_blueprint(again).rows)}
    assert_same_tables(folder / "corrupted", copy / "corrupted")


def test_verify_repeats_predictions_on_corrupted_images(
    added: tuple[Request, Path, dict[str, int]], tmp_path: Path
) -> None:
    request, folder, _ = added
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    again = Request(request.source, ADDED, output=str(tmp_path), quiet=True)
    assert verify_experiment(again, sample=1000).findings == []
    (file,) = (copy / "corrupted/gaussian_noise-3/aligned").glob("*.parquet")
    table = pq.read_table(file)
    others = pa.array((table["prediction"].to_numpy() + 1) % 10)
    changed = table.set_column(table.column_names.index("prediction"), "prediction", others)
    pq.write_table(changed, file)
    assert any(
        "corrupted/gaussian_noise-3/aligned" in problem for problem in verify_experiment(again, sample=1000).findings
    )
