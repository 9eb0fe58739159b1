"""Defended targets: what they predict, count as, and are identified by; and where a defence is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from crafted_by_hand import crafted
from digits_experiment import read_table
from hand_made import IMAGES, HandMade, hand_made
from PIL import Image

from align_core.defences.resize_pad import resize_pad
from align_core.randomness import image_keys, part_keys
from pipelines.cli import main
from pipelines.compute.loading import LoadedNetworks
from pipelines.experiment.config import load_experiment
from pipelines.experiment.written import as_yaml
from pipelines.run.request import Request
from pipelines.run.verify import verify_experiment
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import network_loader

JPEG = {"wrap": "jpeg", "quality": 10, "model": "twin"}
DRAWN = {"wrap": "resize_pad", "smallest": 0.5, "model": "twin"}


def with_models(**models: Any) -> dict[str, Any]:
    return {"models": HandMade(Path()).content()["models"] | models}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return crafted(
        tmp_path_factory.mktemp("defended"),
        **with_models(jpeg=JPEG, both={"wrap": "bits", "depth": 1, "model": "jpeg"}, drawn=DRAWN),
        targets=["twin", "jpeg", "both", "drawn"],
        controls=[],
    )


def test_a_defended_target_predicts_what_its_model_does_on_what_the_defence_leaves(made: HandMade) -> None:
    networks = LoadedNetworks(network_loader(made.blueprint()), "cpu")
    folder = made.output / "by-hand"
    shown = np.stack(read_table(folder / "adversarial" / "aligned" / "pgd")["image"])

    def through_jpeg(pixels: np.ndarray) -> np.ndarray:
        file = made.folder / "through.jpg"
        Image.fromarray(pixels).save(file, quality=10)
        return np.asarray(Image.open(file))

    def predicted(images: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return networks.network("twin")(torch.from_numpy(images).float()[:, None] / 255).softmax(dim=1)

    after_jpeg = np.stack([through_jpeg(pixels) for pixels in shown[:, 0]])
    of_bits = np.stack([through_jpeg(pixels) for pixels in np.where(shown[:, 0] > 127, 255, 0).astype(np.uint8)])
    for target, images in (("twin", shown[:, 0]), ("jpeg", after_jpeg), ("both", of_bits)):
        outcome = read_table(folder / "outcomes" / "aligned" / "pgd" / target)
        probabilities = predicted(images)
        assert outcome["adversarial_prediction"].tolist() == probabilities.argmax(dim=1).tolist()
        confidence = probabilities[torch.arange(IMAGES), torch.tensor(outcome["label"])]
        assert outcome["adversarial_confidence"].tolist() == pytest.approx(confidence.tolist(), abs=1e-5)
    # Predictions may be the same in spite of a defence, confidences are not.
    assert (predicted(after_jpeg) - predicted(shown[:, 0])).abs().amax(dim=1).median() > 1e-3
    assert (predicted(of_bits) - predicted(after_jpeg)).abs().amax(dim=1).median() > 1e-3


def test_source_and_aligned_meet_the_same_draws(made: HandMade) -> None:
    """Each outcome is that of the image shrunk and placed by the seed and its id, whatever the surrogate and chunk."""
    experiment = load_experiment(made.file)
    twin = LoadedNetworks(network_loader(made.blueprint()), "cpu").network("twin")
    for surrogate in ("source", "aligned"):
        shown = read_table(made.output / "by-hand" / "adversarial" / surrogate / "pgd")
        images, ids = torch.from_numpy(np.stack(shown["image"])).float() / 255, list(shown["image_id"])
        keys = part_keys(image_keys(experiment.seed, ids), 0, "resize_pad")
        with torch.no_grad():
            probabilities = twin(resize_pad(images, keys, smallest=0.5)).softmax(dim=1)
        outcome = read_table(made.output / "by-hand" / "outcomes" / surrogate / "pgd" / "drawn")
        confidence = probabilities[torch.arange(IMAGES), torch.tensor(outcome["label"])]
        assert outcome["adversarial_confidence"].tolist() == pytest.approx(confidence.tolist(), abs=1e-5)


def test_it_is_related_to_the_source_as_the_model_within(made: HandMade) -> None:
    rows = pd.read_csv(made.report / "transfer.csv")
    relations = rows.groupby("target")["relation"].unique()
    assert relations["jpeg"] == relations["both"] == relations["twin"] == ["same_architecture"]


def test_verify_finds_nothing_wrong(made: HandMade) -> None:
    assert verify_experiment(Request(made.file, quiet=True), sample=IMAGES).findings == []


def test_the_experiment_as_resolved_reads_as_the_same_again(made: HandMade, tmp_path: Path) -> None:
    experiment = load_experiment(made.file)
    (tmp_path / "again.yaml").write_text(as_yaml(experiment))
    assert load_experiment(tmp_path / "again.yaml").models == experiment.models
    assert yaml.safe_load(as_yaml(experiment))["models"]["jpeg"] == JPEG


def outcomes(blueprint: Blueprint) -> dict[str, str]:
    return {cell.target: cell.table.fingerprint for cell in blueprint.cells() if cell.surrogate == "source"}


def test_identity(tiny_blueprint: Callable[[str], Blueprint]) -> None:
    """The defence and the model within decide; the name, and what is another's, do not."""
    base = "models.j={wrap: jpeg, model: c};targets=[c, j]"
    before = outcomes(tiny_blueprint(base))
    assert before["c"] != before["j"]
    assert outcomes(tiny_blueprint(f"{base};models.j.quality=75")) == before  # as by default
    for change in ("models.j.quality=74", "models.j={wrap: bits, model: c}", "models.j.model=d"):
        after = outcomes(tiny_blueprint(f"{base};{change}"))
        assert after["c"] == before["c"] and after["j"] != before["j"]
    assert outcomes(tiny_blueprint(f"{base};models.c.weights=d.safetensors"))["j"] != before["j"]
    renamed = outcomes(tiny_blueprint("models.k={wrap: jpeg, model: c};targets=[c, k]"))
    assert renamed["k"] == before["j"]
    one = outcomes(tiny_blueprint(f"{base};models.k={{wrap: bits, model: j}};targets=[k]"))
    other = outcomes(tiny_blueprint("models.j={wrap: bits, model: c};models.k={wrap: jpeg, model: j};targets=[k]"))
    assert one["k"] != other["k"]


