"""`witness init` with bad input or odd names: one message that says how to mend it, and nothing is written."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from starter_file import MODELS, init, refused, write_images, write_npz

from pipelines.cli import main
from pipelines.experiment.config import load_experiment

pytestmark = pytest.mark.usefixtures("place")


class TestRefusals:
    def test_a_file_that_exists_is_left_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("experiment.yaml").write_text("mine")
        assert refused(capsys).startswith("experiment.yaml: exists already")
        assert Path("experiment.yaml").read_text() == "mine"

    def test_a_folder_that_does_not_exist_for_the_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "there is no folder" in refused(capsys, "nowhere/experiment.yaml")

    def test_the_flags_that_are_missing_are_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = refused(capsys, "--train", "photos/train", "--source", "test_vit", images=False, models=False)
        assert found.startswith("these flags are missing: --test, --witness, --target.")

    @pytest.mark.parametrize(
        ("train", "test", "message"),
        [
            ("photos/nothing", "photos/test", "--train: photos/nothing: there is no such file or folder"),
            ("photos/train", "nothing.npz", "--test: nothing.npz: there is no such file or folder"),
            ("photos/train", "photos/train", "training and test images must be disjoint"),
            ("photos/train", "photos/../photos/train", "training and test images must be disjoint"),
            ("photos/train", "photos", "training and test images must be disjoint"),
            ("photos", "photos/test", "training and test images must be disjoint"),
            ("photos/train/cat", "photos/test", "photos/train/cat: 12 images lie outside any class folder"),
            ("one", "photos/test", "--train: one: has one class alone, cat; a classifier needs at least two"),
            ("one.npz", "photos/test", "--train: one.npz: has one class alone; a classifier needs at least two"),
            (
                "other",
                "photos/test",
                "its classes are not those of other: only one of them has cat, and only the other cats",
            ),
            ("three.npz", "photos/test", "data.test has class names (cat, dog), and data.train has class indices"),
            ("huge.npz", "photos/test", "huge.npz: has the label 1000000000000; labels are numbered from 0"),
            ("minus.npz", "photos/test", "minus.npz: has the label -1; labels are numbered from 0"),
            ("empty", "photos/test", "empty: there is no image in it"),
            ("broken", "photos/test", "broken: none of its 2 images can be opened"),
            ("text.npz", "photos/test", "text.npz: cannot be read as npz"),
        ],
    )
    def test_images(self, place: Path, train: str, test: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        write_images(place / "one", ("cat",))
        write_images(place / "other", ("cats", "dog"))
        write_npz(place / "one.npz", [0, 0])
        write_npz(place / "three.npz", [0, 1, 2])
        write_npz(place / "minus.npz", [-1, 1])
        write_npz(place / "huge.npz", [10**12, 1])
        (place / "text.npz").write_text("no archive")
        for name, file in (("empty", "notes.txt"), ("broken", "0.png")):
            for label in ("cat", "dog"):
                (place / name / label).mkdir(parents=True)
                (place / name / label / file).write_text("no image")
        assert message in refused(capsys, "--train", train, "--test", test, images=False)

    @pytest.mark.parametrize("count", ["0", "1", "3"])
    def test_classes_that_are_not_those_of_the_sub_folders(
        self, count: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = refused(capsys, "--classes", count)
        assert found.startswith(
            f"--classes {count}: data.classes is {count}, but the image sets name 2 classes (cat, dog)"
        )

    @pytest.mark.parametrize(
        ("models", "message"),
        [
            (["test_vit", "test_vit", "test_resnet"], "--witness: test_vit is given twice: it is the source already"),
            (["test_vit", "test_resnet", "test_resnet"], "--target: test_resnet is given twice: it is a witness"),
            (["test_vit", "test_resnet", "test_vi"], "timm has no model 'test_vi'; did you mean 'test_vit'?"),
            (["test_vit", "test_resnet", "zzzzzzz"], "`timm.list_models()` in Python lists them"),
            (["test_vit=w.pt", "test_resnet", "test_vit2"], "--source: test_vit: there is no file w.pt with"),
            (["test_vit=", "test_resnet", "test_vit2"], "--source: 'test_vit=': a model is written NAME,"),
            (["test_vit=pretrained", "test_resnet", "test_vit2"], "are for 1000 classes, and the images have 2"),
            (["vit_tiny_patch16_18x2_224=pretrained", "test_resnet", "test_vit2"], "timm has no"),
        ],
    )  # fmt: skip
    def test_models(self, models: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        source, witness, target = models
        flags = ("--source", source, "--witness", witness, "--target", target)
        assert message in refused(capsys, *flags, models=False)

    def test_a_target_that_is_given_twice(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "test_convnext is given twice: it is a target already" in refused(capsys, "--target", "test_convnext")

    def test_what_the_experiment_itself_refuses(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(capsys, "--name", "../up").startswith("experiment.yaml: name: ")
        assert refused(capsys, "--name", "").startswith("experiment.yaml: name: ")
        for size in ("0", "9999"):
            assert refused(capsys, "--image-size", size).startswith("experiment.yaml: data.image_size: ")

    def test_a_folder_in_which_nothing_can_be_written(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "cannot be written (" in refused(capsys, "/proc/experiment.yaml")

    def test_a_disk_that_is_full(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(io.StringIO):
            def write(self, text: str) -> int:
                raise OSError(28, "no space left")

        def opened(file: Path, *_: object, **__: object) -> Full:
            file.touch(exist_ok=False)
            return Full()

        monkeypatch.setattr("pipelines.cli.starter.open", opened, raising=False)
        assert "cannot be written ([Errno 28]" in refused(capsys)

    def test_a_path_with_a_dollar_sign(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (place / "photos").rename(place / "$HOME")
        found = refused(capsys, "--train", "$HOME/train", "--test", "$HOME/test", images=False)
        assert found.startswith("$HOME/train: in an experiment file, $ begins the name of a variable")


class TestPaths:
    """What is written names what was given, whatever its name is."""

    @pytest.mark.parametrize("name", ["~", "~nobody", "pretrained", "a b", "é", "no", "#1", "x: y", "'q'"])
    def test_an_odd_name_is_kept(self, place: Path, name: str) -> None:
        (place / "photos" / "train").rename(place / name)
        flags = ["--train", f"./{name}", "--test", "photos/test", *MODELS]
        assert main(["init", *flags]) == 0
        assert load_experiment(Path("experiment.yaml")).data.train.path == str(place / name)

    def test_a_folder_of_an_unknown_user_is_a_name(self, place: Path) -> None:
        (place / "photos" / "train").rename(place / "~nobody-here")
        assert main(["init", "--train", "~nobody-here", "--test", "photos/test", *MODELS]) == 0
        assert load_experiment(Path("experiment.yaml")).data.train.path == str(place / "~nobody-here")

    def test_weights_in_a_file_called_pretrained_are_a_file(self, place: Path) -> None:
        (place / "pretrained").write_bytes(b"not looked at before the experiment is planned")
        flags = ["--source", "test_vit=pretrained-weights", *MODELS[2:]]
        (place / "pretrained").rename(place / "pretrained-weights")
        assert init(*flags, models=False) == 0
        (model,) = (m for m in load_experiment(Path("experiment.yaml")).models.values() if m.weights)
        assert model.weights == str(place / "pretrained-weights")

    @pytest.mark.parametrize(
        ("name", "message"), [("n\x85l", "YAML does not keep every character of this name"), ("\udcff", "is not UTF-8")]
    )
    def test_a_name_that_a_file_cannot_hold_is_refused(
        self, place: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
    ) -> None:
        (place / "photos" / "train").rename(place / name)
        flags = ["--train", name, "--test", "photos/test", *MODELS]
        assert main(["init", *flags]) == 2
        assert message in capsys.readouterr().err
        assert not Path("experiment.yaml").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_class_whose_folder_cannot_be_read_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "photos" / "train" / "cat").chmod(0)
    assert "this folder cannot be listed" in refused(capsys)


def test_images_without_pixels_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("zero.npz", images=np.zeros((8, 0, 0, 3), np.uint8), labels=np.arange(8) % 2)
    found = refused(capsys, "--train", "zero.npz", "--test", "photos/test", images=False)
    assert "its images have no pixels" in found


def test_a_disk_that_refuses_has_nothing_to_resume(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "photos/train")

    monkeypatch.setattr("pipelines.cli.starter._look_at", broken)
    assert init() == 1
    assert capsys.readouterr().err == "witness: [Errno 13] Permission denied: 'photos/train'\n"
