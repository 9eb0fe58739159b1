"""Targeted attacks in an experiment: the class that each rule leads to, the same for every surrogate; rates; verify."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from crafted_by_hand import finish
from digits_experiment import read_table
from hand_made import CLASSES, IMAGES, HandMade, hand_made
from one_worker import crafter_of

from align_core.model_config import ModelConfig
from align_core.models import load
from pipelines.cli import main
from pipelines.run.request import Request
from pipelines.run.verify import verify_experiment
from pipelines.stages.craft import CraftItem
from pipelines.storage.flat import tensors_of

RULES = ("column", "next", "random", "least_likely")
LABELS = np.arange(4, 4 + IMAGES) % CLASSES
LISTED = (LABELS + 2) % CLASSES


def attacks(*rules: str) -> dict[str, Any]:
    own = {"method": "logit", "eps": "64/255", "steps": 5, "views": [], "kernel": 0}
    return {rule: {**own, "towards": rule} for rule in rules} | {"mi": {"method": "mi", "eps": "16/255", "steps": 2}}


def with_column(experiment: HandMade, listed: np.ndarray = LISTED) -> None:
    """Adds classes to lead to to the images; those of the training images are never looked at."""
    with np.load(experiment.folder / "images.npz") as stored:
        images, labels = stored["images"], stored["labels"]
    np.savez(
        experiment.folder / "images.npz", images=images, labels=labels, targeted_labels=np.append([99] * 4, listed)
    )


@pytest.fixture(scope="module")
def targeted(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    experiment = hand_made(
        tmp_path_factory.mktemp("targeted"),
        compute={"chunk": 5},
        attacks=attacks(*RULES),
        controls=["ensemble"],
        variants={"far": {"source": "other"}},
    )
    with_column(experiment)
    finish(experiment.blueprint())
    return experiment


def adversarial(experiment: HandMade, surrogate: str, attack: str) -> pd.DataFrame:
    return read_table(experiment.output / "by-hand" / "adversarial" / surrogate / attack)


def source_logits(experiment: HandMade) -> torch.Tensor:
    """The logits of the source on the clean test images, without any code of the pipelines."""
    config = experiment.content()["models"]["near"]
    weights = experiment.folder / str(config.pop("weights"))
    with np.load(experiment.folder / "images.npz") as stored:
        pixels = torch.from_numpy(stored["images"][4:]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        return load(ModelConfig(**config, weights=str(weights)), CLASSES, 1)(pixels)


def test_every_rule_leads_every_surrogate_to_the_same_class(targeted: HandMade) -> None:
    names = [surrogate.name for surrogate in targeted.blueprint().surrogates]
    assert {"source", "aligned", "ensemble", "source-other", "far"} <= set(names)
    led = {rule: adversarial(targeted, "source", rule)["towards"].to_numpy() for rule in RULES}
    for rule in RULES:
        for name in names:
            rows = adversarial(targeted, name, rule)
            assert rows["towards"].dtype == np.int64
            assert (rows["towards"] == led[rule]).all()
            assert (rows["towards"] != rows["label"]).all()
    assert (led["column"] == LISTED).all()
    assert (led["next"] == (LABELS + 1) % CLASSES).all()
    logits = source_logits(targeted).numpy()
    logits[np.arange(IMAGES), LABELS] = np.inf
    assert (led["least_likely"] == logits.argmin(axis=1)).all()
    assert 0 < (led["random"] == led["next"]).sum() < IMAGES
    assert "towards" not in adversarial(targeted, "source", "mi")


def test_the_surrogates_own_rate(targeted: HandMade) -> None:
    folder = targeted.output / "by-hand"
    rows = pd.read_csv(targeted.report / "surrogates.csv").set_index(["surrogate", "attack"])
    clean = read_table(folder / "clean" / "near")
    right = (clean["prediction"] == clean["label"]).to_numpy()
    for rule in RULES:
        led = adversarial(targeted, "source", rule)["towards"].to_numpy()
        hit = read_table(folder / "outcomes" / "source" / rule / "@self")["adversarial_prediction"].to_numpy() == led
        assert hit.sum() > (clean["prediction"].to_numpy() == led).sum()  # the attack does lead there
        row = rows.loc[("source", rule)]
        assert row["whitebox_targeted_rate"] == pytest.approx(100 * hit[right].mean(), abs=1e-4)
    assert rows.xs("mi", level="attack")["whitebox_targeted_rate"].isna().all()


def test_rates_are_those_of_the_outcomes(targeted: HandMade) -> None:
    folder = targeted.output / "by-hand"
    rows = pd.read_csv(targeted.report / "transfer.csv").set_index(["surrogate", "attack", "target"])
    right = {
        name: (lambda table: (table["prediction"] == table["label"]).to_numpy())(read_table(folder / "clean" / name))
        for name in ("near", "twin", "cousin", "stranger")
    }
    for rule in RULES:
        shares = []
        for target in ("twin", "cousin", "stranger"):
            outcome = read_table(folder / "outcomes" / "aligned" / rule / target)["adversarial_prediction"]
            hit = (outcome == adversarial(targeted, "aligned", rule)["towards"]).to_numpy()
            row = rows.loc[("aligned", rule, target)]
            counted = right["near"] & right[target]
            if counted.any():
                shares.append(100 * hit[counted].mean())
                assert row["targeted_rate"] == pytest.approx(shares[-1], abs=1e-4)
                assert row["targeted_low"] <= row["targeted_rate"] <= row["targeted_high"]
                assert row["rate"] >= row["targeted_rate"]  # whoever takes an image for that class is wrong
        assert rows.loc[("aligned", rule, "(mean)"), "targeted_rate"] == pytest.approx(np.mean(shares), abs=1e-4)
    blank = rows.xs("mi", level="attack")[["targeted_rate", "targeted_low", "targeted_high"]]
    assert blank.isna().all().all()


def test_workers_craft_what_is_in_the_tables(targeted: HandMade) -> None:
    """The worker of a run, in this process: the tables here were made without it."""
    blueprint = targeted.blueprint()
    crafter = crafter_of(blueprint)
    for attack in (*RULES, "mi"):
        table = crafter.job.tables[f"far/{attack}"]
        assert crafter(CraftItem(surrogate="far", attack=attack, chunk=1, clean=crafter.job.images.read(1)))["made"]
        made = tensors_of(pq.read_table(targeted.output / "by-hand" / table.chunk_file(1)))
        assert made.replace_schema_metadata().equals(table.read_chunk(blueprint.store, 1, 5).replace_schema_metadata())
        blueprint.store.delete(table.chunk_file(1))


def test_verify_finds_nothing_wrong(targeted: HandMade) -> None:
    assert verify_experiment(Request(targeted.file, quiet=True), sample=IMAGES).findings == []


@pytest.mark.parametrize(
    ("rule", "column", "value", "finding"),
    [
        ("next", "towards", int(LABELS[0] + 2) % CLASSES, "are led to another class than the next one: 00004"),
        ("column", "towards", int(LABELS[0] + 1) % CLASSES, "are led to another class than the column one: 00004"),
        ("random", "towards", int(LABELS[0]), "are led to no class, or to their label: 00004"),
        ("random", "towards", CLASSES, "are led to no class, or to their label: 00004"),
        ("least_likely", "towards", None, "are not led to the source's least likely class: 00004"),
        ("mi", "ssim", 0.25, "have another structural similarity than recorded in `ssim`: 00004"),
    ],
)
def test_verify_finds_a_change(targeted: HandMade, rule: str, column: str, value: Any, finding: str) -> None:
    (file,) = (targeted.output / "by-hand" / "adversarial" / "aligned" / rule).iterdir()
    before = file.read_bytes()
    source = pq.ParquetFile(file)
    groups = [source.read_row_group(index) for index in range(source.num_row_groups)]
    values = groups[0][column].to_numpy().copy()
    values[0] = CLASSES - values[0] - LABELS[0] if value is None else value
    place = groups[0].schema.get_field_index(column)
    groups[0] = groups[0].set_column(place, column, pa.array(values))
    try:
        with pq.ParquetWriter(file, groups[0].schema.with_metadata(source.schema_arrow.metadata)) as writer:
            for group in groups:
                writer.write_table(group, row_group_size=len(group))
        findings = verify_experiment(Request(targeted.file, quiet=True), sample=IMAGES).findings
    finally:
        file.write_bytes(before)
    assert any(line.startswith(f"adversarial/aligned/{rule}: 1 images of chunk 0 {finding}") for line in findings)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_the_column_and_the_source_are_in_the_fingerprints_of_their_attacks_alone(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path, attacks=attacks(*RULES), source="other", witnesses=["cousin"], targets=["twin"])
    content = experiment.content() | yaml.safe_load(experiment.file.read_text())
    content["variants"] = {"v": {"model": "seer"}}
    experiment.file.write_text(yaml.safe_dump(content))

    def of_the_model() -> dict[str, str]:
        tables = experiment.blueprint().all_adversarial()
        return {attack: tables["v", attack].fingerprint for attack in (*RULES, "mi")}

    with_column(experiment)
    before = of_the_model()
    with_column(experiment, (LABELS + 1) % CLASSES)
    other_column = of_the_model()
    assert changed(before, other_column) == {"column"}
    content["source"] = "stranger"
    experiment.file.write_text(yaml.safe_dump(content))
    assert changed(other_column, of_the_model()) == {"least_likely"}
    content["seed"] = 5
    experiment.file.write_text(yaml.safe_dump(content))
    assert changed(before, of_the_model()) == {*RULES, "mi"}


def test_without_an_attack_that_asks_for_it_the_column_need_not_be_right(tmp_path: Path) -> None:
    experiment = hand_made(tmp_path, attacks=attacks("next"))
    with_column(experiment, np.full(IMAGES, 77))
    assert experiment.blueprint().inspected.manifests["test"].towards is None


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        (None, "data.test: an attack leads towards: column, and this image set says nothing of classes to lead to"),
        (
            np.full(IMAGES, 7),
            "12 classes in `targeted_label` lie outside 0 to 2: image 00004 is to be led to 7",
        ),
        (LABELS, "data.test: the `targeted_label` of 12 images is their own label, such as 00004 (1)"),
    ],
    ids=["missing", "no class", "the label"],
)
def test_a_bad_column_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, listed: Any, complaint: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    experiment = hand_made(tmp_path, attacks=attacks("column"))
    if listed is not None:
        with_column(experiment, listed)
    assert main(["run", str(experiment.file)]) == 2
    assert complaint in capsys.readouterr().err
    assert not experiment.output.exists()
