"""Images made elsewhere are evaluated on all targets as those crafted here, under a surrogate of their own."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from crafted_by_hand import finish
from hand_made import HandMade, hand_made

from pipelines import InputError, load_results
from pipelines.cli import main
from pipelines.progress import Progress
from pipelines.report.comparison import compared
from pipelines.report.finished import read_finished
from pipelines.report.page import make_report
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.take_in import take_in_all

PGD = {"method": "pgd", "eps": "120/255", "step": "60/255", "steps": 4}
LED = {**PGD, "towards": "column"}
TARGETS = ("twin", "cousin", "stranger")
CHUNKS = {"compute": {"chunk": 5}}
MEASURED = ["n", "rate", "rate_low", "rate_high", "rate_all", "gain", "gain_low", "gain_high", "p_value"]
THEIRS = {"images": "x.npz", "eps": "8/255"}
BACK = {
    "png": {"images": "png/aligned/pgd", "eps": "120/255", "compare_with": "pgd"},
    "npz": {"images": "pgd.npz", "eps": "120/255", "compare_with": "pgd"},
    "npy": {"images": "pgd.npy", "eps": "120/255", "compare_with": "pgd"},
    "parquet": {"images": "rows/aligned/pgd.parquet", "eps": "120/255", "compare_with": "pgd"},
    "unordered": {"images": "unordered.npz", "eps": "120/255", "compare_with": "pgd"},
    "led-back": {"images": "all/aligned/led.npz", "eps": "120/255", "towards": "column"},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A finished experiment whose images lie beside it in every form in which they come back; no test changes it."""
    folder = tmp_path_factory.mktemp("made")
    made = hand_made(folder)
    with np.load(folder / "images.npz") as stored:
        arrays = dict(stored)
    np.savez(folder / "images.npz", **arrays, targeted_labels=(arrays["labels"] + 1) % 3)
    made.write(attacks={"pgd": PGD, "led": LED}, **CHUNKS)
    finish(made.blueprint())
    for place in ("--png=png", "--npz=all", "--parquet=rows"):
        flag, _, name = place.partition("=")
        assert main(["export", str(made.file), flag, str(folder / name), "--surrogate", "aligned"]) == 0
    shutil.copy(folder / "all/aligned/pgd.npz", folder / "pgd.npz")
    with np.load(folder / "pgd.npz") as stored:
        np.save(folder / "pgd.npy", stored["images"])
        np.savez(folder / "unordered.npz", images=stored["images"][::-1], ids=stored["ids"][::-1])
    (folder / "some").mkdir()
    shutil.copy(folder / "png/aligned/pgd/00004.png", folder / "some")
    return made


