"""Image sets and weights in an object store: the same experiment as with files, on whatever machine it goes on."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hand_made import HandMade, hand_made
from PIL import Image
from s3_server import KEY, SECRET, S3Server

from align_core.errors import InputError
from pipelines.cli import main
from pipelines.compute.images import opened
from pipelines.experiment.written import as_yaml
from pipelines.run.request import Request, open_blueprint
from pipelines.run.resolved import write_resolved
from pipelines.stages.blueprint import Blueprint

Uri = Callable[[str], str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("WITNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    opened.cache_clear()
    yield tmp_path / "cache"
    opened.cache_clear()


@pytest.fixture
def uri(s3: S3Server, tmp_path: Path) -> Uri:
    """The URI of a file or folder of the test's folder, which is copied into the store."""

    def copied(name: str) -> str:
        place = tmp_path / name
        for file in [place] if place.is_file() else [own for own in place.rglob("*") if own.is_file()]:
            path = f"{s3.bucket}/{tmp_path.name}/{file.relative_to(tmp_path)}"
            with s3.filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(file.read_bytes())
        return s3.uri(f"{tmp_path.name}/{name}")

    return copied


def far_away(experiment: HandMade, uri: Uri) -> dict[str, Any]:
    """The sections of the experiment, with images and weights in the store in place of the files, which are deleted."""
    content = experiment.content()
    for role in ("train", "test"):
        content["data"][role]["path"] = uri("images.npz")
    for name, model in content["models"].items():
        model["weights"] = uri(f"{name}.safetensors")
        (experiment.folder / f"{name}.safetensors").unlink()
    (experiment.folder / "images.npz").unlink()
    return content


def opened_to_run(experiment: HandMade) -> Blueprint:
    return open_blueprint(Request(experiment.file, quiet=True), to_write=True)


class TestAnExperiment:
    def test_begun_with_files_goes_on_with_copies_in_a_store(self, tmp_path: Path, uri: Uri, cache: Path) -> None:
        experiment = hand_made(tmp_path)
        before = experiment.finish()
        experiment.write(**far_away(experiment, uri))
        now = opened_to_run(experiment)
        assert now.missing("run") == [] == before.missing("run")
        assert {name: own.digest for name, own in now.networks.items()} == {
            name: own.digest for name, own in before.networks.items()
        }
        assert [own.digest for own in now.inspected.manifests.values()] == [
            own.digest for own in before.inspected.manifests.values()
        ]
        assert cache.is_dir()

    def test_is_known_without_fetching_anything(self, tmp_path: Path, uri: Uri, cache: Path) -> None:
        experiment = hand_made(tmp_path)
        experiment.write(**far_away(experiment, uri))
        blueprint = experiment.finish()
        blueprint.inspected.save(blueprint.store)
        shutil.rmtree(cache)
        assert open_blueprint(Request(experiment.file, quiet=True)).missing("run") == []  # as `status` and `plan`
        assert not cache.exists()

    def test_sees_what_changes_in_the_store(self, tmp_path: Path, uri: Uri) -> None:
        experiment = hand_made(tmp_path)
        content = dict(np.load(tmp_path / "images.npz"))
        experiment.write(**far_away(experiment, uri))
        blueprint = experiment.finish()
        blueprint.inspected.save(blueprint.store)
        np.savez(tmp_path / "images.npz", **content | {"images": content["images"] ^ 1, "more": np.zeros(1)})
        uri("images.npz")
        assert open_blueprint(Request(experiment.file, quiet=True)).missing("run")[0] == "aligned"

    def test_writes_no_credentials(self, tmp_path: Path, uri: Uri) -> None:
        experiment = hand_made(tmp_path)
        content = far_away(experiment, uri)
        content["models"]["near"] = {**content["models"]["near"], "train": {"epochs": 1}}
        experiment.write(**content)
        blueprint = experiment.finish()
        write_resolved(blueprint)
        for file in experiment.output.rglob("*"):
            if file.is_file():
                for secret in (KEY, SECRET, "not%2Ffor"):
                    assert secret.encode() not in file.read_bytes(), file
        written = (experiment.output / "by-hand" / "experiment.yaml").read_text()
        assert f"s3://bucket/{tmp_path.name}/images.npz?scheme=http" in written
        assert f"s3://bucket/{tmp_path.name}/seer.safetensors?scheme=http" in as_yaml(blueprint.experiment)

    def test_knows_what_witness_made_by_the_card_beside_it(self, tmp_path: Path, uri: Uri) -> None:
        experiment = hand_made(tmp_path)
        experiment.finish()
        folder = experiment.output / "by-hand" / "models" / "aligned"
        shutil.copytree(folder, tmp_path / "earlier")
        models, found = experiment.content()["models"], []
        for place in ("earlier/model.safetensors", uri("earlier").replace("earlier?", "earlier/model.safetensors?")):
            made = {**models["near"], "weights": place}
            experiment.write(models=models | {"made": made})
            found.append(experiment.blueprint().networks["made"].ancestors)
        assert found[0] == found[1] and found[0]


