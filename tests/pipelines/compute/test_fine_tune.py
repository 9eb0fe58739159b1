"""A fine-tune by one worker resumes from its checkpoint, bit for bit, wherever it was broken off."""

import copy
import errno
import importlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_made import hand_made
from one_worker import WORKER
from safetensors.torch import load as load_bytes

from align_core.alignment import Alignment, NonFiniteLoss
from align_core.diverged import Taken
from align_core.models import load
from align_core.weights import to_bytes
from pipelines.compute.checkpoint import DamagedCheckpoint, read_checkpoint
from pipelines.compute.fine_tune import FineTune, Trainer, fine_tune_alone
from pipelines.compute.ray_train import fine_tune
from pipelines.stages.payload import fine_tune_of
from pipelines.storage.store import Store

CHECKPOINTS = ".train/aligned-x/checkpoint"
STEPS = 12
ALIGN = {"epochs": 6, "batch_size": 2, "augment": {"crop": "none"}, "optimizer": {"lr": 0.05}}


class Broken(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FineTune:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return job_in(tmp_path)


def job_in(folder: Path, **align: object) -> FineTune:
    blueprint = hand_made(folder, align=ALIGN | align).blueprint()
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    return fine_tune_of(blueprint, making, WORKER)


def break_off(monkeypatch: pytest.MonkeyPatch, file: str, times: int) -> None:
    """Ends the work in place of the `times`-th writing of this file of a checkpoint."""
    write, left = Store.write, [times]

    def breaking(store: Store, relative: str, content: bytes) -> None:
        if relative == f"{CHECKPOINTS}/{file}":
            left[0] -= 1
            if left[0] == 0:
                raise Broken
        write(store, relative, content)

    monkeypatch.setattr(Store, "write", breaking)


@pytest.mark.parametrize(
    ("file", "times", "resumed_from"),
    [("curve.json", 1, 0), ("state.safetensors", 1, 0), ("state.safetensors", 4, 6), ("curve.json", 6, 10)],
)
def test_it_resumes_bit_for_bit(
    job: FineTune, monkeypatch: pytest.MonkeyPatch, file: str, times: int, resumed_from: int
) -> None:
    weights, curve, *_ = fine_tune_alone(job, "cpu", "elsewhere")
    with monkeypatch.context() as patch:
        break_off(patch, file, times)
        with pytest.raises(Broken):
            fine_tune_alone(job, "cpu", CHECKPOINTS)
    broken_at = time.time()
    resumed_weights, resumed_curve, *_ = fine_tune_alone(job, "cpu", CHECKPOINTS)
    assert resumed_weights == weights
    figures = [{key: value for key, value in row.items() if key != "timestamp"} for row in curve]
    assert [{key: row[key] for key in own} for row, own in zip(resumed_curve, figures, strict=True)] == figures
    assert [row["step"] for row in resumed_curve] == list(range(STEPS))
    assert sum(row["timestamp"] < broken_at for row in resumed_curve) == resumed_from  # the others were taken again


def test_a_finished_one_is_not_trained_again(job: FineTune, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver may be killed after the last checkpoint and before the network is committed."""
    weights, curve, *_ = fine_tune_alone(job, "cpu", CHECKPOINTS)
    assert fine_tune_alone(job, "cpu", CHECKPOINTS)[:2] == (weights, curve)


@pytest.mark.parametrize("file", ["curve.json", "state.safetensors"])
@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"{}", lambda _: b"[]", None]
)
def test_a_damaged_checkpoint_costs_time_alone(job: FineTune, file: str, damage) -> None:
    weights, *_ = fine_tune_alone(job, "cpu", CHECKPOINTS)
    store, path = job.loader.store, f"{CHECKPOINTS}/{file}"
    if damage is None:
        store.delete(path)
    else:
        store.write(path, damage(store.read(path)))
    again, curve, *_ = fine_tune_alone(job, "cpu", CHECKPOINTS)
    assert again == weights
    assert [row["step"] for row in curve] == list(range(STEPS))


def flipped(content: bytes, share: float) -> bytes:
    damaged = bytearray(content)
    damaged[int(len(content) * share)] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("state.safetensors", lambda content: flipped(content, 0.9)),
        ("state.safetensors", lambda content: flipped(content, 0.99)),
        ("curve.json", lambda content: content.replace(b'"lr": 0.05', b'"lr": 0.06')),
    ],
)
def test_a_flipped_bit_in_a_checkpoint_is_noticed_and_said(job: FineTune, file: str, change) -> None:
    weights, curve, *_ = fine_tune_alone(job, "cpu", CHECKPOINTS)
    store, path = job.loader.store, f"{CHECKPOINTS}/{file}"
    before = store.read(path)
    store.write(path, change(before))
    assert store.read(path) != before
    again, figures, *_ = fine_tune_alone(job, "cpu", CHECKPOINTS)
    assert again == weights and figures[-1]["loss"] == curve[-1]["loss"] and figures[0]["lr"] == curve[0]["lr"]
    assert (store.read_json(str(job.progress_file)) or {})["said"] == [
        "aligned: its checkpoint is not what was written: its checksum differs; it starts again from the first step"
    ]


def test_checkpoints_lie_where_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    job = job_in(tmp_path, checkpoint_steps=1)
    with monkeypatch.context() as patch:
        break_off(patch, "state.safetensors", 6)
        with pytest.raises(Broken):
            fine_tune_alone(job, "cpu", CHECKPOINTS)
    curve = job.loader.store.read(f"{CHECKPOINTS}/curve.json")
    assert curve.count(b'"step"') == 6  # of a step each: the state of the fifth is there, that of the sixth is not


def test_a_loss_that_is_not_finite_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    job = job_in(tmp_path, optimizer={"lr": 1e30})
    with pytest.raises(NonFiniteLoss, match=r"lower align.optimizer.lr"):
        fine_tune_alone(job, "cpu", CHECKPOINTS)


@pytest.mark.parametrize(("code", "tries"), [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EIO, 4)])
def test_a_disk_is_tried_again_unless_that_leads_to_the_same(
    ray_cluster: None, job: FineTune, tmp_path: Path, capfd: pytest.CaptureFixture[str], code: int, tries: int
) -> None:
    """What no retry mends is raised here, and Ray prints nothing of it."""

    class Failing(Store):  # a class of a function is sent to workers whole
        def write(self, relative: str, content: bytes) -> None:
            if not relative.endswith("state.safetensors"):
                super().write(relative, content)
                return
            with open(f"{self.output}/tries", "a", encoding="utf-8") as file:
                file.write("tried\n")
            raise OSError(code, os.strerror(code), self.path(relative))

    store = Failing(str(tmp_path), job.loader.store.name)
    with pytest.raises(OSError, match=rf"{os.strerror(code)}: '{tmp_path}/.*state\.safetensors'") as raised:
        fine_tune(replace(job, loader=replace(job.loader, store=store)), "aligned-x", WORKER)
    assert raised.value.errno == code
    assert (tmp_path / "tries").read_text().count("tried") == tries
    if tries == 1:
        assert "retries remaining" not in capfd.readouterr().err


@pytest.mark.slow
def test_two_workers_fall_back_to_an_earlier_checkpoint_and_say_so(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    job = job_in(tmp_path, workers=2, batch_size=4, checkpoint_steps=1)
    weights, curve, *_ = fine_tune(job, "aligned-x", WORKER)
    folder = Path(job.loader.store.path(".train/aligned-x"))
    *_, earlier, latest = sorted(folder.glob("checkpoint_2*"))  # Ray deletes older ones in the background
    state = latest / "state.safetensors"
    state.write_bytes(flipped(state.read_bytes(), 0.9))
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(latest)
    again, figures, *_ = fine_tune(job, "aligned-x", WORKER)
    assert again == weights
    taken_before = len(read_checkpoint(earlier)[1]) if earlier.exists() else len(curve) - 1
    assert figures[:taken_before] == curve[:taken_before]  # with their timestamps: these steps were not taken again
    assert (job.loader.store.read_json(str(job.progress_file)) or {})["said"] == [
        "aligned: a checkpoint is not what was written: its checksum differs; it resumes from an earlier step"
    ]


NETWORKS = """
import warnings
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(64, 4), nn.Linear(4, 3)
        self.second, self.same_head = nn.Linear(4, 4), self.head
        self.second.weight = nn.Parameter(torch.eye(4))
        self.third = nn.Linear(4, 4)
        self.third.weight = self.second.weight

    def forward(self, images):
        features = self.third(torch.relu(self.second(self.first(images.flatten(1)))))
        logits = self.same_head(torch.relu(features))
        return (logits, -logits) if self.training else logits

def tied():
    return Tied()

def normed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 3)))

