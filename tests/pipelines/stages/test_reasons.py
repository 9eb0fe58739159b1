"""The stage that measures reasons: its values against direct calls and closed forms, its sample, resuming, failures."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hand_made import HandMade, hand_made
from hand_made_networks import EightBit
from one_worker import measure
from reasons_by_hand import SAMPLE, reasoned
from safetensors.torch import save_file

from align_core import reasons
from pipelines import load_results
from pipelines.compute.images import adversarial_images
from pipelines.compute.loading import LoadedNetworks
from pipelines.report.page import make_report
from pipelines.run.forecast import forecast_of
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import network_loader

EPS = 4 / 255
SURROGATES = ("source", "aligned", "witness", "warm")


class Setting:
    """The sample, clean and as a surrogate attacked it, and networks: loaded without the stage."""

    def __init__(self, blueprint: Blueprint, surrogate: str, attack: str = "pgd") -> None:
        manifest, positions = blueprint.inspected.manifests["test"], list(blueprint.sample.positions)
        table = blueprint.adversarial(blueprint.by_name[surrogate], attack)
        content = table.read(blueprint.store, ["image_id", "image"])
        self.ids = [manifest.ids[own] for own in positions]
        self.labels = torch.tensor(manifest.labels[positions])
        stored = np.load(Path(str(blueprint.experiment.data.test.path)))["images"]
        self.clean = torch.tensor(stored[[int(own) for own in self.ids], :, :, 0])[:, None].float() / 255
        self.attacked = torch.tensor(np.array(adversarial_images(content)[positions])).float() / 255
        self.random = reasons.random_points(self.clean, self.ids, blueprint.experiment.seed, EPS)
        self.networks = LoadedNetworks(network_loader(blueprint), "cpu")
        self.surrogate: Any = self.networks.mean_of(blueprint.by_name[surrogate].members)

    def passed(self, network: Any, points: torch.Tensor) -> reasons.Passed:
        return reasons.gradients(network, points, self.labels, self.ids)

    def gradient(self, network: Any, points: torch.Tensor) -> torch.Tensor:
        found = self.passed(network, points).gradient_BCHW
        assert found is not None
        return found


def stored(experiment: HandMade, surrogate: str, other: str = "@self") -> pd.DataFrame:
    return load_results(experiment.file).reasons_of(surrogate, other)


def close(column: pd.Series, wanted: torch.Tensor, rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(column.to_numpy(dtype=float), wanted.double().numpy(), rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("surrogate", ["source", "aligned"])
def test_what_a_surrogate_has_by_itself_is_what_direct_calls_give(with_reasons: HandMade, surrogate: str) -> None:
    at, found = Setting(with_reasons.blueprint(), surrogate), stored(with_reasons, surrogate)
    assert found["image_id"].tolist() == at.ids and found["label"].tolist() == at.labels.tolist()
    given = (at.labels, at.ids)
    clean = at.passed(at.surrogate, at.clean)
    for name, points in (("clean", at.clean), ("random", at.random), ("attacked", at.attacked)):
        here, norm = at.passed(at.surrogate, points), reasons.gradient_norm(at.gradient(at.surrogate, points))
        close(found[f"loss/{name}"], here.loss_B)
        close(found[f"gradient_l1/{name}"], norm.l1_B)
        close(found[f"gradient_l2/{name}"], norm.l2_B)
        bent = reasons.curvature(at.surrogate, points, *given, 0)
        close(found[f"curvature/{name}"], bent.value_B, rtol=0.02)
        assert found[f"curvature_converged/{name}"].tolist() == bent.converged_B.tolist()
        if name != "clean":
            close(found[f"linearity/{name}"], reasons.linearity_error(clean, here.loss_B, points - at.clean), 1e-2)
            largest = reasons.largest_linearity_error(
                at.surrogate, at.clean, *given, 0, EPS, at=clean, start_BCHW=points
            )
            close(found[f"largest_linearity/{name}"], largest.error_B, rtol=1e-2)
    along = at.attacked - at.clean
    for measure_, way in (("along", along), ("across", reasons.orthogonal_direction(along, at.ids, 0))):
        slices = reasons.loss_slice(at.surrogate, at.clean, *given, way, reasons.FACTORS)
        for number, factor in enumerate(reasons.FACTORS):
            close(found[f"loss_{measure_}/{factor:g}"], slices[:, number])
    close(found["loss_along/1"], torch.tensor(found["loss/attacked"].to_numpy()))


@pytest.mark.parametrize(("surrogate", "other"), [("aligned", "seer"), ("source", "cousin"), ("witness", "twin")])
def test_what_it_has_with_another_network_is_what_direct_calls_give(
    with_reasons: HandMade, surrogate: str, other: str
) -> None:
    at, found = Setting(with_reasons.blueprint(), surrogate), stored(with_reasons, surrogate, other)
    network = at.networks.mean_of([other])
    for name, points in (("clean", at.clean), ("random", at.random), ("attacked", at.attacked)):
        own, its = at.passed(at.surrogate, points), at.passed(network, points)
        close(found[f"divergence/{name}"], reasons.prediction_divergence(its.logits_BK, own.logits_BK), 1e-3)
        assert found[f"agreement/{name}"].tolist() == reasons.top1_agreement(its.logits_BK, own.logits_BK).tolist()
        if name != "random":
            both = at.gradient(at.surrogate, points), at.gradient(network, points)
            close(found[f"cosine/{name}"], reasons.cosine(*both))
    gradient = at.gradient(network, at.clean)
    close(found["orthogonal_share/attacked"], reasons.orthogonal_share(at.attacked - at.clean, gradient))
    assert "cosine/random" not in found


def test_a_linear_network_has_the_reasons_of_its_closed_form(with_reasons: HandMade) -> None:
    """Logits W x + b: the gradient is W^T (p - y), the Hessian W^T (diag(p) - p p^T) W."""
    at, found = Setting(with_reasons.blueprint(), "source"), stored(with_reasons, "source")
    first, second = (layer for layer in at.surrogate.net.modules() if isinstance(layer, torch.nn.Linear))
    weight = (second.weight @ first.weight).detach().double().numpy()
    bias = (second.weight @ first.bias + second.bias).detach().double().numpy()

    def softmax(images: np.ndarray) -> np.ndarray:
        logits = images @ weight.T + bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    clean, attacked = (points.flatten(1).double().numpy() for points in (at.clean, at.attacked))
    labels, p = at.labels.numpy(), softmax(clean)
    gradient = (p - np.eye(3)[labels]) @ weight
    hessians = [weight.T @ (np.diag(own) - np.outer(own, own)) @ weight for own in p]
    np.testing.assert_allclose(found["gradient_l1/clean"], np.abs(gradient).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found["gradient_l2/clean"], np.linalg.norm(gradient, axis=1), rtol=1e-4)
    largest = [np.linalg.eigvalsh(own)[-1] for own in hessians]
    converged = found["curvature_converged/clean"]
    assert converged.mean() > 0.7
    np.testing.assert_allclose(found["curvature/clean"][converged], np.array(largest)[converged], rtol=0.03)
    halfway = softmax(clean + 0.5 * (attacked - clean))
    np.testing.assert_allclose(found["loss_along/0.5"], -np.log(halfway[range(SAMPLE), labels]), rtol=1e-4)
    linear = ((attacked - clean) * gradient).sum(axis=1)
    error = -np.log(softmax(attacked)[range(SAMPLE), labels]) + np.log(p[range(SAMPLE), labels]) - linear
    np.testing.assert_allclose(found["linearity/attacked"], np.abs(error), rtol=1e-2, atol=1e-6)


def test_the_sample_has_every_class_in_proportion_and_is_drawn_by_the_seed(with_reasons: HandMade) -> None:
    blueprint = with_reasons.blueprint()
    labels = blueprint.inspected.manifests["test"].labels
    assert sorted(Counter(labels[list(blueprint.sample.positions)].tolist()).values()) == [2, 3, 3]
    assert blueprint.sample.rows == [3, 3, 2]
    assert blueprint.sample == with_reasons.blueprint().sample


def test_a_target_without_a_gradient_gets_blanks_and_has_its_predictions_compared(with_reasons: HandMade) -> None:
    found = stored(with_reasons, "aligned", "squeezed")
    blank = [column for column in found if found[column].isna().all()]
    assert blank == ["cosine/clean", "orthogonal_share/attacked", "cosine/attacked"]
    assert found.drop(columns=blank).notna().all(axis=None)


def test_a_surrogate_is_not_compared_with_itself_nor_with_what_it_knows(with_reasons: HandMade) -> None:
    pairs = set(with_reasons.blueprint().reasons())
    others = {"@self", "twin", "cousin", "squeezed"}
    assert pairs == {(name, other) for name in SURROGATES for other in (*others, "seer")} - {("witness", "seer")} | {
        ("@soft", "seer")
    }


def test_soft_labels_are_measured_at_every_temperature_of_an_alignment(with_reasons: HandMade) -> None:
    at, found = Setting(with_reasons.blueprint(), "aligned"), stored(with_reasons, "@soft", "seer")
    logits = at.passed(at.networks.mean_of(["seer"]), at.clean).logits_BK
    assert list(found.columns[2:]) == ["hit/1", "entropy/4", "confidence/4", "entropy/16", "confidence/16"]
    for temperature in (4, 16):
        close(found[f"entropy/{temperature}"], reasons.entropy(logits, temperature))
        close(found[f"confidence/{temperature}"], logits.div(temperature).softmax(dim=1).amax(dim=1))
    assert found["hit/1"].tolist() == (logits.argmax(dim=1) == at.labels).tolist()


def test_what_was_begun_is_continued_to_the_same_bytes(with_reasons: HandMade, tmp_path: Path) -> None:
    """After a kill there are the chunks that were written; a chunk file that is lost is made again."""
    experiment, was = copied(with_reasons, tmp_path), files(with_reasons)
    blueprint = experiment.blueprint()
    shutil.rmtree(Path(blueprint.store.location) / "reasons")
    assert len(blueprint.missing("reasons")) == len(was)
    measure(blueprint, chunks=2)
    under_way = Path(blueprint.store.location) / ".reasons/aligned"
    assert len(list(under_way.iterdir())) == 2
    next(iter(sorted(under_way.iterdir()))).unlink()
    part = next(part for part in forecast_of(blueprint).parts if part.name == "aligned")
    assert (part.tables, part.chunks, part.done, part.units) == (5, 15, 5, 5 * 5)
    measure(blueprint)
    assert blueprint.missing("reasons") == []
    assert files(experiment) == was


def test_a_target_that_is_added_leaves_the_others_as_they_are(with_reasons: HandMade, tmp_path: Path) -> None:
    before = with_reasons.blueprint().reasons()
    experiment = copied(with_reasons, tmp_path)
    experiment.write(**{**changes_of(with_reasons), "targets": ["twin", "cousin", "squeezed", "other"]})
    after = experiment.blueprint().reasons()
    assert {pair: own.fingerprint for pair, own in after.items() if pair in before} == {
        pair: own.fingerprint for pair, own in before.items()
    }
    assert {pair for pair in after if pair not in before} == {(name, "other") for name in SURROGATES}


def test_what_fails_on_some_image_is_a_hole_and_the_rest_is_reported(tmp_path: Path) -> None:
    """The logits of this target are finite on 8-bit images, and not at random points."""
    models = HandMade(tmp_path).content()["models"]
    picky = {"factory": "hand_made_networks:eight_bit", "args": {"width": 3}, "weights": "picky.safetensors"}
    save_file(EightBit(3).state_dict(), tmp_path / "picky.safetensors")
    experiment = reasoned(
        tmp_path, models=models | {"picky": picky}, targets=["twin", "picky"], variants={}, attacks=one_attack()
    )
    blueprint = experiment.blueprint()
    blueprint.check_finished()
    holes = [f"reasons/{name}/picky" for name in ("source", "aligned", "witness")]
    assert [hole.partition(":")[0] for hole in blueprint.holes()] == holes
    assert "the logits of picky are not finite for" in blueprint.holes()[0]
    report, _ = make_report(blueprint)
    assert {row["counterpart"] for row in report.reasons} == {"", "seer", "twin"}  # no mean over some of the targets


def test_an_experiment_without_the_section_has_no_reasons(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path).blueprint()
    assert blueprint.measurings == [] and blueprint.sample.positions == [] and blueprint.reasons() == {}
    assert "reasons" not in "".join(forecast_of(blueprint).lines())


def one_attack() -> dict[str, Any]:
    return {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 2}}


def copied(experiment: HandMade, folder: Path) -> HandMade:
    """A copy of the experiment, with its results, that a test may change."""
    shutil.copytree(experiment.folder, folder, dirs_exist_ok=True)
    copy = HandMade(folder)
    copy.write(**changes_of(experiment))
    return copy


def changes_of(experiment: HandMade) -> dict[str, Any]:
    written = yaml.safe_load(experiment.file.read_text())
    return {key: value for key, value in written.items() if key != "output"}


def files(experiment: HandMade) -> dict[str, bytes]:
    """The bytes of every finished table of reasons, by its path."""
    root = Path(experiment.blueprint().store.location)
    found = {str(file.relative_to(root)): file for file in sorted((root / "reasons").rglob("*.parquet"))}
    assert all(pq.ParquetFile(file).num_row_groups == 3 for file in found.values())
    return {name: file.read_bytes() for name, file in found.items()}
