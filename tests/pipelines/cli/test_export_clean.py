"""`witness export --clean`: the test images leave as models get them, are attacked elsewhere, and come back."""

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hand_made import CLASSES, IMAGES, HandMade, hand_made
from PIL import Image
from s3_server import S3Server

from pipelines import CleanTestImages, InputError
from pipelines.cli import main

FORMS = {"png": "", "npz": ".npz", "robustbench": ".pt", "parquet": ".parquet"}
TEST = range(4, 4 + IMAGES)  # rows of images.npz
LABELS = [row % CLASSES for row in TEST]
SIZE, SHORT_SIDE = 4, 6


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def images_alone(folder: Path, **changes: Any) -> HandMade:
    """An experiment whose image sets are there, and nothing else: no weights, no factory, no image made elsewhere."""
    made = hand_made(folder)
    own = made.content()
    theirs = {"images": "later", "eps": "4/255", "compare_with": "pgd"}
    resized = own["data"] | {"image_size": SIZE, "resize": SHORT_SIDE}
    made.write(**{"data": resized, "attacks": own["attacks"] | {"theirs": theirs}} | changes)
    for file in (*folder.glob("*.safetensors"), folder / "hand_made_networks.py"):
        file.unlink()
    return made


def originals(made: HandMade) -> np.ndarray:
    """The test images as they lie in the file, uint8 [N, 8, 8]."""
    with np.load(made.folder / "images.npz") as arrays:
        return np.asarray(arrays["images"][TEST.start : TEST.stop, :, :, 0])


def as_models_get_them(made: HandMade) -> np.ndarray:
    """The test images, resized and cropped here by Pillow alone, uint8 [N, SIZE, SIZE]."""
    edge = (SHORT_SIDE - SIZE) // 2
    box = (edge, edge, edge + SIZE, edge + SIZE)
    resized = [
        Image.fromarray(own).resize((SHORT_SIDE, SHORT_SIDE), Image.Resampling.BICUBIC) for own in originals(made)
    ]
    return np.stack([np.asarray(own.crop(box)) for own in resized])


