"""What the page and the run say of tables that are there, and are not quite what they seem."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hand_made import IMAGES, hand_made

from pipelines.cli.show import print_result
from pipelines.report.outcomes import read_outcomes
from pipelines.report.page import computed_report, make_report
from pipelines.report.remarks import remarks_on
from pipelines.run.command import RunResult
from pipelines.run.forecast import forecast_of
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.notes import notes_on


def crafted_in_passes_of(blueprint: Blueprint, surrogate: str, attack: str, sizes: list[int]) -> None:
    """Makes a finished table anew, each of its chunks as from a device with passes of another size."""
    table = blueprint.all_adversarial()[surrogate, attack]
    chunks = [table.read_chunk(blueprint.store, number, rows) for number, rows in enumerate(blueprint.rows)]
    blueprint.store.delete(table.finished_file)
    for number, (rows, size) in enumerate(zip(chunks, sizes, strict=True)):
        column = rows.schema.get_field_index("pass_rows")
        rows = rows.set_column(column, "pass_rows", pa.array(np.full(len(rows), size, np.int32)))
        table.write_chunk(blueprint.store, number, rows)
    assert table.finish(blueprint.store, blueprint.rows) == []


def test_a_table_of_passes_of_several_sizes_is_named_with_them(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path, compute={"chunk": IMAGES // 3}).finish()
    said: list[str] = []
    make_report(blueprint, said.append)
    assert said == []
    assert "passes of" not in blueprint.store.read("report/report.html").decode()
    crafted_in_passes_of(blueprint, "aligned", "mi", [1000, 100, 100])
    crafted_in_passes_of(blueprint, "source", "mi", [50, 50, 50])  # one size, whichever it is
    blueprint.store.delete("report/report.json")
    make_report(blueprint, said.append)
    (line,) = said
    assert line.startswith("adversarial/aligned/mi: its chunks were crafted in passes of 100 and 1,000 images")
    assert "`compute.pass` in the experiment file makes all chunks alike" in line
    page = blueprint.store.read("report/report.html").decode()
    assert page.count("passes of") == page.count(f"<p>{line}</p>") == 1


def test_a_target_that_gets_few_of_the_source_s_images_right_is_named(tmp_path: Path) -> None:
    """The source is right on the first ten images, `twin` on five of these, `stranger` on the last four."""
    experiment = hand_made(tmp_path, targets=["twin", "stranger"])
    clean = {"near": "000000000011", "twin": "000001111100", "stranger": "111111110000"}
    blueprint = experiment.finish({f"clean/{name}": wrong for name, wrong in clean.items()})
    assert [own for own in remarks(blueprint) if "classifies only" in own] == [
        "stranger classifies only 2 of the 10 test images correctly that near does. Its rates are over these alone, "
        "and a mean counts it as much as any other target."
    ]


def test_targets_without_an_image_that_counts_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = {"near": "000000000011", "twin": "111111111100", "cousin": "222222222200"}
    blueprint = hand_made(tmp_path).finish({f"clean/{name}": wrong for name, wrong in clean.items()})
    assert [own for own in remarks(blueprint) if "that near does" in own] == [
        "twin, cousin classify none of the 10 test images correctly that near does. There is no rate, and the means "
        "are over other targets."
    ]
    options = Namespace(experiment="experiment.yaml", overrides=[], output=None)
    capsys.readouterr()
    print_result(RunResult("out", "runs", report=computed_report(blueprint)), options)
    assert "mean over 1 of 3 targets (no image counts for the others) of each" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_source_that_is_right_on_no_image_is_named(tmp_path: Path) -> None:
    blueprint = hand_made(tmp_path).finish({"clean/near": "1" * IMAGES})
    assert [own for own in remarks(blueprint) if own.startswith("near ")] == [
        "near classifies no test image correctly, so that none counts for any of its surrogates."
    ]


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("mi", "the surrogate's gradient was zero there, or led out of the pixel range."),
        ("autoattack:apgd-ce", "they withstood the attack, or were misclassified before it, and AutoAttack returns"),
        ("torchattack:MIFGSM", "torchattack:MIFGSM returned them as they were, or changed them by less than"),
    ],
)
def test_why_images_are_unperturbed_depends_on_the_attack(tmp_path: Path, method: str, why: str) -> None:
    attacks = {"own": {"method": method, "eps": "4/255"}}
    blueprint = hand_made(tmp_path, attacks=attacks).finish(
        {f"adversarial/{name}/own": "1" * 12 for name in ("source", "witness")}
        | {"adversarial/aligned/own": "011111110111"}
    )
    (remark,) = [own for own in remarks(blueprint) if "unperturbed" in own]
    assert remark.startswith(f"2 of 12 images crafted on aligned under own are unperturbed: {why}")
    assert ("rates under it are lower than those of attacks that perturb every image" in remark) == (
        method == "autoattack:apgd-ce"
    )


def test_a_radius_that_is_not_of_whole_levels_is_named(tmp_path: Path) -> None:
    """0.0078 is written for 2/255, and below it; 0.0314 is written for 8/255, and above it."""
    written = {
        "cut": {"method": "mi", "eps": 0.0078},
        "theirs": {"method": "torchattack:MIFGSM", "eps": "2.25/255"},
        "full": {"method": "mi", "eps": 0.0314},
        "whole": {"method": "mi", "eps": 0.0313725},
        "round": {"method": "mi", "eps": 0.0078, "norm": "l2"},
    }
    blueprint = hand_made(tmp_path, attacks=written).finish()
    stored = "images are stored with 8 bits, so that they change by at most"
    expected = [
        f"attacks.cut: eps 0.0078 is 1.989/255; {stored} 1/255; `eps: 2/255` permits 2",
        f"attacks.theirs: eps 0.00882353 is 2.25/255; {stored} 2/255",
    ]
    for said in (remarks(blueprint), notes_on(blueprint), forecast_of(blueprint).lines()):
        assert [line for line in said if "stored with 8 bits" in line] == expected


def remarks(blueprint: Blueprint) -> list[str]:
    return remarks_on(blueprint, read_outcomes(blueprint), computed_report(blueprint).transfer)