class TestImageSets:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> dict[str, dict[str, Any]]:
        """Image sets of three kinds, all with the same sixteen pictures."""
        images = np.random.default_rng(3).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir()
        encoded, lines = [], ["path,label"]
        for number, pixels in enumerate(images):
            own = tmp_path / "photos" / f"{number:02}.png"
            Image.fromarray(pixels).save(own)
            encoded.append(own.read_bytes())
            lines.append(f"{own.name},{number % 3}")
        (tmp_path / "labels.csv").write_text("\n".join(lines))
        (tmp_path / "shards").mkdir()
        for shard in range(2):
            rows = slice(8 * shard, 8 * shard + 8)
            table = {"image": encoded[rows], "label": [number % 3 for number in range(16)][rows]}
            pq.write_table(pa.table(table), tmp_path / "shards" / f"{shard}.parquet")
        return {
            "listed": {"kind": "folder", "path": "photos", "labels": "labels.csv"},
            "parquet": {"kind": "parquet", "path": "shards"},
        }

    @pytest.mark.parametrize("kind", ["listed", "parquet"])
    def test_are_the_same_as_on_a_disk(
        self, tmp_path: Path, uri: Uri, pictures: dict[str, dict[str, Any]], kind: str
    ) -> None:
        digests, experiment = [], hand_made(tmp_path)
        local = pictures[kind]
        far = {key: own if key == "kind" else uri(own) for key, own in local.items()}
        for place in (local, far):
            data = experiment.content()["data"]
            data |= {"train": {**place, "take": [0, 4]}, "test": {**place, "take": [4, 16]}, "channels": 1}
            experiment.write(data=data)
            for _ in range(2):  # found, and known
                blueprint = experiment.blueprint()
                blueprint.inspected.save(blueprint.store)
                digests.append(blueprint.inspected.manifests["test"].digest)
        assert len(set(digests)) == 1
        config = blueprint.experiment.data.test
        assert config is not None and config.path == far["path"]
        assert len(opened(config, blueprint.experiment.data.fit, 1).listing()[0]) == 16


