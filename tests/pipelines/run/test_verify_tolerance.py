"""What `witness verify` takes for the same: by the precision of predictions, and by the radius that was crafted in."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from crafted_by_hand import crafted
from damaged_tables import findings, rewrite, table, verified

from align_core.attacks.updates import levels_of

CLEAN, IMAGES = "clean/twin", "adversarial/aligned/pgd"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_tolerance_is_that_of_the_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = crafted(tmp_path, compute={"chunk": 3, "precision": precision})
    assert verified(made).findings == []
    rewrite(table(made, CLEAN), "prediction", lambda values: (values + 1) % 3)
    others = dict.fromkeys({"fp32", "tf32", "bf16"} - {precision}, 1e9)
    monkeypatch.setattr("pipelines.run.verify_tables._TIE", {precision: 1e-4, **others})
    assert f"{CLEAN}: 12 of 12 images are predicted differently now" in findings(made)
    monkeypatch.setattr("pipelines.run.verify_tables._TIE", {precision: 1e9, **dict.fromkeys(others, 1e-4)})
    assert CLEAN not in findings(made)


@pytest.mark.parametrize(("eps", "levels"), [(8 / 255, 8), (0.0313725, 8), (0.0314, 8), (0.0313, 7), (4 / 255, 4)])
def test_the_radius_is_that_of_crafting(tmp_path: Path, monkeypatch, eps: float, levels: int) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert levels_of(eps) == levels
    attacks = {"pgd": {"method": "pgd", "eps": eps, "step": "4/255", "steps": 4}}
    made = crafted(tmp_path, attacks=attacks)
    assert verified(made).findings == []
    images = pq.read_table(table(made, IMAGES).parent)["linf"].to_numpy()
    assert round(float(images.max()) * 255) == levels
