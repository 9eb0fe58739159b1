"""`witness export`: finished images leave as they are stored, into new files alone, or the command says why not."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hand_made import IMAGES, HandMade, hand_made
from PIL import Image
from s3_server import SECRET, S3Server

from pipelines import AdversarialImages, InputError, RunFailed
from pipelines.cli import main

FORMS = {"png": "", "npz": ".npz", "robustbench": ".pt", "parquet": ".parquet"}
MOVED = "012301230123"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A finished experiment with a targeted attack, which nothing here changes. It has no report."""
    folder = tmp_path_factory.mktemp("exported")
    pgd = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}
    made = hand_made(folder, attacks={"pgd": pgd, "led": pgd | {"towards": "next"}}, compute={"chunk": 5})
    blueprint = made.finish({"adversarial/aligned/pgd": MOVED, "adversarial/aligned/led": MOVED[::-1]})
    blueprint.inspected.save(blueprint.store)
    return made


def stored(made: HandMade, surrogate: str, attack: str) -> np.ndarray:
    import pyarrow.parquet as pq

    (file,) = (made.output / "by-hand" / "adversarial" / surrogate / attack).glob("*.parquet")
    return np.asarray(pq.read_table(file)["image"].combine_chunks().to_numpy_ndarray())


def made_folder(tmp_path: Path) -> Path:
    (tmp_path / "made").mkdir()
    return tmp_path / "made"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestWhatIsWritten:
    def test_every_surrogate_and_attack_has_a_folder_of_png_files(
        self, finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["export", str(finished.file), "--png", str(tmp_path / "png"), "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["form"] == "png" and result["holes"] == []
        pairs = [(own["surrogate"], own["attack"]) for own in result["sets"]]
        assert pairs == [(s, a) for s in ("source", "aligned", "witness") for a in ("pgd", "led")]
        for own in result["sets"]:
            folder = tmp_path / "png" / own["surrogate"] / own["attack"]
            images = stored(finished, own["surrogate"], own["attack"])
            assert own["path"] == str(folder) and own["images"] == IMAGES and own["is_new"]
            assert own["sha256"] == hashlib.sha256(images.tobytes()).hexdigest()
            listed = pd.read_csv(folder / "labels.csv")
            for name, pixels in zip(listed["filename"], images, strict=True):
                with Image.open(folder / name) as picture:
                    np.testing.assert_array_equal(np.array(picture), pixels[0])
            assert set(everything(folder)) == {*listed["filename"], "labels.csv", "manifest.json"}
            if own["attack"] == "led":
                assert ((listed["label"] + 1) % 3).tolist() == listed["targeted_label"].tolist()

    def test_a_manifest_says_what_the_images_are(self, finished: HandMade, tmp_path: Path) -> None:
        command = ["export", str(finished.file), "--surrogate", "aligned", "--attack", "led"]
        assert main([*command, "--robustbench", str(tmp_path / "it.pt")]) == 0
        manifest = json.loads((tmp_path / "it.pt.json").read_text())
        blueprint = finished.blueprint()
        told = {
            "schema": "witness-images", "version": 1, "form": "robustbench", "experiment": "by-hand",
            "surrogate": "aligned", "source": "near", "witnesses": ["seer"], "attack": "led", "eps": 4 / 255,
            "norm": "linf", "seed": 0, "images": IMAGES, "shape": [1, 8, 8],
            "fingerprint": blueprint.all_adversarial()["aligned", "led"].fingerprint,
            "sha256": hashlib.sha256(stored(finished, "aligned", "led").tobytes()).hexdigest(),
        }  # fmt: skip
        assert {key: manifest[key] for key in told} == told
        assert (
            manifest["settings"]["towards"] == "next"
            and manifest["versions"]["torch"] == torch.__version__.partition("+")[0]
        )
        clean = blueprint.inspected.manifests["test"]
        assert manifest["ids"] == clean.ids and manifest["labels"] == clean.labels.tolist()
        assert manifest["targeted_labels"] == [(label + 1) % 3 for label in manifest["labels"]]
        pixels = torch.load(tmp_path / "it.pt", weights_only=True)
        np.testing.assert_array_equal((pixels * 255).to(torch.uint8).numpy(), stored(finished, "aligned", "led"))

    @pytest.mark.parametrize("form", FORMS)
    def test_a_path_is_a_file_by_its_suffix_and_else_a_folder(
        self, finished: HandMade, tmp_path: Path, form: str
    ) -> None:
        command = ["export", str(finished.file), "--surrogate", "aligned", "--attack", "pgd"]
        assert main([*command, f"--{form}", str(tmp_path / "all")]) == 0
        assert (tmp_path / "all" / "aligned" / f"pgd{FORMS[form]}").exists()
        assert main([*command, f"--{form}", str(tmp_path / f"one{FORMS[form]}")]) == 0
        there = tmp_path / f"one{FORMS[form]}"
        assert there.is_dir() if form == "png" else there.is_file() and (tmp_path / f"{there.name}.json").is_file()
        assert not list(tmp_path.rglob(".*"))

    def test_a_surrogate_without_its_seed_stands_for_all_seeds(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = hand_made(tmp_path, seeds=[3, 4])
        made.finish()
        capsys.readouterr()
        command = ["export", str(made.file), "--npz", str(tmp_path / "npz"), "--json", "--attack", "mi", "--surrogate"]
        assert main([*command, "aligned"]) == 0
        assert [own["surrogate"] for own in json.loads(capsys.readouterr().out)["sets"]] == ["aligned~3", "aligned~4"]
        assert main([*command, "aligned~4"]) == 0
        assert [own["surrogate"] for own in json.loads(capsys.readouterr().out)["sets"]] == ["aligned~4"]
        with pytest.raises(
            InputError, match="aligned stands for several surrogates, one for each seed; name one of aligned~3"
        ):
            AdversarialImages(made.file, "aligned", "mi")

    def test_object_stores_on_both_sides(
        self, finished: HandMade, s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The results are in one, and the images go to another."""
        base = finished.output / "by-hand"
        for path, content in everything(base).items():
            if path != ".lock":
                with s3.filesystem.open_output_stream(f"{s3.bucket}/of-export/by-hand/{path}") as stream:
                    stream.write(content)
        command = ["export", str(finished.file), "--output", s3.uri("of-export"), "--surrogate", "aligned", "--set",
                   "tracking=sqlite:///nowhere.db"]  # fmt: skip
        for form, suffix in (("png", ""), ("npz", ".npz")):
            assert main([*command, f"--{form}", s3.uri(f"exported/{form}"), "--json"]) == 0
            printed = capsys.readouterr()
            assert SECRET not in printed.out + printed.err
            sets = json.loads(printed.out)["sets"]
            assert sets[0]["path"] == f"s3://***@bucket/exported/{form}/aligned/pgd{suffix}"
            local = ["export", str(finished.file), "--surrogate", "aligned", f"--{form}", str(tmp_path / form)]
            assert main(local) == 0
            here, there = everything(tmp_path / form), s3.objects(f"exported/{form}")
            if form == "npz":  # the archive is written as a stream there
                assert here.keys() == there.keys()
            else:
                assert here == there
            capsys.readouterr()
            assert main([*command, f"--{form}", s3.uri(f"exported/{form}"), "--json"]) == 0
            assert [own["is_new"] for own in json.loads(capsys.readouterr().out)["sets"]] == [False, False]


class TestNothingElseIsTouched:
    @pytest.mark.parametrize("form", FORMS)
    def test_what_was_exported_before_is_checked_and_kept(
        self, finished: HandMade, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["export", str(finished.file), f"--{form}", str(tmp_path / "there")]
        assert main([*command, "--surrogate", "source"]) == 0
        before = everything(tmp_path)
        stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert main(command) == 0
        said = capsys.readouterr().out
        assert said.count("which were there already") == 2 and f"{6 * IMAGES} images, each decoded again" in said
        assert everything(tmp_path).items() > before.items()
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())

    @pytest.mark.parametrize("form", FORMS)
    def test_damage_to_what_was_exported_is_found(
        self, finished: HandMade, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        of = ["--surrogate", "aligned", "--attack", "pgd"]
        command = ["export", str(finished.file), f"--{form}", str(tmp_path), *of]
        assert main(command) == 0
        if form == "png":
            first, second = sorted((tmp_path / "aligned" / "pgd").glob("*.png"))[:2]
            shutil.copy(second, first)
        else:
            file = tmp_path / "aligned" / f"pgd{FORMS[form]}"
            content = bytearray(file.read_bytes())
            position = content.find(b"\x89PNG") if form == "parquet" else len(content) // 3
            content[position + 40] ^= 0xFF
            file.write_bytes(content)
        assert main(command) == 1
        said = capsys.readouterr().err
        assert (
            "images are not those of the experiment when they are decoded" in said
            or "cannot be read as it was written" in said
        )

    @pytest.mark.parametrize("form", FORMS)
    def test_files_of_others_are_not_replaced(
        self, finished: HandMade, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The last of all targets is taken, so that nothing is written to the first ones either."""
        taken = tmp_path / "witness" / f"led{FORMS[form]}" / ("mine.txt" if form == "png" else "")
        taken.parent.mkdir(parents=True)
        taken.write_text("mine")
        assert main(["export", str(finished.file), f"--{form}", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.count("witness/led") == 1 and "is there already, and holds something else" in said
        assert list(everything(tmp_path).values()) == [b"mine"]

    def test_images_of_other_settings_are_not_replaced(
        self, finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["export", str(finished.file), "--npz", str(tmp_path / "a.npz"), "--surrogate", "aligned", "--attack"]
        assert main([*command, "pgd"]) == 0
        before = everything(tmp_path)
        assert main([*command, "led"]) == 2
        assert "a.npz is there already, and holds something else than these images" in capsys.readouterr().err
        assert everything(tmp_path) == before

    def test_a_manifest_that_lost_its_file_gets_it_back(
        self, finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["export", str(finished.file), "--npz", str(tmp_path / "a.npz"), "--surrogate", "aligned", "--attack"]
        assert main([*command, "pgd"]) == 0
        before = everything(tmp_path)
        (tmp_path / "a.npz").unlink()
        assert main([*command, "led"]) == 2
        assert "a.npz.json is there already, and holds something else" in capsys.readouterr().err
        assert main([*command, "pgd"]) == 0
        assert everything(tmp_path).keys() == before.keys() and everything(tmp_path)["a.npz"] == before["a.npz"]
        (tmp_path / "a.npz.json").write_text("{")
        assert main([*command, "pgd"]) == 2
        assert "something else than these images, or its manifest a.npz.json is damaged" in capsys.readouterr().err

    @pytest.mark.parametrize("form", FORMS)
    def test_a_manifest_that_is_gone_is_written_again_beside_the_images_that_it_is_of(
        self, finished: HandMade, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["export", str(finished.file), f"--{form}", str(tmp_path), "--surrogate", "aligned", "--attack"]
        assert main([*command, "pgd"]) == 0
        before = everything(tmp_path)
        there = tmp_path / "aligned" / f"pgd{FORMS[form]}"
        manifest = there / "manifest.json" if form == "png" else there.with_name(f"{there.name}.json")
        manifest.unlink()
        there.rename(there.with_name(f"led{FORMS[form]}"))
        assert main([*command, "led"]) == 2  # these are the images of pgd
        assert "is there already, and holds something else than these images; move" in capsys.readouterr().err
        there.with_name(f"led{FORMS[form]}").rename(there)
        assert main([*command, "pgd"]) == 0
        assert "12 images, which were there already" in capsys.readouterr().out
        assert everything(tmp_path) == before

    def test_a_picture_that_was_added_is_named(
        self, finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["export", str(finished.file), "--png", str(tmp_path), "--surrogate", "aligned", "--attack", "pgd"]
        assert main(command) == 0
        folder = tmp_path / "aligned" / "pgd"
        (folder / "notes.txt").write_text("mine")
        assert main(command) == 0
        (folder / "sub").mkdir()
        shutil.copy(next(folder.glob("*.png")), folder / "sub" / "more.PNG")
        assert main(command) == 1
        assert (
            "aligned/pgd cannot be read as it was written (sub/more.PNG in it is none of these images)"
            in capsys.readouterr().err
        )
        assert (folder / "sub" / "more.PNG").exists()

    def test_a_picture_that_was_lost_is_named_with_what_mends_it(
        self, finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["export", str(finished.file), "--png", str(tmp_path / "p"), "--surrogate", "aligned"]
        assert main(command) == 0
        (tmp_path / "p/aligned/led/00006.png").unlink()
        assert main(command) == 1
        assert "(aligned/led/00006.png); move what is there away, and export it again" in capsys.readouterr().err
        shutil.move(tmp_path / "p/aligned/led", tmp_path / "away")
        assert main(command) == 0

    @pytest.mark.parametrize("taken", ["a.npz", "a.npz.json"])
    def test_an_empty_folder_in_place_of_a_file(
        self, finished: HandMade, tmp_path: Path, taken: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / taken).mkdir()
        command = ["export", str(finished.file), "--npz", str(tmp_path / "a.npz"), "--surrogate", "aligned"]
        assert main([*command, "--attack", "pgd"]) == 2
        assert f"{tmp_path / taken} is there already" in capsys.readouterr().err
        assert everything(tmp_path) == {}

    def test_a_file_in_place_of_a_folder(
        self, finished: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("mine")
        assert main(["export", str(finished.file), "--png", str(tmp_path / "file" / "below")]) == 2
        assert f"{tmp_path / 'file'} is a file, and no folder for exported images" in capsys.readouterr().err
        assert everything(tmp_path) == {"file": b"mine"}

    def test_a_stored_chunk_that_is_damaged_leaves_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = hand_made(made_folder(tmp_path))
        made.finish()
        (file,) = (made.output / "by-hand/adversarial/aligned/mi").glob("*.parquet")
        content = bytearray(file.read_bytes())
        content[200] ^= 0xFF
        file.write_bytes(content)
        out = tmp_path / "out"
        assert main(["export", str(made.file), "--png", str(out), "--surrogate", "aligned"]) == 1
        assert "adversarial/aligned/mi is damaged" in capsys.readouterr().err
        assert {Path(path).parts[:2] for path in everything(out)} == {("aligned", "pgd")}  # whole, as it was before


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--npz", "a.npz"], "--npz a.npz: one file holds the images of one surrogate and attack, and these are 6"),
            (["--png", "x", "--surrogate", "alined"], "there is no surrogate of this name; did you mean 'aligned'"),
            (["--png", "x", "--surrogate", "near"], "near: is the source; its images are those of the surrogate"),
            (["--png", "x", "--attack", "pdg"], "--attack pdg: there is no attack of this name; did you mean 'pgd'"),
            (["--png", ""], "the path to export to is empty; name a folder or a file (`.` is the current folder)"),
            (["--npz", ".npz"], ".npz: .npz is a suffix without a name; write images.npz, say"),
            (["--robustbench", "x/.PTH"], "x/.PTH: .PTH is a suffix without a name; write images.PTH, say"),
            (["--parquet", "s3://key:hidden@bucket/x/.parquet"], "s3://***@bucket/x/.parquet: .parquet is a suffix"),
            (["--png", "s3:///x"], "s3://: name a bucket, and a folder within it"),
            (["--npz", "ftp://x/y"], "witness: ftp://x/: Unrecognized filesystem type"),
            (["--png", "s3://bucket"], "s3://bucket: name a folder within the bucket"),
            (["--npz", "s3://bucket/a.npz"], "s3://bucket: name a folder within the bucket"),
        ],
    )  # fmt: skip
    def test_one_message_and_nothing_written(
        self, finished: HandMade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        assert main(["export", str(finished.file), *arguments]) == 2
        assert message in capsys.readouterr().err
        assert everything(tmp_path) == {}

    def test_a_bucket_that_there_is_not(
        self, finished: HandMade, s3: S3Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["export", str(finished.file), "--png", s3.uri("x/y", bucket="nowhere")]) == 2
        said = capsys.readouterr().err
        assert said.startswith("witness: s3://***@nowhere/x") and "there is no bucket nowhere; make it, or name" in said

    @pytest.mark.parametrize("arguments", [[], ["--png", "a", "--npz", "b"], ["--npz"]])
    def test_a_command_line_without_one_form(self, finished: HandMade, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["export", str(finished.file), *arguments])
        assert ended.value.code == 2

    def test_what_is_not_finished_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        made = hand_made(made_folder(tmp_path))
        made.finish()
        shutil.rmtree(made.output / "by-hand" / "adversarial" / "aligned" / "mi")
        command = ["export", str(made.file), "--png", str(tmp_path / "out")]
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "1 of the 6 sets of adversarial images are not finished: aligned under mi" in said
        assert "`witness craft` makes them" in said and not (tmp_path / "out").exists()
        assert main([*command, "--attack", "pgd"]) == 0
        assert main([*command, "--set", "align.temperature=9"]) == 1  # other weights, which are not there
        assert (
            "2 of the 6 sets of adversarial images are not finished: aligned under pgd, aligned under mi"
            in capsys.readouterr().err
        )


class TestDataset:
    def test_items_are_the_stored_images_and_labels(self, finished: HandMade) -> None:
        images = AdversarialImages(finished.file, "aligned", "led")
        pixels = stored(finished, "aligned", "led")
        assert len(images) == IMAGES and images.ids == finished.blueprint().inspected.manifests["test"].ids
        loader: Any = torch.utils.data.DataLoader(images, batch_size=5)
        batches = list(loader)
        found = torch.cat([batch for batch, _ in batches])
        assert found.dtype == torch.float32
        np.testing.assert_array_equal((found * 255).to(torch.uint8).numpy(), pixels)
        np.testing.assert_array_equal(images.pixels_NCHW.numpy(), pixels)
        assert torch.cat([labels for _, labels in batches]).tolist() == images.labels_N.tolist()
        assert images.towards_N is not None and images.towards_N.tolist() == [
            (own + 1) % 3 for own in images.labels_N.tolist()
        ]
        assert AdversarialImages(str(finished.file), "source", "pgd").towards_N is None

    def test_what_cannot_be_had_is_said(self, finished: HandMade) -> None:
        with pytest.raises(InputError, match="there is no surrogate of this name"):
            AdversarialImages(finished.file, "alined", "pgd")
        with pytest.raises(RunFailed, match="aligned under pgd"):
            AdversarialImages(finished.file, "aligned", "pgd", overrides=["align.temperature=9"])
