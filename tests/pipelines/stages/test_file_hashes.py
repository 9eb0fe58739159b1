"""Weights are hashed by whoever computes with them, and trusted by size and time by whoever only looks."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hand_made import CLASSES, hand_made
from safetensors.torch import load_file, save_file

from align_core.errors import InputError
from pipelines import run_experiment
from pipelines.cli import main
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.file_hashes import FileHashes
from pipelines.stages.payload import network_loader
from pipelines.storage.store import Store


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def rewritten_unseen(file: Path, content: bytes) -> None:
    """Changes a file whose size and modification time stay the same."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def negative(file: Path) -> bytes:
    from safetensors.torch import save

    return save({name: -value for name, value in load_file(file).items()})


def opened(file: Path, **options: bool) -> Blueprint:
    blueprint = open_blueprint(Request(file, quiet=True), **options)
    blueprint.inspected.save(blueprint.store)
    return blueprint


def test_weights_that_changed_unseen_are_found_by_a_run_and_not_by_status(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path)
    before = opened(experiment.file).networks["near"].digest
    rewritten_unseen(tmp_path / "near.safetensors", negative(tmp_path / "near.safetensors"))
    assert opened(experiment.file).networks["near"].digest == before  # as `witness status` and `plan`
    now = opened(experiment.file, to_write=True).networks["near"].digest  # as `witness run`
    assert now != before
    assert opened(experiment.file).networks["near"].digest == now  # known from then on
    rewritten_unseen(tmp_path / "near.safetensors", negative(tmp_path / "near.safetensors"))
    assert opened(experiment.file, trusting=False).networks["near"].digest == before  # as `witness verify`


def test_weights_that_a_library_supplies_are_read_again_by_a_run(tmp_path: Path) -> None:
    """timm reads those of `local-dir:` from a folder that nothing here looks into."""
    net = timm.create_model("test_resnet", num_classes=CLASSES, in_chans=1)
    timm.models.save_for_hf(net, str(tmp_path / "hub"), model_config={"num_classes": CLASSES})
    experiment = hand_made(tmp_path)
    library = {"timm": f"local-dir:{tmp_path}/hub", "weights": "pretrained", "input_size": 16}
    experiment.write(models=experiment.content()["models"] | {"twin": library})
    before = opened(experiment.file, to_write=True).networks["twin"].digest
    for file in (tmp_path / "hub").glob("*.bin"):
        torch.save({name: own + 0.25 for name, own in torch.load(file, weights_only=True).items()}, file)
    for file in (tmp_path / "hub").glob("*.safetensors"):
        save_file({name: own + 0.25 for name, own in load_file(file).items()}, file)
    assert opened(experiment.file).networks["twin"].digest == before  # as `witness status` and `plan`
    for _ in range(2):
        blueprint = opened(experiment.file, to_write=True)
        assert blueprint.networks["twin"].digest != before
        network_loader(blueprint).load("twin", "cpu")  # as workers do


def test_tensors_that_changed_places_are_other_weights(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path)
    experiment.finish()
    file = tmp_path / "cousin.safetensors"
    state = load_file(file)
    one, two = state["1.bias"].clone(), state["2.bias"].clone()  # both of three numbers
    save_file({name: value.clone() for name, value in state.items()} | {"1.bias": two, "2.bias": one}, file)
    changed = opened(experiment.file, to_write=True)
    assert {folder.rpartition("/")[2] for folder in changed.missing("run")} == {"cousin"}


def test_weights_that_are_damaged_unseen_are_refused_by_a_run(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path)
    opened(experiment.file)
    file = tmp_path / "near.safetensors"
    rewritten_unseen(file, b"\0" * file.stat().st_size)
    with pytest.raises(InputError, match=r"models\.near: .*near\.safetensors: cannot be read as weights"):
        opened(experiment.file, to_write=True)