@pytest.fixture(scope="module")
def came_back(exported: HandMade, tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """The same experiment after its own images came back in every form; no test changes it."""
    made = copied(exported, tmp_path_factory.mktemp("back"), **BACK)
    finish(made.blueprint())
    return made


def copied(made: HandMade, folder: Path, **attacks: dict[str, Any]) -> HandMade:
    """A copy of an experiment with all of its files, and further attacks."""
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    own = HandMade(folder)
    own.write(attacks={"pgd": PGD, "led": LED, **attacks}, **CHUNKS)
    return own


def transfer_of(made: HandMade) -> Any:
    return load_results(made.file).transfer.set_index(["surrogate", "attack", "target"]).sort_index()


class TestRoundTrip:
    @pytest.mark.parametrize("attack", ["png", "npz", "npy", "parquet", "unordered"])
    def test_exported_images_have_the_same_outcomes(self, came_back: HandMade, attack: str) -> None:
        results = load_results(came_back.file)
        for target in TARGETS:
            there, again = results.outcomes("aligned", "pgd", target), results.outcomes("external", attack, target)
            assert there.equals(again) and len(there) == 12
            clean = results.clean_predictions(target)["confidence"]
            assert (there["adversarial_confidence"] - clean).abs().max() > 0.01  # what did nothing would prove nothing
        ours, theirs = results.adversarial_images("aligned", "pgd"), results.adversarial_images("external", attack)
        np.testing.assert_array_equal(ours.pixels_NCHW, theirs.pixels_NCHW)
        rows = transfer_of(came_back)
        assert len(rows.loc["external", attack]) == 3 + 1 + 3  # the targets, their mean, and that of each relation
        assert rows.loc["aligned", "pgd"][MEASURED].equals(rows.loc["external", attack][MEASURED])
        assert rows.loc["external", attack]["gradients"].isna().all()

    def test_a_targeted_attack(self, came_back: HandMade) -> None:
        rows, measured = transfer_of(came_back), ["rate", "targeted_rate", "targeted_low", "targeted_high"]
        assert rows.loc["aligned", "led"][measured].equals(rows.loc["external", "led-back"][measured])
        assert rows.loc["external", "led-back"]["targeted_rate"].notna().all()

    def test_what_was_there_is_not_made_again(self, exported: HandMade, came_back: HandMade) -> None:
        for path in exported.output.rglob("*.parquet"):
            again = came_back.output / path.relative_to(exported.output)
            assert ".seen" in path.parts or again.stat().st_mtime_ns == path.stat().st_mtime_ns


class TestExternalSurrogate:
    def test_it_is_missing_before_and_there_after(
        self, exported: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = copied(exported, tmp_path, theirs=BACK["npz"])
        assert main(["plan", str(made.file), "--json"]) == 0
        parts = [part for part in json.loads(capsys.readouterr().out)["parts"] if part["of"] == "external"]
        assert [(part["stage"], part["units"], part["gradients"]) for part in parts] == [
            ("craft", 12, 0), ("evaluate", 36, 0),
        ]  # fmt: skip
        assert main(["status", str(made.file), "--json"]) == 0
        states = {e["folder"]: e["state"] for e in json.loads(capsys.readouterr().out)["entries"]}
        assert {folder for folder, state in states.items() if state != "done"} == {
            "adversarial/external/theirs", *(f"outcomes/external/theirs/{target}" for target in TARGETS),
        }  # fmt: skip

    def test_it_is_whole_and_verified(self, came_back: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["verify", str(came_back.file)]) == 0
        assert "no problem found" in capsys.readouterr().out
        assert main(["status", str(came_back.file), "--json"]) == 0
        assert {entry["state"] for entry in json.loads(capsys.readouterr().out)["entries"]} == {"done"}

    def test_it_can_be_exported(self, came_back: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["export", str(came_back.file), "--npz", str(tmp_path), "--json", "--attack", "png"]
        assert main(command) == 0
        (again,) = json.loads(capsys.readouterr().out)["sets"]
        assert (again["surrogate"], again["path"]) == ("external", str(tmp_path / "external/png.npz"))
        assert json.loads((tmp_path / "external/png.npz.json").read_text())["settings"]["norm"] == "linf"
        assert main([*command, "--surrogate", "aligned"]) == 2
        assert "no others, are of the surrogate external" in capsys.readouterr().err

    def test_the_report_says_what_it_is_and_what_is_not_known(self, came_back: HandMade) -> None:
        stored = yaml.safe_load((came_back.output / "by-hand" / "experiment.yaml").read_text())
        assert stored["attacks"]["npz"]["images"] == str(came_back.folder / "pgd.npz")
        page = (came_back.report / "report.html").read_text()
        assert "made elsewhere" in page and "the source under the attack that it is compared with" in page
        results = load_results(came_back.file)
        assert set(results.surrogates["surrogate"]) == {"source", "aligned", "witness"}
        assert results.surrogates["robust_accuracy"].notna().sum() == 3  # under the attacks on these surrogates alone
        for ask in (
            lambda: results.adversarial_images("aligned", "npz"),
            lambda: results.outcomes("external", "pgd", "twin"),
        ):
            with pytest.raises(InputError, match="no others, are of the surrogate external"):
                ask()
        with pytest.raises(InputError, match="there is no target '@self'"):
            results.outcomes("external", "npz", "@self")


class TestGain:
    def test_it_refers_to_the_source_under_the_attack_that_is_named(self, tmp_path: Path) -> None:
        """By hand: of 12 images, the target gets 3 of the source's wrong, and 6 of theirs, all of those among them."""
        made = hand_made(tmp_path)
        with np.load(made.folder / "images.npz") as stored:
            np.save(made.folder / "theirs.npy", stored["images"][4:])
        pgd = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}
        theirs = {"images": "theirs.npy", "eps": "4/255"}
        attacks = {"pgd": pgd, "theirs": theirs, "compared": {**theirs, "compare_with": "pgd"}}
        made.write(attacks=attacks)
        outcomes = {
            "outcomes/source/pgd/twin": "111000000000",
            "outcomes/external/theirs/twin": "111111000000",
            "outcomes/external/compared/twin": "111111000000",
        }
        blueprint = made.finish(outcomes)
        make_report(blueprint)
        rows = {(r.surrogate, r.attack, r.target): r for r in load_results(made.file).transfer.itertuples()}
        plain, compared = rows["external", "theirs", "twin"], rows["external", "compared", "twin"]
        assert plain.rate == compared.rate == 50
        assert np.isnan(plain.gain) and np.isnan(plain.p_value)
        assert compared.gain == 25 and compared.p_value == pytest.approx(0.25)  # 3 images for, none against: 2 / 2^3
        assert rows["external", "theirs", "(mean)"].rate == pytest.approx(50 / 3, abs=1e-3)
        assert np.isnan(rows["external", "theirs", "(mean)"].gain)
        assert rows["external", "compared", "(mean)"].gain == pytest.approx(25 / 3, abs=1e-3)
        low, high = rows["external", "compared", "(mean)"].gain_low, rows["external", "compared", "(mean)"].gain_high
        assert low < 25 / 3 < high

    def test_of_targeted_images_it_counts_hits_where_the_other_attack_is_targeted_too(self, tmp_path: Path) -> None:
        """By hand: of 12 images, 1 and 4 are taken for the class that they are led to; 3 and 8 are wrong."""
        made = hand_made(tmp_path)
        with np.load(made.folder / "images.npz") as stored:
            np.save(made.folder / "theirs.npy", stored["images"][4:])
            classes = (stored["labels"] + 1) % 3
            np.savez(made.folder / "images.npz", **stored, targeted_labels=classes)
        pgd = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}
        theirs = {"images": "theirs.npy", "eps": "4/255", "towards": "column"}
        attacks = {"pgd": pgd, "led": {**pgd, "towards": "column"}}
        attacks |= {f"to-{other}": {**theirs, "compare_with": other} for other in ("led", "pgd")}
        made.write(attacks=attacks)
        ours, others = "122000000000", "111122220000"
        outcomes = {"outcomes/source/pgd/twin": ours, "outcomes/source/led/twin": ours}
        outcomes |= {f"outcomes/external/to-{other}/twin": others for other in ("led", "pgd")}
        make_report(made.finish(outcomes))
        rows = {
            (r.attack, r.target): r for r in load_results(made.file).transfer.itertuples() if r.surrogate == "external"
        }
        for target, targets in (("twin", 1), ("(mean)", 3)):
            assert rows["to-led", target].gain == pytest.approx(25 / targets, abs=1e-3)  # (4 - 1) / 12
            assert rows["to-pgd", target].gain == pytest.approx(500 / 12 / targets, abs=1e-3)  # (8 - 3) / 12

    def test_with_several_seeds_it_is_over_the_seeds_of_the_source(self, tmp_path: Path) -> None:
        made = hand_made(tmp_path)
        with np.load(made.folder / "images.npz") as stored:
            np.save(made.folder / "theirs.npy", stored["images"][4:])
        pgd = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}
        theirs = {"images": "theirs.npy", "eps": "4/255", "compare_with": "pgd"}
        made.write(attacks={"pgd": pgd, "theirs": theirs}, seeds=[1, 2])
        outcomes = {f"outcomes/external~{seed}/theirs/twin": "111111000000" for seed in (1, 2)}
        outcomes |= {"outcomes/source~1/pgd/twin": "111000000000", "outcomes/source~2/pgd/twin": "100000000000"}
        make_report(made.finish(outcomes))
        rows = {(r.surrogate, r.attack, r.target): r for r in load_results(made.file).transfer.itertuples()}
        own = rows["external", "theirs", "twin"]
        assert (own.seeds, own.rate, own.rate_spread) == (2, 50, 0)
        assert own.gain == pytest.approx((25 + 500 / 12) / 2, abs=1e-3)


