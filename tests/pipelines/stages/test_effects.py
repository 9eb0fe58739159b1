"""What an alignment did to the likeness to its witness is measured, kept on the card and said wherever one looks."""

import json
import sys
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
from torch.nn import functional as F

import pipelines.stages.align as align_stage
from align_core.effect import Effect, Likeness
from align_core.likeness import likeness_sample
from pipelines.cli import main
from pipelines.compute.fine_tune import FineTune, fine_tune_alone
from pipelines.compute.ray_train import fine_tune
from pipelines.progress import Progress
from pipelines.report.page import computed_report, make_report
from pipelines.run.request import Request
from pipelines.run.status import status_of
from pipelines.stages.align import make_networks
from pipelines.stages.effects import effect_of
from pipelines.stages.payload import fine_tune_of

ALIGN = {"epochs": 6, "batch_size": 2, "temperature": 2.0, "label_weight": 1.0, "optimizer": {"lr": 0.05}}
WORSE = Effect(4, Likeness(1.0, 75.0), Likeness(1.5, 50.0))
BETTER = Effect(4, Likeness(1.0, 50.0), Likeness(0.5, 75.0))


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def job_in(folder: Path, base: dict[str, Any] = ALIGN, **align: Any) -> FineTune:
    blueprint = hand_made(folder, align=base | align).blueprint()
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    return fine_tune_of(blueprint, making, WORKER)


