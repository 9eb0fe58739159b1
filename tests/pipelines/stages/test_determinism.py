"""For given weights, no outcome depends on the number of workers, the order of chunks, or what was finished before."""

from pathlib import Path

import numpy as np
import pytest
import torch
from digits_experiment import IMAGE_SIZE, Finished, assert_same_tables, leave_under_way, read_table
from PIL import Image

from align_core.attacks import AttackConfig, craft
from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.model_config import ModelConfig
from align_core.models import Ensemble, load
from pipelines.cli import main
from pipelines.compute.loading import on_device
from pipelines.run.command import run

RESULTS = ("adversarial", "outcomes", "clean")


@pytest.mark.slow
def test_neither_workers_nor_order_change_an_outcome(finished: Finished, tmp_path: Path) -> None:
    """Runs with one worker instead of two, from tables that hold their last chunk already, or their last two."""
    request, folder = finished.copied(tmp_path, overrides=["compute.workers=1"])
    tables = [path.parent for name in RESULTS for path in sorted((folder / name).rglob("*.parquet"))]
    for number, table in enumerate(tables):
        leave_under_way(table, [1, 2] if number % 2 else [2])
    result = run(request, ("craft", "evaluate"))
    assert sum(result.made.values()) == 2 * len(tables) - len(tables) // 2
    for name in RESULTS:
        assert_same_tables(finished.folder / name, folder / name)


@pytest.mark.parametrize("surrogate", ["aligned", "ensemble"])
@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("pgd", AttackConfig(method="pgd", eps=12 / 255, step=5 / 255, steps=3)),
        ("fgsm", AttackConfig(method="fgsm", eps=8 / 255)),
    ],
)
def test_crafting_on_the_cluster_gives_the_images_of_crafting_in_this_process(
    finished: Finished, surrogate: str, name: str, attack: AttackConfig
) -> None:
    made = read_table(finished.folder / "adversarial" / surrogate / name)
    aligned = load(ModelConfig(aligned=str(finished.folder / "models/aligned")), 10, 1)
    members = [aligned] if surrogate == "aligned" else [finished.network("cnn_a"), finished.network("wide")]
    members = [on_device(member, "cpu") for member in members]
    network = members[0] if len(members) == 1 else Ensemble(members)
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    for start in range(0, 60, 20):  # a chunk is a batch
        rows = made.iloc[start : start + 20]
        images_BCHW = torch.from_numpy(read_images(digits, rows["image_id"]))
        labels_B = torch.tensor(rows["label"].to_numpy())
        adversarial_BCHW = craft(network, images_BCHW, labels_B, rows["image_id"].tolist(), attack, seed=0)
        assert (adversarial_BCHW.numpy() == np.stack(rows["image"])).all()


class TestBadImages:
    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        """A folder of 30 test digits as image files, of which the eighth is damaged."""
        digits = open_image_set(ImageSetConfig(kind="digits"), 8)
        ids, labels = digits.listing()
        for image_id, label in list(zip(ids, labels, strict=True))[1300:1330]:
            file = tmp_path / "pictures" / str(label) / f"{image_id}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.read(image_id)[0]).save(file)
        bad = sorted((tmp_path / "pictures").rglob("*.png"))[7]
        bad.write_bytes(bad.read_bytes()[:40])
        return tmp_path / "pictures"

    def test_skip_leaves_them_out_and_prints_their_number(
        self, finished: Finished, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = [f"data.test={{kind: folder, path: {pictures}}}", "data.on_bad_image=skip", "compute.chunk=10"]
        settings += ["controls=[]", "variants={}"]
        request, folder = finished.copied(tmp_path / "runs", *RESULTS, overrides=settings)
        result = run(request, ("craft",))
        names = sorted(file.relative_to(pictures).as_posix() for file in pictures.rglob("*.png"))
        assert "witness: data.test: 1 unreadable image is left out" in capsys.readouterr().err
        assert result.made["craft"] == 2 * 2 * 3  # surrogates, attacks, chunks
        for table in ("adversarial/source/pgd", "adversarial/aligned/fgsm"):
            assert read_table(folder / table)["image_id"].tolist() == names[:7] + names[8:]

    def test_stop_names_them_and_writes_nothing(
        self, finished: Finished, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        change = f"data.test={{kind: folder, path: {pictures}}}"
        assert main(["run", str(finished.file), "--output", str(tmp_path / "runs"), "--set", change]) == 2
        printed = capsys.readouterr().err
        bad = sorted(file.relative_to(pictures).as_posix() for file in pictures.rglob("*.png"))[7]
        assert f"data.test: 1 image is unreadable ({bad}: cannot be decoded" in printed
        assert not (tmp_path / "runs").exists()