def normed_anew():
    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(64, 3)))

class Blind(nn.Module):
    def __init__(self, width=0):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, images):
        return torch.where(images[:, :, 0, 0] > 0.9, torch.nan, self.net(images))
"""


def job_from(folder: Path, factory: str, witness: str | None = None) -> FineTune:
    """The alignment of a source from this factory of `NETWORKS`, or to a witness from it."""
    sys.modules.pop("networks_of_all_kinds", None)
    experiment = hand_made(folder)
    (folder / "networks_of_all_kinds.py").write_text(NETWORKS)
    sys.path.insert(0, str(folder))
    module = importlib.import_module("networks_of_all_kinds")
    models = experiment.content()["models"]
    name = "near" if witness is None else "seer"
    torch.manual_seed(0)
    (folder / "odd.safetensors").write_bytes(to_bytes(getattr(module, witness or factory)().state_dict()))
    models[name] = {"factory": f"networks_of_all_kinds:{witness or factory}", "weights": "odd.safetensors"}
    experiment.write(models=models, align=ALIGN)
    with np.load(folder / "images.npz") as stored:
        images, labels = stored["images"] // 2, stored["labels"]
    if witness is not None:
        images[2, 0, 0] = 255  # a training image; the models are inspected on the test images
    np.savez(folder / "images.npz", images=images, labels=labels)
    blueprint = experiment.blueprint()
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    return fine_tune_of(blueprint, making, WORKER)


@pytest.mark.parametrize("factory", ["tied", "normed", "normed_anew"])
def test_shared_and_computed_weights_are_saved_resumed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    job = job_from(tmp_path, factory)
    (weights,), *_ = fine_tune_alone(job, "cpu", "elsewhere")
    with monkeypatch.context() as patch:
        break_off(patch, "state.safetensors", 4)
        with pytest.raises(Broken):
            fine_tune_alone(job, "cpu", CHECKPOINTS)
    resumed, curve, *_ = fine_tune_alone(job, "cpu", CHECKPOINTS)
    assert resumed == [weights]
    assert len(curve) == STEPS
    (tmp_path / "made.safetensors").write_bytes(weights)
    config = replace(job.loader.networks["near"].config, weights=str(tmp_path / "made.safetensors"))
    loaded, trained = load(config, 3, 1), load_bytes(weights)
    assert {name: value.tolist() for name, value in loaded.net.state_dict().items()} == {
        name: value.tolist() for name, value in trained.items()
    }
    assert (tmp_path / "odd.safetensors").read_bytes() != weights


def test_a_witness_without_finite_logits_is_named_with_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    job = job_from(tmp_path, "Blind", witness="Blind")
    with pytest.raises(NonFiniteLoss, match=r"the logits of the witness seer are not finite for 00002 \(step"):
        fine_tune_alone(job, "cpu", CHECKPOINTS)


def test_values_that_are_fetched_after_several_steps_are_the_same(job: FineTune) -> None:
    """As on a GPU, which is not waited for after every step; a checkpoint, and the end, fetch what there is."""
    curves, states = [], []
    for most, at in ((1, None), (3, None), (3, ()), (100, (2,))):
        trainer = Trainer(job, "cpu")
        trainer._most_taken = most
        saved: list[int] = []
        trainer.run(lambda trainer=trainer, saved=saved: saved.append(len(trainer.curve)), at)
        assert saved == sorted(set(saved)) and (at is None or saved == list(at))
        curves.append([{name: value for name, value in row.items() if name != "timestamp"} for row in trainer.curve])
        states.append({name: value.tolist() for name, value in trainer.networks()[0].items()})
    assert len(curves[0]) == STEPS
    assert all(curve == curves[0] for curve in curves) and all(state == states[0] for state in states)


@pytest.mark.parametrize("most", [1, 3])
def test_a_divergence_is_told_of_the_step_at_which_it_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    trainer = Trainer(job_from(tmp_path, "Blind", witness="Blind"), "cpu")
    trainer._most_taken = most
    (step,) = {step for step in range(4) if "00002" in trainer.batches.ids_of(step)} & {0, 1}
    with pytest.raises(NonFiniteLoss, match=rf"the witness seer are not finite for 00002 \(step {step}\)"):
        trainer.run(at=())
    assert len(trainer.curve) == step // most * most


def test_weights_that_are_not_finite_after_the_last_step_are_refused(
    job: FineTune, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Alignment.take

    def breaking(alignment: Alignment, *batch: torch.Tensor) -> Taken:
        taken = take(alignment, *batch)
        if alignment.step_number == STEPS:
            next(alignment.source.parameters()).data.fill_(torch.inf)
        return taken

    monkeypatch.setattr(Alignment, "take", breaking)
    with pytest.raises(NonFiniteLoss, match=r"after the last step the weights are not finite \(net.1.weight\)"):
        fine_tune_alone(job, "cpu", CHECKPOINTS)


def test_a_failure_survives_the_way_between_processes() -> None:
    problem = copy.deepcopy(NonFiniteLoss("why", 1, [2, 3]))  # rebuilt in the way of pickle
    assert (str(problem), problem.reason, problem.witness, problem.rows) == ("why", "why", 1, (2, 3))