def logits(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    hidden = F.linear(images.flatten(1), state["1.weight"], state["1.bias"])
    return F.linear(hidden, state["2.weight"], state["2.bias"])


def expected(folder: Path, kept: bytes) -> tuple[list[float], list[float]]:
    """Losses and agreement in percent before and after, from the files and the formula."""
    pixels = torch.from_numpy(np.load(folder / "images.npz")["images"][:4].reshape(4, 1, 8, 8)).float() / 255
    witness = logits(load_file(folder / "seer.safetensors"), pixels)
    losses, agreement = [], []
    for state in (load_file(folder / "near.safetensors"), load_bytes(kept)):
        own = logits(state, pixels)
        p, q = (values / 2.0 for values in (witness, own))
        kl = (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1)
        losses.append(4.0 * float(kl.mean()))
        agreement.append(100 * float((own.argmax(1) == witness.argmax(1)).float().mean()))
    return losses, agreement


@pytest.mark.parametrize("keep", ["last", "ema"])
def test_it_is_measured_on_the_images_as_they_are_and_on_what_is_kept(tmp_path: Path, keep: str) -> None:
    """Training sees augmented images, and what is kept may be a mean of weights."""
    (kept,), _, effect, *_ = fine_tune_alone(job_in(tmp_path, keep=keep), "cpu", "elsewhere")
    assert effect is not None and effect.images == 4
    losses, agreement = expected(tmp_path, kept)
    assert [effect.before.loss, effect.after.loss] == pytest.approx(losses, rel=1e-4)
    assert [effect.before.agreement, effect.after.agreement] == pytest.approx(agreement)


def test_a_resumed_one_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_in(tmp_path, checkpoint_steps=1)
    whole = fine_tune_alone(job, "cpu", "elsewhere").effect
    interrupted(monkeypatch, lambda: fine_tune_alone(job, "cpu", "broken"), at=5)
    assert job.loader.store.exists("broken/state.safetensors")
    assert whole is not None and fine_tune_alone(job, "cpu", "broken").effect == whole


def test_without_a_witness_nothing_is_measured(tmp_path: Path) -> None:
    labels = {key: value for key, value in ALIGN.items() if key != "temperature"}  # which has no effect there
    assert fine_tune_alone(job_in(tmp_path, labels, weight=0.0), "cpu", "elsewhere").effect is None


@pytest.mark.slow
def test_two_workers_measure_it_once(ray_cluster: None, tmp_path: Path) -> None:
    job = job_in(tmp_path, workers=2, batch_size=4)
    (kept,), _, effect, *_ = fine_tune(job, "aligned-x", WORKER)
    losses, agreement = expected(tmp_path, kept)
    assert effect is not None and effect.images == 4
    assert [effect.before.loss, effect.after.loss] == pytest.approx(losses, rel=1e-4)
    assert [effect.before.agreement, effect.after.agreement] == pytest.approx(agreement)


def test_the_sample_is_the_same_for_every_surrogate() -> None:
    drawn = likeness_sample(2000)
    assert drawn == likeness_sample(2000) == sorted(set(drawn)) and len(drawn) == 500
    assert max(drawn) < 2000 and drawn != list(range(500))
    assert likeness_sample(500) == list(range(500))


@pytest.fixture(params=[WORSE, BETTER])
def effect(request: pytest.FixtureRequest) -> Effect:
    return request.param


def test_the_stage_says_it_and_the_card_keeps_it(
    effect: Effect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def alone(job: FineTune, run_name: str, worker: object) -> object:
        found = fine_tune_alone(job, "cpu", f".train/{run_name}")
        return found._replace(effect=found.effect and effect)

    monkeypatch.setattr(align_stage, "room_for", lambda *_, **__: 1)
    monkeypatch.setattr(align_stage, "fine_tune", alone)
    blueprint = hand_made(tmp_path, align=ALIGN, controls=["label_only"]).blueprint()
    make_networks(blueprint, WORKER, Progress(quiet=True))
    said = capsys.readouterr().err
    assert f"aligned: {effect.warning() or effect.line()}" in said and "label_only: " not in said
    assert effect_of(blueprint, "aligned") == effect and effect_of(blueprint, "label_only") is None


def finished(folder: Path, effect: Effect) -> HandMade:
    experiment = hand_made(folder)
    agreed = {"clean/near": "000000000000", "clean/seer": "000000000000", "clean/aligned": "000000000111"}
    blueprint = experiment.finish(agreed)
    card = blueprint.store.read_json("models/aligned/card.json") or {}
    blueprint.store.write_json("models/aligned/card.json", card | {"effect": effect.as_dict()})
    return experiment


def test_status_run_and_report_warn_of_it(tmp_path: Path, effect: Effect, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = finished(tmp_path, effect)
    warnings = [f"aligned: {own}"] if (own := effect.warning()) else []
    assert len(warnings) == (effect is WORSE)
    assert status_of(Request(experiment.file, quiet=True)).warnings == warnings
    assert main(["status", str(experiment.file)]) == 0
    assert capsys.readouterr().out.splitlines()[-1:] == warnings or not warnings
    assert main(["report", str(experiment.file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == warnings
    page = (experiment.report / "report.html").read_text()
    assert ("this alignment did not work" in page) == bool(warnings)


def test_the_table_has_it(tmp_path: Path, effect: Effect) -> None:
    """On test images, three of twelve predictions agree no longer."""
    blueprint = finished(tmp_path, effect).blueprint()
    report = computed_report(blueprint)
    rows = {row["surrogate"]: row for row in report.surrogates if row["attack"] == "(all)"}
    own = rows["aligned"]
    assert [own["loss_before"], own["loss_after"], own["agreement_change"]] == [1.0, effect.after.loss, -25.0]
    assert [rows["source"][name] for name in ("loss_before", "loss_after", "agreement_change")] == [None] * 3


def test_a_card_that_says_nothing_of_it_leaves_blanks(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path).finish()
    report = computed_report(blueprint)
    assert {row["loss_before"] for row in report.surrogates} == {None}
    assert not status_of(Request(tmp_path / "experiment.yaml", quiet=True)).warnings


def test_the_report_is_made_again_where_it_changes(tmp_path: Path) -> None:
    experiment = finished(tmp_path, BETTER)
    first, _ = make_report(experiment.blueprint())
    store = experiment.blueprint().store
    other = replace(BETTER, after=Likeness(0.25, 75.0))
    card = store.read_json("models/aligned/card.json") or {}
    store.write_json("models/aligned/card.json", card | {"effect": other.as_dict()})
    second, is_new = make_report(experiment.blueprint())
    assert is_new and first.fingerprint != second.fingerprint
