"""A matrix of three networks on the digits, run whole: its cells are what PyTorch computes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from digits_experiment import IMAGE_SIZE, Finished, read_table, write_experiment
from digits_folder import changed, state

from align_core.images import ImageSetConfig, open_image_set, read_images
from pipelines.cli import main
from pipelines.run.clean import evaluate_clean
from pipelines.run.command import run
from pipelines.run.request import Request
from pipelines.run.verify import verify_experiment

NAMES = ("cnn_a", "cnn_b", "cnn_c")
ROLES = ("source", "aligned", "label_only")
ATTACK = {"pgd": {"method": "pgd", "eps": "12/255", "step": "5/255", "steps": 3}}


@pytest.fixture(scope="module")
def matrix(ray_cluster: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("matrix")
    changes = {"matrix": list(NAMES), "source": None, "targets": None, "variants": {}, "controls": ["label_only"]}
    file = write_experiment(folder, weights, **changes, attacks=ATTACK)
    return Finished(file, run(Request(file, ["align.epochs=1"], quiet=True)))


@pytest.fixture(scope="module")
def transfer(matrix: Finished) -> pd.DataFrame:
    return pd.read_csv(matrix.folder / "report/transfer.csv").set_index(["surrogate", "attack", "target"])


def test_every_model_is_a_source_and_a_target_of_the_others(matrix: Finished, transfer: pd.DataFrame) -> None:
    cells = {(f"{role}-{own}", "pgd", target) for role in ROLES for own in NAMES for target in NAMES if own != target}
    assert {row for row in transfer.index if not row[2].startswith("(")} == cells
    stored = {path.parts[-3:] for path in (matrix.folder / "outcomes").glob("*/*/*")}
    assert stored == cells | {(surrogate, attack, "@self") for surrogate, attack, _ in cells}


@pytest.mark.parametrize(("surrogate", "source", "target"), [
    ("source-cnn_b", "cnn_b", "cnn_a"), ("aligned-cnn_a", "cnn_a", "cnn_c"),
])  # fmt: skip
def test_a_cell_is_what_the_target_predicts_on_the_images(
    matrix: Finished, transfer: pd.DataFrame, surrogate: str, source: str, target: str
) -> None:
    ids = [f"{row:05d}" for row in range(1200, 1260)]
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    labels = torch.from_numpy(digits.listing()[1][1200:1260])
    adversarial = read_table(matrix.folder / "adversarial" / surrogate / "pgd")
    assert adversarial["image_id"].tolist() == ids

    def wrong(name: str, images_BCHW: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            logits_BK = matrix.network(name)(torch.from_numpy(images_BCHW.astype(np.float32) / 255))
        return logits_BK.argmax(dim=1) != labels

    clean_BCHW, attacked_BCHW = read_images(digits, ids), np.stack(list(adversarial["image"]))
    counted = ~wrong(source, clean_BCHW) & ~wrong(target, clean_BCHW)
    fooled = wrong(target, attacked_BCHW)[counted]
    row = transfer.loc[surrogate, "pgd", target]
    assert row["n"] == counted.sum() > 10
    assert row["rate"] == pytest.approx(100 * fooled.float().mean().item(), abs=1e-3)
    if surrogate.startswith("aligned"):
        base = np.stack(list(read_table(matrix.folder / "adversarial" / f"source-{source}" / "pgd")["image"]))
        gain = fooled.float().mean() - wrong(target, base)[counted].float().mean()
        assert row["gain"] == pytest.approx(100 * gain.item(), abs=1e-3)


def test_means_are_those_of_the_rows_of_the_others(transfer: pd.DataFrame) -> None:
    for role in ROLES:
        for own in NAMES:
            rows = transfer.loc[[(f"{role}-{own}", "pgd", target) for target in NAMES if target != own]]
            mean = transfer.loc[f"{role}-{own}", "pgd", "(mean)"]
            assert mean["rate"] == pytest.approx(rows["rate"].mean(), abs=1e-3)
            assert (
                np.isnan(mean["gain"])
                if role == "source"
                else mean["gain"] == pytest.approx(rows["gain"].mean(), abs=1e-3)
            )


def test_every_aligned_model_is_compared_with_its_own_control(matrix: Finished) -> None:
    contrasts = pd.read_csv(matrix.folder / "report/contrasts.csv")
    found = set(zip(contrasts["surrogate"], contrasts["baseline"], contrasts["target"], strict=True))
    targets = {own: {*NAMES, "(mean)"} - {own} for own in NAMES}
    assert found == {(f"aligned-{own}", f"label_only-{own}", target) for own in NAMES for target in targets[own]}


def test_the_time_of_every_fine_tune_is_that_of_its_card(matrix: Finished) -> None:
    times = pd.read_csv(matrix.folder / "report/times.csv").set_index(["surrogate", "attack"])
    made = {f"{role}-{own}" for role in ROLES[1:] for own in NAMES}
    assert {surrogate for surrogate, attack in times.index if attack == "(fine-tune)"} == made
    assert (times.loc[[(name, "(fine-tune)") for name in made], "images"] == 256).all()  # an epoch


def test_what_is_there_is_not_computed_again_and_is_what_it_claims_to_be(
    matrix: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    request, before = Request(matrix.file, ["align.epochs=1"], quiet=True), state(matrix.folder)
    assert run(request).made == {"report": 0}
    assert changed(matrix.folder, before) == set()
    assert verify_experiment(request).findings == []
    roles = {row.name: row.role for row in evaluate_clean(request).rows}
    assert {name: roles[name] for name in (*NAMES, "wide", "aligned-cnn_b")} == {
        **dict.fromkeys(NAMES, "source, target"), "wide": "witness", "aligned-cnn_b": "surrogate",
    }  # fmt: skip
    assert main(["run", str(matrix.file), "--set", "align.epochs=1"]) == 0
    said = capsys.readouterr().out
    assert all(f"aligned-{own} under pgd: " in said for own in NAMES)
    # The file that a run leaves is the same experiment.
    again = Request(matrix.folder / "experiment.yaml", output=str(matrix.folder.parent), quiet=True)
    assert run(again).made == {"report": 0}
