"""Images made elsewhere in a matrix: they name a source, beside whose images they are evaluated on its targets."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crafted_by_hand import finish
from hand_made import HandMade, hand_made

from pipelines import InputError, load_results
from pipelines.cli import main
from pipelines.report.page import make_report

PGD = {"method": "pgd", "eps": "120/255", "step": "60/255", "steps": 4}
THEIRS = {"images": "x.npz", "eps": "8/255"}
MATRIX: dict[str, Any] = {"matrix": ["near", "twin", "stranger"], "source": None, "targets": None, "controls": []}
MEASURED = ["n", "rate", "rate_low", "rate_high", "rate_all"]


def with_theirs(folder: Path) -> tuple[HandMade, dict[str, Any], dict[str, Any]]:
    """An experiment by hand with its test images in a file; the settings of an attack, and of the images there."""
    made = hand_made(folder)
    with np.load(made.folder / "images.npz") as stored:
        np.save(made.folder / "theirs.npy", stored["images"][4:])
    pgd = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}
    return made, pgd, {"images": "theirs.npy", "eps": "4/255", "source": "near", "compare_with": "pgd"}


def test_they_are_evaluated_beside_the_images_of_their_source(tmp_path: Path) -> None:
    """By hand: twin gets 3 of the 12 images of source-near wrong, and 6 of theirs, all of those among them."""
    made, pgd, theirs = with_theirs(tmp_path)
    made.write(attacks={"pgd": pgd, "theirs": theirs, "others": theirs | {"source": "twin"}}, **MATRIX)
    outcomes = {"clean/near": "000000000001", "outcomes/source-near/pgd/twin": "111000000000"}
    make_report(made.finish(outcomes | {"outcomes/external-near/theirs/twin": "111111000001"}))
    rows = {(r.surrogate, r.attack, r.target): r for r in load_results(made.file).transfer.itertuples()}
    external = {key for key in rows if key[0].startswith("external") and not key[2].startswith("(")}
    assert external == {
        ("external-near", "theirs", "twin"), ("external-near", "theirs", "stranger"),
        ("external-twin", "others", "near"), ("external-twin", "others", "stranger"),
    }  # fmt: skip
    own = rows["external-near", "theirs", "twin"]
    assert (own.n, own.rate, own.gain) == (11, pytest.approx(600 / 11, abs=1e-3), pytest.approx(300 / 11, abs=1e-3))
    assert rows["external-near", "theirs", "(mean)"].rate == pytest.approx(300 / 11, abs=1e-3)


def test_a_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = hand_made(tmp_path)
    made.write(attacks={"pgd": PGD}, **MATRIX)
    finish(made.blueprint())
    assert main(["export", str(made.file), "--npz", str(tmp_path), "--surrogate", "source-near"]) == 0
    theirs = {"images": "source-near/pgd.npz", "eps": "120/255", "compare_with": "pgd", "source": "near"}
    made.write(attacks={"pgd": PGD, "theirs": theirs, "others": theirs | {"source": "twin"}}, **MATRIX)
    finish(made.blueprint())
    rows = load_results(made.file).transfer.set_index(["surrogate", "attack", "target"]).sort_index()
    assert rows.loc["source-near", "pgd"][MEASURED].equals(rows.loc["external-near", "theirs"][MEASURED])
    assert (rows.loc["external-near", "theirs"]["gain"] == 0).all()
    assert main(["verify", str(made.file)]) == 0, capsys.readouterr().out
    results = load_results(made.file)
    assert len(results.adversarial_images("external-twin", "others").pixels_NCHW) == 12
    whose = "and no others, are of the surrogate external-near (theirs) or external-twin (others)"
    for surrogate, attack in (("external-near", "others"), ("source-near", "theirs"), ("external-twin", "pgd")):
        with pytest.raises(
            InputError, match=re.escape(f"{surrogate} has no images under {attack}: ") + ".*" + re.escape(whose)
        ):
            results.adversarial_images(surrogate, attack)
    command = ["export", str(made.file), "--npz", str(tmp_path / "again"), "--surrogate", "external-near"]
    assert main(command) == 0
    assert [file.name for file in (tmp_path / "again").rglob("*.npz")] == ["theirs.npz"]
    assert main([*command, "--attack", "others"]) == 2
    assert whose in capsys.readouterr().err
    assert main(["report", str(made.file)]) == 0
    said = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("external-")]
    assert said == ["external-near under theirs", "external-twin under others"]


def test_of_several_seeds(tmp_path: Path) -> None:
    """By hand: the source's images of each seed fool twin 3 and 1 times, theirs 6 times."""
    made, pgd, theirs = with_theirs(tmp_path)
    made.write(attacks={"pgd": pgd, "theirs": theirs}, seeds=[1, 2], **MATRIX)
    outcomes = {f"outcomes/external-near~{seed}/theirs/twin": "111111000000" for seed in (1, 2)}
    outcomes |= {f"outcomes/source-near~{s}/pgd/twin": own for s, own in ((1, "111000000000"), (2, "100000000000"))}
    make_report(made.finish(outcomes))
    rows = {(r.surrogate, r.attack, r.target): r for r in load_results(made.file).transfer.itertuples()}
    own = rows["external-near", "theirs", "twin"]
    assert (own.seeds, own.rate, own.rate_spread) == (2, 50, 0)
    assert own.gain == pytest.approx((25 + 500 / 12) / 2, abs=1e-3)
    assert not {key for key in rows if key[0] == "external-near" and key[2] == "near"}


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        (None, MATRIX, "attacks.theirs.source: must be given, because a matrix has no single source"),
        ("seer", MATRIX, "attacks.theirs.source: 'seer' is not in the matrix"),
        ("nearr", MATRIX, "attacks.theirs.source: 'nearr' is not in the matrix; did you mean 'near'"),
        ("near", {}, "attacks.theirs.source: applies to a matrix; the only source here is near: leave it out"),
        ("near", MATRIX | {"variants": {"External-near": {"source": "near", "witnesses": ["seer"]}}},
         "variants.External-near: this is the name of the surrogate to which attacks.theirs belongs"),
    ],
)  # fmt: skip
def test_a_source_that_is_none(
    tmp_path: Path, source: str | None, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = hand_made(tmp_path)
    made.write(**{"attacks": {"pgd": PGD, "theirs": THEIRS | ({"source": source} if source else {})}, **changes})
    assert main(["plan", str(made.file)]) == 2
    assert message in capsys.readouterr().err