def test_a_model_is_not_tried_again_where_only_the_time_or_the_path_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = hand_made(tmp_path)
    digests = {name: network.digest for name, network in opened(experiment.file).networks.items()}
    os.utime(tmp_path / "near.safetensors", (1, 1))
    (tmp_path / "other.safetensors").rename(tmp_path / "moved.safetensors")
    models = experiment.content()["models"]
    models["other"]["weights"] = "moved.safetensors"
    experiment.write(models=models)
    for step in ("try_it", "look"):
        monkeypatch.setattr(f"pipelines.stages.inspect_models._Model.{step}", None)
    assert {name: network.digest for name, network in opened(experiment.file).networks.items()} == digests


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"X": 5}', b'{"X": [1]}', b'{"X": ["a", "b", "c"]}'])
def test_a_damaged_record_is_made_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    store = Store(str(tmp_path), "x")
    store.write(".seen/files.json", content.replace(b"X", str(file).encode()))
    hashes = FileHashes(store, trusting=True)
    assert hashes.of_file(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert json.loads(hashes.unsaved()[".seen/files.json"])[str(file)][2].startswith("ba7816bf")
    assert hashes.of_file(tmp_path / "gone") is None


def test_a_damaged_network_of_ours_is_missing_to_a_run_and_there_to_status(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path)
    blueprint = experiment.finish()
    file = Path(blueprint.store.path("models/aligned/model.safetensors"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    rewritten_unseen(file, bytes(content))
    assert opened(experiment.file).is_made("aligned")
    found = opened(experiment.file, to_write=True)
    assert found.missing("align") == ["aligned"] and found.damaged == {"aligned"}
    file.unlink()
    assert opened(experiment.file, to_write=True).missing("align") == ["aligned"]


def test_a_card_without_the_hash_of_its_file_is_believed(tmp_path: Path) -> None:
    """Cards of earlier versions have none."""
    experiment = hand_made(tmp_path)
    blueprint = experiment.finish()
    card = blueprint.store.read_json("models/aligned/card.json") or {}
    del card["file"]
    blueprint.store.write_json("models/aligned/card.json", card)
    assert not opened(experiment.file, to_write=True).missing("align")


def change_an_image_unseen(folder: Path) -> None:
    file, other = folder / "images.npz", folder / "other.npz"
    content = dict(np.load(file))
    content["images"][5] ^= 1
    np.savez(other, **content)
    rewritten_unseen(file, other.read_bytes())


def test_images_that_changed_unseen_are_found_with_rehash_alone(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path)
    before = opened(experiment.file).inspected.manifests["test"].digest
    change_an_image_unseen(tmp_path)
    assert opened(experiment.file, to_write=True).inspected.manifests["test"].digest == before
    request = Request(experiment.file, quiet=True, rehash=True)
    assert open_blueprint(request, to_write=True).inspected.manifests["test"].digest != before


def test_the_flag_rehash_reaches_the_inspection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = hand_made(tmp_path)
    blueprint = experiment.finish()
    blueprint.inspected.save(blueprint.store)
    change_an_image_unseen(tmp_path)
    assert main(["report", str(experiment.file)]) == 0
    assert "There are none: data.test: " in (experiment.report / "report.html").read_text()  # no example images
    assert main(["report", str(experiment.file), "--rehash"]) == 1
    assert "`witness craft` has to come first" in capsys.readouterr().err


def test_the_flag_reaches_the_inspection_of_a_sweep_and_from_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are refused after the images were read, so that nothing is computed."""
    experiment = hand_made(tmp_path)
    opened(experiment.file)
    twin = ["models.twin.weights=near.safetensors"]
    held_out = ["validation_targets=[stranger]", "targets=[twin, cousin]"]
    held_out += ["data.train.take=[0, 2]", "data.validation={kind: npz, path: images.npz, take: [2, 4]}"]
    settings = [part for own in (*twin, *held_out) for part in ("--set", own)]
    tune = ["tune", str(experiment.file), "--space", "temperature", "--samples", "1", *settings]
    for rehash in (False, True):
        capsys.readouterr()
        assert main([*tune, *(["--rehash"] if rehash else [])]) == 2
        with pytest.raises(InputError, match="twin has the same weights as near"):
            run_experiment(experiment.file, overrides=twin, quiet=True, rehash=rehash)
        assert capsys.readouterr().err.count("inspect data.test: 12 images") == (2 if rehash else 0)


class TestFactories:
    NET = "from torch import nn\nimport {name}_layers\n\ndef linear(width):\n    return {name}_layers.net(width)\n"
    LAYERS = (
        "from torch import nn\n\ndef net(width):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), "
        f"nn.Linear(width, {CLASSES}))\n"
    )

    def made(self, folder: Path, name: str) -> Path:
        """The experiment whose source alone comes from a factory of two modules."""
        (folder / f"{name}.py").write_text(self.NET.format(name=name))
        (folder / f"{name}_layers.py").write_text(self.LAYERS)
        experiment = hand_made(folder)
        models = experiment.content()["models"]
        models["near"]["factory"] = f"{name}:linear"
        experiment.write(models=models)
        return experiment.file

    def prints(self, blueprint: Blueprint) -> dict[str, str]:
        tables = {table.folder: table.fingerprint for table in blueprint.all_adversarial().values()}
        tables |= {own.table.folder: own.table.fingerprint for own in blueprint.clean().values()}
        makings = {making.folder: making.fingerprint for making in blueprint.alignments()}
        return tables | makings

    def test_code_changes_what_depends_on_it_and_a_comment_nothing(self, tmp_path: Path) -> None:
        file = self.made(tmp_path, "nets_of_a_user")
        before = self.prints(opened(file))
        layers = tmp_path / "nets_of_a_user_layers.py"
        layers.write_text(f"# A comment.\n{self.LAYERS}")
        assert self.prints(opened(file)) == before
        layers.write_text(self.LAYERS.replace("nn.Linear(64, width)", "nn.Linear(64, width), nn.ReLU()"))
        changed = {folder for folder, own in self.prints(opened(file)).items() if own != before[folder]}
        crafted = {folder for folder in before if folder.startswith("adversarial/") and "witness" not in folder}
        assert changed == {"models/aligned", "clean/near", "clean/aligned"} | crafted

    def test_a_run_refuses_code_that_this_process_imported_before_it_changed(self, tmp_path: Path) -> None:
        file = self.made(tmp_path, "nets_of_a_notebook")
        opened(file, to_write=True)
        layers = tmp_path / "nets_of_a_notebook_layers.py"
        layers.write_text(self.LAYERS + "x = 1\n")
        opened(file)
        with pytest.raises(
            InputError, match=r"models\.near: .*the code of .* has changed since .* start a new process"
        ):
            opened(file, to_write=True)
        layers.write_text(self.LAYERS)
        opened(file, to_write=True)

    def test_an_aligned_model_has_the_code_of_its_factory_as_it_is_here(self, tmp_path: Path) -> None:
        file = self.made(tmp_path, "nets_of_a_card")
        folder = tmp_path / "earlier"
        folder.mkdir()
        card = {"model": {"factory": "nets_of_a_card:linear", "args": {"width": 7}, "weights": "gone"}}
        (folder / "card.json").write_text(json.dumps(card))
        torch.manual_seed(7)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7), torch.nn.Linear(7, CLASSES))
        save_file(net.state_dict(), folder / "model.safetensors")
        request = Request(file, ["models.seer={aligned: earlier}"], quiet=True)
        before = open_blueprint(request).networks["seer"]
        assert list(before.code or {}) == ["nets_of_a_card", "nets_of_a_card_layers"]
        (tmp_path / "nets_of_a_card.py").write_text(self.NET.format(name="nets_of_a_card") + "x = 1\n")
        assert open_blueprint(request).networks["seer"].identity != before.identity
