"""Training images that are exchanged while a network is trained or aligned: nothing is made of them unnoticed."""

import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made import hand_made
from one_worker import WORKER
from PIL import Image

from align_core.alignment import Alignment
from align_core.diverged import Taken
from align_core.errors import InputError
from align_core.images import read_images
from pipelines.compute.fine_tune import FineTune, fine_tune_alone
from pipelines.compute.images import AsInspected, opened
from pipelines.compute.ray_internals import raised_by_workers
from pipelines.failure import InputChangedError, RunFailed
from pipelines.progress import Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import align as align_stage
from pipelines.stages.align import make_networks
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.makings import Making
from pipelines.stages.payload import fine_tune_of

STEPS, AT = 12, 4
ADVICE = (
    r"Run again with --rehash \(in Python, rehash=True\), and leave images and weights as they are while a run is at "
    rf"work\. This was seen on the node {re.escape(socket.gethostname())}; where there are others, all must have the "
    "same at the same path"
)
OTHERS = f"data.train: image {{}} is not as it was when the image set was inspected. {ADVICE}"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    opened.cache_clear()


def jobs_in(folder: Path, crop: str = "none", **changes: Any) -> tuple[Blueprint, dict[str, tuple[Making, FineTune]]]:
    align = {"epochs": 6, "batch_size": 2, "augment": {"crop": crop}, "optimizer": {"lr": 0.05}}
    blueprint = hand_made(folder, **{"align": align, **changes}).blueprint()
    makings = [*blueprint.trainings(), *blueprint.alignments()]
    return blueprint, {making.name: (making, fine_tune_of(blueprint, making, WORKER)) for making in makings}


def job_in(folder: Path, crop: str = "none", **changes: Any) -> FineTune:
    return jobs_in(folder, crop, **changes)[1]["aligned"][1]


def write_pictures(folder: Path) -> dict[str, Any]:
    """Four pictures of 16 x 8 pixels, of which an image of 8 pixels is the middle; the settings of their set."""
    rng = np.random.default_rng(1)
    for number in range(4):
        (folder / "pictures" / f"c{number % 3}").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"c{number % 3}" / f"{number}.png")
    return {"kind": "folder", "path": "pictures"}


def with_pictures(folder: Path) -> dict[str, Any]:
    """The `data` of an experiment that is trained on them."""
    test = {"kind": "npz", "path": "images.npz", "take": [4, 16]}
    (folder / "classes.txt").write_text("c0\nc1\nc2\n")
    return {"classes": "classes.txt", "image_size": 8, "train": write_pictures(folder), "test": test}


def exchange_at(monkeypatch: pytest.MonkeyPatch, exchange: Callable[[], None], step: int = AT) -> None:
    """Exchanges images once this many steps of an alignment are taken."""
    take = Alignment.take

    def taking(alignment: Alignment, *batch: Any) -> Taken:
        taken = take(alignment, *batch)
        if alignment.step_number == step:
            exchange()
        return taken

    monkeypatch.setattr(Alignment, "take", taking)


def overwrite_rows(file: Path) -> None:
    """Other pixels in the same places of an uncompressed npz file, which a process may have mapped into its memory."""
    with np.load(file) as stored:
        before = stored["images"].tobytes()
    content = file.read_bytes()
    with open(file, "r+b") as stream:
        stream.seek(content.index(before))
        stream.write(bytes(255 - value for value in before))


def paint(file: Path, columns: slice) -> None:
    with Image.open(file) as picture:
        pixels = np.array(picture)
    pixels[:, columns] ^= 255
    Image.fromarray(pixels).save(file)


def refused(job: FineTune) -> str:
    """Why a fine-tune is refused."""
    with pytest.raises(InputChangedError) as caught:
        fine_tune_alone(job, "cpu", ".train/x")
    return str(caught.value)


