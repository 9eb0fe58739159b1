"""What determines a training: the images' pixels or, where it crops the original pictures, those."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hand_made import hand_made
from PIL import Image

from pipelines.experiment import factories
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.makings import Making

FREEZING = """

def partly_frozen(width):
    network = linear(width)
    network[1].requires_grad_(False)
    return network
"""
ORIGINALS = "align.augment.crop=random_resized"


def making(blueprint: Blueprint, name: str) -> Making:
    return next(making for making in (*blueprint.trainings(), *blueprint.alignments()) if making.name == name)


@pytest.fixture
def planned(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Blueprint]:
    """Makes the blueprint of the tiny experiment, trained on a folder of two pictures wider than high."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "wide/0").mkdir(parents=True)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"wide/0/{number}.png")
    train = [f"data.train={{kind: folder, path: {tmp_path / 'wide'}}}"]
    return lambda *settings: open_blueprint(Request(tiny_folder / "tiny.yaml", [*train, *settings], quiet=True))


def paint_the_margin(folder: Path) -> None:
    """Changes what no centre crop of the first picture shows."""
    with Image.open(folder / "wide/0/0.png") as picture:
        picture.paste((1, 2, 3), (0, 0, 4, 8))
        picture.save(folder / "wide/0/0.png")


def test_crops_of_the_originals_depend_on_what_the_centre_crop_does_not_show(
    planned: Callable[..., Blueprint], tmp_path: Path
) -> None:
    before = planned(), planned(ORIGINALS)
    paint_the_margin(tmp_path)
    after = planned(), planned(ORIGINALS)
    assert before[0].inspected.manifests["train"].digest == after[0].inspected.manifests["train"].digest
    for name, is_same in (("aligned", (True, False)), ("v", (True, False)), ("e", (True, True))):
        one, other = ([making(blueprint, name).fingerprint for blueprint in both] for both in (before, after))
        assert tuple(a == b for a, b in zip(one, other, strict=True)) == is_same, name
    training = "models.e.train.crop=random_resized"
    assert making(planned(training), "e").fingerprint != making(planned(), "e").fingerprint


def test_other_trainings_are_determined_by_pixels_alone(planned: Callable[..., Blueprint]) -> None:
    blueprint = planned()
    assert making(blueprint, "aligned").inputs["images"] == blueprint.inspected.manifests["train"].digest


@pytest.mark.parametrize(
    ("setting", "pixels_differ", "originals_differ"),
    [("data.resize=11", True, False), ("data.interpolation=bilinear", False, True), ("data.image_size=7", True, True)],
)
def test_settings_that_change_what_a_training_sees(
    planned: Callable[..., Blueprint], setting: str, pixels_differ: bool, originals_differ: bool
) -> None:
    """The pictures have the image size, so that without `resize` they are not interpolated."""
    for crop, differs in (("align.augment.crop=none", pixels_differ), (ORIGINALS, originals_differ)):
        seen = [making(planned(crop, *more), "aligned").inputs["images"] for more in ((), (setting,))]
        assert (seen[0] != seen[1]) is differs


def test_what_was_found_before_there_were_originals_is_found_anew(planned: Callable[..., Blueprint]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.stages.manifest_file import inspection_from_bytes

    blueprint = planned()
    config = blueprint.experiment.data.train
    contents = [content for path, content in blueprint.inspected.unsaved.items() if "/images-" in path]
    found = [own for own in map(lambda content: inspection_from_bytes(content, config), contents) if own is not None]
    originals = blueprint.inspected.manifests["train"].originals
    assert originals in [own.originals for own in found]
    table = pq.read_table(pa.BufferReader(contents[0]))
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns(["original"]), sink)
    assert inspection_from_bytes(bytes(sink.getvalue()), config) is None


def test_parameters_that_a_factory_froze_are_part_of_what_determines_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay as they are, where older versions trained them. A network without any keeps its fingerprint."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "hand_made_networks", sys)  # what was there comes back at the end
    monkeypatch.setattr(factories, "_loaded", {})
    experiment = hand_made(tmp_path)
    code = tmp_path / "hand_made_networks.py"
    code.write_text(code.read_text() + FREEZING)
    models = experiment.content()["models"]
    near = models["near"] | {"factory": "hand_made_networks:partly_frozen"}
    experiment.write(models=models | {"near": near}, variants={"v": {"source": "other"}})
    del sys.modules["hand_made_networks"]
    blueprint = experiment.blueprint()
    assert making(blueprint, "aligned").inputs["frozen"] == ["net.1.bias", "net.1.weight"]
    assert "frozen" not in making(blueprint, "v").inputs
    assert [note for note in blueprint.inspected.notes if "are frozen" in note] == [
        "models.near: 2 of its 4 parameters are frozen (1.bias, 1.weight), and stay as they are when it is trained"
    ]
    blueprint.inspected.save(blueprint.store)
    again = making(experiment.blueprint(), "aligned")  # from what is known of the model, without building it
    assert again.fingerprint == making(blueprint, "aligned").fingerprint
