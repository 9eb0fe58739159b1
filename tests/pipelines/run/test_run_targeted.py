"""A whole run with targeted attacks, a witness that comes with its weights, and a target behind JPEG."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from digits_experiment import IMAGE_SIZE, SMALL, Finished, experiment, read_table
from PIL import Image

from align_core.images import ImageSetConfig, open_image_set, read_images
from pipelines.run.command import run
from pipelines.run.request import Request
from pipelines.run.verify import verify_experiment

pytestmark = pytest.mark.slow

RULES = ("next", "random", "least_likely")


@pytest.fixture(scope="module")
def targeted(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("targeted")
    content = experiment(weights, output=str(folder / "runs"), tracking=f"sqlite:///{folder}/mlflow.db")
    zoo = {"weights": str(weights / "cnn_d.safetensors"), **SMALL}
    content["models"] |= {
        "zoo": {"factory": "zoo_of_digits:net", "args": zoo, "weights": "none"},
        "jpeg": {"wrap": "jpeg", "quality": 30, "model": "cnn_c"},
    }
    attack = {"method": "logit", "eps": "48/255", "steps": 10, "kernel": 0}
    content |= {
        "witnesses": ["zoo"],
        "targets": ["cnn_c", "jpeg"],
        "variants": {"other": {"source": "cnn_b"}},
        "controls": ["witness"],
        "attacks": {rule: {**attack, "towards": rule} for rule in RULES},
    }
    file = folder / "digits.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return Finished(file, run(Request(file)))


@pytest.fixture(scope="module")
def clean() -> tuple[np.ndarray, np.ndarray]:
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE, 1)
    ids, labels = digits.listing()
    return read_images(digits, ids[1200:1260]), labels[1200:1260]


def test_all_surrogates_are_led_to_the_source_s_least_likely_class(
    targeted: Finished, clean: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = clean
    with torch.no_grad():
        logits = targeted.network("cnn_a")(torch.from_numpy(images) / 255).numpy()
    logits[np.arange(60), labels] = np.inf
    for surrogate in ("source", "aligned", "witness", "source-cnn_b", "other"):
        rows = read_table(targeted.folder / "adversarial" / surrogate / "least_likely")
        assert (rows["towards"] == logits.argmin(axis=1)).all()
        assert (read_table(targeted.folder / "adversarial" / surrogate / "next")["towards"] == (labels + 1) % 10).all()


def test_the_target_behind_jpeg_sees_what_jpeg_leaves(targeted: Finished) -> None:
    shown = np.stack(read_table(targeted.folder / "adversarial" / "aligned" / "next")["image"])
    after = []
    for pixels in shown:
        file = io.BytesIO()
        Image.fromarray(pixels[0]).save(file, "JPEG", quality=30)
        after.append(np.asarray(Image.open(file)))
    with torch.no_grad():
        expected = targeted.network("cnn_c")(torch.from_numpy(np.stack(after))[:, None] / 255).argmax(dim=1)
    outcome = read_table(targeted.folder / "outcomes" / "aligned" / "next" / "jpeg")
    assert outcome["adversarial_prediction"].tolist() == expected.tolist()
    bare = read_table(targeted.folder / "outcomes" / "aligned" / "next" / "cnn_c")
    assert (bare["adversarial_confidence"] != outcome["adversarial_confidence"]).any()


def test_rates(targeted: Finished) -> None:
    rows = pd.read_csv(targeted.folder / "report" / "transfer.csv").set_index(["surrogate", "attack", "target"])
    own = pd.read_csv(targeted.folder / "report" / "surrogates.csv").set_index(["surrogate", "attack"])
    for rule in RULES:
        assert own.loc[("source", rule), "whitebox_targeted_rate"] > 3  # of images that were classified correctly
        led = read_table(targeted.folder / "adversarial" / "aligned" / rule)["towards"]
        clean_of = {name: read_table(targeted.folder / "clean" / name) for name in ("cnn_a", "cnn_c", "jpeg")}
        right = {name: (table["prediction"] == table["label"]) for name, table in clean_of.items()}
        shares = []
        for target in ("cnn_c", "jpeg"):
            outcome = read_table(targeted.folder / "outcomes" / "aligned" / rule / target)
            counted = right["cnn_a"] & right[target]
            shares.append(100 * (outcome["adversarial_prediction"] == led)[counted].mean())
            assert rows.loc[("aligned", rule, target), "targeted_rate"] == pytest.approx(shares[-1], abs=1e-4)
            assert rows.loc[("aligned", rule, target), "relation"] == "same_architecture"
        assert rows.loc[("aligned", rule, "(mean)"), "targeted_rate"] == pytest.approx(np.mean(shares), abs=1e-4)


def test_verify_finds_nothing_and_another_run_computes_nothing(targeted: Finished) -> None:
    assert verify_experiment(Request(targeted.file, quiet=True), sample=60).findings == []
    assert not any(run(Request(targeted.file, quiet=True)).made.values())