def test_an_array_that_is_overwritten_during_an_alignment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_in(tmp_path)
    exchange_at(monkeypatch, lambda: overwrite_rows(tmp_path / "images.npz"))
    assert re.fullmatch(OTHERS.format(r"0000\d"), refused(job))
    monkeypatch.undo()
    # Nor does it resume from its checkpoint with other images.
    assert re.fullmatch(OTHERS.format(r"0000\d"), refused(job))


def test_an_array_that_is_replaced_is_met_where_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, file = job_in(tmp_path), tmp_path / "images.npz"
    weights, *_ = fine_tune_alone(job, "cpu", "elsewhere")
    overwritten = tmp_path / "other.npz"
    overwritten.write_bytes(file.read_bytes())
    overwrite_rows(overwritten)
    exchange_at(monkeypatch, lambda: os.replace(overwritten, file))
    assert fine_tune_alone(job, "cpu", ".train/y")[0] == weights  # of the images that were inspected, still open
    monkeypatch.undo()
    opened.cache_clear()  # as in a process that starts later
    assert re.fullmatch(OTHERS.format(r"0000\d"), refused(job))


def test_a_process_that_refused_images_reads_them_anew(tmp_path: Path) -> None:
    """What it holds in memory may be older than what a later run has inspected."""
    job, file = job_in(tmp_path), tmp_path / "images.npz"
    with np.load(file) as stored:
        np.savez_compressed(file, images=255 - stored["images"], labels=stored["labels"])
    assert re.fullmatch(OTHERS.format(r"0000\d"), refused(job))
    later = replace(job, contents=jobs_again(tmp_path).contents)
    assert len(fine_tune_alone(later, "cpu", "elsewhere")[1]) == STEPS


def jobs_again(folder: Path) -> FineTune:
    blueprint = open_blueprint(Request(folder / "experiment.yaml", quiet=True, rehash=True))
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    return fine_tune_of(blueprint, making, WORKER)


@pytest.mark.parametrize("crop", ["none", "pad4", "random_resized"])
def test_a_file_that_is_overwritten_during_an_alignment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    """A process beside the training decodes it, and its exception comes without that process's traceback."""
    job = job_in(tmp_path, crop, data=with_pictures(tmp_path))
    exchange_at(monkeypatch, lambda: paint(tmp_path / "pictures" / "c1" / "1.png", slice(4, 12)))
    assert re.fullmatch(OTHERS.format("c1/1.png"), refused(job))


def test_only_crops_of_the_originals_depend_on_what_lies_outside_the_image(tmp_path: Path) -> None:
    data = with_pictures(tmp_path)
    inner, whole = job_in(tmp_path, "none", data=data), job_in(tmp_path, "random_resized", data=data)
    weights, *_ = fine_tune_alone(inner, "cpu", "elsewhere")
    paint(tmp_path / "pictures" / "c1" / "1.png", slice(0, 3))
    assert fine_tune_alone(inner, "cpu", "again")[0] == weights
    assert re.fullmatch(OTHERS.format("c1/1.png"), refused(whole))


@pytest.mark.parametrize("crop", ["none", "random_resized"])
def test_a_file_that_is_deleted_or_damaged(tmp_path: Path, crop: str) -> None:
    job = job_in(tmp_path, crop, data=with_pictures(tmp_path))
    file = tmp_path / "pictures" / "c2" / "2.png"
    start = "data.train: image c2/2.png cannot be read"
    for change, reason in ((lambda: file.write_bytes(b"PNG"), "cannot be decoded"), (file.unlink, "there is no such")):
        change()
        assert re.fullmatch(
            rf"{start} \(.*{reason}.*\), as it could be when the image set was inspected. {ADVICE}", refused(job)
        )


def test_an_array_of_fewer_rows(tmp_path: Path) -> None:
    job, file = job_in(tmp_path), tmp_path / "images.npz"
    with np.load(file) as stored:
        np.savez(file, images=stored["images"][:3], labels=stored["labels"][:3])
    reason = r".*holds 3 images, and none with this id"
    assert re.fullmatch(
        rf"data.train: image 00003 cannot be read \({reason}\), as it could be when .*{ADVICE}", refused(job)
    )