class TestFingerprints:
    def test_they_go_by_the_content_of_the_images(self, exported: HandMade, tmp_path: Path) -> None:
        made = copied(exported, tmp_path)

        def fingerprints(images: str, **further: Any) -> tuple[str, set[str]]:
            made.write(attacks={"pgd": PGD, "theirs": {"images": images, "eps": "120/255", **further}}, **CHUNKS)
            tables = made.blueprint().all_adversarial()
            ours = {table.fingerprint for pair, table in tables.items() if pair[0] != "external"}
            return tables["external", "theirs"].fingerprint, ours

        theirs, ours = fingerprints("pgd.npz")
        assert fingerprints("png/aligned/pgd") == fingerprints("pgd.npy") == (theirs, ours)
        (tmp_path / "rows/aligned/led.parquet").unlink()
        assert fingerprints("rows/aligned") == (theirs, ours)  # a folder of Parquet files
        assert fingerprints("pgd.npz", compare_with="pgd") == (theirs, ours)
        assert fingerprints("pgd.npz", eps="121/255")[0] != theirs
        with np.load(tmp_path / "pgd.npz") as arrays:
            images = arrays["images"]
        images[5, 0, 0, 0] ^= 1
        np.save(tmp_path / "other.npy", images)
        other, same = fingerprints("other.npy", eps="121/255")
        assert other != theirs and same == ours
        made.write(attacks={"pgd": PGD, "led": LED}, **CHUNKS)
        before = {
            table.fingerprint for (_, attack), table in made.blueprint().all_adversarial().items() if attack == "pgd"
        }
        assert before == ours  # without any images made elsewhere

    def test_images_are_not_read_again_unless_their_files_change(
        self, exported: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = copied(exported, tmp_path, theirs={"images": "pgd.npy", "eps": "120/255"})
        request = Request(made.file, quiet=True)
        blueprint = open_blueprint(request)
        blueprint.inspected.save(blueprint.store)
        assert "inspect attacks.theirs: 12 images" in capsys.readouterr().err
        open_blueprint(request)
        assert "inspect attacks" not in capsys.readouterr().err
        images = np.load(tmp_path / "pgd.npy")
        images[5, 0, 0, 0] ^= 1
        np.save(tmp_path / "pgd.npy", images)
        again = open_blueprint(request)
        assert "inspect attacks.theirs: 12 images" in capsys.readouterr().err
        assert again.inspected.attacks.made != blueprint.inspected.attacks.made


class TestChanges:
    def test_images_that_change_while_a_run_is_at_work_are_not_taken_in(
        self, exported: HandMade, tmp_path: Path
    ) -> None:
        made = copied(exported, tmp_path, theirs={"images": "pgd.npy", "eps": "120/255"})
        blueprint = made.blueprint()
        images = np.load(tmp_path / "pgd.npy")
        images[11, 0, 0, 0] ^= 1
        np.save(tmp_path / "pgd.npy", images)
        with pytest.raises(InputError, match=r"attacks.theirs: the images in .* are not as they were .*--rehash"):
            take_in_all(blueprint, Progress(quiet=True))
        assert not list(made.output.rglob("external/theirs/*"))

    def test_other_images_take_the_place_of_those_that_were_evaluated(
        self, exported: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = copied(exported, tmp_path, theirs={"images": "pgd.npy", "eps": "120/255"})
        finish(made.blueprint())
        np.save(tmp_path / "pgd.npy", np.load(tmp_path / "pgd.npy") ^ 1)
        made.write(attacks={"pgd": PGD, "led": LED, "theirs": {"images": "pgd.npy", "eps": "121/255"}}, **CHUNKS)
        capsys.readouterr()
        assert main(["verify", str(made.file)]) == 1
        assert "adversarial/external/theirs" in capsys.readouterr().out
        take_in_all(made.blueprint(), Progress(quiet=True))
        said = capsys.readouterr().err
        assert "adversarial/external/theirs: made with other settings" in said and "moved to .stale/" in said

    def test_verify_reads_the_images_again(
        self, exported: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Even where size and modification time of the file are as they were."""
        made = copied(exported, tmp_path, theirs={"images": "pgd.npy", "eps": "121/255"})
        file = tmp_path / "pgd.npy"
        stamp = file.stat().st_mtime_ns
        finish(made.blueprint())
        np.save(file, np.load(file) ^ 1)
        os.utime(file, ns=(stamp, stamp))
        capsys.readouterr()
        assert main(["verify", str(made.file)]) == 1
        assert "attacks.theirs: the images are not those that were evaluated" in capsys.readouterr().out


class TestBadInput:
    @pytest.mark.parametrize(
        ("theirs", "message"),
        [
            ({"eps": "8/255"}, "attacks.theirs: 12 of 12 images lie outside the linf ball of 8/255 around their test"),
            ({"images": "gone.npz"}, "gone.npz: there is no such file or folder"),
            ({"images": "some"}, "11 of the 12 test images have no image there: 00005, 00006, 00007 and 8 more; "),
            ({"images": "images.npz"}, "it holds 16 images without ids, and there are 12 test images"),
            ({"steps": 5}, "attacks.theirs.steps: unknown key"),
            ({"method": "pgd"}, "attacks.theirs.method: unknown key"),
            ({"eps": None}, "attacks.theirs.eps: this key is required"),
            ({"eps": 8}, "did you mean 8/255"),
            ({"images": 3}, "attacks.theirs.images: must be text"),
            ({"norm": "l1"}, "attacks.theirs: norm must be one of linf, l2"),
            ({"compare_with": "pdg"}, "there is no attack 'pdg' that is crafted here; did you mean 'pgd'"),
            ({"compare_with": "theirs"}, "compare_with: there is no attack 'theirs' that is crafted here"),
        ],
    )  # fmt: skip
    def test_one_message_that_names_the_key_and_nothing_written(
        self,
        exported: HandMade,
        tmp_path: Path,
        theirs: dict[str, Any],
        message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        settings = {"images": "pgd.npz", "eps": "120/255", **theirs}
        made = copied(exported, tmp_path, theirs={key: value for key, value in settings.items() if value is not None})
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert main(["run", str(made.file)]) == 2
        said = capsys.readouterr().err
        assert message in said and str(made.file) in said
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"attacks": {"theirs": THEIRS}}, "attacks: all of them are images that were made elsewhere"),
            ({"variants": {"External": {}}}, "variants.External: this is the name of the surrogate to which"),
            ({"reasons": {"attack": "theirs"}}, "reasons.attack: there is no attack 'theirs'"),
        ],
    )  # fmt: skip
    def test_experiments_that_cannot_have_them(
        self, tmp_path: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = hand_made(tmp_path)
        made.write(**{"attacks": {"pgd": PGD, "theirs": THEIRS}, **changes})
        assert main(["plan", str(made.file)]) == 2
        assert message in capsys.readouterr().err

    def test_a_model_named_external_goes_on_without_such_images(self, tmp_path: Path) -> None:
        made = hand_made(tmp_path)
        made.write(variants={"external": {}})
        assert "external" in made.blueprint().by_name


def test_notes_are_said_before_any_work(exported: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(exported.folder / "images.npz") as stored:
        images = stored["images"][4:]
    mixed = {"images": "mixed.npz", "eps": "9/255", "compare_with": "pgd"}
    alike, away = {**mixed, "eps": 0.470588}, {**mixed, "eps": "120.25/255", "compare_with": "led"}  # of 120 levels
    made = copied(exported, tmp_path, theirs=mixed, away=away, alike=alike)
    ids = np.array([f"{row:05d}" for row in range(4, 17)])
    np.savez(tmp_path / "mixed.npz", images=np.concatenate([images, images[:1]]), ids=ids)
    assert main(["plan", str(made.file)]) == 0
    said = capsys.readouterr().out
    for note in (
        "left out, because they belong to no test image: 00016",
        "12 of 12 images are the test images as they are, without a perturbation",
        "it is compared with pgd, whose ball is another one (linf, 120/255; and linf, 9/255, here)",
    ):
        assert f"attacks.theirs: {note}" in said
    assert said.count("it is compared with") == 2
    assert said.count("stored with 8 bits") == said.count("attacks.away: eps 0.471569 is 120.25/255; images are") == 1
    assert "attacks.away: it is compared with led, whose `towards` is another one (column; and away here)" in said


def test_they_are_compared_by_their_content(tmp_path: Path, exported: HandMade) -> None:
    """`witness compare` has no hash of the images but in the tables, and the path says nothing."""
    alike, others = {"images": "pgd.npz", "eps": "120/255"}, {"images": "all/aligned/led.npz", "eps": "120/255"}
    one = copied(exported, tmp_path / "one", theirs=alike, mine=alike)
    other = copied(exported, tmp_path / "other", theirs={**alike, "images": "png/aligned/pgd"}, mine=others)
    for made in (one, other):
        finish(made.blueprint())
    found = compared(read_finished([str(one.file), str(other.file)]))
    assert {row["attack"] for row in found.rows} == {"pgd", "led", "theirs"}
    assert found.remarks == ["Left out, because this attack is not the same in all: mine."]
    assert not any("images" in key for key in found.differences)
