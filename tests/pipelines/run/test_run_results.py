"""The results of `witness run`: networks, adversarial images and predictions, compared with what PyTorch computes."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from digits_experiment import IMAGE_SIZE, Finished, read_table
from digits_folder import ATTACKS, CHUNKS, MEMBERS, TARGETS
from safetensors.torch import load_file

from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.models import Classifier
from align_core.weights import hash_weights

IDS = [f"{row:05d}" for row in range(1200, 1260)]


@pytest.fixture(scope="module")
def networks(finished: Finished) -> dict[str, Classifier]:
    return {name: finished.network(name) for members in [*MEMBERS.values(), list(TARGETS)] for name in members}


@pytest.fixture(scope="module")
def clean_images() -> tuple[np.ndarray, np.ndarray]:
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    return read_images(digits, IDS), digits.listing()[1][1200:1260]


def predicted(members: list[Classifier], images_BCHW: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        pixels_BCHW = torch.from_numpy(images_BCHW.astype(np.float32) / 255)
        return torch.stack([member(pixels_BCHW) for member in members]).mean(dim=0)


def assert_predictions(table: pd.DataFrame, logits_BK: torch.Tensor, labels: np.ndarray, prefix: str) -> None:
    assert list(table.columns) == ["image_id", "label", f"{prefix}prediction", f"{prefix}confidence"]
    assert table["image_id"].tolist() == IDS
    assert (table["label"] == labels).all()
    assert (table[f"{prefix}prediction"] == logits_BK.argmax(dim=1).numpy()).all()
    confidence = logits_BK.softmax(dim=1)[range(len(labels)), labels]
    np.testing.assert_allclose(table[f"{prefix}confidence"], confidence, atol=1e-5)


class TestResults:
    def test_networks_have_the_weights_and_settings_that_their_cards_say(self, finished: Finished) -> None:
        names = ["trained/mlp", "models/aligned", "models/label_only", "models/warm", "models/other"]
        folders = [finished.folder / name for name in names]
        tables = len(MEMBERS) * len(ATTACKS)
        assert finished.result.made == {
            "align": len(folders),
            "craft": tables * CHUNKS,
            "evaluate": (tables * len(["@self", *TARGETS]) + 11) * CHUNKS,
            "report": 1,
        }
        for folder in folders:
            assert {file.name for file in folder.iterdir()} == {"model.safetensors", "card.json", "curves.csv"}
            card = json.loads((folder / "card.json").read_text())
            assert card["weights"] == hash_weights(load_file(folder / "model.safetensors"))
            curve = pd.read_csv(folder / "curves.csv")
            assert curve["step"].tolist() == list(range(16 if folder.parent.name == "models" else 40))
            assert curve["loss"].notna().all() and curve["timestamp"].is_monotonic_increasing
        cards = {folder.name: json.loads((folder / "card.json").read_text()) for folder in folders}
        assert [cards[name]["settings"]["temperature"] for name in ("aligned", "warm")] == [4, 16]
        assert [cards[name]["start"] for name in ("mlp", "aligned", "other")] == [None, "cnn_a", "cnn_b"]
        assert [cards[name]["witnesses"] for name in ("aligned", "label_only")] == [["wide"], []]
        assert cards["label_only"]["settings"]["label_weight"] == 1
        assert len({card["weights"] for card in cards.values()}) == len(folders)

    def test_adversarial_images_lie_in_the_ball(
        self, finished: Finished, clean_images: tuple[np.ndarray, np.ndarray]
    ) -> None:
        images, labels = clean_images
        for surrogate in MEMBERS:
            for attack, eps in ATTACKS.items():
                folder = finished.folder / "adversarial" / surrogate / attack
                (file,) = folder.iterdir()
                schema = pq.read_schema(file)
                assert schema.names == ["image_id", "label", "image", "linf", "l2", "ssim", "pass_rows"]
                assert schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), [1, IMAGE_SIZE, IMAGE_SIZE])
                assert [schema.field(name).type for name in ("label", "linf", "l2")] == [
                    pa.int64(), pa.float32(), pa.float32()
                ]  # fmt: skip
                table = read_table(folder)
                assert table["image_id"].tolist() == IDS
                assert (table["label"] == labels).all()
                moved = (np.stack(table["image"]).astype(int) - images).reshape(len(IDS), -1) / 255
                np.testing.assert_allclose(table["linf"], abs(moved).max(axis=1), rtol=1e-6)
                np.testing.assert_allclose(table["l2"], np.sqrt((moved**2).sum(axis=1)), rtol=1e-5)
                assert eps / 2 < table["linf"].max() <= eps * (1 + 1e-6)

    def test_predictions_on_clean_images_are_the_networks_own(
        self, finished: Finished, networks: dict[str, Classifier], clean_images: tuple[np.ndarray, np.ndarray]
    ) -> None:
        images, labels = clean_images
        members = {name: [name] for name in ("cnn_a", "cnn_b", "cnn_c", "mlp", "wide")}
        members |= {name: names for name, names in MEMBERS.items() if name not in ("source", "source-cnn_b", "witness")}
        assert {folder.name for folder in (finished.folder / "clean").iterdir()} == members.keys()
        for name, names in members.items():
            logits_BK = predicted([networks[member] for member in names], images)
            assert_predictions(read_table(finished.folder / "clean" / name), logits_BK, labels, "")

    def test_outcomes_are_the_networks_own_predictions_on_the_stored_images(
        self, finished: Finished, networks: dict[str, Classifier], clean_images: tuple[np.ndarray, np.ndarray]
    ) -> None:
        for surrogate, members in MEMBERS.items():
            for attack in ATTACKS:
                images = np.stack(read_table(finished.folder / "adversarial" / surrogate / attack)["image"])
                for target, names in {"@self": members, "cnn_c": ["cnn_c"], "mlp": ["mlp"]}.items():
                    logits_BK = predicted([networks[name] for name in names], images)
                    table = read_table(finished.folder / "outcomes" / surrogate / attack / target)
                    assert_predictions(table, logits_BK, clean_images[1], "adversarial_")

    def test_the_resolved_experiment_contains_every_setting_hash_and_version(self, finished: Finished) -> None:
        text = (finished.folder / "experiment.yaml").read_text()
        resolved = yaml.safe_load(text)
        assert resolved["align"]["temperature"] == 4
        assert resolved["controls"] == ["label_only", "witness", "ensemble", "aligned_ensemble"]
        assert resolved["attacks"]["fgsm"]["eps"] == pytest.approx(8 / 255)
        found = text.partition("# What was found")[2]
        card = json.loads((finished.folder / "models/aligned/card.json").read_text())
        assert f"aligned: {card['weights']}" in found
        assert "torch:" in found and "ray:" in found