def test_a_model_that_is_trained_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = hand_made(tmp_path).content()["models"]
    train = {"epochs": 6, "batch_size": 2, "crop": "none"}
    models["twin"] = {key: value for key, value in models["twin"].items() if key != "weights"} | {"train": train}
    _, jobs = jobs_in(tmp_path, models=models)
    exchange_at(monkeypatch, lambda: overwrite_rows(tmp_path / "images.npz"))
    assert re.fullmatch(OTHERS.format(r"0000\d"), refused(jobs["twin"][1]))


def test_the_message_is_about_the_set_and_other_images_are_left_alone(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    image_set = opened(job.images, job.fit, 1)
    known = dict(zip(job.image_ids, job.contents, strict=True))
    checked = AsInspected("data.somewhere", image_set, known | {"00001": "0" * 32})
    assert (read_images(checked, ["00000", "00003"]) == read_images(image_set, ["00000", "00003"])).all()
    with pytest.raises(InputChangedError, match=r"data\.somewhere: image 00001 is not as it was"):
        read_images(checked, ["00000", "00001"])


def test_the_stage_ends_at_once_and_keeps_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All other networks are made of the same images, so that none is begun."""
    blueprint, jobs = jobs_in(tmp_path, witnesses=["seer", "other"], variants={"hot": {"align": {"temperature": 9}}})
    with np.load(tmp_path / "images.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    begun: list[str] = []

    def alone(job: FineTune, run_name: str, worker: object) -> object:
        begun.append(job.name)
        return fine_tune_alone(job, "cpu", f".train/{run_name}")

    monkeypatch.setattr(align_stage, "room_for", lambda *_, **__: 1)
    monkeypatch.setattr(align_stage, "fine_tune", alone)
    exchange_at(monkeypatch, lambda: overwrite_rows(tmp_path / "images.npz"))
    with pytest.raises(RunFailed) as caught:
        make_networks(blueprint, WORKER, Progress(quiet=True))
    assert len(begun) == 1 < len(jobs)
    expected = rf"the alignment of {begun[0]} failed: {OTHERS.format('0000[0-3]')}\. What was finished is kept"
    assert re.fullmatch(expected, str(caught.value)), caught.value
    assert blueprint.store.listing(f"models/{begun[0]}").get(f"models/{begun[0]}", []) == []
    with pytest.raises(InputError, match="its content is damaged"):  # its checksum is still that of the first images
        jobs_again(tmp_path)
    np.savez(tmp_path / "images.npz", images=255 - images, labels=labels)
    assert jobs_again(tmp_path).contents != jobs["aligned"][1].contents  # and the next command asks for other networks


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_on_ray(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """With two workers, the one that meets the image ends, the other fails for want of it, and the first is heard."""
    monkeypatch.setattr("pipelines.compute.ray_train.RETRIES", 0)
    align = {"epochs": 6, "batch_size": 4, "workers": workers, "augment": {"crop": "none"}}
    blueprint, _ = jobs_in(tmp_path, data=with_pictures(tmp_path), align=align, controls=[])
    paint(tmp_path / "pictures" / "c1" / "1.png", slice(4, 12))
    with pytest.raises(RunFailed) as caught:
        make_networks(blueprint, WORKER, Progress(quiet=True))
    expected = rf"the alignment of aligned failed: {OTHERS.format('c1/1.png')}\. What was finished is kept"
    assert re.fullmatch(expected, str(caught.value)), caught.value
    assert not blueprint.is_made("aligned")


def test_what_ray_train_hands_out_is_unwrapped() -> None:
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    own, other = InputChangedError("why"), OSError("lost")
    problem = WorkerGroupError("text", {0: UserExceptionWithTraceback(own, "Traceback"), 1: other})
    assert raised_by_workers(problem) == [own, other]