class TestImagesMadeElsewhere:
    @pytest.fixture
    def theirs(self, tmp_path: Path) -> tuple[HandMade, list[str]]:
        """An experiment, and the places of images that were made of its test images, in every form."""
        experiment = hand_made(tmp_path)
        with np.load(tmp_path / "images.npz") as stored:
            images = stored["images"][4:] ^ 1
        ids = [f"{row:05d}" for row in range(4, 16)]
        np.savez(tmp_path / "theirs.npz", images=images[::-1], ids=ids[::-1])
        np.save(tmp_path / "theirs.npy", images)
        (tmp_path / "pictures").mkdir()
        for image_id, pixels in zip(ids, images[..., 0], strict=True):
            Image.fromarray(pixels).save(tmp_path / "pictures" / f"{image_id}.png")
        encoded = [(tmp_path / "pictures" / f"{image_id}.png").read_bytes() for image_id in ids]
        (tmp_path / "rows").mkdir()
        pq.write_table(pa.table({"image": encoded, "label": [0] * 12, "image_id": ids}), tmp_path / "rows/a.parquet")
        return experiment, ["theirs.npz", "theirs.npy", "pictures", "rows/a.parquet", "rows"]

    def test_are_taken_in_from_a_store_as_from_a_disk(
        self, theirs: tuple[HandMade, list[str]], tmp_path: Path, uri: Uri
    ) -> None:
        experiment, places = theirs
        made: dict[str, Any] = {}
        for number, place in enumerate(places):
            made[f"near{number}"] = {"images": place, "eps": "4/255"}
            made[f"far{number}"] = {"images": uri(place), "eps": "4/255"}
        attacks = experiment.content()["attacks"]
        experiment.write(attacks=attacks | made)
        blueprint = experiment.finish()  # takes them in
        assert len(set(blueprint.inspected.attacks.made.values())) == 1
        tables = {
            name: blueprint.all_adversarial()["external", name].read_chunk(blueprint.store, 0, 12) for name in made
        }
        assert all(own.equals(tables["near0"]) for own in tables.values())
        experiment.write(attacks=attacks | {name.replace("near", "far"): own for name, own in made.items()})
        again = experiment.blueprint()
        assert again.missing("craft") == []

    def test_are_known_without_fetching_anything_until_they_change(
        self, theirs: tuple[HandMade, list[str]], tmp_path: Path, uri: Uri, cache: Path
    ) -> None:
        experiment, _ = theirs
        images = np.load(tmp_path / "theirs.npy")
        np.savez(tmp_path / "plain.npz", images=images)
        far = {"images": uri("plain.npz"), "eps": "4/255"}
        experiment.write(attacks=experiment.content()["attacks"] | {"theirs": far})
        blueprint = experiment.finish()
        blueprint.inspected.save(blueprint.store)
        said = [note for note in blueprint.inspected.notes if note.startswith("attacks.theirs: the images have no ids")]
        shutil.rmtree(cache)
        again = open_blueprint(Request(experiment.file, quiet=True))
        assert again.missing("craft") == [] and set(said) < set(again.inspected.notes) and len(said) == 1
        assert not cache.exists()
        np.savez(tmp_path / "plain.npz", images=images ^ 2, more=np.zeros(1))
        uri("plain.npz")
        assert experiment.blueprint().missing("craft") != []

    def test_that_are_not_there_end_the_command(
        self, theirs: tuple[HandMade, list[str]], s3: S3Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        experiment, _ = theirs
        far = {"images": s3.uri("none.npz"), "eps": "4/255"}
        experiment.write(attacks=experiment.content()["attacks"] | {"theirs": far})
        assert main(["run", str(experiment.file)]) == 2
        said = capsys.readouterr().err
        assert f"{experiment.file}: attacks.theirs: s3://***@bucket/none.npz?" in said and KEY not in said
        assert not experiment.output.exists()

    def test_leave_no_credentials(self, theirs: tuple[HandMade, list[str]], tmp_path: Path, uri: Uri) -> None:
        experiment, _ = theirs
        far = {"images": uri("theirs.npz"), "eps": "4/255"}
        experiment.write(attacks=experiment.content()["attacks"] | {"theirs": far})
        blueprint = experiment.finish()
        blueprint.inspected.save(blueprint.store)
        write_resolved(blueprint)
        for file in experiment.output.rglob("*"):
            if file.is_file():
                assert all(secret.encode() not in file.read_bytes() for secret in (KEY, SECRET, "not%2Ffor")), file
        written = (experiment.output / "by-hand" / "experiment.yaml").read_text()
        assert f"images: s3://bucket/{tmp_path.name}/theirs.npz?scheme=http" in written


class TestBadInput:
    """One message, exit code 2, and nothing is written."""

    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("data.test.path=s3://nowhere/images.npz", "data.test: s3://***@nowhere/images.npz?"),
            ("data.test.path=s3://bucket/none.npz", "none.npz?"),
            ("models.near.weights=s3://bucket/none.pt", "models.near: s3://***@bucket/none.pt?"),
            ("models.near.weights=FOLDER", "models.near: s3://***@bucket/"),
            ("data.test.path=ftp://host/images.npz", "from s3://, gs://, hf://, not from ftp://"),
            ("data.classes=s3://bucket/classes.txt", "s3://***@bucket/classes.txt?"),
        ],
    )
    def test_is_refused(
        self, tmp_path: Path, s3: S3Server, uri: Uri, capfd: pytest.CaptureFixture[str], setting: str, said: str
    ) -> None:
        experiment = hand_made(tmp_path)
        (tmp_path / "several").mkdir()
        for name in "ab":
            (tmp_path / "several" / name).write_bytes(b"1")
        key, _, place = setting.partition("=")
        if place == "FOLDER":
            place = uri("several")
        elif place.startswith("s3"):
            bucket, _, path = place.removeprefix("s3://").partition("/")
            place = s3.uri(path, bucket=bucket)
        assert main(["run", str(experiment.file), "--set", f"{key}={place}"]) == 2
        printed = capfd.readouterr().err
        messages = [line for line in printed.splitlines() if not line.startswith("witness: inspect data.")]
        assert len(messages) == 1 and said in messages[0], printed
        assert KEY not in printed and "not%2Ffor" not in printed
        assert not experiment.output.exists()

    def test_weights_that_are_none(self, tmp_path: Path, uri: Uri) -> None:
        experiment = hand_made(tmp_path)
        (tmp_path / "near.pt").write_bytes(b"no weights")
        models = experiment.content()["models"]
        models["near"]["weights"] = uri("near.pt")
        experiment.write(models=models)
        with pytest.raises(InputError, match=r"models\.near: .*near\.pt: "):
            experiment.blueprint()


def test_workers_fetch_what_they_read_on_their_own_node(
    ray_cluster: None, cache_of_workers: Path, tmp_path: Path, uri: Uri, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The workers of the tests' cluster have another cache than this process, as another node has."""
    experiment = hand_made(tmp_path)
    experiment.write(**far_away(experiment, uri))
    blueprint = experiment.finish()
    for folder in ("clean/seer", "clean/near"):
        blueprint.store.delete(blueprint.clean()[folder.rpartition("/")[2]].table.finished_file)
    shutil.rmtree(cache)
    assert main(["evaluate", str(experiment.file), "--clean", "--quiet"]) == 0, capfd.readouterr().err
    names = {file.name for file in cache_of_workers.rglob("*") if tmp_path.name in file.parts}
    assert names >= {"images.npz", "seer.safetensors", "near.safetensors"}