def exported(path: Path, form: str) -> tuple[list[str] | None, list[int] | None, np.ndarray]:
    """Ids, labels and pixels [N, H, W] of what was exported, read without any code of Witness."""
    if form == "png":
        with open(path / "labels.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        pixels = [np.asarray(Image.open(path / row["filename"])) for row in rows]
        return [row["image_id"] for row in rows], [int(row["label"]) for row in rows], np.stack(pixels)
    if form == "npz":
        with np.load(path) as arrays:
            return arrays["ids"].tolist(), arrays["labels"].tolist(), arrays["images"][..., 0]
    if form == "parquet":
        table = pq.read_table(path)
        pixels = [np.asarray(Image.open(io.BytesIO(own["bytes"]))) for own in table["image"].to_pylist()]
        return table["image_id"].to_pylist(), table["label"].to_pylist(), np.stack(pixels)
    return None, None, (torch.load(path, weights_only=True)[:, 0] * 255).to(torch.uint8).numpy()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", FORMS)
def test_the_test_images_as_models_get_them_without_any_model(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made, out = images_alone(tmp_path), tmp_path / "out"
    assert main(["export", str(made.file), "--clean", f"--{form}", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    (found,) = json.loads(printed.out)["sets"]
    path, pixels = out / f"clean{FORMS[form]}", as_models_get_them(made)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert found == {
        "title": "clean test images", "surrogate": None, "attack": None, "images": IMAGES, "path": str(path),
        "sha256": digest, "is_new": True,
    }  # fmt: skip
    ids, labels, written = exported(path, form)
    manifest = json.loads((path / "manifest.json" if form == "png" else Path(f"{path}.json")).read_text())
    if form == "robustbench":  # the tensor has neither
        ids, labels = manifest["ids"], manifest["labels"]
    assert ids == [f"{row:05d}" for row in TEST] and labels == LABELS
    np.testing.assert_array_equal(written, pixels)
    told = {
        "schema": "witness-images", "version": 1, "form": form, "experiment": "by-hand", "clean": True,
        "images": IMAGES, "shape": [1, SIZE, SIZE], "sha256": digest,
    }  # fmt: skip
    assert {key: manifest[key] for key in told} == told and "attack" not in manifest
    assert "witness: data.test: " in printed.err  # that they are resized
    assert not made.output.exists()


def test_the_names_of_class_folders_leave_with_the_images(tmp_path: Path) -> None:
    """What is exported as Parquet is an image set beside the same class folders, though its set lacks a class."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    places = ["train/ant/0", "train/bee/1", "train/cow/2", "test/cow/3", "test/bee/4"]
    for place, own in zip(places, pixels, strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(own).save(tmp_path / f"{place}.png")
    sets = {role: {"kind": "folder", "path": role} for role in ("train", "test")}
    made = images_alone(tmp_path, data={"classes": 3, "image_size": 8, **sets})
    command = ["export", str(made.file), "--clean", "--parquet"]
    assert main([*command, str(tmp_path / "clean.parquet")]) == 0
    about = json.loads(pq.read_schema(tmp_path / "clean.parquet").metadata[b"huggingface"])
    assert about["info"]["features"]["label"] == {"names": ["ant", "bee", "cow"], "_type": "ClassLabel"}
    again = ["--set", "data.test={kind: parquet, path: clean.parquet}"]
    assert main([*command, str(tmp_path / "again.parquet"), *again]) == 0
    (ids, labels, images), others = (exported(tmp_path / f"{name}.parquet", "parquet") for name in ("clean", "again"))
    assert labels == [1, 2] and others[:2] == (ids, labels)
    np.testing.assert_array_equal(others[2], images)


def test_a_hash_that_is_not_that_of_the_images_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, manifest = images_alone(tmp_path), tmp_path / "clean.npz.json"
    command = ["export", str(made.file), "--clean", "--npz", str(tmp_path / "clean.npz")]
    assert main(command) == 0
    written = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(written) | {"sha256": "0" * 64}))
    capsys.readouterr()
    assert main(command) == 1
    assert f"{manifest}: its sha256 is not that of the images" in capsys.readouterr().err
    manifest.unlink()
    assert main(command) == 0
    assert json.loads(manifest.read_text()) == json.loads(written)


@pytest.mark.parametrize("form", ["png", "npz"])
def test_nothing_is_exported_into_an_image_set(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = hand_made(tmp_path)
    made.write(data=made.content()["data"] | {"test": {"kind": "folder", "path": "pictures"}})
    for place in ("pictures", "pictures/a"):
        assert main(["export", str(made.file), "--clean", f"--{form}", str(tmp_path / place)]) == 2
        said = capsys.readouterr().err
        assert f"--{form}: {tmp_path / place} is in the images of data.test, which would no longer be" in said
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize("form", ["npz", "png"])
def test_they_are_attacked_elsewhere_and_come_back_by_their_ids(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made, path = hand_made(tmp_path), tmp_path / f"clean{FORMS[form]}"
    assert main(["export", str(made.file), "--clean", f"--{form}", str(tmp_path if form == "png" else path)]) == 0
    ids, _, pixels = exported(path, form)
    assert ids is not None
    signs = np.where(np.random.default_rng(1).random(pixels.shape) < 0.5, -4, 4)
    attacked = (pixels + signs).clip(0, 255).astype(np.uint8)
    if form == "npz":  # in another order, so that their ids count
        np.savez(tmp_path / "theirs.npz", images=attacked[::-1, :, :, None], ids=np.array(ids[::-1]))
    else:
        (tmp_path / "theirs").mkdir()
        for image_id, image in zip(ids, attacked, strict=True):
            Image.fromarray(image).save(tmp_path / "theirs" / f"{image_id}.png")
    theirs = {"images": f"theirs{FORMS[form]}", "eps": "4/255", "compare_with": "pgd"}
    made.write(attacks=made.content()["attacks"] | {"theirs": theirs})
    blueprint = made.finish()  # takes them in
    table = blueprint.all_adversarial()["external", "theirs"].read_chunk(blueprint.store, 0, IMAGES)
    assert table["image_id"].to_pylist() == ids
    np.testing.assert_array_equal(table["image"].combine_chunks().to_numpy_ndarray()[:, 0], attacked)
    capsys.readouterr()
    made.write(attacks=made.content()["attacks"] | {"theirs": theirs | {"eps": "3/255"}})
    assert main(["plan", str(made.file)]) == 2  # the ball is around what was exported, and no larger
    assert f"{IMAGES} of {IMAGES} images lie outside the linf ball of 3/255" in capsys.readouterr().err


def test_classes_to_lead_to_that_the_image_set_lists(tmp_path: Path) -> None:
    pgd = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}
    made = images_alone(tmp_path, attacks={"led": pgd | {"towards": "column"}})
    with np.load(tmp_path / "images.npz") as arrays:
        own = dict(arrays)
    np.savez(tmp_path / "images.npz", **own, targeted_labels=(own["labels"] + 2) % CLASSES)
    led = [(label + 2) % CLASSES for label in LABELS]
    assert main(["export", str(made.file), "--clean", "--npz", str(tmp_path / "clean.npz")]) == 0
    with np.load(tmp_path / "clean.npz") as arrays:
        assert arrays["targeted_labels"].tolist() == led
    assert main(["export", str(made.file), "--clean", "--robustbench", str(tmp_path / "clean.pt")]) == 0
    assert json.loads((tmp_path / "clean.pt.json").read_text())["targeted_labels"] == led
    towards_N = CleanTestImages(made.file).towards_N
    assert towards_N is not None and towards_N.tolist() == led


@pytest.mark.parametrize("form", FORMS)
def test_what_is_there_is_checked_and_never_replaced(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made, out = images_alone(tmp_path), tmp_path / "out"
    command = ["export", str(made.file), "--clean", f"--{form}", str(out)]
    assert main(command) == 0
    before = everything(out)
    capsys.readouterr()
    assert main([*command, "--set", "compute.chunk=5"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"clean test images: {IMAGES} images, which were there already, {out}/clean{FORMS[form]}, ")
    assert main([*command, "--set", "data.image_size=5"]) == 2
    assert "clean" in (said := capsys.readouterr().err) and "something else than these images; move it away" in said
    assert everything(out) == before


def test_an_image_that_was_exchanged_since_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file has the size and modification time that it had, so that nobody looks into it without being told."""
    made, file = hand_made(tmp_path), tmp_path / "images.npz"
    blueprint = made.blueprint()
    blueprint.inspected.save(blueprint.store)
    stamp = file.stat()
    with np.load(file) as arrays:
        own = dict(arrays)
    own["images"][TEST[3]] ^= 1
    np.savez(file, **own)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert file.stat().st_size == stamp.st_size
    command = ["export", str(made.file), "--clean", "--npz", str(tmp_path / "clean.npz")]
    assert main(command) == 2
    assert "image 00007 is not as it was when the image set was inspected. Run again with --rehash" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "clean.npz").exists()
    assert main([*command, "--rehash"]) == 0
    np.testing.assert_array_equal(exported(tmp_path / "clean.npz", "npz")[2], originals(made))


def test_into_an_object_store(tmp_path: Path, s3: S3Server) -> None:
    made = images_alone(tmp_path)
    for form, name in (("png", "clean/manifest.json"), ("npz", "clean.npz.json")):
        command = ["export", str(made.file), "--clean", f"--{form}"]
        assert main([*command, s3.uri("clean-images/there")]) == 0
        assert main([*command, str(tmp_path / "here")]) == 0
        assert s3.objects("clean-images/there")[name] == (tmp_path / "here" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--surrogate", "aligned"],
            "before any attack, which are of no surrogate and no attack; leave out --surrogate",
        ),
        (["--attack", "pgd"], "before any attack, which are of no surrogate and no attack; leave out --surrogate"),
        (["--set", "data.test.path=gone.npz"], "data.test: "),
        (["--set", "output=images.npz"], "is a file; name a folder that can be written"),
    ],
)
def test_one_message_and_nothing_written(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    made = images_alone(tmp_path)
    before = everything(tmp_path)
    assert main(["export", str(made.file), "--clean", "--png", "out", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1] and said[-1].startswith("witness: ")
    assert everything(tmp_path) == before


def test_they_are_a_torch_dataset(tmp_path: Path) -> None:
    made = images_alone(tmp_path)
    images = CleanTestImages(made.file)
    found = torch.stack([pixels for pixels, _ in images])
    assert found.dtype == torch.float32 and len(images) == IMAGES
    np.testing.assert_array_equal((found[:, 0] * 255).to(torch.uint8).numpy(), as_models_get_them(made))
    assert [label for _, label in images] == images.labels_N.tolist() == LABELS
    assert images.ids == [f"{row:05d}" for row in TEST] and images.towards_N is None
    with pytest.raises(InputError, match="image_size"):
        CleanTestImages(str(made.file), overrides=["data.image_size=0"])
