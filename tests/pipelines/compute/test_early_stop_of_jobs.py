"""A fine-tune with an early stop, against a loop that takes every step and measures every network by formulas."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made import HandMade, hand_made
from interrupted import interrupted
from one_worker import WORKER
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from align_core.alignment import Alignment, NonFiniteLoss
from align_core.attacks import craft
from align_core.errors import InputError
from align_core.models import copy_of
from pipelines.compute.fine_tune import FineTune, Trainer, fine_tune_alone
from pipelines.compute.loading import LoadedNetworks
from pipelines.compute.ray_train import fine_tune
from pipelines.compute.tuned import Tuned
from pipelines.failure import InputChangedError
from pipelines.stages.payload import fine_tune_of

STEPS = 24
ALIGN: dict[str, Any] = {
    "epochs": 12, "batch_size": 2, "temperature": 1.0, "augment": {"crop": "none"}, "checkpoint_steps": 1,
    "optimizer": {"lr": 0.03, "momentum": 0.9, "schedule": "constant"},
}  # fmt: skip
AGREEMENT = {"every": 3, "patience": 3}
GAIN = {"by": "gain", "attack": "pgd", "every": 3, "patience": 3}


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def experiment_in(folder: Path, stop: dict[str, Any], inspect: str = "pixels", **align: Any) -> HandMade:
    experiment = hand_made(folder)
    images = np.random.default_rng(5).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    source = load_file(folder / "near.safetensors")
    pixels = torch.from_numpy(images.reshape(60, 1, 8, 8)).float() / 255
    np.savez(folder / "validation.npz", images=images, labels=logits(source, pixels).argmax(1).numpy())
    held_out = {"kind": "npz", "path": "validation.npz", "inspect": inspect}
    data = experiment.content()["data"] | {"validation": held_out}
    attacks = {"pgd": {"method": "pgd", "eps": "60/255", "step": "10/255", "steps": 4}}
    settings = ALIGN | align | {"early_stop": stop}
    models = {name: own | {"mean": [0.5], "std": [0.1]} for name, own in experiment.content()["models"].items()}
    experiment.write(
        models=models,
        data=data,
        align=settings,
        attacks=attacks,
        targets=["twin"],
        validation_targets=["cousin", "stranger"],
    )
    return experiment


def job_of(experiment: HandMade) -> FineTune:
    blueprint = experiment.blueprint()
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    return fine_tune_of(blueprint, making, WORKER)


def logits(state: dict[str, Tensor], images: Tensor) -> Tensor:
    hidden = F.linear(((images - 0.5) / 0.1).flatten(1), state["1.weight"], state["1.bias"])
    return F.linear(hidden, state["2.weight"], state["2.bias"])


def stored(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / f"{name}.safetensors")


def validation(folder: Path) -> tuple[Tensor, Tensor]:
    with np.load(folder / "validation.npz") as found:
        return torch.from_numpy(found["images"].reshape(-1, 1, 8, 8)), torch.from_numpy(found["labels"])


def agreement(folder: Path, network: Any) -> float:
    images, _ = validation(folder)
    pixels = images.float() / 255
    own, theirs = logits(network.net.state_dict(), pixels), logits(stored(folder, "seer"), pixels)
    return 100 * float((own.argmax(1) == theirs.argmax(1)).double().mean())


def gain(folder: Path, network: Any) -> float:
    """The rate among images that source and target get right, the mean over targets."""
    images, labels = validation(folder)
    job = job_of(HandMade(folder))
    assert job.checked is not None and job.checked.attack is not None
    ids = [f"{row:05}" for row in range(len(images))]
    twin = copy_of(network).eval().requires_grad_(False)
    crafted = craft(twin, images, labels, ids, job.checked.attack, seed=0).float() / 255
    rates = []
    for name in ("cousin", "stranger"):
        target, pixels = stored(folder, name), images.float() / 255
        counts = logits(stored(folder, "near"), pixels).argmax(1) == labels
        counts &= logits(target, pixels).argmax(1) == labels
        rates.append(100 * float((logits(target, crafted).argmax(1) != labels)[counts].double().mean()))
    return sum(rates) / 2


def by_hand(job: FineTune, folder: Path, measure: Callable[[Path, Any], float], every: int, patience: int) -> Any:
    """(checks, weights at the best of them): takes every step, and looks afterwards where the end would have been."""
    networks, batches = LoadedNetworks(job.loader, "cpu"), job.batches()
    source = copy_of(networks.network("near"))
    witness = networks.network("seer")
    align = replace(job.align, early_stop=None)
    alignment = Alignment(source, [witness], align, STEPS, job.seed, steps_per_epoch=2)
    checks, states = [], []
    for step in range(STEPS):
        alignment.step(*batches[step])
        if (step + 1) % every == 0:
            checks.append((step + 1, measure(folder, source)))
            states.append({name: value.clone() for name, value in source.net.state_dict().items()})
    for end in range(1, len(checks) + 1):
        values = [value for _, value in checks[:end]]
        if end - 1 - values.index(max(values)) == patience:
            break
    return checks[:end], states[values.index(max(values))]


def same_up_to_rounding(checks: list[tuple[int, float]], expected: list[tuple[int, float]]) -> bool:
    steps = [step for step, _ in checks] == [step for step, _ in expected]
    return steps and np.allclose([value for _, value in checks], [value for _, value in expected])


@pytest.mark.parametrize(("stop", "measure"), [(AGREEMENT, agreement), (GAIN, gain)], ids=["agreement", "gain"])
def test_it_ends_and_keeps_what_the_loop_says(
    stop: dict[str, Any], measure: Callable[[Path, Any], float], tmp_path: Path
) -> None:
    job = job_of(experiment_in(tmp_path, stop))
    found = fine_tune_alone(job, "cpu", "elsewhere")
    checks, weights = by_hand(job, tmp_path, measure, 3, 3)
    assert found.stopped is not None and same_up_to_rounding(found.stopped.checks, checks)
    assert len({value for _, value in checks}) > 1 and checks[-1][0] < STEPS  # a course that tells settings apart
    assert found.stopped.steps == len(found.curve) == checks[-1][0] and found.stopped.total == STEPS
    kept = load_bytes(found.weights[0])
    assert all(torch.equal(kept[name], weights[name]) for name in weights)
    best = max(checks, key=lambda check: check[1])
    assert best[0] < checks[-1][0]
    assert found.stopped.line() == (
        f"kept are the weights of step {best[0]} of {STEPS}, with {best[1]:.1f} % "
        f"{'agreement with its witnesses' if stop is AGREEMENT else 'transfer rate'} on validation images, and it "
        f"ended after step {checks[-1][0]}"
    )
    assert found.effect is not None


def test_without_an_end_before_the_last_step_the_best_is_kept_all_the_same(tmp_path: Path) -> None:
    job = job_of(experiment_in(tmp_path, {"every": 3, "patience": 100}))
    found = fine_tune_alone(job, "cpu", "elsewhere")
    checks, weights = by_hand(job, tmp_path, agreement, 3, 100)
    assert found.stopped is not None and found.stopped.steps == STEPS and len(checks) == STEPS // 3
    assert same_up_to_rounding(found.stopped.checks, checks) and "it ended" not in found.stopped.line()
    assert torch.equal(load_bytes(found.weights[0])["1.weight"], weights["1.weight"])


def test_of_averaged_weights_these_are_checked(tmp_path: Path) -> None:
    """With a patience of one check, the value of the only kept network is that of the average."""
    job = job_of(experiment_in(tmp_path, {"every": 24}, keep={"name": "ema", "decay": 0.5}))
    found = fine_tune_alone(job, "cpu", "elsewhere")
    plain = fine_tune_alone(replace(job, align=replace(job.align, early_stop=None), checked=None), "cpu", "plain")
    assert found.weights == plain.weights and plain.stopped is None and found.stopped is not None
    pixels = validation(tmp_path)[0].float() / 255
    same = logits(load_bytes(found.weights[0]), pixels).argmax(1) == logits(stored(tmp_path, "seer"), pixels).argmax(1)
    assert found.stopped.checks == [(24, pytest.approx(100 * float(same.double().mean())))]


@pytest.mark.parametrize("stop", [AGREEMENT, GAIN], ids=["agreement", "gain"])
@pytest.mark.parametrize("times", [2, 8, 14])
def test_it_resumes_bit_for_bit(
    stop: dict[str, Any], times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(experiment_in(tmp_path, stop))
    whole = fine_tune_alone(job, "cpu", "elsewhere")
    interrupted(monkeypatch, lambda: fine_tune_alone(job, "cpu", "broken"), at=times)
    resumed = fine_tune_alone(job, "cpu", "broken")
    assert (resumed.weights, resumed.stopped, resumed.effect) == (whole.weights, whole.stopped, whole.effect)


def test_one_that_had_ended_takes_no_further_step(tmp_path: Path) -> None:
    job = job_of(experiment_in(tmp_path, AGREEMENT))
    whole = fine_tune_alone(job, "cpu", "ended")
    assert whole.stopped is not None and whole.stopped.steps < STEPS
    again = fine_tune_alone(job, "cpu", "ended")
    assert again == whole  # down to the times of the steps


def test_checks_change_nothing_of_the_training(tmp_path: Path) -> None:
    job = job_of(experiment_in(tmp_path, {"every": 1, "patience": 100}))
    curves = [
        Trainer(replace(job, align=align, checked=checked), "cpu")
        for align, checked in ((job.align, job.checked), (replace(job.align, early_stop=None), None))
    ]
    for trainer in curves:
        trainer.run()
    losses = [[row["loss"] for row in trainer.curve] for trainer in curves]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS


def test_values_that_are_not_finite_and_images_that_were_exchanged_are_said(tmp_path: Path) -> None:
    job = job_of(experiment_in(tmp_path, GAIN))
    networks = LoadedNetworks(job.loader, "cpu")
    networks.network("cousin").net[1].bias.data.fill_(math.nan)
    message = r"the check after step 3 found values that are not finite \(the logits of cousin are not finite"
    with pytest.raises(NonFiniteLoss, match=message):
        Trainer(job, "cpu", networks=networks).run()
    assert job.checked is not None
    exchanged = replace(job, checked=replace(job.checked, contents=["0" * 32] * 60))
    with pytest.raises(InputChangedError, match=r"data\.validation: image 00000 is not as it was"):
        fine_tune_alone(exchanged, "cpu", "exchanged")


def test_validation_images_that_were_inspected_by_their_bytes(tmp_path: Path) -> None:
    decoded, undecoded = (job_of(experiment_in(tmp_path, GAIN, inspect)) for inspect in ("pixels", "bytes"))
    assert fine_tune_alone(decoded, "cpu", "one").weights == fine_tune_alone(undecoded, "cpu", "other").weights
    assert undecoded.checked is not None
    exchanged = replace(undecoded, checked=replace(undecoded.checked, contents=["0" * 32] * 60))
    with pytest.raises(InputChangedError, match=r"data\.validation: image 00000 is not as it was"):
        fine_tune_alone(exchanged, "cpu", "exchanged")


def test_where_no_image_counts_it_is_said(tmp_path: Path) -> None:
    job = job_of(experiment_in(tmp_path, GAIN))
    assert job.checked is not None
    wrong = replace(job, checked=replace(job.checked, labels=[(own + 1) % 3 for own in job.checked.labels]))
    with pytest.raises(InputError, match="no validation image is classified correctly by both the source"):
        fine_tune_alone(wrong, "cpu", "elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [AGREEMENT, GAIN], ids=["agreement", "gain"])
def test_two_workers_end_together(stop: dict[str, Any], ray_cluster: None, tmp_path: Path) -> None:
    job = job_of(experiment_in(tmp_path, stop, workers=2))
    found: Tuned = fine_tune(job, "aligned-x", WORKER)
    assert found.stopped is not None and found.stopped.steps == len(found.curve)
    trained = copy_of(LoadedNetworks(job.loader, "cpu").network("near"))
    trained.net.load_state_dict(load_bytes(found.weights[0]))
    measure = agreement if stop is AGREEMENT else gain
    assert max(value for _, value in found.stopped.checks) == pytest.approx(measure(tmp_path, trained))