def test_the_seed_decides_what_a_defence_that_draws_predicts_on_clean_images(
    tiny_blueprint: Callable[[str], Blueprint],
) -> None:
    def clean(seed: int) -> dict[str, str]:
        models = "models.j={wrap: jpeg, model: c};models.k={wrap: resize_pad, model: c};targets=[c, j, k]"
        tables = tiny_blueprint(f"{models};seed={seed}").clean()
        return {name: tables[name].table.fingerprint for name in "cjk"}

    one, other = clean(0), clean(1)
    assert one["c"] == other["c"] and one["j"] == other["j"]
    assert one["k"] != other["k"]


def test_a_model_that_is_trained_here_is_trained_for_its_defended_form(
    tiny_blueprint: Callable[[str], Blueprint],
) -> None:
    blueprint = tiny_blueprint("models.j={wrap: jpeg, model: e};targets=[j]")
    assert blueprint.trained_for_run == ["e"]
    assert not blueprint.is_made("j")
    blueprint.lost["e"] = "it diverged"
    (making,) = blueprint.trainings()
    blueprint.store.write_json(making.failed_file, {"fingerprint": making.fingerprint, "reason": "it diverged"})
    blueprint.refresh()
    assert blueprint.lost["j"] == "it is e with a defence, which could not be made"
    assert blueprint.targets == []
    shutil.rmtree(blueprint.store.location)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"models": {"w": {"wrap": "jpg", "model": "twin"}}}, "models.w: there is no wrap 'jpg'; did you mean 'jpeg'?"),
        (
            {"models": {"w": {"wrap": "jpeg", "qualty": 5, "model": "twin"}}},
            "models.w: wrap jpeg has no setting 'qualty'; did you mean 'quality'?",
        ),
        (
            {"models": {"w": {"wrap": "jpeg", "quality": 500, "model": "twin"}}},
            "models.w: quality of wrap jpeg must be from 1 to 100, not 500",
        ),
        (
            {"models": {"w": {"wrap": "jpeg", "model": "twinn"}}},
            "models.w.model: there is no model 'twinn'; did you mean 'twin'?",
        ),
        ({"models": {"w": {"wrap": "jpeg"}}}, "models.w: a `wrap` is put around the model of the experiment that"),
        ({"models": {"w": {"warp": "jpeg", "model": "twin"}}}, "models.w.warp: unknown key; did you mean 'wrap'?"),
        (
            {"models": {"w": {"wrap": "jpeg", "model": "twin", "mean": [0.5], "std": [0.5]}}},
            "models.w: mean is that of the model within, 'twin': set it there",
        ),
        (
            {"models": {"w": {"wrap": "jpeg", "model": "v"}, "v": {"wrap": "bits", "model": "w"}}},
            "models.w.model: w -> v -> w has no model within",
        ),
        ({"source": "jpeg"}, "source: jpeg is defended (wrap: jpeg), and a defence is not differentiable"),
        ({"witnesses": ["jpeg"]}, "witnesses: jpeg is defended (wrap: jpeg), and a defence is not differentiable"),
        ({"variants": {"v": {"source": "jpeg"}}}, "variants.v.source: jpeg is defended"),
        ({"variants": {"v": {"model": "jpeg"}}}, "Name the model within, twin"),
        (
            {"models": {"w": {"wrap": "bits", "model": "near"}}, "targets": ["w"]},
            "targets: w is near with a defence, and near is named in source too",
        ),
        (
            {"targets": ["jpeg"], "validation_targets": ["twin"]},
            "validation_targets: twin and a target are one model, apart from a defence; tuning must not see",
        ),
    ],
)
def test_what_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    complaint: str,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    models = with_models(jpeg=JPEG, **changes.pop("models", {}))
    experiment = hand_made(tmp_path, **{"targets": ["stranger"], **models, **changes})
    assert main(["run", str(experiment.file)]) == 2
    assert complaint in capsys.readouterr().err
    assert not experiment.output.exists()
